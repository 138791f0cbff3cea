"""Several servers behind one endpoint: whose a name is, and how each hears and says it. Pure.

A name says whose it is by its beginning alone, which is put there and taken away here, whatever the server called
the thing. What a client made up (ids of its requests, tokens of their progress) goes to a server sealed for it, so that
no server can answer, or report on, what another was asked.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from remit.errors import InvalidRequestError, ScopeError, UpstreamError
from remit.gateway.mcp import tasks
from remit.gateway.mcp.messages import META, Message, is_id, shown
from remit.gateway.mcp.rules import (
    ACTIONS,
    COMPLETE,
    FROM_SERVERS,
    LISTEN,
    NAMED_BY,
    UPKEEP,
    UnknownMethodError,
)
from remit.gateway.mcp.seals import HandleSeal

APART, URIS = "__", "remit:"  # after the name of a server: in front of what it calls something, and of its URI
MOST_SERVERS = 32
MOST_CURSOR = 65_536  # characters of where the lists of all servers go on
LOGGED, PROGRESS, UNSUBSCRIBE = "notifications/message", "notifications/progress", "resources/unsubscribe"
SUBSCRIPTION = f"{META}subscriptionId"
LEFT_OUT = "remit/left-out"  # in `_meta` of a list: what is missing, and why; of one server's part: by which names
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")  # the names of tools that all providers of models take
_ALONE = frozenset({None, COMPLETE, PROGRESS, UNSUBSCRIBE, *NAMED_BY, *tasks.OF_ONE})  # None: an answer

Change = Callable[[object], object]


def prefix(resource: str) -> str:
    """Return what the names of a server begin with: no two servers' do alike, and the first `__` is at its end.

    The names of resources have no capitals, so these can stand for what must not be there.
    """
    return re.sub("_(?=_|$)", "U", resource.replace(".", "D")) + APART


def packed(held: Mapping[str, object]) -> str:
    """Write handles of several servers as one."""
    return urlsafe_b64encode(json.dumps(held, separators=(",", ":")).encode()).decode().rstrip("=")


def unpacked(text: str) -> dict[str, object] | None:
    """Return what was packed; None for anything else."""
    try:
        found = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


@dataclass(frozen=True, slots=True)
class ServerNames:
    """How one server's names are told from all others'. ``ids`` and ``tokens`` seal what a client made up for it."""

    resource: str
    ids: HandleSeal
    tokens: HandleSeal

    def inward(self, said: Message) -> Message:
        """Return a client's message as this server hears it; ``addressed`` says that it is for it."""
        body: object = said.body
        for change, place in (
            (self._theirs if said.method is None else self._given(self.ids), ("id",)),
            (self._given(self.tokens), ("params", "_meta", "progressToken")),
            (self._given(self.ids), ("params", "requestId")),
            (self._theirs if said.method == PROGRESS else _as_it_is, ("params", "progressToken")),
            (self._own_name, ("params", "name")),
            (self._own_name, ("params", "ref", "name")),
            (self._own_uri, ("params", "uri")),
            (self._own_uri, ("params", "ref", "uri")),
            (self._own_task, ("params", "taskId")),
            (self._own_task, ("params", "_meta", tasks.RELATED, "taskId")),
            (self._own_task, ("result", "_meta", tasks.RELATED, "taskId")),
            (self._cursor, ("params", "cursor")),
            (self._own_uris, ("params", "notifications", "resourceSubscriptions")),
            (self._own_tasks, ("params", "notifications", "taskIds")),
        ):
            body = _at(body, change, *place)
        return _message(body, said.method)

    def outward(self, said: Message) -> Message | None:
        """Return a server's message as a client hears it; None if it is about what was not asked of this server."""
        body: object = said.body
        if said.method is None:
            if said.id is not None and self.made(said.id) is None:
                return None
            body = _at(body, self.made, "id")
            return _message(self._answer(body), None)
        if said.method == PROGRESS and self._opened(self.tokens, said.params.get("progressToken")) is None:
            return None
        if SUBSCRIPTION in said.meta and self.made(said.meta[SUBSCRIPTION]) is None:
            return None
        if said.method == LOGGED:
            body = {**said.body, "params": {"logger": "", **said.params}}
        for change, place in (
            (self.made, ("params", "_meta", SUBSCRIPTION)),
            (self._routed, ("id",)),
            (self._routed, ("params", "_meta", "progressToken")),
            (self._routed, ("params", "requestId")),
            (lambda token: self._opened(self.tokens, token), ("params", "progressToken")),
            (self._marked, ("params", "logger")),
            (self._uri, ("params", "uri")),
            (self._uris, ("params", "notifications", "resourceSubscriptions")),
            (self._task, ("params", "taskId")),
            (self._task, ("params", "_meta", tasks.RELATED, "taskId")),
            (_each(self._task), ("params", "notifications", "taskIds")),
        ):
            body = _at(body, change, *place)
        return _message(_at(body, self._question, "params"), said.method)

    def made(self, id_: object) -> object:
        """Return the id that a client made up, of one that this server was asked by; None for any other."""
        return self._opened(self.ids, id_)

    def event(self, handle: str) -> str:
        """Return the id of an event of this server's alone."""
        return packed({self.resource: handle})

    def _answer(self, body: object) -> object:
        body = _at(body, self._leaving_out, "result")
        for name, change in (
            ("tools", self._named),
            ("prompts", self._named),
            ("resources", self._resources("uri")),
            ("resourceTemplates", self._resources("uriTemplate")),
            ("contents", self._content),
            ("content", self._content),
            ("messages", self._messages),
            ("inputRequests", self._questions),
            ("taskId", self._task),
            ("task", lambda task: _at(task, self._task, "taskId")),
            ("tasks", _each(lambda task: _at(task, self._task, "taskId"))),
        ):
            body = _at(body, change, "result", name)
        body = _at(body, self.made, "result", "_meta", SUBSCRIPTION)
        body = _at(body, self._task, "result", "_meta", tasks.RELATED, "taskId")
        return _at(body, _each(lambda one: _at(one, self._marked, "elicitationId")), "error", "data", "elicitations")

    def _question(self, params: object) -> object:
        """Return what is asked, or told, in its server's name: to a client all of it comes from one."""
        params = _at(_at(params, self._marked, "elicitationId"), self._messages, "messages")
        return _at(params, self._marked, "message")

    def _questions(self, asked: object) -> object:
        if not isinstance(asked, dict):
            return asked
        return {key: _at(one, self._question, "params") for key, one in asked.items()}

    def _messages(self, held: object) -> object:
        return _each(lambda one: _at(one, self._content, "content"))(held)

    def _content(self, held: object) -> object:
        """Return content, or what was read, with its URIs as a client can read them here."""
        if isinstance(held, list):
            return [self._content(one) for one in held]
        held = _at(_at(held, self._uri, "uri"), self._uri, "resource", "uri")
        return _at(held, self._content, "content")  # of what a tool gave

    def _leaving_out(self, result: object) -> object:
        """Return a result that says which names of it are left out."""
        if not isinstance(result, dict):
            return result
        items = [item for key in ("tools", "prompts") for item in _list(result.get(key)) if isinstance(item, dict)]
        unfit = [item.get("name") for item in items if not _PLAIN.fullmatch(str(self._name(item.get("name"))))]
        told = result.get("_meta")
        meta = {name: value for name, value in (told if isinstance(told, dict) else {}).items() if name != LEFT_OUT}
        return {**result, "_meta": {**meta, LEFT_OUT: unfit}} if unfit else _at(result, lambda _: meta, "_meta")

    def _named(self, items: object) -> object:
        """Return tools or prompts by their names here, without those that providers of models would refuse by name."""
        found = [self._titled(_at(item, self._name, "name")) for item in _list(items)]
        return [item for item in found if isinstance(item, dict) and _PLAIN.fullmatch(str(item.get("name")))]

    def _resources(self, key: str) -> Change:
        return _each(lambda item: self._titled(_at(_at(item, self._uri, key), self._marked, "name")))

    def _titled(self, item: object) -> object:
        return _at(_at(item, self._marked, "title"), self._marked, "annotations", "title")

    def _name(self, name: object) -> object:
        return f"{prefix(self.resource)}{name}"

    def _own_name(self, name: object) -> object:
        return str(name).removeprefix(prefix(self.resource))

    def _uri(self, uri: object) -> object:
        return f"{URIS}{self.resource}/{uri}"

    def _own_uri(self, uri: object) -> object:
        return str(uri).removeprefix(f"{URIS}{self.resource}/")

    def _uris(self, uris: object) -> object:
        return _each(self._uri)(uris)

    def _own_uris(self, uris: object) -> object:
        return [self._own_uri(uri) for uri in _list(uris) if str(uri).startswith(f"{URIS}{self.resource}/")]

    def _task(self, id_: object) -> object:
        return f"{self.resource}/{id_}"

    def _own_task(self, id_: object) -> object:
        return str(id_).removeprefix(f"{self.resource}/")

    def _own_tasks(self, ids: object) -> object:
        return [self._own_task(id_) for id_ in _list(ids) if str(id_).startswith(f"{self.resource}/")]

    def _marked(self, text: object) -> object:
        return f"{self.resource}: {text}"

    def _routed(self, id_: object) -> object:
        """Return what a server made up, by which a client's answer finds it."""
        told = f"{self.resource}/{json.dumps(id_)}"
        if not is_id(told):
            raise UpstreamError("the server asks with an id that is too long")
        return told

    def _theirs(self, told: object) -> object:
        return json.loads(str(told).partition("/")[2])

    def _cursor(self, cursor: object) -> object:
        return (unpacked(str(cursor)) or {}).get(self.resource)

    def _given(self, seal: HandleSeal) -> Change:
        return lambda made: seal.sealed(json.dumps(made))

    def _opened(self, seal: HandleSeal, handle: object) -> object:
        told = seal.opened(handle) if isinstance(handle, str) else None
        return None if told is None else json.loads(told)


