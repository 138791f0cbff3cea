"""Asking by browser: pushed requests (RFC 9126) and the authorization endpoint (RFC 6749 §4.1, RFC 7636, RFC 9207).

Until client and redirect URI are known to belong together, an error is a page; from then on it goes to the client. For
a client that no operator set up it stays a page until somebody has logged in: its document says where it would go.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from remit.console import pages
from remit.console.consent import ConsentPage, PushedRequest, RedirectTarget, described
from remit.console.pages import ClientDisplay
from remit.core.request import Binding
from remit.errors import InvalidRequestError, RemitError, UnauthenticatedError
from remit.oauth import token_requests
from remit.oauth.clients import TARGETS, Clients, OAuthClient
from remit.oauth.registry import Registry, is_registered
from remit.ports.identity import Registered
from remit.ports.pending import PendingKind, PendingStore
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


class Authorize:
    """The two endpoints of the code flow that come before the token endpoint."""

    def __init__(self, deps: AppDeps, consent: ConsentPage) -> None:
        self._broker, self._verifier = deps.broker, deps.verifier
        self._registry, self._consent = deps.identity.clients or Registry(), consent
        self._clients = Clients(deps.identity.workloads, deps.verifier)
        self._pushed = PendingStore(deps.verifier.pending, PendingKind.PUSHED, PushedRequest)

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        return (
            Route("POST", "/oauth/par", self.push, authenticate=self._clients.of(_AUTHORIZE)),
            Route("GET", "/oauth/authorize", pages.shown(self.authorize), query=None),
        )

    async def push(self, _: Request, client: OAuthClient) -> Response:
        """Take a request from the client itself; the browser then carries only its name (RFC 9126)."""
        form = client.form
        if "request_uri" in form:  # RFC 9126 §2.1
            raise InvalidRequestError("`request_uri` is what this answers with")
        client.check_named()
        registered, back = await self._back(form)
        if client.workload is not None and client.id != registered.client_id:
            raise UnauthenticatedError("`client_id` must be the whole name of the workload that asks")
        refused = _unsupported(form)
        if refused is not None:
            return wire.answer({"error": refused[0], "error_description": described(refused[1])}, 400)
        binding = await token_requests.proven(client, self._verifier)
        registered = replace(registered, proven=client.workload is not None)
        pushed = await self._pushed_request(form, registered, back, binding)
        room, most = registered.vouched or registered.client_id, None if client.workload is not None else MAX_PUSHED
        name = await self._pushed.keep(pushed, PUSHED_LIFE, room=room, most=most)
        content = {"request_uri": f"{PUSHED}{name}", "expires_in": int(PUSHED_LIFE.total_seconds())}
        return wire.answer(content, 201)

    async def authorize(self, request: Request) -> Response:
        """Show a request to the human at a browser."""
        raw = request.scope["query_string"]
        first = wire.pairs(raw, _BACK)
        if "request_uri" in first:
            return self._consent.draft(await self._found(first))
        registered, back = await self._back(first)
        try:
            query = wire.pairs(raw, _AUTHORIZE, TARGETS)
            refused = _unsupported(query)
            if refused is not None and registered.vouched is not None:
                raise InvalidRequestError(refused[1])
            if refused is not None:
                return pages.away(back.refusal(*refused))
            return self._consent.draft(await self._pushed_request(query, registered, back, token_requests.keyed(query)))
        except RemitError as error:
            if registered.vouched is not None:
                raise
            return pages.away(back.refusal(error.oauth, error.detail))

    async def _found(self, query: Form) -> PushedRequest:
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
        uri = wire.text(form, "redirect_uri")
        if not is_registered(client, uri):
            raise InvalidRequestError("`redirect_uri` is not one of this client's")
        state = form.get("state")
        if state is not None and not _STATE.fullmatch(state):
            raise InvalidRequestError("`state` must be at most 2,048 printable ASCII characters")
        if len(client.client_id) + len(uri) + len(state or "") > MAX_KEPT:
            raise InvalidRequestError("`client_id`, `redirect_uri` and `state` are too long together")
        challenge, anew = form.get("code_challenge", ""), "max_age" in form or "login" in form.get("prompt", "").split()
        return client, RedirectTarget(client.client_id, uri, challenge, state, self._verifier.issuer, anew=anew)

    async def _pushed_request(
        self, form: Form, client: Registered, back: RedirectTarget, binding: Binding
    ) -> PushedRequest:
        if form.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(back.challenge):
            raise InvalidRequestError("`code_challenge` with `code_challenge_method` S256 is required")
        audience = token_requests.audience(form, self._verifier)
        request = await self._broker.to_open(token_requests.of_human(form, binding))
        parts = urlsplit(back.redirect_uri)
        where = parts.netloc or f"the app that owns {parts.scheme}:"
        if parts.hostname in LOCAL:
            where = f"a program on this computer ({parts.netloc})"
        facts = (("the answer goes to", where), ("the token is for", audience or ""))
        about = ClientDisplay(client.called, client.warning, facts)
        return PushedRequest(about, replace(back, audience=audience), request)


def _unsupported(form: Form) -> tuple[str, str] | None:
    """Return error and description for what this server does not do (RFC 6749 §4.1.2.1, OIDC Core §3.1.2.6)."""
    if "request" in form:
        return "request_not_supported", "request objects are not taken here: push the request"
    if form.get("response_type") != "code":
        return "unsupported_response_type", "`response_type` must be `code`"
    if form.get("response_mode", "query") != "query":
        return "invalid_request", "`response_mode` must be `query`"
    if "scope" in form:
        return "invalid_scope", "what may be done is said in `authorization_details`, not in `scope`"
    if "none" in form.get("prompt", "").split():
        return "interaction_required", "a human always decides here"
    return None
