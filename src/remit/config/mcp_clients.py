"""What ``remit mcp install`` makes of a client's file: remit's own server is added, others are started by remit. Pure.

The places of all clients are those of ``clients``. A file is changed by edits, and read anew: where that gives anything
but what was meant, it is refused as a whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from remit.catalog import recognised
from remit.config import clients
from remit.config.clients import HOME_FILES, PROJECT_FILES, ClientFile, Form
from remit.config.placed import Edit, Placed, edited, read_json, without_members
from remit.errors import InvalidRequestError, NotFoundError, UnavailableError
from remit.sdk.detail import meant

NAME = "remit"
SERVE = ("mcp", "serve")
TAKEN = f"it has another server `{NAME}`"
ODD = "it is written in a way that remit cannot change"
PLACES = ("url", "httpUrl", "serverUrl")  # of a server that a client speaks to itself
MIXED = "take out what is not used: it would go on beside the gateway"
_HEADERS = ("headers", "http_headers")
_INDENT = re.compile(r"\n([ \t]+)\S")


def slug(client: str) -> str:
    """Return how a client is called at the command line."""
    return client.lower().replace(" ", "-")


def files(*, home: bool) -> dict[str, ClientFile]:
    """Return the file in which each client has its MCP servers, by the client's name at the command line."""
    return {slug(each.client): each for each in (HOME_FILES if home else PROJECT_FILES) if each.servers}


def file_of(client: str, *, home: bool) -> ClientFile:
    """Return a client's file, or raise NotFoundError, which says which clients there are."""
    known, others = files(home=home), files(home=not home)
    if client in known:
        return known[client]
    if client in others:
        where = "in a project: --project" if home else "in your home: leave out --project"
        raise NotFoundError(f"`{client}` has its MCP servers only {where}")
    near = meant(client, sorted({*known, *others}))
    raise NotFoundError(f"there is no client `{client}` here", help=near or "`remit mcp install --list` has them")


def added(file: ClientFile, text: str) -> str:
    """Return a file's text with remit's own server in it; InvalidRequestError if it cannot be, or another is there."""
    document = _document(file, text)
    there = document.get(file.servers)
    if isinstance(there, dict) and NAME in there:
        if _same(file, there[NAME]):
            return text
        raise InvalidRequestError(TAKEN, help="rename it, or take it out, first")
    if there is not None and not isinstance(there, dict):
        raise InvalidRequestError(f"its `{file.servers}` is no table of servers")
    wanted = {**document, file.servers: {**(there or {}), NAME: entry(file)}}
    return _checked(file, {"json": _add_json, "toml": _add_toml, "yaml": _add_yaml}[file.form](file, text), wanted)


def entry(file: ClientFile) -> dict[str, Any]:
    """Return remit's own server as a client's file has it."""
    return {**file.entry, _command(file): "remit", "args": [*SERVE]}


def _command(file: ClientFile) -> str:
    return "cmd" if file.servers == "extensions" else "command"


def _same(file: ClientFile, there: object) -> bool:
    ours = entry(file)
    if not isinstance(there, dict) or clients.steered({name: each for name, each in there.items() if name not in ours}):
        return False
    return all(there.get(name) == ours[name] for name in (_command(file), "args"))


def _document(file: ClientFile, text: str) -> dict[str, Any]:
    if file.form == "yaml":
        return _yaml_document(text)
    return clients.read_document(file.form, text) if text.strip() else {}


def _yaml_document(text: str) -> dict[str, Any]:
    yaml = _yaml()
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):  # few bytes can stand for any many
            raise InvalidRequestError("it has aliases, which remit does not follow")
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidRequestError(f"it is no YAML: {str(error)[:80]}") from None
    if found is not None and not isinstance(found, dict):
        raise InvalidRequestError("it is no YAML mapping")
    return found or {}


def _checked(file: ClientFile, new: str, wanted: Mapping[str, Any]) -> str:
    if _document(file, new) != wanted:
        raise InvalidRequestError(ODD, help="change it by hand: docs/how-to/mcp-clients.md")
    return new


def _add_json(file: ClientFile, text: str) -> str:
    if not text.strip():
        return json.dumps({file.servers: {NAME: entry(file)}}, indent=2, ensure_ascii=False) + "\n"
    document, unit = read_json(text), found[1] if (found := _INDENT.search(text)) else "  "
    members = document.value if isinstance(document.value, dict) else {}
    there = members.get(file.servers)
    if there is None:
        return edited(text, _member(text, document, file.servers, {NAME: entry(file)}, unit, 0))
    return edited(text, _member(text, there, NAME, entry(file), unit, 1))


