"""Where agents' clients keep their configuration, which keys stand in it, and how one is brokered. Pure.

A file is text of somebody else's. It is changed by edits at the places of its values, then read anew: where that gives
anything but what was meant, it is refused as a whole. Paths: ``docs/how-to/coding-agents.md``.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
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
Form = Literal["env", "json", "toml"]
Servers = Mapping[str, Mapping[str, Any]]

_SERVERS = ("mcpServers", "servers", "context_servers", "mcp_servers")
_ROUTED = re.compile(r".*_proxy|NODE_USE_ENV_PROXY", re.IGNORECASE)
_SCHEME = re.compile(r"(?:Bearer|token|Basic) +", re.IGNORECASE)
SENT = "the client itself sends it: have it run by remit, with a variable here"
ARGUMENT = "it stands where init changes nothing"
OWN_LAUNCH = "its server has no plain command that init could put `remit run` before"


@dataclass(frozen=True, slots=True)
class ClientFile:
    """A file of a client: in a project, or in the home of its user."""

    client: str
    path: str
    form: Form = "json"


PROJECT_FILES = (
    ClientFile("Claude Code", ".mcp.json"),
    ClientFile("Claude Code", ".claude/settings.json"),
    ClientFile("Claude Code", ".claude/settings.local.json"),
    ClientFile("Codex", ".codex/config.toml", "toml"),
    ClientFile("Gemini CLI", ".gemini/settings.json"),
    ClientFile("Gemini CLI", ".gemini/.env", "env"),
    ClientFile("Cursor", ".cursor/mcp.json"),
    ClientFile("VS Code", ".vscode/mcp.json"),
    ClientFile("Zed", ".zed/settings.json"),
)
HOME_FILES = (
    ClientFile("Claude Code", ".claude.json"),
    ClientFile("Claude Code", ".claude/settings.json"),
    ClientFile("Claude Desktop", ".config/Claude/claude_desktop_config.json"),
    ClientFile("Codex", ".codex/config.toml", "toml"),
    ClientFile("Gemini CLI", ".gemini/settings.json"),
    ClientFile("Gemini CLI", ".gemini/.env", "env"),
    ClientFile("Cursor", ".cursor/mcp.json"),
    ClientFile("Windsurf", ".codeium/windsurf/mcp_config.json"),
    ClientFile("VS Code", ".config/Code/User/mcp.json"),
    ClientFile("VS Code", ".config/Code/User/settings.json"),
    ClientFile("Copilot CLI", ".copilot/mcp-config.json"),
    ClientFile("Cline", ".config/Code/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json"),
    ClientFile("Zed", ".config/zed/settings.json"),
    ClientFile("Kiro", ".kiro/settings/mcp.json"),
    ClientFile("Antigravity", ".gemini/antigravity/mcp_config.json"),
    ClientFile("Amazon Q", ".aws/amazonq/mcp.json"),
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
    document = _read(form, text)
    found = list(_of_client(form, text, document))
    for name, server in _servers(document):
        found += _of_server(text, name, server)
    known = "\n".join(each.value for each in found)
    for token in recognised.beginnings().finditer(text):
        if token[0] not in known and recognised.by_shape(token[0]):
            found.append(HeldValue("", token[0], line_of(text, token.start()), fixed=ARGUMENT))
    return tuple(found)


def _read(form: Form, text: str) -> dict[str, Any]:
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


def _servers(document: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the servers of a document, wherever it lists some."""
    if not isinstance(document, dict):
        return
    for name, value in document.items():
        if name in _SERVERS and isinstance(value, dict):
            yield from ((label, server) for label, server in value.items() if isinstance(server, dict))
        else:
            yield from _servers(value)


def _of_client(form: Form, text: str, document: Mapping[str, Any]) -> Iterator[HeldValue]:
    own = document.get("env") if form == "json" else None
    for name, value in own.items() if isinstance(own, dict) else ():
        if isinstance(value, str):
            yield HeldValue(name, value, _line(text, value))


def _of_server(text: str, label: str, server: Mapping[str, Any]) -> Iterator[HeldValue]:
    env, headers = server.get("env"), server.get("headers", server.get("http_headers"))
    fixed = "" if _launchable(server) else OWN_LAUNCH
    for name, value in env.items() if isinstance(env, dict) else ():
        if isinstance(value, str):
            yield HeldValue(name, value, _line(text, value), label, fixed, str(server.get("command")))
    for name, value in headers.items() if isinstance(headers, dict) else ():
        if isinstance(value, str):
            named_so = "authorization-token" if name.lower() == "authorization" else name
            yield HeldValue(named_so, _SCHEME.sub("", value, 1), _line(text, value), label, SENT)


