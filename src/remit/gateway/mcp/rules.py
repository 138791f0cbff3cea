"""What a client says, judged against the details of its grant: which one permits it, and how it is written. Pure.

A detail's `actions` name the methods that carry authority. What keeps the protocol going is permitted with any detail
of the resource: it says nothing that an action does not, and what is listed is reduced to what the grant permits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from remit.core.orders import ANY, Constraint, Value, args_permit, json_text
from remit.core.paths import MAX_TEXT, Places, matched, places, uri_path, within
from remit.core.scope import Detail, Scope
from remit.errors import InvalidRequestError, ScopeError
from remit.gateway import canon
from remit.gateway.mcp import members, tasks
from remit.gateway.mcp.messages import CAPABILITIES, Json, Message, shown

SHOWN = 200  # characters of a name that an entry in the audit log has
CALL, GET_PROMPT, READ, SUBSCRIBE = "tools/call", "prompts/get", "resources/read", "resources/subscribe"
NOTES = "notifications/"  # what begins so is told, and has no answer; anything else is asked
COMPLETE, LISTEN = "completion/complete", "subscriptions/listen"
SAMPLE, ELICIT, ROOTS = "sampling/createMessage", "elicitation/create", "roots/list"
ACTIONS = (CALL, COMPLETE, ELICIT, GET_PROMPT, READ, ROOTS, SAMPLE, SUBSCRIBE)
FROM_SERVERS = {SAMPLE: "sampling", ELICIT: "elicitation", ROOTS: "roots"}  # what servers ask: the client's capability
NAMED_BY = {CALL: "name", GET_PROMPT: "name", READ: "uri", SUBSCRIBE: "uri"}  # the parameter that says of what
UPKEEP = frozenset(
    {
        "initialize",
        "logging/setLevel",
        "notifications/cancelled",
        "notifications/initialized",
        "notifications/progress",
        "notifications/roots/list_changed",
        "ping",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/unsubscribe",
        "server/discover",
        "tools/list",
    }
)
MAX_ECHO = 2_048  # characters of arguments that a denial repeats
_PLACE = re.compile(r"\{[\w.,%:]{1,64}\}")  # of one segment, in a template (RFC 6570)
_REST = re.compile(r"(?:/\{(?:\+[\w.,%:]{1,64}|[\w.,%]{1,64}\*)|\{/[\w.,%:]{1,64}\*?)\}\Z")  # of as many as come
_ANSWERS = {"action": ELICIT, "roots": ROOTS, "role": SAMPLE, "model": SAMPLE}  # member of a result -> what it answers

Args = Mapping[str, str]  # name -> JSON text


class UnknownMethodError(ScopeError):
    """no grant has this method"""  # noqa: D400 - the message


@dataclass(frozen=True, slots=True)
class MessageRule:
    """One detail, compiled. ``index`` is its place in the grant's scope; of maps ANY is everything."""

    index: int
    actions: frozenset[str]
    tools: Mapping[str, Value] | None  # None: any
    prompts: Mapping[str, Value] | None
    uris: Places
    patterns: tuple[str, ...]  # of URIs, as paths

    def names(self, action: str, name: str) -> bool:
        """Whether it permits an action on something of that name, whatever the arguments."""
        if action not in self.actions:
            return False
        if action in {READ, SUBSCRIBE}:
            return matched(_place(name), self.uris)
        listed = self.tools if action == CALL else self.prompts
        return listed is None or name in listed

    def permits(self, action: str, name: str, args: Callable[[], Args]) -> bool:
        if not self.names(action, name):
            return False
        listed = {CALL: self.tools, GET_PROMPT: self.prompts}.get(action)
        constraints = ANY if listed is None else listed[name]
        return constraints == ANY or args_permit(constraints, args())

    def completes(self, said: Message, name: str) -> bool:
        """Whether it permits completing arguments of a prompt, or the places of a resource's template."""
        if COMPLETE not in self.actions:
            return False
        kind = _object(said, "ref").get("type")
        if kind != "ref/prompt":
            return kind == "ref/resource" and within(template_path(name), self.uris)
        listed = ANY if self.prompts is None else self.prompts.get(name)
        return listed == ANY or (isinstance(listed, tuple) and all(_permit_some(listed, each) for each in _given(said)))


def _permit_some(constraints: tuple[tuple[str, Constraint], ...], args: Args) -> bool:
    """Whether some arguments meet a detail's, which may have more."""
    return args_permit(tuple(each for each in constraints if each[0] in args or each[1][0] == ANY), args)


def _given(said: Message) -> tuple[Args, Args]:
    """Return the arguments that a completion goes by, and the one that is completed, as far as it is written."""
    known, asked = _object(said, "context").get("arguments"), _object(said, "argument")
    return _leaves(known), _leaves({str(asked["name"]): asked.get("value")} if "name" in asked else None)


