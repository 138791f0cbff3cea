from __future__ import annotations

import asyncio
import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from remit.cli.entry import run
from tests.compose.test_serving import configured, serving
from tests.support.one_process import Edges


@dataclass(frozen=True)
class Result:
    """What a command printed, and its exit code."""

    exit_code: int
    stdout: str
    stderr: str


def ran(arguments: list[str]) -> Result:
    """Run one command."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run(arguments)
    return Result(code, out.getvalue(), err.getvalue())


def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *commands: list[str]) -> list[Result]:
    """Run commands one after another against a broker of their own; ``KID`` is the key that signs tokens at first."""
    made, results = configured(tmp_path), []
    monkeypatch.setenv("REMIT_SOCKET", str(made.places.control))
    monkeypatch.setenv("COLUMNS", "160")

    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        del client
        kid = edges.application.tokens.signer.kid
        for words in commands:
            args = [kid if word == "KID" else word for word in words]
            results.append(await asyncio.to_thread(ran, ["keys", *args]))

    serving(made, body)
    return results


def test_a_rotation_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rotated, listed = running(tmp_path, monkeypatch, ["rotate", "token"], ["list"])
    assert (rotated.exit_code, listed.exit_code) == (0, 0)
    fresh = rotated.stdout.split()[0]
    assert any(
        line.split()[:2] == ["token", fresh] and line.rstrip().endswith("signs") for line in listed.stdout.splitlines()
    )
    assert "verifies until" in listed.stdout


def test_a_key_that_is_published_before_it_signs_is_not_said_to_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, listed = running(tmp_path, monkeypatch, ["rotate", "audit"], ["list"])
    states = [line.split(maxsplit=3) for line in listed.stdout.splitlines()]
    assert [state[3].strip() for state in states if state[0] == "spiffe"] == ["signs", "signs next"]
    assert {state[3].strip() for state in states if state[0] == "audit"} == {"signs", "verifies"}


def test_json_is_what_the_api_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rotated, listed = running(tmp_path, monkeypatch, ["rotate", "audit", "--json"], ["list", "--json"])
    fresh = json.loads(rotated.stdout)
    assert json.loads(listed.stdout)["rings"]["audit"][0]["kid"] == fresh["signing"]
    assert sorted(json.loads(listed.stdout)["rings"]) == ["audit", "spiffe", "token"]


def test_a_revoked_key_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, listed = running(tmp_path, monkeypatch, ["revoke", "token", "KID"], ["list", "--json"])
    assert "worth nothing any more" in told.stdout
    assert told.stdout.split()[1] not in listed.stdout


def test_revoking_can_answer_in_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (told,) = running(tmp_path, monkeypatch, ["revoke", "token", "KID", "--json"])
    assert json.loads(told.stdout).keys() == {"ring", "revoked", "signing"}


def test_a_ring_that_there_is_not_is_named_with_those_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (answer,) = running(tmp_path, monkeypatch, ["rotate", "root"])
    assert (answer.exit_code, "audit, spiffe, token" in answer.stderr) == (1, True)


@pytest.mark.parametrize("kid", ["-Cj0", "--x", "-h"])
def test_an_id_may_begin_with_a_hyphen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kid: str) -> None:
    (done,) = running(tmp_path, monkeypatch, ["revoke", "spiffe", kid])
    assert "there is no such key in this ring" in done.stderr