def _launchable(server: Mapping[str, Any]) -> bool:
    command, args = server.get("command"), server.get("args", [])
    if not isinstance(command, str) or not isinstance(args, list) or not all(isinstance(each, str) for each in args):
        return False
    return bool(command) and PurePosixPath(command).name != "remit"


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
        document = _read(form, text)
        new = edited(text, _json_edits(text, moved) if form == "json" else _toml_edits(text, document, moved))
        same = _meant(form, document, moved) == _read(form, new)
    if not same:
        raise InvalidRequestError("it is written in a way that init cannot change")
    return new


def _meant(form: Form, document: Mapping[str, Any], moved: Moved) -> Mapping[str, Any]:
    """Return the document as it is to be."""
    new = deepcopy(dict(document))
    own = new.get("env")
    if form == "json" and isinstance(own, dict):
        new["env"] = {name: value for name, value in own.items() if (name, value) not in moved}
    for _, server in _servers(new):
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
    if not isinstance(env, dict) or not _launchable(server):
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
        words += ["-e", name] if name not in mine and name not in given and _may_pass(name) else []
    renamed = [(name, each) for name, each in mine.items() if name not in each.provider.variables]
    shell = "".join(f'{name}="$REMIT_KEY_{named.label(each.resource)}" ' for name, each in renamed)
    words += ["--", *(["sh", "-c", f'{shell}exec "$0" "$@"'] if shell else [])]
    return [*words, server["command"]]


def _may_pass(name: str) -> bool:
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
        if name not in _SERVERS or not isinstance(each.value, dict):
            yield from _server_edits(each, moved)
            continue
        for server in each.value.values():
            plain = server.plain()
            if isinstance(plain, dict) and isinstance(server.value, dict) and (words := _launch(plain, moved)):
                yield from _wrapped(server.value, words, moved)


def _wrapped(server: dict[str, Placed], words: list[str], moved: Moved) -> Iterator[Edit]:
    command, args, env = server["command"], server.get("args"), server["env"]
    listed = json.dumps(words, ensure_ascii=False)[1:-1]
    yield Edit(command.start, command.end, '"remit"' if args is not None else f'"remit", "args": [{listed}]')
    if args is not None:
        yield Edit(args.start + 1, args.start + 1, listed + (", " if args.value else ""))
    for name, each in env.value.items() if isinstance(env.value, dict) else ():
        if isinstance(each.value, str) and (name, each.value) in moved:
            yield Edit(each.start, each.end, json.dumps(_stand_in(name, each.value, moved)))


_HEADER = re.compile(r"^[ \t]*\[[^\[\]\r\n]+\][^\r\n]*$", re.MULTILINE)
_COMMAND = re.compile(r"""^[ \t]*command[ \t]*=[ \t]*("(?:[^"\\\r\n]|\\.)*"|'[^'\r\n]*')""", re.MULTILINE)
_ARGS = re.compile(r"^[ \t]*args[ \t]*=[ \t]*\[([ \t\r\n]*\])?", re.MULTILINE)


def _toml_edits(text: str, document: Mapping[str, Any], moved: Moved) -> Iterator[Edit]:
    heads = list(_HEADER.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    spans = {_title(head[0]): (head.end(), end) for head, end in zip(heads, ends, strict=False)}
    for label, server in _servers(document):
        span = spans.get(f"mcp_servers.{label}") or spans.get(f'mcp_servers."{label}"')
        words = _launch(server, moved)
        command = _COMMAND.search(text, *span) if span and words else None
        if span is None or command is None:
            continue
        args, listed = _ARGS.search(text, *span), json.dumps(words, ensure_ascii=False)[1:-1]
        yield Edit(*command.span(1), '"remit"' if args else f'"remit"\nargs = [{listed}]')
        if args:
            at = args.start() + args[0].index("[") + 1
            yield Edit(at, at, listed + ("" if args[1] else ", "))
    for (name, value), there in moved.items():
        for found in re.finditer(rf"""["']?{re.escape(name)}["']?[ \t]*=[ \t]*(["']{re.escape(value)}["'])""", text):
            yield Edit(*found.span(1), f'"placeholder:{there.resource}"')


def _title(header: str) -> str:
    return header.partition("#")[0].strip().strip("[] \t")
