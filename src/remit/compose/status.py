"""How a broker is, for its operator: its processes, where it listens, what this kernel lacks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from remit.config.settings import Settings
from remit.process.orders import ProcessesState
from remit.web import wire


def addresses(settings: Settings, *, tcp: bool) -> Mapping[str, str | None]:
    """Return where a broker listens, by the names of its listeners; None: it does not."""
    api, gateway, tls = (settings.api, settings.gateway, settings.tls) if tcp else (None, None, None)
    return {
        "control": str(settings.places.control),
        "api": None if api is None else api.url,
        "gateway": None if gateway is None else gateway.url,
        "tls": None if tls is None else tls.url,
    }


def described(state: ProcessesState | None) -> Mapping[str, object]:
    """Describe the processes; None: nobody supervises this one, and all is in it."""
    processes = [] if state is None else state.processes
    return {
        "supervised": state is not None,
        "processes": [
            {
                "name": one.name,
                "pid": one.pid,
                "since": wire.instant(datetime.fromtimestamp(one.since, UTC)),
                "restarts": one.restarts,
                "walls": list(one.walls),
            }
            for one in processes
        ],
        "lacks": [] if state is None else list(state.lacks),
    }
