"""What a server says, reduced to what the grant permits and written anew. Pure.

Lists are known by their members and not by what was asked, so that one that comes later, on another stream, is reduced
as well. That is for the model's sake: what is not listed is refused all the same when it is called. What a server asks
of a client is authority, and goes on only where an action permits it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from remit.core.paths import path_le, within
from remit.errors import InvalidRequestError, ScopeError, TooLargeError, UpstreamError
from remit.gateway import canon
from remit.gateway.mcp import tasks
from remit.gateway.mcp.descriptions import INSTRUCTIONS, Shows, reduced
from remit.gateway.mcp.members import alike, folded, folds
from remit.gateway.mcp.messages import Json, Message, message, shown
from remit.gateway.mcp.pages import OWN, URL_REQUIRED, check_foreign
from remit.gateway.mcp.rules import (
    CALL,
    ELICIT,
    FROM_SERVERS,
    GET_PROMPT,
    READ,
    SUBSCRIBE,
    MessageRules,
    granted,
    template_path,
)
from remit.gateway.mcp.tasks import TaskHandles

_COMPLETE = "notifications/elicitation/complete"
TELLS = frozenset(  # notifications of servers that go on
    {
        "notifications/cancelled",
        _COMPLETE,
        "notifications/message",
        "notifications/progress",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
        "notifications/subscriptions/acknowledged",
        "notifications/tools/list_changed",
        *tasks.TELLS,
    }
)
_QUESTION = ("method", "params", "mode", "requestedSchema", "properties")
_LISTED = ("tools", "prompts", "resources", "resourceTemplates", "name", "uri", "uriTemplate")
_JUDGED = folds((*_QUESTION, *_LISTED, INSTRUCTIONS, "capabilities", "code", "inputRequests", "requestState"))
MOST_VALUES = 32_768  # of a message of a server's, and so many objects and lists
TOO_DEEP = "the upstream said what is too deep to be read"
_SECRET = re.compile(
    r"pass(?:word|wd|phrase|code)|secret|api[ _-]?key|access[ _-]?key|private[ _-]?key|token|credential|bearer"
    r"|(?:^|[^a-z])(?:pin|otp|cvv|cvc|ssn)(?:[^a-z]|$)|card[ _-]?number|recovery[ _-]?code|seed[ _-]?phrase",
    re.IGNORECASE,
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
Seal = Callable[[str], str]  # of what a server hands out to be handed back


def _kept(state: str) -> str:
    return state


@dataclass(frozen=True, slots=True)
class Relay:
    """One grant's end of what a server says. ``seal`` binds state that a client is to hand back to that grant."""

    rules: MessageRules
    kind: str
    resource: str
    shows: Shows
    home: str  # where remit's own pages are
    seal: Seal = _kept
    tasks: TaskHandles = field(default_factory=TaskHandles)
    named: Callable[[Message], Message | None] | None = None  # says it by names that are this server's alone

    def heard(self, raw: bytes) -> bytes | None:
        """Return what a client is to hear instead of a server's message, or None for nothing.

        UpstreamError for what is no message; ScopeError for a request that the grant lets no server make.
        """
        try:
            reduced = self.reduced(read(raw))
            told = reduced if reduced is None or self.named is None else self.named(reduced)
        except RecursionError:
            raise UpstreamError(TOO_DEEP) from None
        return None if told is None else written(told)

    def reduced(self, said: Message) -> Message | None:
        """Return a server's message as the grant permits it, or None; ScopeError for a request it does not permit."""
        found = self._permitted(said)
        return None if found is None else self.tasks.told(found)

    def _permitted(self, said: Message) -> Message | None:
        for held in ("params", "result", "error"):
            _check_exact(said.body.get(held))
        if said.method is None:
            self._check_url(said.body.get("error"))
            return self._result(said) if "result" in said.body else said
        if said.asks:
            if said.method != "ping":
                self._check(said.method, said.params)
            return said
        self._check_all(said.params.get("inputRequests"))
        if said.method == _COMPLETE and str(said.params.get("elicitationId")).startswith(OWN):
            return None
        if said.method == "notifications/resources/updated" and not self._reads(str(said.params.get("uri"))):
            return None
        return said if said.method in TELLS else None

    def _check_url(self, error: object) -> None:
        """Raise ScopeError for an error by which a server sends a human to a page that it may not send them to."""
        if not isinstance(error, dict) or error.get("code") != URL_REQUIRED:
            return
        data = error.get("data")
        asked = data.get("elicitations") if isinstance(data, dict) else None
        for each in asked if isinstance(asked, list) and asked else [{}]:
            [params] = _objects({"": each})
            self._check(ELICIT, {**params, "mode": "url"})

    def _check(self, method: str, params: Json) -> None:
        if method not in FROM_SERVERS:
            raise ScopeError(f"the server asks for `{shown(method)}`, which no grant permits")
        if not granted(self.rules, method):
            detail = {"type": self.kind, "resource": self.resource, "actions": [method]}
            raise ScopeError(f"the server asks for `{method}`, and the grant lets it not", enough=detail)
        if method == ELICIT and params.get("mode", "form") not in ("form", "url"):
            raise ScopeError(f"the server asks in the mode `{shown(str(params['mode']))}`, which nobody knows")
        if method == ELICIT and params.get("mode") == "url":
            check_foreign(params, self.home)
        if method == ELICIT and (asked := _asks_for_secret(params)) is not None:
            raise ScopeError(
                f"the server asks for a secret (`{shown(asked)}`) in a form that goes through the agent",
                help="store it with `remit secret set`, or enter it at a page of the server's own (URL mode)",
            )

    def _result(self, said: Message) -> Message:
        result = dict(said.result)
        self._check_all(result.get("inputRequests"))
        if isinstance(state := result.get("requestState"), str):
            result["requestState"] = self.seal(state)
        if isinstance(able := result.get("capabilities"), dict):
            result["capabilities"] = able if granted(self.rules, CALL) else _without_tasks(able)
        for name, permitted in self._lists().items():
            if name in result:
                items = result[name]
                listed = items if isinstance(items, list) else []
                result[name] = [item for item in listed if isinstance(item, dict) and _exact(item) and permitted(item)]
        return Message({**said.body, "result": reduced(result, self.shows)}, None, said.id)

    def _check_all(self, asked: object) -> None:
        """Check what a server asks within an answer, or within what it says of a task (2026-07-28)."""
        for each in _objects(asked):
            [params] = _objects({"": each.get("params") or {}})
            self._check(str(each.get("method")), params)
        if isinstance(asked, dict) and any(key.startswith(OWN) for key in asked):
            raise ScopeError("the server asks in the name of remit")

    def _lists(self) -> Mapping[str, Callable[[Json], bool]]:
        return {
            "tools": lambda tool: self._named(CALL, tool),
            "prompts": lambda prompt: self._named(GET_PROMPT, prompt),
            "resources": lambda resource: self._reads(str(resource.get("uri"))),
            "resourceTemplates": lambda template: self._fits(str(template.get("uriTemplate"))),
        }

    def _named(self, action: str, item: Json) -> bool:
        return any(rule.names(action, str(item.get("name"))) for rule in self.rules)

    def _reads(self, uri: str) -> bool:
        return any(rule.names(READ, uri) or rule.names(SUBSCRIBE, uri) for rule in self.rules)

    def _fits(self, template: str) -> bool:
        """Whether something that a template stands for can be read."""
        wide = template_path(template)
        readers = [rule for rule in self.rules if not rule.actions.isdisjoint({READ, SUBSCRIBE})]
        return any(within(wide, rule.uris) or any(path_le(each, wide) for each in rule.patterns) for rule in readers)