def _member(text: str, into: Placed, name: str, value: object, unit: str, depth: int) -> Iterator[Edit]:
    """Yield what adds a member to an object, after those that it has."""
    within = f"\n{unit * (depth + 1)}"
    body = json.dumps(value, indent=unit, ensure_ascii=False).replace("\n", within)
    new, members = f"{within}{json.dumps(name)}: {body}", into.value if isinstance(into.value, dict) else {}
    if not members:
        yield Edit(into.start + 1, into.start + 1, f"{new}\n{unit * depth}")
        return
    last = next(reversed(members.values()))
    at = last.end if last.comma < 0 else last.comma + 1
    close = "" if "\n" in text[at : into.end] else f"\n{unit * depth}"  # else the brace stands after ours
    yield Edit(at, at, f"{',' if last.comma < 0 else ''}{new}{close}")


def _add_toml(file: ClientFile, text: str) -> str:
    rows = [f"{name} = {json.dumps(value)}" for name, value in entry(file).items()]
    before = f"{text.rstrip()}\n\n" if text.strip() else ""
    return f"{before}[{file.servers}.{NAME}]\n" + "\n".join(rows) + "\n"


def _yaml() -> Any:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise UnavailableError("PyYAML is not installed", help="pip install 'remit[mcp]'") from error
    return yaml


def _add_yaml(file: ClientFile, text: str) -> str:
    rows = [f"{name}: {json.dumps(value)}" for name, value in entry(file).items()]
    root = _yaml().compose(text)
    pairs = {} if root is None else {key.value: (key, value) for key, value in root.value}
    if file.servers not in pairs:
        before = f"{text.rstrip()}\n" if text.strip() else ""
        return before + "\n".join([f"{file.servers}:", f"  {NAME}:", *(f"    {row}" for row in rows)]) + "\n"
    _, there = pairs[file.servers]
    if not isinstance(there.value, list) or not there.value or there.flow_style:
        raise InvalidRequestError(ODD, help="change it by hand: docs/how-to/mcp-clients.md")
    mark = there.value[0][0].start_mark
    indent = f"\n{' ' * mark.column}"
    new = indent.join([f"{NAME}:", *(f"  {row}" for row in rows), ""])
    return edited(text, [Edit(mark.index, mark.index, new)])


def rewrapped(file: ClientFile, text: str, names: Sequence[str], words: Mapping[str, Sequence[str]]) -> str:
    """Return a file's text in which the named servers are started by remit, with the words of each before their own.

    InvalidRequestError for one that has a key, that remit starts already, or that is not there.
    """
    if file.form == "yaml":
        raise InvalidRequestError(
            "servers in YAML are not rewritten", help="change it by hand: docs/how-to/mcp-clients.md"
        )
    document = _document(file, text)
    for name in names:
        _check_servers(file.form, text, name, _servers(document, name))
    wanted, whole = deepcopy(document), {name: [*words[name], "--"] for name in names}
    for name, server in clients.servers_of(wanted):
        if name in names:
            passed = [item for each in server.get("env", {}) if clients.may_pass(each) for item in ("-e", each)]
            whole[name] = [*words[name], *passed, "--", server["command"]]
            server |= {"command": "remit", "args": [*whole[name], *server.get("args", [])]}
    edits = _in_json(read_json(text), whole) if file.form == "json" else _in_toml(text, whole)
    return _checked(file, edited(text, edits), wanted)


def taken_out(file: ClientFile, before: str, after: str, now: str) -> str | None:
    """Return a file of JSON that was changed since without what was made of its servers; None where it cannot be told.

    A server that is as it was made becomes what it was before, or goes.
    """
    if file.form != "json":
        return None
    there = [_own_servers(file, text) for text in (before or "{}", after, now)]
    was, made, found = ({name: each.plain() for name, each in one.items()} for one in there)
    changed = [name for name in made if was.get(name) != made[name]]
    if any(found.get(name) != made[name] for name in changed):
        return None
    edits = list(without_members(there[2], [name for name in changed if name not in was]))
    for name in changed:
        if name in was:
            place, old = there[2][name], there[0][name]
            edits.append(Edit(place.start, place.end, before[old.start : old.end]))
    return edited(now, edits)


