"""The six verbs and the sweep: the only caller of engines and stores."""

from remit.broker.heads import Holder, Operator
from remit.broker.use import Use
from remit.broker.verbs import Broker, IssuedLease

__all__ = ["Broker", "Holder", "IssuedLease", "Operator", "Use"]