def addressed(said: Message, names: Mapping[str, ServerNames]) -> Mapping[str, Message]:
    """Return what each server hears of a client's message: the one that it is for, or all that have a part in it."""
    known = {*ACTIONS, *UPKEEP, LISTEN, tasks.LIST, *tasks.OF_ONE} - FROM_SERVERS.keys()
    if said.method is not None and (tasks.removed(said) or said.method not in known):
        raise UnknownMethodError(f"`{shown(said.method)}` is no method that a grant can have")
    if said.method in _ALONE:
        name = _whose(said, names)
        return {name: names[name].inward(said)}
    cursor = said.params.get("cursor")
    among = {} if cursor is None else unpacked(str(cursor)[:MOST_CURSOR])
    if among is None or not among.keys() <= names.keys():
        raise InvalidRequestError("the `cursor` is none of this endpoint's", help="list from the beginning")
    return {name: one.inward(said) for name, one in names.items() if cursor is None or name in among}


def is_for_one(said: Message) -> bool:
    """Whether a client's message is for one server; any other is for each."""
    return said.method in _ALONE


def _whose(said: Message, names: Mapping[str, ServerNames]) -> str:
    """Return the server that a message is for, or raise for what none of these has a part in."""
    key = NAMED_BY.get(said.method or "", "uri" if said.method == UNSUBSCRIBE else "")
    params = said.params
    if said.method == COMPLETE:
        ref = params.get("ref")
        params = ref if isinstance(ref, dict) else {}
        key = "uri" if params.get("type") == "ref/resource" else "name"
    told = params.get(key or ("taskId" if said.method in tasks.OF_ONE else "progressToken"))
    if key == "":
        name, _, made = str(said.id if said.method is None else told).partition("/")
        if name in names and (said.method in tasks.OF_ONE or _is_made(made)):
            return name
        raise ScopeError("this is of no server of the endpoint")
    if key == "uri":
        name = str(told).removeprefix(URIS).partition("/")[0] if str(told).startswith(URIS) else ""
        found, begins = name if name in names else None, [f"{URIS}{one}/" for one in names]
    else:
        whose = {prefix(one): one for one in names}
        found, begins = whose.get(str(told).partition(APART)[0] + APART), [*whose]
    if found is None:
        raise ScopeError(
            f"no server of the grant has what is called `{shown(str(told))}`",
            help=f"what there is begins with {', '.join(f'`{one}`' for one in begins)}",
        )
    return found


def _is_made(text: str) -> bool:
    """Whether it is a server's id as it was routed to a client."""
    try:
        return is_id(json.loads(text))
    except (ValueError, RecursionError):
        return False


def _at(held: object, change: Change, first: str, *rest: str) -> object:
    """Return an object in which what stands at a place is changed, if anything stands there."""
    if not isinstance(held, dict) or first not in held:
        return held
    return {**held, first: _at(held[first], change, *rest) if rest else change(held[first])}


def _as_it_is(held: object) -> object:
    return held


def _each(change: Change) -> Change:
    return lambda held: [change(one) for one in held] if isinstance(held, list) else held


def _list(held: object) -> list[object]:
    return held if isinstance(held, list) else []


def _message(body: object, method: str | None) -> Message:
    assert isinstance(body, dict)  # noqa: S101 - as the message was that it is made of
    id_ = body.get("id")
    return Message(body, method, id_ if is_id(id_) else None)
