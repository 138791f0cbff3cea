"""Asking from a device without a browser (RFC 8628): a code for the device, and a short one for its human to type.

Codes lead to a page, never to a decision: the human sees there what is asked, and by whom (§5.4).
"""

from __future__ import annotations

import re
import secrets
from collections import deque
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response

from remit.api import asked, pages, wire
from remit.api.authorize import keyed, proven_key
from remit.api.clients import FIELDS, Clients
from remit.api.codes import INTERVAL, REMEMBERED, Poll, Waiting
from remit.api.deciding import About, Desk
from remit.api.held import Held
from remit.api.registry import Registered
from remit.api.routes import Row, Surface, Who
from remit.core.approval import Approval
from remit.errors import InvalidRequestError, LimitError, RemitError

ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628 §6.1: no vowels, no words, no digits to mistake
HALF = 4  # characters on each side of the dash
GUESSES = 30  # wrong codes, by anybody, in ``WINDOW``: of 20^8, in ten minutes, about one chance in 10^8 per code
WINDOW = timedelta(minutes=1)

_ASKED = asked.BOUNDS | asked.TARGETS | FIELDS | {"purpose", "dpop_jkt"}
_TYPED = frozenset({"user_code"})
_NOISE = re.compile(r"[^A-Z]")


class Devices:
    """The device authorization endpoint, and the page where its human types the code."""

    def __init__(self, surface: Surface, desk: Desk, waiting: Waiting) -> None:
        """Ask the broker of ``surface``; ``desk`` has humans decide, ``waiting`` keeps what devices come back with."""
        self._broker, self._verifier = surface.broker, surface.verifier
        self._registry = surface.identity.clients
        self._clients = Clients(surface.identity.workloads, surface.verifier.issuer)
        self._desk, self._polls = desk, waiting.polls
        self._shown: Held[tuple[Approval, Registered]] = Held(surface.verifier.clock)  # by the code that humans type
        self._wrong: deque[datetime] = deque(maxlen=GUESSES)

    def rows(self) -> tuple[Row, ...]:
        """Return the routes."""
        return (
            Row("POST", "/oauth/device_authorization", Who.PROVING, self.begin),
            Row("GET", "/oauth/device", Who.PUBLIC, pages.shown(self.form), _TYPED),
            Row("POST", "/oauth/device", Who.PUBLIC, pages.shown(self.typed)),
        )

    async def begin(self, request: Request) -> Response:
        """Return the two codes for a request (RFC 8628 §3.2)."""
        form = await wire.form(request, _ASKED, asked.TARGETS)
        client = await self._clients.authenticate(request, form)
        registered = await self._registry.asking(client)
        audience = asked.audience(form, self._verifier.issuer, self._verifier.gateway)
        wanted = asked.of_human(form)
        wanted = keyed(keyed(wanted, form.get("dpop_jkt")), proven_key(self._verifier, request))
        wanted = asked.attested(wanted, client.workload)
        item = await self._broker.ask_to_open(client.id, wire.text(form, "purpose"), wanted)
        now = self._verifier.clock()
        device = self._polls.put(Poll(item.id, client.id, now, audience=audience), item.expires_at - now + REMEMBERED)
        return wire.answer(self._codes(item, registered, device, now))

    def _codes(self, item: Approval, client: Registered, device: str, now: datetime) -> dict[str, object]:
        typed = "".join(secrets.choice(ALPHABET) for _ in range(2 * HALF))
        self._shown.put((item, client), item.expires_at - now, typed)
        code, uri = _dashed(typed), f"{self._verifier.issuer}/oauth/device"
        return {
            "device_code": device,
            "user_code": code,
            "verification_uri": uri,
            "verification_uri_complete": f"{uri}?user_code={code}",
            "expires_in": int((item.expires_at - now).total_seconds()),
            "interval": int(INTERVAL.total_seconds()),
        }

    # -- the human ----------------------------------------------------------------------------------------------

    async def form(self, request: Request) -> Response:
        """Ask for the code. One that came in the URL is filled in, and still has to be confirmed (RFC 8628 §3.3.1)."""
        return pages.code_form(wire.pairs(request.scope["query_string"], _TYPED).get("user_code", ""))

    async def typed(self, request: Request) -> Response:
        """Show what the code stands for."""
        typed = wire.text(await wire.form(request, _TYPED), "user_code")
        code = _NOISE.sub("", typed.upper())
        try:
            item, client = self._found(code)
        except RemitError as error:
            return pages.code_form(typed[:20], f"{error.detail[:1].upper()}{error.detail[1:]}.", error.status)
        about = About(client.name, client.warning, (("the code on the device", _dashed(code)),))
        return self._desk.show(self._broker.approval(item.id), about)

    def _found(self, code: str) -> tuple[Approval, Registered]:
        """Return what a code stands for. Wrong ones are counted together: a guesser is nobody in particular (§5.1)."""
        now = self._verifier.clock()
        while self._wrong and now - self._wrong[0] >= WINDOW:
            self._wrong.popleft()
        if len(self._wrong) >= GUESSES:
            raise LimitError("too many wrong codes were entered; wait a minute", retry_after=60)
        found = self._shown.get(code)
        if found is None:
            self._wrong.append(now)
            raise InvalidRequestError("this code is not one that waits; check it, or start again on the device")
        return found


def _dashed(code: str) -> str:
    return f"{code[:HALF]}-{code[HALF:]}"
