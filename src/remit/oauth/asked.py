"""A grant request as the fields of a form, and the audience of the token that is to follow."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from remit.core import request as requests
from remit.core import scope as scopes
from remit.core.orders import json_text
from remit.core.principal import Workload
from remit.core.request import UNBOUND, Binding, GrantRequest
from remit.core.scope import Scope
from remit.errors import InvalidRequestError, TargetError, TooLargeError
from remit.jose import token as tokens
from remit.jose.strict import read_json
from remit.oauth.clients import Client

BOUNDS = requests.LIMITS | {"label"}
TARGETS = frozenset({"resource", "audience"})
OPENING = BOUNDS | TARGETS | {"purpose"}

TTL = 3600  # seconds: an OAuth client that knows nothing of remit cannot say

Form = Mapping[str, str]


def read(form: Form, binding: Binding = UNBOUND, otherwise: Mapping[str, object] | None = None) -> GrantRequest:
    """Read a grant request from a form, whose fields are text or JSON; ``otherwise`` holds for those it lacks.

    One that a token follows is bound, and no larger than a token can name.
    """
    given = {name: _decoded(name, form[name]) for name in requests.FIELDS & form.keys()}
    found = requests.read({**(otherwise or {}), **given}, binding)
    if binding.thumbprint is not None:
        check_size(found.scope)
    return found


def _decoded(name: str, text: str) -> object:
    if name == "authorization_details":
        return read_json(text)
    with suppress(InvalidRequestError):  # the reader says what it must be
        return text if name in requests.TEXTS else read_json(text)
    return text


def check_size(details: Scope) -> None:
    """Raise TooLargeError for details that no token could name."""
    if len(json_text(scopes.dump(details))) > tokens.MAX_DETAILS:
        raise TooLargeError(f"the details of a token have at most {tokens.MAX_DETAILS} characters")


def of_human(form: Form, binding: Binding) -> GrantRequest:
    """Return the request that a human is to decide on, a token to follow: for an hour, unless the client says."""
    found = read(form, binding, {"ttl": TTL})
    check_size(found.scope)
    return found


def opening(
    form: Form, client: Client, binding: Binding = UNBOUND, otherwise: Mapping[str, object] | None = None
) -> GrantRequest:
    """Return the request for a root grant that a client makes: in its own name, if it proved one."""
    client.check_named()
    return read(form, attested(binding, client.workload), otherwise)


def attested(binding: Binding, workload: Workload | None) -> Binding:
    """Return a binding to a workload that proved who it is, too; None leaves the name to the broker."""
    if workload is None:
        return binding
    return replace(binding, identity=workload.id, claims=tuple(sorted(workload.claims.items())))


def audience(form: Form, issuer: str, gateway: str | None) -> str | None:
    """Return whom the token is to be for: None is the broker as a whole, and its gateway alone can be named.

    TargetError for anybody else (RFC 8707 §2), and for two.
    """
    named = {form[name] for name in TARGETS if name in form}
    if not named <= {issuer, gateway} or len(named) > 1:
        raise TargetError(help=f"the audience is `{issuer}`" + (f", or `{gateway}`" if gateway else ""))
    return None if named <= {issuer} else gateway
