"""Where agents' clients keep their configuration, which keys stand in it, and how one is brokered. Pure.

A file is text of somebody else's. It is changed by edits at the places of its values, then read anew: where that gives
anything but what was meant, it is refused as a whole. Paths: ``docs/how-to/coding-agents.md``.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from remit.catalog import Provider, environment, recognised
from remit.config.placed import Edit, Placed, assignments, edited, line_of, read_json, without_members
from remit.errors import InvalidRequestError
from remit.run import named
from remit.run.spec import TRUSTED_BY

TTL = "7d"  # of a server's run: it goes on while the login lasts
Form = Literal["env", "json", "toml", "yaml"]
Servers = Mapping[str, Mapping[str, Any]]

SERVERS = ("mcpServers", "servers", "context_servers", "mcp_servers")
_ROUTED = re.compile(r".*_proxy|NODE_USE_ENV_PROXY", re.IGNORECASE)
_SCHEME = re.compile(r"(?:Bearer|token|Basic) +", re.IGNORECASE)
SENT = "the client itself sends it: have it run by remit, with a variable here"
ARGUMENT = "it stands where init changes nothing"
OWN_LAUNCH = "its server has no plain command that init could put `remit run` before"
STEERED = "`{}` of its server would steer remit itself, outside of the run: take it out, if you know why it is there"
# What a client does with a server once it runs, and what it shows of it. Whatever else may say how it is started.
_HARMLESS = frozenset(
    {
        *(
            "alwaysAllow",
            "args",
            "autoApprove",
            "command",
            "description",
            "disabledTools",
            "disabled_tools",
            "enabledTools",
        ),
        *("enabled_tools", "env", "excludeTools", "icon", "includeTools", "name", "source", "title", "tools", "type"),
    }
)
# What the loader, the C library, a shell that is a wrapper of remit, Python, OpenSSL and remit itself read before or
# instead of what remit would do; and what an environment makes another name of.
_STEERING = re.compile(
    r"_?REMIT.*|_TYPER.*|LD_.*|DYLD_.*|G(CONV_PATH|LIBC_TUNABLES|ETCONF_DIR)|MALLOC_.*|LOCPATH|NLSPATH|LOCALDOMAIN|TZDIR"
    r"|HOSTALIASES|RES_OPTIONS|RESOLV_.*|NIS_PATH|HOME|USER|PWD|PATH|TMP|TEMP|TMPDIR|TERMINFO.*|TERMCAP|NETRC|.*_PROXY"
    r"|ENV|BASH.*|SHELL.*|IFS|PS4|CDPATH|PYENV.*|ASDF_.*|MISE_.*|__PYVENV.*|PYTHON(?!UNBUFFERED$|DONTWRITEBYTECODE$).*"
    r"|OPENSSL.*|SSL.*|XDG_.*|LISTEN_.*|NOTIFY_SOCKET|.*[=\0].*",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class ClientFile:
    """A file of a client: in a project, or in the home of its user.

    ``servers`` is the member in which it has MCP servers, and ``entry`` what one on stdio has beside its command.
    """

    client: str
    path: str
    form: Form = "json"
    servers: str = ""
    entry: Mapping[str, Any] = field(default_factory=dict)
    darwin: str = ""  # its path on macOS, where that is another

    @property
    def brokered(self) -> bool:
        """Whether keys in it can be moved."""
        return self.form != "yaml"


_MCP, _STDIO = "mcpServers", {"type": "stdio"}
_MAC, _CLINE = "Library/Application Support", "saoudrizwan.claude-dev/settings/cline_mcp_settings.json"
_ZED, _LOCAL = {"source": "custom"}, {"type": "local", "tools": ["*"]}
_GOOSE = {"name": "remit", "type": "stdio", "enabled": True, "timeout": 300}
PROJECT_FILES = (
    ClientFile("Claude Code", ".mcp.json", servers=_MCP, entry=_STDIO),
    ClientFile("Claude Code", ".claude/settings.json"),
    ClientFile("Claude Code", ".claude/settings.local.json"),
    ClientFile("Codex", ".codex/config.toml", "toml", "mcp_servers"),
    ClientFile("Gemini CLI", ".gemini/settings.json", servers=_MCP),
    ClientFile("Gemini CLI", ".gemini/.env", "env"),
    ClientFile("Cursor", ".cursor/mcp.json", servers=_MCP),
    ClientFile("VS Code", ".vscode/mcp.json", servers="servers", entry=_STDIO),
    ClientFile("Continue", ".continue/mcpServers/remit.json", servers=_MCP),
    ClientFile("Zed", ".zed/settings.json", servers="context_servers", entry=_ZED),
    ClientFile("Kiro", ".kiro/settings/mcp.json", servers=_MCP),
    ClientFile("Amazon Q", ".amazonq/mcp.json", servers=_MCP),
    ClientFile("LibreChat", "librechat.yaml", "yaml", _MCP, _STDIO),
)
HOME_FILES = (
    ClientFile("Claude Code", ".claude.json", servers=_MCP, entry=_STDIO),
    ClientFile("Claude Code", ".claude/settings.json"),
    ClientFile(
        "Claude Desktop",
        ".config/Claude/claude_desktop_config.json",
        servers=_MCP,
        darwin=f"{_MAC}/Claude/claude_desktop_config.json",
    ),
    ClientFile("Codex", ".codex/config.toml", "toml", "mcp_servers"),
    ClientFile("Gemini CLI", ".gemini/settings.json", servers=_MCP),
    ClientFile("Gemini CLI", ".gemini/.env", "env"),
    ClientFile("Cursor", ".cursor/mcp.json", servers=_MCP),
    ClientFile("Windsurf", ".codeium/windsurf/mcp_config.json", servers=_MCP),
    ClientFile(
        "VS Code",
        ".config/Code/User/mcp.json",
        servers="servers",
        entry=_STDIO,
        darwin=f"{_MAC}/Code/User/mcp.json",
    ),
    ClientFile("VS Code", ".config/Code/User/settings.json"),
    ClientFile("Copilot CLI", ".copilot/mcp-config.json", servers=_MCP, entry=_LOCAL),
    ClientFile(
        "Cline",
        f".config/Code/User/globalStorage/{_CLINE}",
        servers=_MCP,
        darwin=f"{_MAC}/Code/User/globalStorage/{_CLINE}",
    ),
    ClientFile("Continue", ".continue/mcpServers/remit.json", servers=_MCP),
    ClientFile("Zed", ".config/zed/settings.json", servers="context_servers", entry=_ZED),
    ClientFile("goose", ".config/goose/config.yaml", "yaml", "extensions", _GOOSE),
    ClientFile("Kiro", ".kiro/settings/mcp.json", servers=_MCP),
    ClientFile("Antigravity", ".gemini/antigravity/mcp_config.json", servers=_MCP),
    ClientFile("Amazon Q", ".aws/amazonq/mcp.json", servers=_MCP),
)


@dataclass(frozen=True, slots=True)
class HeldValue:
    """A text under a name that may be a variable, at a line; ``server`` is the MCP server that gets it."""

    variable: str
    value: str = field(repr=False)
    line: int
    server: str = ""
    fixed: str = ""  # why init would not change it, if so
    command: str = ""  # of the server


@dataclass(frozen=True, slots=True)
class MovedKey:
    """A key that goes to a resource, and the provider whose clients find its placeholder by themselves."""

    resource: str
    provider: Provider


Moved = Mapping[tuple[str, str], MovedKey]  # by variable and value


def held(form: Form, text: str) -> tuple[HeldValue, ...]:
    """Return what a file holds that may be keys, or raise InvalidRequestError where it cannot be read."""
    if form == "env":
        return tuple(HeldValue(each.name, each.value, line_of(text, each.start)) for each in assignments(text))
    document = read_document(form, text)
    found = list(_of_client(form, text, document))
    for name, server in servers_of(document):
        found += _of_server(text, name, server)
    known = "\n".join(each.value for each in found)
    for token in recognised.beginnings().finditer(text):
        if token[0] not in known and recognised.by_shape(token[0]):
            found.append(HeldValue("", token[0], line_of(text, token.start()), fixed=ARGUMENT))
    return tuple(found)


def read_document(form: Form, text: str) -> dict[str, Any]:
    if form == "toml":
        try:
            return tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidRequestError(f"it is no TOML: {str(error)[:80]}") from None
    try:
        document = json.loads(text, object_pairs_hook=_members)
    except (ValueError, RecursionError):
        document = read_json(text).plain()  # slower by far
    if not isinstance(document, dict):
        raise InvalidRequestError("it is no JSON object")
    return document


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def servers_of(document: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the servers of a document, wherever it lists some."""
    if not isinstance(document, dict):
        return
    for name, value in document.items():
        if name in SERVERS and isinstance(value, dict):
            yield from ((label, server) for label, server in value.items() if isinstance(server, dict))
        else:
            yield from servers_of(value)


