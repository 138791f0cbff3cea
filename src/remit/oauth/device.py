"""Asking from a device without a browser (RFC 8628): a code for the device, and a short one for its human to type.

Codes lead to a page, never to a decision: the human sees there what is asked, and by whom (§5.4).
"""

from __future__ import annotations

import hmac
import re
import secrets
from datetime import datetime, timedelta

from msgspec import Struct, structs
from starlette.requests import Request
from starlette.responses import Response

from remit import jose
from remit.console import pages
from remit.console.consent import ConsentPage
from remit.console.consent_session import ClientDisplay
from remit.core.approval import Approval
from remit.errors import InvalidRequestError, LimitError, RemitError
from remit.oauth import request_form
from remit.oauth.clients import FIELDS, Clients, OAuthClient
from remit.oauth.registry import Registry, asking
from remit.ports.identity import Registered
from remit.ports.pending import INTERVAL, REMEMBERED, PendingKind, PendingStore, Poll
from remit.web import wire
from remit.web.routes import AppDeps, Route

ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628 §6.1: no vowels, no words, no digits to mistake
GROUP = 4  # letters between dashes; the first group finds a request, the others are its secret
GROUPS = 3
GUESSES = 30  # at one request, by anybody, in ``WINDOW``: of 20^8, in ten minutes, about one chance in 10^8
WINDOW = timedelta(minutes=1)

_ASKED = request_form.FIELDS | request_form.TARGETS | FIELDS | {"purpose", "dpop_jkt"}
_TYPED = frozenset({"user_code"})
_NOISE = re.compile(r"[^A-Z]")
_UNKNOWN = "this code is not one that waits; check it, or start again on the device"


class _Shown(Struct, frozen=True):
    """What a code stands for, and when wrong ones were entered for it.

    Guesses at one request are counted at that request alone (RFC 8628 §5.1): if they were counted together, anybody
    could keep everybody's right codes from being taken.
    """

    approval: str
    about: ClientDisplay
    code: str  # its SHA-256
    wrong: tuple[datetime, ...] = ()


class Devices:
    """The device authorization endpoint, and the page where its human types the code."""

    def __init__(self, deps: AppDeps, consent: ConsentPage) -> None:
        self._broker, self._verifier = deps.broker, deps.verifier
        self._registry = deps.identity.clients or Registry()
        self._clients = Clients(deps.identity.workloads, deps.verifier)
        self._consent = consent
        self._polls = PendingStore(deps.verifier.pending, PendingKind.POLL, Poll)
        self._shown = PendingStore(deps.verifier.pending, PendingKind.DEVICE, _Shown)

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        client = self._clients.of(_ASKED, request_form.TARGETS)
        return (
            Route("POST", "/oauth/device_authorization", self.begin, authenticate=client),
            Route("GET", "/oauth/device", pages.shown(self.form), query=None),
            Route("POST", "/oauth/device", pages.shown(self.typed)),
        )

    async def begin(self, request: Request, client: OAuthClient) -> Response:
        """Return the two codes for a request (RFC 8628 §3.2)."""
        form, registered = client.form, await asking(self._registry, client)
        audience = request_form.audience(form, self._verifier)
        bound = await request_form.proven(form, client, self._verifier, request)
        item = await self._broker.ask_to_open(client.id, request_form.of_human(form, bound))
        now = self._verifier.clock()
        poll, life = Poll(item.id, client.id, now, audience=audience), item.expires_at - now + REMEMBERED
        device = await self._polls.keep(poll, life, room=item.room)
        return wire.answer(await self._codes(item, registered, device, now))

    async def _codes(self, item: Approval, client: Registered, device: str, now: datetime) -> dict[str, object]:
        groups = [""]
        while not groups[0] or await self._shown.find(groups[0]) is not None:
            groups = ["".join(secrets.choice(ALPHABET) for _ in range(GROUP)) for _ in range(GROUPS)]
        code, uri = "-".join(groups), f"{self._verifier.issuer}/oauth/device"
        about = ClientDisplay(client.called, client.warning, (("the code on the device", code),))
        await self._shown.keep(_Shown(item.id, about, jose.digest("".join(groups))), item.expires_at - now, groups[0])
        return {
            "device_code": device,
            "user_code": code,
            "verification_uri": uri,
            "verification_uri_complete": f"{uri}?user_code={code}",
            "expires_in": int((item.expires_at - now).total_seconds()),
            "interval": int(INTERVAL.total_seconds()),
        }

    async def form(self, request: Request) -> Response:
        """Ask for the code. One that came in the URL is filled in, and still has to be confirmed (RFC 8628 §3.3.1)."""
        return pages.code_form(wire.pairs(request.scope["query_string"], _TYPED).get("user_code", ""))

    async def typed(self, request: Request) -> Response:
        """Show what the code stands for."""
        typed = wire.text(await wire.form(request, _TYPED), "user_code")
        code = _NOISE.sub("", typed.upper())
        try:
            found = await self._found(code)
        except RemitError as error:
            return pages.code_form(typed[:20], pages.sentence(error.detail), error.status)
        return self._consent.show(await self._broker.look(found.approval), found.about)

    async def _found(self, code: str) -> _Shown:
        now = self._verifier.clock()
        while (found := await self._shown.find(code[:GROUP])) is not None:
            wrong = tuple(at for at in found.wrong if now - at < WINDOW)
            if len(wrong) >= GUESSES:
                raise LimitError("too many wrong codes were entered; wait a minute", retry_after=60)
            if hmac.compare_digest(jose.digest(code), found.code):
                return found
            if await self._shown.swap(code[:GROUP], found, structs.replace(found, wrong=(*wrong, now))):
                break  # else others guess at it too: all are counted
        raise InvalidRequestError(_UNKNOWN)
