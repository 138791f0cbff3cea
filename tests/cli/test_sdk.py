from __future__ import annotations

from typing import Any

import pytest

from remit.broker.policy import UNWRITTEN, WRITTEN
from remit.cli.sdk import pointed
from remit.errors import DeniedError, PolicyError, RemitError, UnavailableError

DENIAL = {"seq": 7, "code": "policy", "cause": "`no` forbids it"}
OTHER = {"seq": 8, "code": "policy", "cause": "`never` forbids it"}


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Answer with the last entries, and keep that they were asked for."""
    monkeypatch.delenv("REMIT_GRANT", raising=False)
    seen: list[object] = []

    def answer(flow: object) -> list[dict[str, Any]]:
        seen.append(flow)
        return [{**DENIAL, "seq": 6}, DENIAL, OTHER]

    monkeypatch.setattr("remit.cli.sdk.ask", answer)
    return seen


@pytest.mark.usefixtures("lookups")
def test_a_denial_names_the_newest_entry_that_says_the_same() -> None:
    error = pointed(PolicyError("`no` forbids it", help=WRITTEN))
    assert error.help == "`remit policy explain --entry 7` shows what decided"


@pytest.mark.usefixtures("lookups")
def test_a_denial_that_is_not_among_the_last_keeps_its_help() -> None:
    assert pointed(PolicyError("`another` forbids it", help=WRITTEN)).help == WRITTEN


@pytest.mark.parametrize(
    "error", [PolicyError("`no` forbids it", help=UNWRITTEN), PolicyError("`no` forbids it"), DeniedError()]
)
def test_what_no_policies_decided_is_not_looked_up(lookups: list[object], error: RemitError) -> None:
    before = error.help
    assert pointed(error).help == before
    assert lookups == []


def test_in_a_run_the_log_is_not_ours_to_read(lookups: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMIT_GRANT", "grt_1")
    assert pointed(PolicyError("`no` forbids it", help=WRITTEN)).help == WRITTEN
    assert lookups == []


def test_a_log_that_cannot_be_read_hides_no_denial(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: object) -> None:
        raise UnavailableError

    monkeypatch.delenv("REMIT_GRANT", raising=False)
    monkeypatch.setattr("remit.cli.sdk.ask", away)
    error = PolicyError("`no` forbids it", help=WRITTEN)
    assert pointed(error) is error
    assert error.help == WRITTEN