def _own_servers(file: ClientFile, text: str) -> dict[str, Placed]:
    document = read_json(text)
    servers = document.value.get(file.servers) if isinstance(document.value, dict) else None
    return servers.value if servers is not None and isinstance(servers.value, dict) else {}


def remote(file: ClientFile, text: str, name: str) -> str | None:
    """Return the URL of a server that a client speaks to itself; None of one that it starts, or that is not there.

    InvalidRequestError where another of this name is started or elsewhere, or it is not by this URL alone that one is
    reached: what a client makes of two that it finds is not known.
    """
    servers = _servers(_document(file, text), name)
    urls = [[value for place, value in server.items() if place in PLACES] for server in servers]
    if not any(urls):
        return None
    first, *others = (each for found in urls for each in found)
    if not all(urls) or not isinstance(first, str) or any(each != first for each in others):
        raise InvalidRequestError(f"`{name}` is more than one server", help=MIXED)
    for server in servers:
        more = {"command", "args"} & server.keys() or {*clients.unknown(server)} - {*PLACES, *_HEADERS}
        if more:
            raise InvalidRequestError(f"`{name}` has `{min(more)[:64]}` beside its URL", help=MIXED)
    return first


def redirected(file: ClientFile, text: str, name: str, url: str) -> str:
    """Return a file's text in which a client speaks to a server at this URL, and sends it no header of its own."""
    document = _document(file, text)
    wanted, old = deepcopy(document), remote(file, text, name)
    for label, server in clients.servers_of(wanted):
        if label == name:
            server.update({each: url for each in PLACES if each in server})
            for each in _HEADERS:
                server.pop(each, None)
    edits = _redirects(read_json(text), name, url) if file.form == "json" else _toml_redirect(text, old or "", url)
    return _checked(file, edited(text, edits), wanted)


def _redirects(value: Placed, name: str, url: str) -> Iterator[Edit]:
    for server in _placed(value, {name}).values():
        yield from (Edit(server[each].start, server[each].end, json.dumps(url)) for each in PLACES if each in server)
        yield from without_members(dict(server), [each for each in _HEADERS if each in server])


def _toml_redirect(text: str, old: str, url: str) -> Iterator[Edit]:
    for found in re.finditer(rf"""^[ \t]*url[ \t]*=[ \t]*(["']{re.escape(old)}["'])""", text, re.MULTILINE):
        yield Edit(*found.span(1), json.dumps(url))


def _servers(document: object, name: str) -> list[dict[str, Any]]:
    return [server for label, server in clients.servers_of(document) if label == name]


def _check_servers(form: Form, text: str, name: str, servers: Sequence[Mapping[str, Any]]) -> None:
    """Raise for a name that no server has, or where one of those that have it cannot be started by remit."""
    if not servers:
        raise NotFoundError(f"there is no server `{name}` in it")
    for why in filter(None, map(clients.unfit, servers)):
        raise InvalidRequestError(
            f"`{name}`: {why}{', or it is started by remit already' if why == clients.OWN_LAUNCH else ''}"
        )
    for each in clients.held(form, text):
        if each.server == name and recognised.recognise(each.variable, each.value) is not None:
            move = "`remit init` moves it and rewrites the server; --user for files in your home"
            raise InvalidRequestError(f"`{name}` has a key in `{each.variable}`", help=move)


def _in_json(value: Placed, whole: Mapping[str, Sequence[str]]) -> Iterator[Edit]:
    for (label, _), server in _placed(value, whole).items():
        yield from clients.launched(server, whole[label])


def _placed(value: Placed, names: Container[str]) -> dict[tuple[str, int], Mapping[str, Placed]]:
    """Return the servers of these names, with where each stands, wherever a document lists some."""
    found: dict[tuple[str, int], Mapping[str, Placed]] = {}
    for name, each in value.value.items() if isinstance(value.value, dict) else ():
        if name not in clients.SERVERS or not isinstance(each.value, dict):
            found |= _placed(each, names)
            continue
        here = {label: server for label, server in each.value.items() if label in names}
        found |= {(label, one.start): one.value for label, one in here.items() if isinstance(one.value, dict)}
    return found


def _in_toml(text: str, whole: Mapping[str, Sequence[str]]) -> Iterator[Edit]:
    for label, words in whole.items():
        yield from clients.launched_toml(text, label, words)
