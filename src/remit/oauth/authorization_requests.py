"""Where clients ask for what a human then decides: by browser, from a device, and one human from afar.

By browser: pushed requests (RFC 9126) and the authorization endpoint (RFC 6749 §4.1, RFC 7636, RFC 9207). Until client
and redirect URI are known to belong together, an error is a page; from then on it goes to the client. For a client that
no operator set up it stays a page until somebody has logged in: its document says where it would go.

A device (RFC 8628) gets a code, and a short one for its human to type: codes lead to a page, never to a decision, and
the human sees there what is asked, and by whom (§5.4). From afar (OpenID Connect CIBA, poll mode) the client names the
human: remit keeps no list of them, so by issuer and subject, or by an ID token of theirs. They find what waits for them
by the link in the answer or in the list of approvals, and log in to decide. No ID token comes of it.
"""

from __future__ import annotations

import hmac
import re
import secrets
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from msgspec import Struct, structs
from starlette.requests import Request
from starlette.responses import Response

from remit import jose
from remit.console import pages
from remit.console.consent import ConsentPage
from remit.console.pages import ClientDisplay
from remit.console.visits import PushedRequest, RedirectTarget, described
from remit.core.approval import Approval
from remit.core.legible import TYPED, is_legible
from remit.core.request import MAX_LABEL, Binding, GrantRequest
from remit.errors import (
    AudienceError,
    GrantTokenError,
    InvalidRequestError,
    LimitError,
    RemitError,
    UnauthenticatedError,
)
from remit.oauth import token_requests
from remit.oauth.clients import TARGETS, Clients, OAuthClient, Registry, asking, check_proven, is_registered
from remit.oauth.scope_names import in_words
from remit.ports.identity import Registered
from remit.ports.pending import INTERVAL, REMEMBERED, PendingKind, PendingStore, Poll
from remit.web import wire
from remit.web.routes import AppDeps, Route
from remit.web.wire import LOCAL, Form

PUSHED = "urn:ietf:params:oauth:request_uri:"
PUSHED_LIFE = timedelta(seconds=60)
MAX_PUSHED = 64  # under a name that anybody may use, or of a host that makes up names: more than wait at once
MAX_KEPT = 2_600  # characters of what a browser keeps in a cookie while its human logs in

_AUTHORIZE = (
    token_requests.OPENING
    | {"client_id", "response_type", "redirect_uri", "state", "code_challenge", "code_challenge_method", "dpop_jkt"}
    | {"scope", "nonce", "prompt", "response_mode", "request", "login_hint", "ui_locales", "display", "max_age"}
    | {"request_uri"}
)
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")  # SHA-256, base64url
_STATE = re.compile(r"[ -~]{1,2048}")
# what must be right before an error can go to the client, and what is kept for the answer
_BACK = frozenset({"client_id", "redirect_uri", "state", "request_uri", "code_challenge", "max_age", "prompt"})

GROUP = 4  # letters between dashes; the first group finds a request, the others are its secret
GROUPS = 3
GUESSES = 30  # at one request, by anybody, in ``WINDOW``: of 20^8, in ten minutes, about one chance in 10^8
WINDOW = timedelta(minutes=1)

_HINTS = ("login_hint", "id_token_hint", "login_hint_token")
_DEVICE = token_requests.OPENING | token_requests.SCOPE | {"dpop_jkt"}
_AFAR = (_DEVICE - {"label"}) | frozenset(_HINTS) | {"binding_message", "request", "requested_expiry"}
_TYPED = frozenset({"user_code"})
_NOISE = re.compile(r"[^A-Z]")
_UNKNOWN = "this code is not one that waits; check it, or start again on the device"
_HOW = "as a workload (SVID, certificate, WIT, token of its platform), or by a key that [[clients]] has for it"


class _Shown(Struct, frozen=True):
    """What a user code stands for, and when wrong ones were entered for it: counted at this request alone.

    If all guesses were counted together, anybody could keep everybody's right codes from being taken (RFC 8628 §5.1).
    """

    approval: str
    about: ClientDisplay
    code: str  # its SHA-256
    wrong: tuple[datetime, ...] = ()