def _object(said: Message, name: str) -> Json:
    found = said.params.get(name, {})
    if not isinstance(found, dict):
        raise InvalidRequestError(f"`{name}` is not an object")
    return found


def template_path(template: str) -> str:
    """Return what a template stands for as a pattern of paths: what is no whole segment, `**` alone covers."""
    return uri_path(_PLACE.sub("*", _REST.sub("/**", template)))


def _place(uri: str) -> str:
    """Return a URI that is asked for as a path; of one that some reader takes for another, what `**` alone matches."""
    place = uri_path(uri)
    try:
        return place if place.startswith("//") else canon.path(place.encode())
    except InvalidRequestError:
        return f"//{uri}"


MessageRules = tuple[MessageRule, ...]  # all of one grant for one resource, in the order of its scope


def compile_messages(scope: Scope, resource: str) -> MessageRules:
    """Compile the details of ``scope`` that name ``resource``."""
    rules = []
    for index, detail in enumerate(scope):
        if detail.resource == resource:
            uris = tuple(map(uri_path, detail.texts("resources")))
            actions, tools, prompts = frozenset(detail.texts("actions")), _map(detail, "tools"), _map(detail, "prompts")
            rules.append(MessageRule(index, actions, tools, prompts, places(uris), uris))
    return tuple(rules)


def _map(detail: Detail, name: str) -> Mapping[str, Value] | None:
    value = detail.get(name)
    return None if value == ANY else dict(value) if isinstance(value, tuple) else {}


@dataclass(frozen=True, slots=True)
class MessagePermit:
    """A permitted message. ``name`` is the tool, the prompt or the URI that it is about; ``body`` is what goes on."""

    index: int  # of the detail
    action: str
    name: str
    body: Json

    @property
    def recorded(self) -> str:
        """What the audit has of it: never its arguments."""
        return f"{self.action} {json_text(self.name)[1:-1][:SHOWN]}".rstrip()


def judge(rules: MessageRules, said: Message, kind: str, resource: str) -> MessagePermit:
    """Return how a message of a client is permitted, or raise ScopeError with the detail that would be enough."""
    action = said.method or "answer"
    if said.method is not None and said.asks is said.method.startswith(NOTES):
        raise InvalidRequestError(f"`{shown(action)}` {'has no `id`' if said.asks else 'is asked with an `id`'}")
    members.check(said)
    if action == SUBSCRIBE and said.version is not None:
        raise UnknownMethodError(f"`{SUBSCRIBE}` is no method of this revision: `{LISTEN}` is")
    name = _name(said)
    body = _narrowed(rules, said)
    if said.method is None or "inputResponses" in said.params:
        _check_answering(rules, said, kind, resource)
    fetched = action in {tasks.LIST, *tasks.OF_ONE} and not tasks.removed(said)
    of_call = fetched and granted(rules, CALL)  # its answer, which was permitted then
    if said.method is None or said.method in UPKEEP or of_call:
        return MessagePermit(rules[0].index, action, name, body)
    found = _index(rules, said, name)
    if found is None:
        if action not in {*ACTIONS, LISTEN}:
            raise UnknownMethodError(f"`{shown(action)}` is no method that a grant can have")
        raise ScopeError(enough=enough(said, kind, resource))
    return MessagePermit(found, action, name, body)


def _index(rules: MessageRules, said: Message, name: str) -> int | None:
    """Return the index of the detail that alone permits a message that carries authority."""
    known: list[Args] = []

    def args() -> Args:  # read once, and only where a detail names arguments
        if not known:
            known.append(arguments(said))
        return known[0]

    for rule in rules:
        match said.method:
            case "tools/call" | "prompts/get" | "resources/read" | "resources/subscribe":
                permitted = rule.permits(said.method, name, args)
            case "completion/complete":
                permitted = rule.completes(said, name)
            case "subscriptions/listen":
                permitted = all(rule.names(SUBSCRIBE, uri) for uri in subscribed(said))
            case _:
                permitted = False
        if permitted:
            return rule.index
    return None


def _name(said: Message) -> str:
    """Return what a message is about, as it is judged: text, or InvalidRequestError."""
    params: object = said.params
    key = NAMED_BY.get(said.method or "")
    if said.method == COMPLETE:
        params = said.params.get("ref")
        key = "uri" if isinstance(params, dict) and params.get("type") == "ref/resource" else "name"
    if key is None:
        return ""
    found = params.get(key) if isinstance(params, dict) else None
    if not isinstance(found, str) or not 0 < len(found) <= MAX_TEXT:
        raise InvalidRequestError(f"`{said.method}` says of what in `{key}`, and this one does not")
    return found


