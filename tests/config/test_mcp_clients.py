"""What becomes of clients' files: remit's server is in them, others are started by remit, and all else is as it was."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from remit.config.clients import ClientFile
from remit.config.mcp_clients import added, entry, file_of, files, redirected, remote, rewrapped
from remit.config.placed import read_json
from remit.errors import InvalidRequestError, NotFoundError

BOTH = [*files(home=True).values(), *files(home=False).values()]
WORDS = ["run", "--ttl", "7d", "-r", "github"]
CODE = file_of("claude-code", home=True)
CODEX = file_of("codex", home=True)
GOOSE = file_of("goose", home=True)


def read(file: ClientFile, text: str) -> Any:
    if file.form == "json":
        return read_json(text).plain()
    return tomllib.loads(text) if file.form == "toml" else yaml.safe_load(text)


def test_sixteen_clients_are_known() -> None:
    assert len({*files(home=True), *files(home=False)}) == 16


@pytest.mark.parametrize("file", BOTH, ids=lambda file: file.path)
def test_an_empty_file_gets_the_server_and_a_second_time_changes_nothing(file: ClientFile) -> None:
    text = added(file, "")
    assert read(file, text) == {file.servers: {"remit": entry(file)}}
    assert added(file, text) == text


COMMENTED = """\
{
  // what we use
  "theme": "dark", // at night
  "mcpServers": {
    "github": {"command": "github-mcp-server", "args": ["stdio"], "env": {"LOG": "1"}} /* theirs */
  },
}
"""
TOML = """\
# mine
model = "o4" # cheap

[mcp_servers.github]
command = "github-mcp-server" # theirs
args = ["stdio"]
"""
YAML = """\
# mine
GOOSE_MODEL: o4  # cheap
extensions:
  # the first
  github:
    type: stdio
    cmd: github-mcp-server
    args: [stdio]
    enabled: true
