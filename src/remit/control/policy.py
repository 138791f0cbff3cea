"""Policies on the wire: which hold, why they decide as they do, and the reload. For the operator alone."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from remit.broker import Broker
from remit.core.principal import Principal
from remit.web import wire
from remit.web.authentication import operator
from remit.web.routes import AppDeps, Policies, Route, Who


def rows(surface: AppDeps) -> tuple[Route, ...]:
    """Return the routes; there are none where nothing is told of policies."""
    if surface.policies is None:
        return ()
    served = Served(surface.broker, surface.policies)
    return (
        Route("GET", "/v1/policy", Who.OPERATOR, served.show),
        Route("POST", "/v1/policy/reload", Who.OPERATOR, served.reload),
        Route("GET", "/v1/policy/explain/{grant}", Who.OPERATOR, served.explain),
    )


class Served:
    """The handlers over one broker and what it decides by."""

    def __init__(self, broker: Broker, policies: Policies) -> None:
        """Serve ``policies``."""
        self._broker, self._policies = broker, policies

    async def show(self, request: Request, caller: Principal) -> Response:
        """Return which policies hold, and what was wrong when they were last to be replaced."""
        del request
        operator(caller)
        return wire.answer(self._policies.shown())

    async def reload(self, request: Request, caller: Principal) -> Response:
        """Load the policies anew; what they do not allow has ended when this answers."""
        await wire.nothing(request)
        return wire.answer(await self._policies.reload(operator(caller)))

    async def explain(self, request: Request, caller: Principal) -> Response:
        """Say how the policies decide on a grant now, whether it is live or not."""
        operator(caller)
        question = self._broker.question(request.path_params["grant"])
        return wire.answer({"grant": request.path_params["grant"], **self._policies.explained(question)})
