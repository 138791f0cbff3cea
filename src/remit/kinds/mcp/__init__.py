"""Servers of the Model Context Protocol: the gateway judges each message, and over HTTP puts the key in.

A server that is a command, which a client starts, is a run; the keys that it uses are those of other resources.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from remit import catalog
from remit.core import description, orders, scope
from remit.core.scope import Detail, Field
from remit.core.secret import Secret
from remit.errors import InvalidRequestError
from remit.ports import Resource
from remit.ports.kind import STARTED, EngineContext, GatewayAccess, Kind

PREFIX = "mcp+"  # of a destination's scheme
STDIO = "mcp+stdio"
SETTINGS = frozenset(
    {"bearer", "descriptions", "headers", "inject", "max_body", "oauth", "private", "provider", "user"}
)
REACHES = "reaches"  # the setting that says what the run of what `command` starts is granted
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
ACTIONS = (  # the methods that carry authority; the last three are a server's
    "tools/call",
    "resources/read",
    "resources/subscribe",
    "prompts/get",
    "completion/complete",
    "elicitation/create",
    "roots/list",
    "sampling/createMessage",
)


def _widest(destination: str) -> Mapping[str, object]:
    """Return the fields of the widest detail in which no server asks anything of a client."""
    return {"actions": list(ACTIONS[:5]), "tools": orders.ANY, "prompts": orders.ANY, "resources": ["**"]}


def _check(resource: Resource, secret: Secret | None, context: EngineContext) -> None:
    from remit.gateway import target

    description.policy(resource.settings)
    if KIND.is_command(resource.destination):
        _check_command(resource, secret)
        return
    if not resource.destination.startswith(PREFIX):
        raise InvalidRequestError(f"a destination is `{KIND.destination}`")
    if unknown := sorted(resource.settings.keys() - SETTINGS):
        raise InvalidRequestError(f"`{unknown[0]}` is not a setting of mcp; there are {', '.join(sorted(SETTINGS))}")
    target.check(_plain(resource), secret)
    if target.HttpTarget(_plain(resource), None).key_in_body is not None:
        raise InvalidRequestError("`inject` puts the key of such a server into a header or the query, and into no body")


def _check_command(resource: Resource, secret: Secret | None) -> None:
    if not _NAME.fullmatch(resource.destination.removeprefix(f"{STDIO}:")):
        raise InvalidRequestError(f"a server that is a command has a destination `{STDIO}:name`")
    settings = resource.settings
    if secret is not None or resource.secret is not None or settings.keys() - {STARTED, REACHES, "descriptions"}:
        raise InvalidRequestError(
            "a server that is a command has no secret here, and no setting but `command`, `reaches` and `descriptions`",
            help="the key that it uses is the secret of a resource of its provider, and its run is granted that",
        )
    words = settings.get(STARTED, ["-"])
    listed = words if isinstance(words, list) else []
    if not listed or not listed[0] or not all(isinstance(each, str) and "\0" not in each for each in listed):
        raise InvalidRequestError("`command` is a list of words: the program, and its arguments")
    if REACHES in settings and (STARTED not in settings or not scope.parse(settings[REACHES])):
        raise InvalidRequestError("`reaches` is a list of details, for what `command` starts")


def _plain(resource: Resource) -> Resource:
    own = {name: value for name, value in resource.settings.items() if name != "descriptions"}
    return replace(resource, destination=resource.destination.removeprefix(PREFIX), settings=own)


def _needs(lower: Mapping[str, tuple[str, ...]], detail: Detail) -> frozenset[str] | None:
    """Return the scopes that what a detail permits takes, by tool or method; None: of some of it nobody said that."""
    names = set(detail.texts("actions")) - set(ACTIONS[5:])
    if ACTIONS[0] in names - lower.keys():
        tools = detail.get("tools")
        names = names - {ACTIONS[0]} | {
            str(name) for name, _ in (tools if isinstance(tools, tuple) else ((orders.ANY, ()),))
        }
    return frozenset(scope for name in names for scope in lower[name]) if names <= lower.keys() else None


def _placeholder(resource: Resource, random: bytes) -> str:
    return catalog.placeholder(catalog.load()["generic"], random)


def _variables(resource: Resource, url: str, placeholder: str) -> Mapping[str, str]:
    return {}


def _hosts(resource: Resource) -> Mapping[str, str]:
    from remit.gateway.target import public

    return {} if KIND.is_command(resource.destination) else public(resource.destination.removeprefix(PREFIX))


KIND = Kind(
    name="mcp",
    table={
        "actions": Field(orders.among(*ACTIONS), required=True, label="may"),
        "tools": Field(orders.TOOLS, default=(), label="tool"),
        "resources": Field(orders.URIS, default=()),
        "prompts": Field(orders.PROMPTS, default=(), label="prompt"),
        "ttl": Field(orders.SECONDS, label="each credential for"),
        "uses": Field(orders.AT_MOST, label="times, at most"),
    },
    schemes=("mcp+https", "mcp+http", STDIO),
    destination="mcp+https://host[:port][/path] (mcp+http:// on this machine), or mcp+stdio:name",
    docs="docs/reference/details.md#mcp",
    check=_check,
    access=GatewayAccess(_placeholder, _variables, _hosts, PREFIX, messages=True, command=STDIO),
    widest=_widest,
    needs=_needs,
)
