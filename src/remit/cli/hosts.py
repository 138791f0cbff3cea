"""Hosts that a run is to reach itself: from the resources, or the grant, that have them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from remit.cli import options
from remit.core.orders import HOSTS
from remit.errors import InvalidRequestError
from remit.ports.kind import TunnelAccess


def details(hosts: Sequence[str], known: Sequence[Mapping[str, object]]) -> list[options.Detail]:
    """Return details with the hosts, each of the first one that is there for it, or raise InvalidRequestError."""
    fields = {
        kind.name: kind.access.field for kind in options.kinds().values() if isinstance(kind.access, TunnelAccess)
    }
    there = [(item, fields[str(item["type"])]) for item in known if item["type"] in fields]
    found: dict[int, list[str]] = defaultdict(list)
    if hosts:
        HOSTS.parse("--egress", list(hosts))
    for host in dict.fromkeys(hosts):
        of = (at for at, (item, field) in enumerate(there) if HOSTS.le((host,), HOSTS.parse(field, item[field])))
        at = next(of, None)
        if at is None:
            raise InvalidRequestError(
                f"nothing that is there lets `{host}` through", help=f"`remit resource add NAME egress:{host}` does"
            )
        found[at].append(host)
    return [{**there[at][0], there[at][1]: listed} for at, listed in found.items()]
