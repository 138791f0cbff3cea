"""The token status list on the wire (draft-ietf-oauth-status-list): signed, public, never older than the last end."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from remit.jose import status_list, token
from remit.ports.broker import PLACES
from remit.web import wire
from remit.web.routes import AppDeps, Route

LIST = token.STATUS
AGGREGATION = "/oauth/status"


@dataclass(frozen=True, slots=True)
class _Made:
    """A status list token: for which second and by which key, and how many ends it knows of."""

    made_for: tuple[int, str]
    ends: int
    text: str


class Statuses:
    """Who is live, for those who ask no broker. A list is made at most once a second, and anew when a grant ends."""

    def __init__(self, surface: AppDeps) -> None:
        """Tell of ``surface``'s grants, signed with the key that signs tokens."""
        self._broker, self._verifier = surface.broker, surface.verifier
        self._made: _Made | None = None

    def rows(self) -> tuple[Route, ...]:
        """Return the routes: the list, and the list of lists (§9.3)."""
        return (Route("GET", LIST, self.token), Route("GET", AGGREGATION, self.lists))

    async def token(self, request: Request) -> Response:
        """Return the status list token, as of now: of another ``time`` nothing is known (§8.4)."""
        if "time" in wire.pairs(request.scope["query_string"], frozenset({"time"})):
            error = {"error": "invalid_request", "error_description": "there is no list of another time"}
            return wire.answer(error, HTTPStatus.NOT_IMPLEMENTED)
        return Response(await self.current(), headers=wire.HEADERS, media_type=status_list.MEDIA)

    async def lists(self, request: Request) -> Response:
        """Return where all status lists are."""
        del request
        return wire.answer({"status_lists": [self._verifier.issuer + LIST]})

    async def current(self) -> str:
        """Return the status list token as of now."""
        signer = self._verifier.keys.signer
        made_for = (self._verifier.now(), signer.kid)
        known = self._made.ends if self._made is not None and self._made.made_for == made_for else None
        live = await self._broker.status_places(known)
        if live is not None:
            packed = status_list.live(live.places, PLACES)
            claims = status_list.claims(self._verifier.issuer + LIST, packed, self._verifier.now())
            text = token.mint(claims, signer.kid, signer.alg, signer.sign, typ=status_list.TYPE)
            self._made = _Made(made_for, live.ends, text)
        assert self._made is not None  # noqa: S101 - of what was made, the broker says that nothing has ended since
        return self._made.text
