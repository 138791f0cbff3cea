"""How servers describe their tools: what is held is looked at here, and accepted by the operator."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from remit.core import description
from remit.core.description import DescriptionChoice, KeptDescription
from remit.core.principal import Principal, Right
from remit.errors import InvalidRequestError
from remit.ports.broker import BrokerPort
from remit.web import wire
from remit.web.routes import AppDeps, Route

PLACE = "/v1/resources/{resource}/descriptions"


def routes(deps: AppDeps) -> tuple[Route, ...]:
    """Return the routes of the operator."""
    made = DescriptionRoutes(deps.broker)
    return (
        Route("GET", PLACE, made.descriptions, Right.OPERATE),
        Route("GET", f"{PLACE}/{{digest}}", made.text, Right.OPERATE),
        Route("POST", f"{PLACE}/accept", made.accept, Right.OPERATE),
    )


class DescriptionRoutes:
    """Descriptions of one broker."""

    def __init__(self, broker: BrokerPort) -> None:
        self._broker = broker

    async def descriptions(self, request: Request, _: Principal) -> Response:
        return await self._listed(request.path_params["resource"])

    async def _listed(self, name: str) -> Response:
        kept = await self._broker.descriptions(name)
        rule = description.policy((await self._broker.resource(name)).settings)
        return wire.listing({"resource": name, "counts": rule}, descriptions=map(_shown, kept))

    async def text(self, request: Request, _: Principal) -> Response:
        """Return one text that is kept: what was accepted, or what waits for that."""
        s256 = request.path_params["digest"]
        kept = await self._broker.descriptions(request.path_params["resource"])
        return wire.answer({"s256": s256, "text": description.text_of(kept, s256)})

    async def accept(self, request: Request, operator: Principal) -> Response:
        name, asked = request.path_params["resource"], await wire.document(request, frozenset({"descriptions"}))
        try:
            chosen = msgspec.convert(asked.get("descriptions"), list[DescriptionChoice])
        except msgspec.ValidationError as error:
            raise InvalidRequestError("`descriptions` is a list of `what`, `name` and `s256`") from error
        await self._broker.accept_descriptions(operator, name, chosen)
        return await self._listed(name)


def _shown(kept: KeptDescription) -> Mapping[str, object]:
    return {
        "what": kept.what,
        "name": kept.name,
        "state": "held" if kept.pending else "accepted",
        "accepted": list(kept.accepted),
        "pending": kept.pending or None,
        "changed_at": wire.instant(kept.at),
    }
