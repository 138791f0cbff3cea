"""Where a test's edges get their broker from: the broker itself, or one end of a link (`REMIT_LINK=loopback`).

Messages of a link, as they are sent.
"""

from __future__ import annotations

import os

from remit.link.frames import frame
from remit.link.loopback import Port, loopback
from remit.link.values import encode


def edge_of(broker: Port) -> Port:
    """Return the broker, or what it keeps for edges, as a test's edges know it."""
    return loopback(broker) if os.environ.get("REMIT_LINK") == "loopback" else broker


def sent(message: object) -> bytes:
    """Return a message of a link as it is sent."""
    return frame(encode(message))
