"""The six verbs and the sweep: the only caller of engines and stores."""

from remit.broker.broker import Broker, IssuedLease
from remit.broker.uses import Use

__all__ = ["Broker", "IssuedLease", "Use"]