def _of_client(form: Form, text: str, document: Mapping[str, Any]) -> Iterator[HeldValue]:
    own = document.get("env") if form == "json" else None
    for name, value in own.items() if isinstance(own, dict) else ():
        if isinstance(value, str):
            yield HeldValue(name, value, _line(text, value))


def _of_server(text: str, label: str, server: Mapping[str, Any]) -> Iterator[HeldValue]:
    env, headers = server.get("env"), server.get("headers", server.get("http_headers"))
    fixed = unfit(server)
    for name, value in env.items() if isinstance(env, dict) else ():
        if isinstance(value, str):
            yield HeldValue(name, value, _line(text, value), label, fixed, str(server.get("command")))
    for name, value in headers.items() if isinstance(headers, dict) else ():
        if isinstance(value, str):
            named_so = "authorization-token" if name.lower() == "authorization" else name
            yield HeldValue(named_so, _SCHEME.sub("", value, 1), _line(text, value), label, SENT)


def unfit(server: Mapping[str, Any]) -> str:
    """Return why a server cannot be started by remit; nothing where it can."""
    command, args = server.get("command"), server.get("args", [])
    if not isinstance(command, str) or not isinstance(args, list) or not all(isinstance(each, str) for each in args):
        return OWN_LAUNCH
    return steered(server) if command and PurePosixPath(command).name != "remit" else OWN_LAUNCH


