"""The token status list on the wire (draft-ietf-oauth-status-list): signed, public, never older than the last end."""

from __future__ import annotations

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from remit.broker.tasks import PLACES
from remit.jose import status_list, token
from remit.web import wire
from remit.web.routes import AppDeps, Route

LIST = token.STATUS
AGGREGATION = "/oauth/status"


class Statuses:
    """Who is live, for those who ask no broker. A list is made at most once a second, and anew when a grant ends."""

    def __init__(self, surface: AppDeps) -> None:
        """Tell of ``surface``'s grants, signed with the key that signs tokens."""
        self._broker, self._verifier = surface.broker, surface.verifier
        self._made: tuple[tuple[int, str], str] | None = None  # for which second, and signed with which key
        surface.broker.on_end(self._ended)

    def rows(self) -> tuple[Route, ...]:
        """Return the routes: the list, and the list of lists (§9.3)."""
        return (Route("GET", LIST, self.token), Route("GET", AGGREGATION, self.lists))

    async def token(self, request: Request) -> Response:
        """Return the status list token, as of now: of another ``time`` nothing is known (§8.4)."""
        if "time" in wire.pairs(request.scope["query_string"], frozenset({"time"})):
            error = {"error": "invalid_request", "error_description": "there is no list of another time"}
            return wire.answer(error, HTTPStatus.NOT_IMPLEMENTED)
        return Response(self.current(), headers=wire.HEADERS, media_type=status_list.MEDIA)

    async def lists(self, request: Request) -> Response:
        """Return where all status lists are."""
        del request
        return wire.answer({"status_lists": [self._verifier.issuer + LIST]})

    def current(self) -> str:
        """Return the status list token as of now."""
        signer = self._verifier.keys.signer
        made_for = (self._verifier.now(), signer.kid)
        if self._made is None or self._made[0] != made_for:
            packed = status_list.live(self._broker.places(), PLACES)
            claims = status_list.claims(self._verifier.issuer + LIST, packed, self._verifier.now())
            self._made = made_for, token.mint(claims, signer.kid, signer.alg, signer.sign, typ=status_list.TYPE)
        return self._made[1]

    def _ended(self, grants: frozenset[str]) -> None:
        del grants
        self._made = None
