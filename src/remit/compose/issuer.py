"""The broker as the SPIFFE authority of its own trust domain: keys, engine, Workload API."""

from __future__ import annotations

from remit.broker import Broker
from remit.config.settings import Settings
from remit.errors import UnavailableError
from remit.keys.authority import FileAuthority
from remit.kinds.spiffe.calls import Federation
from remit.kinds.spiffe.listen import WorkloadApi
from remit.ports import Clock, Sealer
from remit.ports.identity import Authority


def authority(settings: Settings, sealer: Sealer, clock: Clock) -> FileAuthority:
    """Open the keys of the broker's own trust domain."""
    return FileAuthority(settings.places.state / "keys", sealer, settings.identity.trust_domain, clock)


def workload_api(
    broker: Broker, domain: Authority, clock: Clock, federation: Federation | None = None
) -> WorkloadApi | None:
    """Return the Workload API for runs, or None when the extra that it needs is not installed."""
    try:
        return WorkloadApi(broker, domain, clock, federation)
    except UnavailableError:
        return None
