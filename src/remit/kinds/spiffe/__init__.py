"""SVIDs of the broker's own trust domain; a run has them from its own SPIFFE Workload API."""

from __future__ import annotations

from remit.core import orders
from remit.core.scope import Field
from remit.core.secret import Secret
from remit.core.task import Plan
from remit.errors import UnavailableError
from remit.ports import Engine, Resource
from remit.ports.identity import Authority
from remit.ports.kind import EngineContext, Kind, LeaseRequest, SocketAccess, SocketContext, SocketServer

MAX_LIFE = 3_600  # seconds of an SVID's life: it ends by expiry alone


def _engine(resource: Resource, secret: Secret | None, context: EngineContext) -> Engine:
    from remit.kinds.spiffe.engine import SpiffeEngine

    return SpiffeEngine(resource, secret, authority=_own(context), issuer=context.issuer, clock=context.clock)


def _plan(resource: Resource, context: EngineContext, wanted: LeaseRequest) -> Plan:
    from remit.kinds.spiffe import engine

    return engine.plan(resource, _own(context).trust_domain, wanted)


def _check(resource: Resource, secret: Secret | None, context: EngineContext) -> None:
    from remit.kinds.spiffe import engine

    engine.check(resource, _own(context).trust_domain)


def _own(context: EngineContext) -> Authority:
    if context.authority is None:
        raise UnavailableError("SVIDs are made where the broker's own keys are")
    return context.authority


def _server(context: SocketContext) -> SocketServer:
    from remit.kinds.spiffe.listen import WorkloadApi

    return WorkloadApi(context)


KIND = Kind(
    name="spiffe",
    table={
        "actions": Field(orders.among("x509", "jwt"), required=True, label="may"),
        "audiences": Field(orders.AUDIENCES, default=()),
        "ttl": Field(orders.seconds(MAX_LIFE), default=MAX_LIFE, label="each credential for"),
    },
    schemes=("spiffe",),
    destination="spiffe://trust-domain",
    docs="docs/reference/engines/spiffe.md",
    check=_check,
    access=SocketAccess("workload", "SPIFFE_ENDPOINT_SOCKET", _server),
    engine=_engine,
    plan=_plan,
    keyless=True,
)
