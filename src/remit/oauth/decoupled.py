"""Asking where the client has no browser: from a device (RFC 8628), and one human from afar (OpenID Connect CIBA).

A device gets a code, and a short one for its human to type: codes lead to a page, never to a decision, and the human
sees there what is asked, and by whom (RFC 8628 §5.4). From afar (CIBA, poll mode) the client names the human: remit
keeps no list of them, so by issuer and subject, or by an ID token of theirs. They find what waits for them by the link
in the answer or in the list of approvals, and log in to decide. No ID token comes of it.
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
from remit.console.pages import ClientDisplay
from remit.core.approval import Approval
from remit.core.legible import is_legible
from remit.core.request import MAX_LABEL
from remit.errors import InvalidRequestError, LimitError, RemitError, UnauthenticatedError
from remit.oauth import token_requests
from remit.oauth.clients import Clients, OAuthClient
from remit.oauth.registry import Registry, asking
from remit.ports.identity import Registered
from remit.ports.pending import INTERVAL, REMEMBERED, PendingKind, PendingStore, Poll
from remit.web import wire
from remit.web.routes import AppDeps, Route
from remit.web.wire import Form

ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628 §6.1: no vowels, no words, no digits to mistake
GROUP = 4  # letters between dashes; the first group finds a request, the others are its secret
GROUPS = 3
GUESSES = 30  # at one request, by anybody, in ``WINDOW``: of 20^8, in ten minutes, about one chance in 10^8
WINDOW = timedelta(minutes=1)

_HINTS = ("login_hint", "id_token_hint", "login_hint_token")
_DEVICE = token_requests.OPENING | {"dpop_jkt"}
_AFAR = (_DEVICE - {"label"}) | frozenset(_HINTS) | {"scope", "binding_message", "requested_expiry"}
_TYPED = frozenset({"user_code"})
_NOISE = re.compile(r"[^A-Z]")
_UNKNOWN = "this code is not one that waits; check it, or start again on the device"
_HOW = "as a workload: by an SVID, a certificate, a WIT or a token of its platform"


class _Shown(Struct, frozen=True):
    """What a user code stands for, and when wrong ones were entered for it.

    Guesses at one request are counted at that request alone (RFC 8628 §5.1): if they were counted together, anybody
    could keep everybody's right codes from being taken.
    """

    approval: str
    about: ClientDisplay
    code: str  # its SHA-256
    wrong: tuple[datetime, ...] = ()


class DecoupledFlows:
    """The device authorization endpoint, the page where its human types the code, and the backchannel endpoint."""

    def __init__(self, deps: AppDeps, consent: ConsentPage) -> None:
        self._broker, self._verifier, self._identity = deps.broker, deps.verifier, deps.identity
        self._registry, self._consent = deps.identity.clients or Registry(), consent
        self._clients = Clients(deps.identity.workloads, deps.verifier)
        self._polls = PendingStore(deps.verifier.pending, PendingKind.POLL, Poll)
        self._shown = PendingStore(deps.verifier.pending, PendingKind.DEVICE, _Shown)

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        device, afar = self._clients.of(_DEVICE), self._clients.of(_AFAR)
        return (
            Route("POST", "/oauth/device_authorization", self.device, authenticate=device),
            Route("GET", "/oauth/device", pages.shown(self.form), query=None),
            Route("POST", "/oauth/device", pages.shown(self.typed)),
            Route("POST", "/oauth/bc-authorize", self.backchannel, authenticate=afar),
        )

    # -- from a device ------------------------------------------------------------------------------------------

    async def device(self, _: Request, client: OAuthClient) -> Response:
        """Return the two codes for a request (RFC 8628 §3.2)."""
        registered = await asking(self._registry, client)
        audience = token_requests.audience(client.form, self._verifier)
        bound = await token_requests.proven(client, self._verifier)
        item = await self._broker.ask_to_open(client.id, token_requests.of_human(client.form, bound))
        code, answer = await self._polled(item, client, audience)
        user_code, uri = await self._user_code(item, registered), f"{self._verifier.issuer}/oauth/device"
        complete = {"verification_uri": uri, "verification_uri_complete": f"{uri}?user_code={user_code}"}
        return wire.answer({"device_code": code, "user_code": user_code, **complete, **answer})

    async def _polled(self, item: Approval, client: OAuthClient, audience: str | None) -> tuple[str, dict[str, int]]:
        """Return what to poll with while somebody decides, and what both flows answer about polling."""
        now = self._verifier.clock()
        poll, life = Poll(item.id, client.id, now, audience=audience), item.expires_at - now
        name = await self._polls.keep(poll, life + REMEMBERED, room=item.room)
        return name, {"expires_in": int(life.total_seconds()), "interval": int(INTERVAL.total_seconds())}

    async def _user_code(self, item: Approval, client: Registered) -> str:
        groups = [""]
        while not groups[0] or await self._shown.find(groups[0]) is not None:
            groups = ["".join(secrets.choice(ALPHABET) for _ in range(GROUP)) for _ in range(GROUPS)]
        code = "-".join(groups)
        about = ClientDisplay(client.called, client.warning, (("the code on the device", code),))
        shown = _Shown(item.id, about, jose.digest("".join(groups)))
        await self._shown.keep(shown, item.expires_at - self._verifier.clock(), groups[0])
        return code

    async def form(self, request: Request) -> Response:
        """Ask for the code. One that came in the URL is filled in, and still has to be confirmed (RFC 8628 §3.3.1)."""
        return pages.code_form(wire.pairs(request.scope["query_string"], _TYPED).get("user_code", ""))

    async def typed(self, request: Request) -> Response:
        """Show what the code stands for."""
        typed = wire.text(await wire.form(request, _TYPED), "user_code")
        try:
            found = await self._found(_NOISE.sub("", typed.upper()))
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

    # -- from afar ----------------------------------------------------------------------------------------------

    async def backchannel(self, _: Request, client: OAuthClient) -> Response:
        """Ask the human whom a hint names; return what to poll with (CIBA §7.3)."""
        form = client.form
        if client.workload is None:  # CIBA Core §7.1: it would ask in whatever name it likes, and nobody looks where
            raise UnauthenticatedError("a client that asks from afar has to authenticate", help=_HOW)
        message = form.get("binding_message", "")
        if form.get("scope", "openid") != "openid":
            told = "what may be done is said in 'authorization_details', not in 'scope'"
            return wire.answer({"error": "invalid_scope", "error_description": told}, 400)
        if len(message) > MAX_LABEL or not is_legible(message):
            told = f"it must be at most {MAX_LABEL} printable characters"
            return wire.answer({"error": "invalid_binding_message", "error_description": told}, 400)
        audience, expiry = token_requests.audience(form, self._verifier), "requested_expiry"
        # the message that both devices show (CIBA §7.1) is the label, so that the human sees it
        labelled = {**form, "label": message} if message else form
        wanted = token_requests.of_human(labelled, await token_requests.proven(client, self._verifier))
        most = wire.seconds(expiry, wire.whole(expiry, form[expiry])) if expiry in form else timedelta.max
        human = await self._human(form)
        if human is None:
            told = "the hint names nobody who can log in here"
            return wire.answer({"error": "unknown_user_id", "error_description": told}, 400)
        item = await self._broker.ask_to_open(client.id, wanted, approver=human, life=most)
        name, answer = await self._polled(item, client, audience)
        page = f"{self._verifier.issuer}/approvals/{item.id}"
        return wire.answer({"auth_req_id": name, **answer, "verification_uri": page})

    async def _human(self, form: Form) -> str | None:
        """Return whom the one hint names, issuer-qualified; None when that is nobody of an issuer known here."""
        given = [name for name in _HINTS if name in form]
        if len(given) != 1 or given == ["login_hint_token"]:
            raise InvalidRequestError("there must be one hint: `login_hint` or `id_token_hint`")
        if given == ["id_token_hint"] and self._identity.humans is not None:
            human = await self._verifier.authenticate(self._identity.humans.id_token(form["id_token_hint"]))
            return human.subject.sub
        issuers, hint = list(self._identity.issuers), form.get("login_hint", "")
        if hint.partition("#")[0] in issuers and hint.partition("#")[2]:
            return hint
        bare = "#" not in hint and "://" not in hint and is_legible(hint)
        return f"{issuers[0]}#{hint}" if bare and len(issuers) == 1 else None