class AuthorizationRequests:
    """The endpoints that come before the token endpoint, and the page where the human of a device types its code."""

    def __init__(self, deps: AppDeps, consent: ConsentPage) -> None:
        self._broker, self._verifier, self._identity = deps.broker, deps.verifier, deps.identity
        self._registry, self._consent = deps.identity.clients or Registry(), consent
        self._clients = Clients(deps.identity.workloads, deps.verifier, self._registry)
        pending = deps.verifier.pending
        self._pushed = PendingStore(pending, PendingKind.PUSHED, PushedRequest)
        self._polls = PendingStore(pending, PendingKind.POLL, Poll)
        self._shown = PendingStore(pending, PendingKind.DEVICE, _Shown)

    def routes(self) -> tuple[Route, ...]:
        form, typed = pages.shown(self.form), pages.shown(self.typed)
        # none but workloads, and clients that the operator gave a key, may ask; without any nobody could
        afar = Route("POST", "/oauth/bc-authorize", self.backchannel, authenticate=self._clients.of(_AFAR), tcp=True)
        return (
            Route("POST", "/oauth/par", self.push, authenticate=self._clients.of(_AUTHORIZE), tcp=True, shared=True),
            Route("GET", "/oauth/authorize", pages.shown(self.authorize), query=None, tcp=True),
            Route("POST", "/oauth/device_authorization", self.device, authenticate=self._clients.of(_DEVICE), tcp=True),
            Route("GET", "/oauth/device", form, query=None, tcp=True),
            Route("POST", "/oauth/device", typed, tcp=True),
            *([afar] if self._identity.workloads is not None else []),
        )

    async def push(self, _: Request, client: OAuthClient) -> Response:
        """Take a request from the client itself; the browser then carries only its name (RFC 9126)."""
        form = client.form
        if "request_uri" in form:  # RFC 9126 §2.1
            raise InvalidRequestError("`request_uri` is what this answers with")
        client.check_named()
        registered = await self._registry.get(wire.text(form, "client_id"))
        check_proven(registered, client)
        registered = replace(registered, proven=client.proven)
        back = self._target(form, registered)
        if client.workload is not None and client.id != registered.client_id:
            raise UnauthenticatedError("`client_id` must be the whole name of the workload that asks")
        refused = _unsupported(form)
        if refused is not None:
            return wire.answer({"error": refused[0], "error_description": described(refused[1])}, 400)
        binding = await token_requests.proven(client, self._verifier)
        pushed = await self._draft(form, registered, back, binding)
        room, most = registered.vouched or registered.client_id, None if client.workload is not None else MAX_PUSHED
        name = await self._pushed.keep(pushed, PUSHED_LIFE, room=room, most=most)
        content = {"request_uri": f"{PUSHED}{name}", "expires_in": int(PUSHED_LIFE.total_seconds())}
        return wire.answer(content, 201)

    async def authorize(self, request: Request) -> Response:
        """Show a request to the human at a browser."""
        raw = request.scope["query_string"]
        first = wire.pairs(raw, _BACK)
        if "request_uri" in first:
            return self._consent.draft(await self._was_pushed(first))
        registered, back = await self._back(first)
        try:
            query = wire.pairs(raw, _AUTHORIZE, TARGETS)
            refused = _unsupported(query)
            if refused is not None and registered.vouched is not None:
                raise InvalidRequestError(refused[1])
            if refused is not None:
                return pages.away(back.refusal(*refused))
            return self._consent.draft(await self._draft(query, registered, back, token_requests.keyed(query)))
        except RemitError as error:
            if registered.vouched is not None:
                raise
            return pages.away(back.refusal(error.oauth, error.detail))

    async def _was_pushed(self, query: Form) -> PushedRequest:
        """Return what was pushed. It is used up once the human goes on with it, and by nothing else."""
        name = query["request_uri"].removeprefix(PUSHED)
        found = await self._pushed.find(name) if query["request_uri"].startswith(PUSHED) else None
        if found is None or found.back.client_id != query.get("client_id"):
            raise InvalidRequestError("`request_uri` is not known here, or was used before", help="start again")
        return replace(found, name=name)

    async def _back(self, form: Form) -> tuple[Registered, RedirectTarget]:
        """Return the client and where its answers go: what must be right before anything is sent there."""
        try:
            client = await self._registry.get(wire.text(form, "client_id"))
        except UnauthenticatedError as error:
            raise InvalidRequestError(error.detail, help="an operator adds clients to the configuration") from error
        return client, self._target(form, client)

    def _target(self, form: Form, client: Registered) -> RedirectTarget:
        uri = wire.text(form, "redirect_uri")
        if not is_registered(client, uri):
            raise InvalidRequestError("`redirect_uri` is not one of this client's")
        state = form.get("state")
        if state is not None and not _STATE.fullmatch(state):
            raise InvalidRequestError("`state` must be at most 2,048 printable ASCII characters")
        if len(client.client_id) + len(uri) + len(state or "") > MAX_KEPT:
            raise InvalidRequestError("`client_id`, `redirect_uri` and `state` are too long together")
        challenge, anew = form.get("code_challenge", ""), "max_age" in form or "login" in form.get("prompt", "").split()
        issuer = self._verifier.issuer
        keyed = client.keyed or client.proven
        return RedirectTarget(client.client_id, uri, challenge, state, issuer, anew=anew, keyed=keyed)

    async def _draft(self, form: Form, client: Registered, back: RedirectTarget, binding: Binding) -> PushedRequest:
        if form.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(back.challenge):
            raise InvalidRequestError("`code_challenge` with `code_challenge_method` S256 is required")
        audience, wanted = self._wanted(form, client.client_id, binding)
        request = await self._broker.to_open(wanted)
        parts = urlsplit(back.redirect_uri)
        where = parts.netloc or f"the app that owns {parts.scheme}:"
        if parts.hostname in LOCAL:
            where = f"a program on this computer ({parts.netloc})"
        facts = (
            ("the answer goes to", where),
            ("the token is for", audience or ""),
            ("in short", self._short(form, wanted)),
        )
        about = ClientDisplay(client.called, client.warning, facts)
        return PushedRequest(about, replace(back, audience=audience), request)

    def _wanted(self, form: Form, client_id: str, binding: Binding) -> tuple[str | None, GrantRequest]:
        """Return whom a token is to be for, and what a human is to decide on, of which such a token can be made."""
        audience, asked = token_requests.meant(form, self._verifier, self._identity.scopes, client_id)
        wanted = token_requests.of_human(asked, binding)
        token_requests.check_audience(audience, wanted.scope, wanted.binding, self._verifier)
        return audience, wanted

    def _short(self, form: Form, wanted: GrantRequest) -> str:
        return in_words(form.get("scope", ""), self._identity.scopes, wanted.scope)

    async def device(self, _: Request, client: OAuthClient) -> Response:
        """Return the two codes for a request (RFC 8628 §3.2)."""
        registered = await asking(self._registry, client)
        bound = await token_requests.proven(client, self._verifier)
        audience, wanted = self._wanted(client.form, client.id, bound)
        item = await self._broker.ask_to_open(client.id, wanted)
        code, answer = await self._polled(item, client, audience)
        shown, uri = ("in short", self._short(client.form, wanted)), f"{self._verifier.issuer}/oauth/device"
        user_code = await self._user_code(item, registered, shown)
        complete = {"verification_uri": uri, "verification_uri_complete": f"{uri}?user_code={user_code}"}
        return wire.answer({"device_code": code, "user_code": user_code, **complete, **answer})

    async def _polled(self, item: Approval, client: OAuthClient, audience: str | None) -> tuple[str, dict[str, int]]:
        """Return what to poll with while somebody decides, and what both flows answer about polling."""
        now = self._verifier.clock()
        poll = Poll(item.id, client.id, now, audience=audience, keyed=client.proven)
        life = item.expires_at - now
        name = await self._polls.keep(poll, life + REMEMBERED, room=item.room)
        return name, {"expires_in": int(life.total_seconds()), "interval": int(INTERVAL.total_seconds())}

    async def _user_code(self, item: Approval, client: Registered, more: tuple[str, str]) -> str:
        groups = [""]
        while not groups[0] or await self._shown.find(groups[0]) is not None:
            groups = ["".join(secrets.choice(TYPED) for _ in range(GROUP)) for _ in range(GROUPS)]
        code = "-".join(groups)
        about = ClientDisplay(client.called, client.warning, (("the code on the device", code), more))
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
            found = await self._typed(_NOISE.sub("", typed.upper()))
        except RemitError as error:
            return pages.code_form(typed[:20], pages.sentence(error.detail), error.status)
        return self._consent.show(await self._broker.look(found.approval), found.about)

    async def _typed(self, code: str) -> _Shown:
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

    async def backchannel(self, _: Request, client: OAuthClient) -> Response:
        """Ask the human whom a hint names; return what to poll with (CIBA §7.3)."""
        form = client.form
        if client.proven and client.workload is None:  # by its own document: a stranger whom no operator set up
            return _refused(
                "unauthorized_client",
                f"a client that authenticates by its document may not ask from afar; one may {_HOW}",
            )
        if client.workload is None:  # CIBA Core §7.1: it would ask in whatever name it likes, and nobody looks where
            raise UnauthenticatedError("a client that asks from afar has to authenticate", help=_HOW)
        if "request" in form:  # no algorithm for it is named in the server's metadata
            return _refused("invalid_request", "signed requests are not taken here: send the parameters")
        message = form.get("binding_message", "")
        if len(message) > MAX_LABEL or not is_legible(message):
            return _refused("invalid_binding_message", f"it must be at most {MAX_LABEL} printable characters")
        # CIBA Core §7.1 has `openid` in every request; no ID token comes of it
        named = " ".join(name for name in form.get("scope", "").split(" ") if name != "openid")
        # the message that both devices show (CIBA §7.1) is the label, so that the human sees it
        labelled = {**form, "scope": named, **({"label": message} if message else {})}
        bound = await token_requests.proven(client, self._verifier)
        (audience, wanted), expiry = self._wanted(labelled, client.id, bound), "requested_expiry"
        most = wire.seconds(expiry, wire.whole(expiry, form[expiry])) if expiry in form else timedelta.max
        human = await self._human(form)
        if human is None:
            return _refused("unknown_user_id", "the hint names nobody who can log in here")
        item = await self._broker.ask_to_open(client.id, wanted, approver=human, life=most)
        name, answer = await self._polled(item, client, audience)
        page = f"{self._verifier.issuer}/approvals/{item.id}"
        return wire.answer({"auth_req_id": name, **answer, "verification_uri": page})

    async def _human(self, form: Form) -> str | None:
        """Return whom the one hint names, issuer-qualified; None when that is nobody of an issuer known here."""
        given, humans = [name for name in _HINTS if name in form], self._identity.humans
        if len(given) != 1 or given == ["login_hint_token"]:
            raise InvalidRequestError("there must be one hint: `login_hint` or `id_token_hint`")
        if given == ["id_token_hint"] and humans is not None:
            with suppress(
                AudienceError, GrantTokenError, UnauthenticatedError
            ):  # CIBA §13: what vouches for nobody names nobody
                return (await self._verifier.authenticate(humans.id_token(form["id_token_hint"]))).subject.sub
            return None
        issuers, hint = list(self._identity.issuers), form.get("login_hint", "")
        if hint.partition("#")[0] in issuers and hint.partition("#")[2]:
            return hint
        bare = "#" not in hint and "://" not in hint and is_legible(hint)
        return f"{issuers[0]}#{hint}" if bare and len(issuers) == 1 else None


def _refused(error: str, description: str) -> Response:
    """Return an error by a name that OpenID Connect CIBA Core §13 has, and no class of ours."""
    return wire.answer({"error": error, "error_description": described(description)}, 400)


def _unsupported(form: Form) -> tuple[str, str] | None:
    """Return error and description for what this server does not do (RFC 6749 §4.1.2.1, OIDC Core §3.1.2.6)."""
    if "request" in form:
        return "request_not_supported", "request objects are not taken here: push the request"
    if form.get("response_type") != "code":
        return "unsupported_response_type", "`response_type` must be `code`"
    if form.get("response_mode", "query") != "query":
        return "invalid_request", "`response_mode` must be `query`"
    if "none" in form.get("prompt", "").split():
        return "interaction_required", "a human always decides here"
    return None