def subscribed(said: Message) -> list[str]:
    """Return the URIs of which a subscription wants to hear, or raise InvalidRequestError."""
    wanted = said.params.get("notifications")
    uris = wanted.get("resourceSubscriptions") if isinstance(wanted, dict) else None
    if uris is not None and not (isinstance(uris, list) and all(isinstance(uri, str) for uri in uris)):
        raise InvalidRequestError("`notifications.resourceSubscriptions` is not a list of URIs")
    return uris or []


def arguments(said: Message) -> Args:
    """Return the leaves of a message's arguments, or raise InvalidRequestError."""
    return _leaves(said.params.get("arguments"))


def _leaves(found: object) -> Args:
    if found is not None and not isinstance(found, dict):
        raise InvalidRequestError("`arguments` is not an object")
    return canon.leaves(found, "") if found else {}


def granted(rules: MessageRules, *actions: str) -> bool:
    """Whether some detail has one of some actions."""
    return any(not rule.actions.isdisjoint(actions) for rule in rules)


def _check_answering(rules: MessageRules, said: Message, kind: str, resource: str) -> None:
    """Raise ScopeError for what answers a server that may not have asked."""
    again = said.method is not None
    answers = said.params.get("inputResponses") if again else said.body.get("result")
    results = [*answers.values()] if again and isinstance(answers, dict) else [answers]
    names = {members.folded(name) for each in results if isinstance(each, dict) for name in each}
    needed = {_ANSWERS[name] for name in names & _ANSWERS.keys()}
    missing = sorted(action for action in needed if not granted(rules, action))
    if answers and (missing or not granted(rules, *FROM_SERVERS)):
        raise ScopeError(
            "this answers a server, and the grant lets none ask that",
            enough={"type": kind, "resource": resource, "actions": missing or sorted(FROM_SERVERS)},
        )


def _narrowed(rules: MessageRules, said: Message) -> Json:
    """Return a message in which the client is capable of nothing that a server may not ask for under this grant."""
    own = said.params.get("capabilities") if said.method == "initialize" else None
    told = said.meta.get(CAPABILITIES)
    if own is None and told is None:
        return said.body
    never = {"tasks", *(name for action, name in FROM_SERVERS.items() if not granted(rules, action))}
    params = dict(said.params)
    if own is not None:
        params["capabilities"] = _without(own, never)
    if told is not None:
        params["_meta"] = {**said.meta, CAPABILITIES: _without(told, never)}
    return {**said.body, "params": params}


def _without(capabilities: object, names: set[str]) -> object:
    if not isinstance(capabilities, dict):
        raise InvalidRequestError("the capabilities are not an object")
    left = {name: value for name, value in capabilities.items() if name not in names}
    others = members.alike(left, members.folds(names))
    return {name: value for name, value in left.items() if name not in others}


def enough(said: Message, kind: str, resource: str) -> dict[str, object] | None:
    """Return the smallest detail that would permit a message, if one can; large arguments are left open."""
    action = SUBSCRIBE if said.method == LISTEN else said.method
    found: dict[str, object] = {"type": kind, "resource": resource, "actions": [action]}
    match action:
        case "tools/call" | "prompts/get":
            return found | {f"{action.partition('/')[0]}": {_name(said): _echoed(said)}}
        case "resources/read":
            return found | {"resources": [_pattern(_name(said))]}
        case "resources/subscribe":
            uris = subscribed(said) if said.method == LISTEN else [_name(said)]
            return found | {"resources": sorted({_pattern(uri) for uri in uris})}
        case "completion/complete":
            ref = said.params["ref"]
            prompt = isinstance(ref, dict) and ref.get("type") == "ref/prompt"
            return found | ({"prompts": {_name(said): ANY}} if prompt else {"resources": ["**"]})
    return None


def _pattern(uri: str) -> str:
    """Return the narrowest pattern that has a URI: itself, unless that cannot be told from others."""
    return "**" if len(uri) > MAX_TEXT or _place(uri).startswith("//") else uri


def _echoed(said: Message) -> object:
    try:
        args = arguments(said)
    except InvalidRequestError:
        return ANY
    if sum(map(len, args.values())) > MAX_ECHO:
        return ANY
    return {name: _exact(json.loads(text)) for name, text in args.items()}


def _exact(value: object) -> object:
    """Return the constraint that a value meets, as narrow as there is one."""
    plain = isinstance(value, bool | int) or value is None or (isinstance(value, str) and len(value) <= MAX_TEXT)
    return {"exact": value} if plain and value == ANY else value if plain else ANY


def path(said: Message) -> str:
    """Return what stands for a path in the audit: what a message is about, as far as it can be told."""
    try:
        return json_text(_name(said))[1:-1]
    except InvalidRequestError:
        return ""
