"""The six verbs and the sweep: the only caller of engines and stores."""

from remit.broker.broker import Broker

__all__ = ["Broker"]
