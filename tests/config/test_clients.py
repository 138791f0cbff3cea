"""The configuration of each client, before and after: the pairs of files in ``clients/``, and what is made of any."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit import catalog
from remit.catalog.recognised import recognise
from remit.config.clients import Form, Moved, MovedKey, brokered, held
from remit.errors import InvalidRequestError

FOLDER = Path(__file__).with_name("clients")
PAIRS = sorted(FOLDER.glob("*.before.*"))
KEY = "BSAkL2mN5pQ8rS1-tU4kL2mN5pQ8rS1"
BRAVE = {("BRAVE_API_KEY", KEY): MovedKey("brave", catalog.load()["brave"])}

NAMES = st.text("BC_d1", min_size=1, max_size=5).filter(str.isidentifier)


def form(path: Path) -> Form:
    return {".json": "json", ".toml": "toml", ".env": "env"}[path.suffix]  # type: ignore[return-value]  # these three


def all_moved(kind: Form, text: str) -> Moved:
    """Return all keys of a file as moved, each to the resource of its provider's name."""
    found = ((each, recognise(each.variable, each.value)) for each in held(kind, text) if not each.fixed)
    return {
        (each.variable, each.value): MovedKey(whose.provider.name, whose.provider)
        for each, whose in found
        if whose is not None and whose.provider is not None
    }


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.name)
def test_a_file_of_a_client_is_brokered_and_all_else_in_it_stays(path: Path) -> None:
    before = path.read_text()
    moved = all_moved(form(path), before)
    assert moved
    after = brokered(form(path), before, moved)
    assert after == path.with_name(path.name.replace(".before.", ".after.")).read_text()
    assert not any(value in after for _, value in moved)
    assert all_moved(form(path), after) == {}
    assert brokered(form(path), after, moved) == after


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.name)
def test_where_nothing_is_moved_nothing_changes(path: Path) -> None:
    text = path.read_text()
    assert brokered(form(path), text, {}) == text


@given(
    st.dictionaries(NAMES, st.one_of(st.text(max_size=9), st.just(KEY), st.integers()), max_size=4),
    st.lists(st.text(max_size=9), max_size=3),
    st.sampled_from(["mcpServers", "servers", "context_servers"]),
    st.sampled_from([None, 1, "\t"]),
)
def test_of_any_server_only_what_is_meant_changes(
    env: dict[str, object], args: list[str], name: str, indent: str | int | None
) -> None:
    document = {"a": KEY[:-1], name: {"s": {"command": "c", "args": args, "env": {**env, "BRAVE_API_KEY": KEY}}}}
    after = json.loads(brokered("json", json.dumps(document, indent=indent), BRAVE))
    server = after[name]["s"]
    assert server["command"] == "remit"
    assert server["args"][-len(args) - 2 :] == ["--", "c", *args]
    assert server["env"] == {**env, "BRAVE_API_KEY": "placeholder:brave"}
    assert after["a"] == KEY[:-1]


@given(env=st.dictionaries(st.text(max_size=5), st.integers() | st.just(KEY), max_size=4), last=st.booleans())
def test_a_variable_of_the_client_itself_is_taken_out(env: dict[str, object], *, last: bool) -> None:
    own = {**env, "BRAVE_API_KEY": KEY} if last else {"BRAVE_API_KEY": KEY, **env}
    assert json.loads(brokered("json", json.dumps({"env": own}), BRAVE))["env"] == env


@pytest.mark.parametrize(
    ("server", "why"),
    [
        ({"command": {"path": "npx"}}, "no plain command"),
        ({"command": "/opt/bin/remit"}, "no plain command"),
        ({"command": "npx", "args": "x"}, "no plain command"),
        ({"url": "https://x.example"}, "no plain command"),
    ],
)
def test_a_server_that_cannot_be_launched_otherwise_keeps_its_key(server: dict[str, object], why: str) -> None:
    text = json.dumps({"mcpServers": {"s": {**server, "env": {"BRAVE_API_KEY": KEY}}}})
    assert why in held("json", text)[0].fixed
    assert brokered("json", text, BRAVE) == text


def test_keys_that_the_client_itself_sends_and_those_in_arguments_are_told() -> None:
    secret = "ghp_" + "aB3deF6gH" * 4
    server = {
        "command": "x",
        "args": [f"--token={secret}"],
        "headers": {"X-Key": KEY, "Authorization": f"Bearer {KEY}"},
    }
    found = held("json", json.dumps({"mcpServers": {"s": server}}, indent=1))
    assert [(each.variable, each.value, each.line) for each in found] == [
        ("X-Key", KEY, 9),
        ("authorization-token", KEY, 10),
        ("", secret, 6),
    ]
    assert all(each.fixed for each in found)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("json", "{"),
        ("json", "[]"),
        ("json", '{"a": 1, "a": 2}'),
        ("json", "[" * 100_000),
        ("toml", "a ="),
        ("toml", "a = " + "[" * 100_000),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(kind: Form, text: str) -> None:
    with pytest.raises(InvalidRequestError):
        held(kind, text)


def test_toml_that_is_written_otherwise_is_refused_and_not_guessed() -> None:
    text = f'mcp_servers.s = {{ command = "npx", env = {{ BRAVE_API_KEY = "{KEY}" }} }}\n'
    with pytest.raises(InvalidRequestError, match="in a way that init cannot change"):
        brokered("toml", text, BRAVE)


@pytest.mark.parametrize(("name", "passed"), [("DEBUG", True), ("AWS_CA_BUNDLE", False)])
def test_a_server_keeps_its_other_variables_but_for_those_that_a_run_has_itself(name: str, *, passed: bool) -> None:
    text = json.dumps({"servers": {"s": {"command": "x", "env": {name: "1", "BRAVE_API_KEY": KEY}}}})
    args = json.loads(brokered("json", text, BRAVE))["servers"]["s"]["args"]
    assert (["-e", name] == args[5:7]) is passed


@pytest.mark.parametrize("more", [{"env": {"PATH": "./bin"}}, {"env": {"PYTHONPATH": "."}}, {"cwd": "x"}], ids=str)
def test_a_server_that_would_steer_remit_itself_keeps_its_key_and_that_is_told(more: dict[str, object]) -> None:
    env = {"BRAVE_API_KEY": KEY, **(more.get("env") or {})}  # type: ignore[dict-item]  # a table
    text = json.dumps({"mcpServers": {"s": {"command": "x", **more, "env": env}}})
    assert "remit itself" in held("json", text)[0].fixed
    assert brokered("json", text, BRAVE) == text
