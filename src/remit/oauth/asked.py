"""What a form asks for: bounds of a grant, and whom its token is for. One reader for every way to a grant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from remit.core import scope as scopes
from remit.core.principal import Workload
from remit.core.scope import Scope
from remit.core.task import Posture, Wanted
from remit.errors import InvalidRequestError, TargetError, TooLargeError
from remit.jose import token as tokens
from remit.jose.strict import read_json
from remit.oauth.clients import Client
from remit.oauth.minting import Binding
from remit.web import wire

BOUNDS = wire.LIMITS | {"label"}
TARGETS = frozenset({"resource", "audience"})
OPENING = BOUNDS | TARGETS | {"purpose"}

TTL = "3600"  # seconds: an OAuth client that knows nothing of remit cannot say

Form = Mapping[str, str]


def scope(form: Form) -> Scope:
    """Return the details that are asked for."""
    return scopes.parse(read_json(wire.text(form, "authorization_details")))


def wanted(form: Form, details: Scope, posture: Posture | None = None, binding: Binding | None = None) -> Wanted:
    """Return what is asked for, as it is to be bound. The agent's name is the broker's to give."""
    bound = binding or Binding()
    if binding is not None:
        check_size(details)
    return Wanted(
        scope=details,
        agent="",
        ttl=timedelta(seconds=wire.whole("ttl", form["ttl"])) if "ttl" in form else None,
        depth=wire.whole("depth", form.get("depth", "0")),
        fan_out=wire.whole("fan_out", form.get("fan_out", "0")),
        exercise=_flag("exercise", form.get("exercise", "true")),
        posture=posture or Posture(),
        jkt=bound.jkt,
        x5t=bound.x5t,
        label=wire.label(form.get("label", "")),
        delegates=_delegates(form),
        unattested=_flag("unattested", form.get("unattested", "true")),
    )


def check_size(details: Scope) -> None:
    """Raise TooLargeError for details that no token could name."""
    if len(scopes.json_text(scopes.dump(details))) > tokens.MAX_DETAILS:
        raise TooLargeError(f"the details of a token have at most {tokens.MAX_DETAILS} characters")


def of_human(form: Form) -> Wanted:
    """Return what a human is asked for, with a token to follow: for an hour, unless the client says."""
    details = scope(form)
    check_size(details)
    return wanted({"ttl": TTL, **form}, details)


def opening(form: Form, details: Scope, client: Client, binding: Binding | None) -> Wanted:
    """Return the root grant that a client asks for: in its own name, if it proved one."""
    client.check_named()
    asked = wanted(form, details, binding=binding)
    if asked.ttl is None:
        raise InvalidRequestError("`ttl` is missing")
    return attested(asked, client.workload)


def attested(asked: Wanted, workload: Workload | None) -> Wanted:
    """Return what is asked for, for a workload that proved who it is; None leaves the name to the broker."""
    if workload is None:
        return asked
    return replace(asked, agent=workload.id, attested=True, claims=tuple(sorted(workload.claims.items())))


def audience(form: Form, issuer: str, gateway: str | None) -> str | None:
    """Return whom the token is to be for: None is the broker as a whole, and its gateway alone can be named.

    TargetError for anybody else (RFC 8707 §2), and for two.
    """
    named = {form[name] for name in TARGETS if name in form}
    if not named <= {issuer, gateway} or len(named) > 1:
        raise TargetError(help=f"the audience is `{issuer}`" + (f", or `{gateway}`" if gateway else ""))
    return None if named <= {issuer} else gateway


def _flag(name: str, value: str) -> bool:
    if value not in {"true", "false"}:
        raise InvalidRequestError(f"`{name}` must be `true` or `false`")
    return value == "true"


def _delegates(form: Form) -> tuple[str, ...] | None:
    if "delegates" not in form:
        return None
    given = read_json(form["delegates"])
    if not isinstance(given, list) or not all(isinstance(pattern, str) for pattern in given):
        raise InvalidRequestError("`delegates` must be a JSON array of patterns")
    return tuple(given)
