"""The six verbs and the sweep: the only caller of engines and stores."""

from remit.broker.broker import Broker, IssuedLease
from remit.broker.tasks import Holder, Operator
from remit.broker.uses import Use

__all__ = ["Broker", "Holder", "IssuedLease", "Operator", "Use"]
