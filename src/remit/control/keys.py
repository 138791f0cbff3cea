"""Signing keys on the wire: which there are, and their rotation. For the operator alone."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from remit.core.principal import Principal
from remit.jose.keys import PublishedKey
from remit.web import wire
from remit.web.authentication import operator
from remit.web.routes import AppDeps, Rings, Route, Who


def rows(surface: AppDeps) -> tuple[Route, ...]:
    """Return the routes; there are none where the keys are somebody else's."""
    if surface.rings is None:
        return ()
    served = Served(surface.rings)
    return (
        Route("GET", "/v1/keys", Who.OPERATOR, served.show),
        Route("POST", "/v1/keys/{ring}/rotate", Who.OPERATOR, served.rotate),
        Route("POST", "/v1/keys/{ring}/{kid}/revoke", Who.OPERATOR, served.revoke),
    )


class Served:
    """The handlers over the rings of one broker."""

    def __init__(self, rings: Rings) -> None:
        """Serve ``rings``."""
        self._rings = rings

    async def show(self, request: Request, caller: Principal) -> Response:
        """List the public halves that verify, by ring."""
        del request
        operator(caller)
        return wire.answer({"rings": {name: _shown(keys) for name, keys in self._rings.published().items()}})

    async def rotate(self, request: Request, caller: Principal) -> Response:
        """Have a new key sign."""
        await wire.nothing(request)
        ring: str = request.path_params["ring"]
        return wire.answer({"ring": ring, "signing": await self._rings.rotate(operator(caller), ring)})

    async def revoke(self, request: Request, caller: Principal) -> Response:
        """End what a key has signed."""
        await wire.nothing(request)
        ring, kid = request.path_params["ring"], request.path_params["kid"]
        return wire.answer(
            {"ring": ring, "revoked": kid, "signing": await self._rings.revoke(operator(caller), ring, kid)}
        )


def _shown(keys: Sequence[PublishedKey]) -> list[dict[str, object]]:
    return [
        {
            "kid": key.kid,
            "alg": key.alg,
            "signing": key.signing,
            "until": None if key.until is None else wire.instant(key.until),
        }
        for key in keys
    ]