def read(raw: bytes) -> Message:
    """Read what a server says as one message, or raise UpstreamError."""
    try:
        canon.check_structure(raw, MOST_VALUES, MOST_VALUES)
        value = json.loads(
            raw.decode("utf-8"), parse_constant=canon.number, parse_float=canon.number, parse_int=canon.whole
        )
        return message(value)
    except TooLargeError as error:
        raise UpstreamError(f"the upstream said more than {MOST_VALUES:,} values at once") from error
    except (ValueError, RecursionError, InvalidRequestError) as error:
        raise UpstreamError("the upstream said what is no message of the protocol") from error


def written(said: Message) -> bytes:
    """Write what a server says; UpstreamError if that cannot be."""
    try:
        return said.written
    except UnicodeEncodeError:  # half of a surrogate pair, for which JSON has an escape and UTF-8 nothing
        return json.dumps(said.body).encode()
    except RecursionError:
        raise UpstreamError(TOO_DEEP) from None


def _without_tasks(able: Json) -> Json:
    extensions = able.get("extensions")
    if isinstance(extensions, dict):
        able = {**able, "extensions": {name: value for name, value in extensions.items() if name != tasks.EXTENSION}}
    return {name: value for name, value in able.items() if folded(name) != "tasks"}


def _objects(held: object) -> list[Json]:
    """Return the objects in an object of them, which may be missing; UpstreamError for what is none."""
    found = {} if held is None else held
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise UpstreamError("the upstream asks in what is no question of the protocol")
    for each in found.values():
        _check_exact(each)
    return list(found.values())


def _exact(held: Json) -> bool:
    """Whether no client takes a name in it for one that is judged (``members``): a Go client has `Tools` be `tools`."""
    return not alike(held, _JUDGED)


def _check_exact(held: object) -> None:
    if isinstance(held, dict) and not _exact(held):
        raise UpstreamError("the upstream said what some clients read otherwise: names that differ in case alone")


def _asks_for_secret(params: Json) -> str | None:
    """Return the field of a form by which a server asks for a secret, if there is one (MCP, elicitation)."""
    schema = params.get("requestedSchema")  # of any mode: some clients know none, and show the form
    _check_exact(schema)
    fields = schema.get("properties") if isinstance(schema, dict) else None
    for name, asked in fields.items() if isinstance(fields, dict) else ():
        told = [asked.get("title"), asked.get("description"), asked.get("format")] if isinstance(asked, dict) else []
        if any(_SECRET.search(_CAMEL.sub(" ", text)) for text in (name, *told) if isinstance(text, str)):
            return str(name)
    return None
