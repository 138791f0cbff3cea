"""``/v1/runs``: asking for a run, on the operator's socket or, inside a run, on its channel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from remit.core import fields
from remit.core import request as requests
from remit.core.principal import Principal, Right
from remit.core.request import GrantRequest
from remit.core.secret import Secret
from remit.errors import InvalidRequestError, NotFoundError
from remit.ports.runs import DelegatedToRun, HeldByRun, LaunchRequest, OpenedForRun
from remit.web import wire
from remit.web.authentication import SocketAuth, listener_of
from remit.web.routes import BeginRun, Route

AUTHORITY = frozenset({"open", "delegate", "grant"})


class RunRoutes:
    """The beginning of runs; what follows is a matter of the hand-over."""

    def __init__(self, begin_run: BeginRun, end_runs: Callable[[], Awaitable[int]] | None = None) -> None:
        self._begin_run, self._end_runs = begin_run, end_runs

    def routes(self) -> tuple[Route, ...]:
        begin = Route("POST", "/v1/runs", self.begin, Right.ACT)
        return (begin,) if self._end_runs is None else (begin, Route("POST", "/v1/runs/end", self.end, Right.OPERATE))

    async def begin(self, request: Request, _: Principal) -> Response:
        """Begin a run: answer with what its launcher has to bind, and a ticket with which it hands that over."""
        listener = listener_of(request)
        if not isinstance(listener, SocketAuth):
            raise NotFoundError("there is nothing here")
        asked = await wire.document(request, AUTHORITY | {"isolation", "folder", "lasts", "servers", "stdio"})
        isolation, folder = wire.text(asked, "isolation"), wire.text(asked, "folder")
        stdio = wire.text(asked, "stdio") if "stdio" in asked else None
        servers = fields.flag("servers", asked.get("servers", False))
        launch = LaunchRequest(_authority(asked), isolation, folder, _lasts(asked), servers=servers, stdio=stdio)
        offer = await self._begin_run(listener.holder, launch, listener.run)
        answer = {
            "run": offer.run,
            "task": offer.task,
            "grant": offer.grant,
            "expires_at": wire.instant(offer.ends),
            "listeners": [each.wire() for each in offer.listeners],
            "ticket": offer.ticket.reveal(),
            "handover": offer.handover,
            "hosts": [] if offer.reach is None else offer.reach.names,
            "certificate": None if offer.reach is None else offer.reach.certificate,
        }
        return wire.answer(answer, 201)

    async def end(self, request: Request, _: Principal) -> Response:
        """End every run, and what was made for it, before the broker is stopped for good."""
        await wire.nothing(request)
        assert self._end_runs is not None  # noqa: S101 - else there is no such route
        return wire.answer({"ended": await self._end_runs()})


def _authority(asked: Mapping[str, object]) -> OpenedForRun | DelegatedToRun | HeldByRun:
    """Read what a run shall have: exactly one of three."""
    match {name: asked[name] for name in AUTHORITY & asked.keys()}:
        case {"open": dict(members), **rest} if not rest:
            token = wire.text(members, "id_token") if "id_token" in members else None
            return OpenedForRun(_requested(members, "id_token"), None if token is None else Secret(token))
        case {"delegate": dict(members), **rest} if not rest:
            parent = wire.text(members, "parent") if "parent" in members else None
            return DelegatedToRun(_requested(members, "parent"), parent)
        case {"grant": str(grant), **rest} if not rest:
            return HeldByRun(grant)
    raise InvalidRequestError("a launch names one of `open`, `delegate` and `grant`")


def _lasts(asked: Mapping[str, object]) -> timedelta | None:
    if "lasts" not in asked:
        return None
    lasts, most = wire.seconds("lasts", asked["lasts"]), int(requests.MAX_LIFE.total_seconds())
    if "open" not in asked or lasts > requests.MAX_LIFE:
        raise InvalidRequestError(f"`lasts` is for a task that the run opens, and at most {most} seconds")
    return lasts


def _requested(members: Mapping[str, object], more: str) -> GrantRequest:
    wire.only(members, requests.FIELDS | {more})
    return requests.read(members)