def steered(server: Mapping[str, Any]) -> str:
    """Return why remit, as this server, might be another program, or act for somebody else; nothing if it would not.

    A project's file is whoever's who wrote it, and its ``env`` and ``cwd`` are of the process that is started: remit.
    """
    env = server.get("env", {})
    if not isinstance(env, dict):
        return STEERED.format("env")
    found = next(iter((*unknown(server), *filter(_STEERING.fullmatch, env))), None)
    return "" if found is None else STEERED.format(found.encode("unicode_escape").decode()[:64])


def unknown(server: Mapping[str, Any]) -> list[str]:
    """Return the members of a server of which it is not known that they say nothing of how it is started or reached."""
    return [name for name, value in server.items() if name not in _HARMLESS and not isinstance(value, int | float)]


def _line(text: str, value: str) -> int:
    at = text.find(json.dumps(value)[1:-1])
    return line_of(text, max(at, 0))


def brokered(form: Form, text: str, moved: Moved) -> str:
    """Return a file without the keys that were moved, and all else as it was; InvalidRequestError if that fails."""
    if not any(value in text for _, value in moved):
        return text
    if form == "env":
        edits = [Edit(e.start, e.end, f"${{{e.name}}}") for e in assignments(text) if (e.name, e.value) in moved]
        new = edited(text, edits)
        wanted = [(e.name, f"${{{e.name}}}" if (e.name, e.value) in moved else e.value) for e in assignments(text)]
        same = [(each.name, each.value) for each in assignments(new)] == wanted
    else:
        document = read_document(form, text)
        new = edited(text, _json_edits(text, moved) if form == "json" else _toml_edits(text, document, moved))
        same = _meant(form, document, moved) == read_document(form, new)
    if not same:
        raise InvalidRequestError("it is written in a way that init cannot change")
    return new


def _meant(form: Form, document: Mapping[str, Any], moved: Moved) -> Mapping[str, Any]:
    """Return the document as it is to be."""
    new = deepcopy(dict(document))
    own = new.get("env")
    if form == "json" and isinstance(own, dict):
        new["env"] = {name: value for name, value in own.items() if (name, value) not in moved}
    for _, server in servers_of(new):
        if words := _launch(server, moved):
            server["env"] = {name: _stand_in(name, value, moved) for name, value in server["env"].items()}
            server |= {"command": "remit", "args": [*words, *server.get("args", [])]}
    return new


def _stand_in(name: str, value: Any, moved: Moved) -> Any:
    there = moved.get((name, value)) if isinstance(value, str) else None
    return value if there is None else f"placeholder:{there.resource}"


