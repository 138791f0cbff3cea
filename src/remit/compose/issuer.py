"""The broker as the SPIFFE authority of its own trust domain: keys, engine, Workload API."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from remit.broker import Broker
from remit.compose.settings import Settings
from remit.core import spiffe
from remit.core.secret import Secret
from remit.errors import InvalidRequestError, UnavailableError
from remit.keys.authority import FileAuthority
from remit.kinds.spiffe import engine as svids
from remit.kinds.spiffe.calls import Federation
from remit.kinds.spiffe.listen import WorkloadApi
from remit.ports import Clock, Engine, Resource, Sealer
from remit.ports.identity import Authority

TEND = 60.0  # seconds between looks at what is to be rotated, or is published no longer


def authority(settings: Settings, sealer: Sealer, clock: Clock) -> FileAuthority:
    """Open the keys of the broker's own trust domain.

    Nobody else may be configured as its authority, and the broker not as anybody else's: an SVID that it made itself
    would let its agents in as what somebody attests.
    """
    name = settings.trust_domain
    if spiffe.parse(f"spiffe://{name}").path:
        raise InvalidRequestError("`identity.trust_domain` must be the name of a trust domain, without a path")
    if name in _configured(settings, "trust_domains", "name"):
        raise InvalidRequestError(
            f"`trust_domains` names `{name}`, of which the broker itself is the authority",
            help="set `identity.trust_domain` to a name of the broker's own",
        )
    for part in ("humans", "workloads"):
        if settings.issuer in _configured(settings, part, "issuer"):
            raise InvalidRequestError(f"`{part}` names the broker itself as an issuer", help="it believes others alone")
    return FileAuthority(settings.places.state / "keys", sealer, name, clock)


def _configured(settings: Settings, part: str, key: str) -> set[str]:
    """Return what the tables of a part of the configuration have under a key."""
    tables = settings.parts.get(part, ())
    found = [table.get(key) for table in tables if isinstance(table, Mapping)] if isinstance(tables, list) else []
    return {value.rstrip("/") for value in found if isinstance(value, str)}


def engine(domain: Authority, issuer: str, clock: Clock) -> Callable[[Resource, Secret | None], Engine]:
    """Return what makes the engine of a resource of kind ``spiffe``."""
    return lambda resource, secret: svids.SpiffeEngine(resource, secret, authority=domain, issuer=issuer, clock=clock)


def check(domain: Authority) -> Callable[[Resource, Secret | None], None]:
    """Return what checks a resource of kind ``spiffe``."""
    return lambda resource, _: svids.check(resource, domain.trust_domain)


def workload_api(
    broker: Broker, domain: Authority, clock: Clock, federation: Federation | None = None
) -> WorkloadApi | None:
    """Return the Workload API for runs, or None when the extra that it needs is not installed."""
    try:
        return WorkloadApi(broker, domain, clock, federation)
    except UnavailableError:
        return None
