"""What answers the calls of a worker, in the authority."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from remit.core.principal import Human
from remit.errors import DeniedError, IntegrityError
from remit.ports.identity import SignedHumans


@dataclass(frozen=True, slots=True)
class Answering:
    """The implementations of the protocols that a worker knows, and of ``SignedHumans`` if anybody is believed."""

    ports: Sequence[object]

    async def answer(self, name: str, arguments: Mapping[str, object]) -> object:
        """Answer a call. A human who is named in it is whom their issuer's signature names, whatever else is said."""
        known = [port for port in self.ports if hasattr(port, name)]
        if not known:
            raise IntegrityError("there is no such call here")
        does: Callable[..., Awaitable[object]] = getattr(known[0], name)
        humans = {each: await self._confirmed(value) for each, value in arguments.items() if isinstance(value, Human)}
        return await does(**{**arguments, **humans})

    async def _confirmed(self, value: Human) -> Human:
        issuers = [port for port in self.ports if hasattr(port, "confirm")]
        if not issuers:
            raise DeniedError("nobody is believed to be a human here: no issuer is configured")
        return await cast("SignedHumans", issuers[0]).confirm(value)
