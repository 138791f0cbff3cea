"""Whom a token is for: what was asked at the start, or less (RFC 8707 §2.2), and what its grant is for. Pure.

None is the broker as a whole. It holds the gateway, by its URL, and that each resource there: ``gateway/NAME``.
"""

from __future__ import annotations

from remit.core.request import Binding
from remit.core.scope import Scope
from remit.errors import TargetError


def narrowed(meant: str | None, named: str | None) -> str | None:
    """Return whom a token is for that was ``meant`` for one audience, and is ``named`` for another: the same, or less.

    So it is for whatever is handed out once and redeemed later, and for every token of a family.
    """
    if meant is not None and named != meant and not (named or "").startswith(f"{meant}/"):
        raise TargetError("this was asked for with another audience", help="ask for the same, for less, or for none")
    return named


def settled(audience: str | None, scope: Scope, binding: Binding, issuer: str, gateway: str | None) -> str | None:
    """Return whom a token for a grant would be for; TargetError where none can be made for this audience.

    A grant has the whole broker, the gateway, and what its scope names there; that of a bearer its one resource alone.
    """
    own = {f"{gateway}/{detail.resource}" for detail in scope} if gateway is not None else set()
    if binding.bearer is None:
        if audience not in {None, issuer, gateway} | own:
            raise TargetError("the grant is not for this audience", help="name a resource that is asked for, or none")
        return audience
    endpoint = f"{gateway}/{binding.bearer}"
    if gateway is None or audience not in {None, endpoint}:
        raise TargetError("a bearer's token is for its one resource at the gateway")
    return endpoint
