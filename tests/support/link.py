"""Where a test's edges get their broker from: the broker itself, or one end of a link (`REMIT_LINK=loopback`)."""

from __future__ import annotations

import os

from remit.link.loopback import loopback
from remit.ports.broker import BrokerPort


def edge_of(broker: BrokerPort) -> BrokerPort:
    """Return the broker as a test's edges know it."""
    return loopback(broker) if os.environ.get("REMIT_LINK") == "loopback" else broker