def _launch(server: Mapping[str, Any], moved: Moved) -> list[str]:
    """Return the words between `remit` and the server's own arguments; none where none of its keys was moved."""
    env = server.get("env")
    if not isinstance(env, dict) or unfit(server):
        return []
    mine = {
        name: moved[name, value] for name, value in env.items() if isinstance(value, str) and (name, value) in moved
    }
    if not mine:
        return []
    words = ["run", "--ttl", TTL]
    for resource in dict.fromkeys(each.resource for each in mine.values()):
        words += ["-r", resource]
    given = {name for each in mine.values() for name in environment(each.provider, "", "")}
    for name in env:
        words += ["-e", name] if name not in mine and name not in given and may_pass(name) else []
    renamed = [(name, each) for name, each in mine.items() if name not in each.provider.variables]
    shell = "".join(f'{name}="$REMIT_KEY_{named.label(each.resource)}" ' for name, each in renamed)
    words += ["--", *(["sh", "-c", f'{shell}exec "$0" "$@"'] if shell else [])]
    return [*words, server["command"]]


def may_pass(name: str) -> bool:
    if name in TRUSTED_BY or _ROUTED.fullmatch(name):  # a run has its own
        return False
    try:
        named.read(name, "=")
    except InvalidRequestError:
        return False
    return True


def _json_edits(text: str, moved: Moved) -> Iterator[Edit]:
    document = read_json(text)
    members = document.value if isinstance(document.value, dict) else {}
    own = members.get("env")
    if own is not None and isinstance(own.value, dict):
        yield from without_members(own.value, [name for name, each in own.value.items() if (name, each.value) in moved])
    yield from _server_edits(document, moved)


def _server_edits(value: Placed, moved: Moved) -> Iterator[Edit]:
    for name, each in value.value.items() if isinstance(value.value, dict) else ():
        if name not in SERVERS or not isinstance(each.value, dict):
            yield from _server_edits(each, moved)
            continue
        for server in each.value.values():
            plain = server.plain()
            if isinstance(plain, dict) and isinstance(server.value, dict) and (words := _launch(plain, moved)):
                yield from launched(server.value, words)
                yield from _stood_in(server.value["env"], moved)


def launched(server: Mapping[str, Placed], words: Sequence[str]) -> Iterator[Edit]:
    """Yield what has a server of JSON started by remit, with these words before its own arguments."""
    command, args = server["command"], server.get("args")
    listed = json.dumps(list(words), ensure_ascii=False)[1:-1]
    yield Edit(command.start, command.end, '"remit"' if args is not None else f'"remit", "args": [{listed}]')
    if args is not None:
        yield Edit(args.start + 1, args.start + 1, listed + (", " if args.value else ""))


def _stood_in(env: Placed, moved: Moved) -> Iterator[Edit]:
    for name, each in env.value.items() if isinstance(env.value, dict) else ():
        if isinstance(each.value, str) and (name, each.value) in moved:
            yield Edit(each.start, each.end, json.dumps(_stand_in(name, each.value, moved)))


_HEADER = re.compile(r"^[ \t]*\[[^\[\]\r\n]+\][^\r\n]*$", re.MULTILINE)
_COMMAND = re.compile(r"""^[ \t]*command[ \t]*=[ \t]*("(?:[^"\\\r\n]|\\.)*"|'[^'\r\n]*')""", re.MULTILINE)
_ARGS = re.compile(r"^[ \t]*args[ \t]*=[ \t]*\[([ \t\r\n]*\])?", re.MULTILINE)


def _toml_edits(text: str, document: Mapping[str, Any], moved: Moved) -> Iterator[Edit]:
    for label, server in servers_of(document):
        if words := _launch(server, moved):
            yield from launched_toml(text, label, words)
    for (name, value), there in moved.items():
        for found in re.finditer(rf"""["']?{re.escape(name)}["']?[ \t]*=[ \t]*(["']{re.escape(value)}["'])""", text):
            yield Edit(*found.span(1), f'"placeholder:{there.resource}"')


def launched_toml(text: str, label: str, words: Sequence[str]) -> Iterator[Edit]:
    """Yield the same for a server of TOML that has a table of its own; nothing for one that is written otherwise."""
    heads = list(_HEADER.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    spans = {_title(head[0]): (head.end(), end) for head, end in zip(heads, ends, strict=False)}
    span = spans.get(f"mcp_servers.{label}") or spans.get(f'mcp_servers."{label}"')
    command = _COMMAND.search(text, *span) if span else None
    if span is None or command is None:
        return
    args, listed = _ARGS.search(text, *span), json.dumps(list(words), ensure_ascii=False)[1:-1]
    yield Edit(*command.span(1), '"remit"' if args else f'"remit"\nargs = [{listed}]')
    if args:
        at = args.start() + args[0].index("[") + 1
        yield Edit(at, at, listed + ("" if args[1] else ", "))


def _title(header: str) -> str:
    return header.partition("#")[0].strip().strip("[] \t")
