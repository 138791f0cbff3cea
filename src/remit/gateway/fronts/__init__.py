"""Fronts: how a listener tells from a request's head who asks and for what. To add one, implement ``Front``."""

from __future__ import annotations

from typing import Protocol

from remit.core.principal import Holder
from remit.gateway.canon import RequestTarget
from remit.gateway.framing import Fields
from remit.gateway.fronts.discovery import Discovery


class Front(Protocol):
    """The front of one listening socket. ``bound_grant``: the one of all its requests, if it is bound.

    What it returns is all that the gateway goes by; it reads heads alone, and never a body.
    """

    bound_grant: str | None
    discovery: Discovery | None  # what is told to whoever has no token; None where nobody shows any

    def check(self, fields: Fields) -> None:
        """Raise for a header section that is not addressed to this listener. Asked once for equal sections."""

    async def principal(self, method: str, raw: bytes, fields: Fields) -> Holder:
        """Return who proves a grant by a request, where there is no channel; ``raw`` is its target as it came."""

    def target(self, raw: bytes, fields: Fields) -> RequestTarget:
        """Return the resource and the canonical target at it, or raise InvalidRequestError."""
