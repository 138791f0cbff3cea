"""Grant requests from flat keyword arguments, for tests that vary one member at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from remit.core.request import Binding, Bounds, GrantRequest

_BOUNDS = {field.name for field in fields(Bounds)}
_BINDING = {field.name for field in fields(Binding)}
_IDENTITY = {"agent", "attested"}
MEMBERS = _BOUNDS | _BINDING | _IDENTITY


def changed(request: GrantRequest, more: Mapping[str, object]) -> GrantRequest:
    """Return a request with other members; those of its parts are named as if they were its own.

    ``attested`` with ``agent`` stands for the identity that it is bound to.
    """
    if more.get("attested"):
        more = {**more, "identity": more.get("agent", "")}
    claims = more.get("claims")
    if isinstance(claims, Mapping):
        more = {**more, "claims": tuple(sorted(claims.items()))}
    bounds = {name: value for name, value in more.items() if name in _BOUNDS}
    binding = {name: value for name, value in more.items() if name in _BINDING}
    own = {name: value for name, value in more.items() if name not in MEMBERS}
    return replace(
        request,
        bounds=replace(request.bounds, **bounds),  # type: ignore[arg-type]  # fields of Bounds
        binding=replace(request.binding, **binding),  # type: ignore[arg-type]  # fields of Binding
        **own,  # type: ignore[arg-type]  # fields of GrantRequest
    )
