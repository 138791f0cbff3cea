"""Rows as bytes, and back, exactly, or IntegrityError. Scopes are stored in wire form, which any tool can read.

Every field of a dataclass is stored under its name, those of a grant's parts beside its own; one added later needs a
default and nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TypeVar

import msgspec

from remit.core import scope as scopes
from remit.core import spiffe
from remit.core.request import Binding, Bounds
from remit.core.scope import Detail
from remit.core.task import Grant, Lease, Plan, TaskHeader
from remit.errors import IntegrityError, InvalidRequestError, RemitError
from remit.ports import Resource

T = TypeVar("T")

_EMPTY = {"type": "", "resource": "", "fields": ()}  # stands for a detail until its wire form is parsed
_NAMES: Mapping[type, tuple[str, ...]] = {
    kind: tuple(field.name for field in fields(kind)) for kind in (Grant, Bounds, Binding, Lease, Plan, Resource)
}
_encode = msgspec.json.Encoder(decimal_format="number").encode


def head_bytes(head: TaskHeader) -> bytes:
    return _written(head)


def grant_bytes(grant: Grant) -> bytes:
    row = _shallow(grant) | _shallow(grant.bounds) | _shallow(grant.binding)
    for name in ("bounds", "binding", "ttl", "identity"):  # told by what is beside them
        del row[name]
    return _written(row | {"attested": grant.attested, "scope": msgspec.Raw(scopes.text(grant.scope).encode())})


def lease_bytes(lease: Lease) -> bytes:
    plan = _shallow(lease.plan) | {"detail": msgspec.Raw(lease.plan.detail.json.encode())}
    return _written(_shallow(lease) | {"plan": plan})


def resource_bytes(resource: Resource) -> bytes:
    return _written(_shallow(resource) | {"bound": msgspec.Raw(scopes.text(resource.bound).encode())})


def read_head(data: bytes) -> TaskHeader:
    return _converted(data, TaskHeader)


def read_grant(data: bytes) -> Grant:
    raw = {"delegates": [spiffe.ANY], **_converted(data, dict[str, object])}
    bounds = _converted(raw, Bounds)
    binding = _converted(raw | {"identity": raw.get("agent") if raw.get("attested") else None}, Binding)
    grant = _converted(raw | {"scope": (), "bounds": {}}, Grant)
    lasts = grant.expires_at - grant.opened_at
    return replace(grant, scope=_scope(raw.get("scope")), bounds=replace(bounds, ttl=lasts), binding=binding)


def read_lease(data: bytes) -> Lease:
    raw = _converted(data, dict[str, object])
    plan = raw.get("plan")
    if not isinstance(plan, dict):
        raise IntegrityError
    lease = _converted(raw | {"plan": plan | {"detail": _EMPTY}}, Lease)
    return replace(lease, plan=replace(lease.plan, detail=_scope([plan.get("detail")])[0]))


def read_resource(data: bytes) -> Resource:
    raw = _converted(data, dict[str, object])
    bound = raw.get("bound")
    return replace(_converted(raw | {"bound": ()}, Resource), bound=_scope(bound) if bound else ())


def _shallow(row: Grant | Bounds | Binding | Lease | Plan | Resource) -> dict[str, object]:
    return {name: getattr(row, name) for name in _NAMES[type(row)]}


def _written(row: object) -> bytes:
    try:
        return _encode(row)
    except (TypeError, ValueError, OverflowError) as error:  # a lone surrogate, a naive type: not storable
        raise InvalidRequestError("the request holds a value that cannot be stored") from error


def _converted(raw: bytes | Mapping[str, object], kind: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=kind) if isinstance(raw, bytes) else msgspec.convert(raw, kind)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise IntegrityError from error


def _scope(raw: object) -> tuple[Detail, ...]:
    try:
        return scopes.read(raw)
    except RemitError as error:
        raise IntegrityError(
            f"a stored detail cannot be read: {error.detail}", help="is a kind missing that `[kinds]` named before?"
        ) from error