keys: [a, b]
"""


@pytest.mark.parametrize(("file", "text"), [(CODE, COMMENTED), (CODEX, TOML), (GOOSE, YAML)], ids=str)
def test_what_is_there_stays_with_its_comments(file: ClientFile, text: str) -> None:
    new = added(file, text)
    before, after = read(file, text), read(file, new)
    assert after[file.servers] == {**before[file.servers], "remit": entry(file)}
    assert {**after, file.servers: None} == {**before, file.servers: None}
    assert [line for line in text.splitlines() if "mine" in line or "//" in line or "# the" in line] == [
        line for line in new.splitlines() if "mine" in line or "//" in line or "# the" in line
    ]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (CODE, "{}"),
        (CODE, '{"mcpServers": {}}'),
        (CODE, '{\n\t"a": 1\n}'),
        (CODE, '{"mcpServers": {"a": {"url": "https://a.example"},}}'),
        (CODE, '{"a": 1 // why\n}'),
        (CODE, "{ // nothing yet\n}"),
        (CODEX, "mcp_servers = {}\n"),
        (GOOSE, "extensions:\n- 1\n"),
        (GOOSE, "extensions: {}\n"),
        (GOOSE, "other: 1"),
        (GOOSE, "extensions:\n  a: &x {cmd: a}\n  b: *x\n"),
        (GOOSE, "- 1\n"),
        (GOOSE, "a: [\n"),
        (GOOSE, "a: !!python/name:os.system\n"),
        (GOOSE, "a: " + "[" * 2_000),
        (GOOSE, "a: 2026-99-99\n"),
        (GOOSE, "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else '1'] * 9)}]\n" for n in range(20))),
        (CODE, "[]"),
        (CODE, '{"mcpServers": []}'),
        (CODE, '{"mcpServers": {"remit": {"command": "evil"}}}'),
        (CODE, "{"),
    ],
)
def test_any_file_is_changed_as_meant_or_refused(file: ClientFile, text: str) -> None:
    try:
        new = added(file, text)
    except InvalidRequestError:
        return
    before, after = read(file, text), read(file, new)
    assert after == {**before, file.servers: {**before.get(file.servers, {}), "remit": entry(file)}}


SERVERS = st.dictionaries(
    st.sampled_from(["a", "b-c", 'd"e', "mcpServers"]), st.fixed_dictionaries({"command": st.text()})
)


@given(SERVERS, st.dictionaries(st.text(max_size=3), st.integers(), max_size=3), st.sampled_from([None, 1, 2, 4, "\t"]))
def test_any_json_keeps_what_it_has(servers: Any, others: Any, indent: int | str | None) -> None:
    document = {**others, "mcpServers": servers}
    after = json.loads(added(CODE, json.dumps(document, indent=indent)))
    assert after == {**document, "mcpServers": {**servers, "remit": entry(CODE)}}


@pytest.mark.parametrize(("file", "text"), [(CODE, COMMENTED), (CODEX, TOML)], ids=str)
def test_a_server_is_started_by_remit_and_keeps_its_own_words(file: ClientFile, text: str) -> None:
    new = rewrapped(file, text, ["github"], {"github": WORDS})
    server = read(file, new)[file.servers]["github"]
    passed = ["-e", "LOG"] if file is CODE else []
    assert (server["command"], server["args"]) == ("remit", [*WORDS, *passed, "--", "github-mcp-server", "stdio"])
    assert "theirs" in new


KEYED = '{"mcpServers": {"github": {"command": "x", "env": {"GITHUB_TOKEN": "ghp_' + "aB3deF6gH" * 4 + '"}}}}'


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        (CODE, KEYED, "GITHUB_TOKEN"),
        (CODE, '{"mcpServers": {"github": {"url": "https://a.example"}}}', "no plain command"),
        (CODE, '{"mcpServers": {"github": {"command": "remit", "args": ["run"]}}}', "already"),
        (CODE, '{"mcpServers": {}}', "no server"),
        (CODEX, 'mcp_servers = { github = { command = "x" } }', "cannot change"),
        (GOOSE, YAML, "YAML"),
    ],
)
def test_a_server_that_cannot_be_rewritten_is_left(file: ClientFile, text: str, says: str) -> None:
    with pytest.raises((InvalidRequestError, NotFoundError), match=says) as refused:
        rewrapped(file, text, ["github"], {"github": WORDS})
    assert "ghp_" not in f"{refused.value.detail} {refused.value.help}"


STEERED = [
    *("PATH", "HOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "GCONV_PATH", "GLIBC_TUNABLES"),
    *("LOCPATH", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONIOENCODING", "__PYVENV_LAUNCHER__"),
    *("OPENSSL_CONF", "OPENSSL_MODULES", "SSL_CERT_FILE", "SSLKEYLOGFILE", "HTTPS_PROXY", "all_proxy", "NETRC"),
    *("REMIT_SOCKET", "REMIT_STATE_DIR", "REMIT_GRANT", "_REMIT_COMPLETE", "XDG_CONFIG_HOME", "XDG_STATE_HOME"),
    *("TMPDIR", "BASH_ENV", "ENV", "BASH_FUNC_exec%%", "HOSTALIASES", "LISTEN_FDS", "NOTIFY_SOCKET"),
    *("PYTHONPATH=./evil:", "LD_PRELOAD=\u2028"),
]


@pytest.mark.parametrize("name", STEERED)
def test_a_server_whose_variables_would_steer_remit_itself_is_left(name: str) -> None:
    text = json.dumps({"mcpServers": {"github": {"command": "x", "env": {"LOG": "1", name: "./evil"}}}})
    with pytest.raises(InvalidRequestError, match="remit itself") as refused:
        rewrapped(CODE, text, ["github"], {"github": WORDS})
    assert name.isprintable() == (name in refused.value.detail)
    table = f'[mcp_servers.github]\ncommand = "x"\n[mcp_servers.github.env]\n{json.dumps(name)} = "./evil"\n'
    with pytest.raises(InvalidRequestError, match="remit itself"):
        rewrapped(CODEX, table, ["github"], {"github": WORDS})


@pytest.mark.parametrize(
    "more",
    [
        {"cwd": "./evil"},
        {"envFile": "${workspaceFolder}/.env"},
        {"env_vars": ["PYTHONPATH"]},
        {"dev": {"debug": {"type": "node"}}},
        {"headersHelper": "./evil"},
        {"Command": "./evil"},
        {"env": ["PYTHONPATH=./evil"]},
        {"env": "PYTHONPATH=./evil"},
    ],
    ids=str,
)
def test_a_server_with_a_member_that_may_steer_how_it_is_started_is_left(more: dict[str, object]) -> None:
    text = json.dumps({"mcpServers": {"github": {"command": "x", **more}}})
    with pytest.raises(InvalidRequestError, match=next(iter(more))):
        rewrapped(CODE, text, ["github"], {"github": WORDS})


def test_a_server_keeps_what_says_nothing_of_how_it_is_started() -> None:
    more = {"type": "stdio", "timeout": 9, "disabled": False, "alwaysAllow": ["a"], "env": {"PYTHONUNBUFFERED": "1"}}
    text = json.dumps({"mcpServers": {"github": {"command": "x", **more}}})
    server = json.loads(rewrapped(CODE, text, ["github"], {"github": WORDS}))["mcpServers"]["github"]
    assert {name: server[name] for name in more} == more


@pytest.mark.parametrize("more", [{"env": {"PYTHONPATH": "./evil"}}, {"cwd": "./evil"}, {"envFile": ".env"}], ids=str)
def test_a_server_that_looks_like_remits_own_and_is_steered_is_another(more: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError, match="another server"):
        added(CODE, json.dumps({"mcpServers": {"remit": {**entry(CODE), **more}}}))


@pytest.mark.parametrize("first", [True, False])
def test_of_servers_of_one_name_each_is_looked_at(*, first: bool) -> None:
    fine, steered = {"command": "a"}, {"command": "a", "env": {"PYTHONPATH": "./evil"}}
    one, other = (steered, fine) if first else (fine, steered)
    text = json.dumps({"mcpServers": {"github": one}, "projects": {"p": {"mcpServers": {"github": other}}}})
    with pytest.raises(InvalidRequestError, match="PYTHONPATH"):
        rewrapped(CODE, text, ["github"], {"github": WORDS})


def test_servers_of_one_name_are_both_rewritten_or_neither() -> None:
    one = (
        '{"mcpServers": {"github": {"command": "a"}}, "projects": {"p": {"mcpServers": {"github": {"command": "%s"}}}}}'
    )
    both = json.loads(rewrapped(CODE, one % "a", ["github"], {"github": WORDS}))
    assert both["projects"]["p"]["mcpServers"]["github"]["command"] == "remit"
    with pytest.raises(InvalidRequestError):
        rewrapped(CODE, one % "b", ["github"], {"github": WORDS})


def test_a_client_that_is_not_known_or_is_elsewhere_is_said() -> None:
    with pytest.raises(NotFoundError, match="no client `curser`") as wrong:
        file_of("curser", home=True)
    assert "cursor" in str(wrong.value.help)
    with pytest.raises(NotFoundError, match="--project"):
        file_of("librechat", home=True)


REMOTE = """\
{
  "mcpServers": {
    "forge": {
      "type": "http", // theirs
      "url": "https://forge.example/mcp",
      "headers": {"Authorization": "Bearer x"}
    },
    "other": {"url": "https://forge.example/mcp", "headers": {"A": "b"}}
  }
}
"""
REMOTE_TOML = '[mcp_servers.forge]\nurl = "https://forge.example/mcp" # theirs\n'


@pytest.mark.parametrize(("file", "text"), [(CODE, REMOTE), (CODEX, REMOTE_TOML)], ids=["json", "toml"])
def test_a_server_at_a_url_is_reached_through_the_gateway(file: ClientFile, text: str) -> None:
    assert remote(file, text, "forge") == "https://forge.example/mcp"
    new = redirected(file, text, "forge", "http://127.0.0.1:8471/forge")
    before, after = read(file, text)[file.servers], read(file, new)[file.servers]
    assert after["forge"]["url"] == "http://127.0.0.1:8471/forge"
    assert "headers" not in after["forge"]
    assert after.get("other") == before.get("other")
    assert "theirs" in new


FORGE = {"url": "https://forge.example/mcp"}


@pytest.mark.parametrize(
    "document",
    [
        {"mcpServers": {"forge": {**FORGE, "command": "./evil"}}},
        {"mcpServers": {"forge": {**FORGE, "headersHelper": "./evil"}}},
        {"mcpServers": {"forge": {**FORGE, "bearer_token_env_var": "KEY"}}},
        {"mcpServers": {"forge": {**FORGE, "httpUrl": "https://other.example/mcp"}}},
        {"mcpServers": {"forge": {"command": "./evil"}}, "servers": {"forge": FORGE}},
        {"servers": {"forge": FORGE}, "mcpServers": {"forge": {"command": "./evil"}}},
        {"mcpServers": {"forge": {"url": "https://other.example/mcp"}}, "servers": {"forge": FORGE}},
        {"mcpServers": {"forge": {"url": 1}}, "servers": {"forge": FORGE}},
        {"mcpServers": {"forge": {"url": ["https://forge.example/mcp"], "httpUrl": FORGE["url"]}}},
        {"mcpServers": {"forge": {}}, "a": {"b": {"context_servers": {"forge": FORGE}}}},
    ],
    ids=str,
)
def test_a_server_of_which_more_than_one_url_would_go_beside_the_gateway_is_left(document: dict[str, object]) -> None:
    text = json.dumps(document)
    with pytest.raises(InvalidRequestError, match="`forge`"):
        remote(CODE, text, "forge")
    with pytest.raises(InvalidRequestError, match="`forge`"):
        redirected(CODE, text, "forge", "http://127.0.0.1:8471/forge")


def test_a_server_at_a_url_that_also_has_a_command_is_not_started_by_remit_either() -> None:
    text = json.dumps({"mcpServers": {"forge": {**FORGE, "command": "x"}}})
    with pytest.raises(InvalidRequestError, match="`forge`"):
        rewrapped(CODE, text, ["forge"], {"forge": WORDS})


def test_servers_of_one_name_and_url_go_through_the_gateway_both() -> None:
    text = json.dumps({"mcpServers": {"forge": FORGE}, "projects": {"p": {"mcpServers": {"forge": FORGE}}}})
    new = json.loads(redirected(CODE, text, "forge", "http://127.0.0.1:8471/forge"))
    assert new["mcpServers"] == new["projects"]["p"]["mcpServers"] == {"forge": {"url": "http://127.0.0.1:8471/forge"}}


def test_in_toml_a_server_with_headers_of_its_own_is_left() -> None:
    text = f'{REMOTE_TOML}http_headers = {{ Authorization = "Bearer x" }}\n'
    with pytest.raises(InvalidRequestError, match="cannot change"):
        redirected(CODEX, text, "forge", "http://127.0.0.1:8471/forge")


def test_a_server_that_is_started_is_at_no_url() -> None:
    assert remote(CODE, COMMENTED, "github") is None
    assert remote(CODE, COMMENTED, "nothing") is None
