"""Asking one human from afar (OpenID Connect CIBA Core 1.0, poll mode): the client names them, and polls.

remit keeps no list of humans: one is named by issuer and subject, or by an ID token of theirs. They find what waits for
them by the link in the answer or in the list of approvals, and log in to decide. No ID token comes of it.
"""

from __future__ import annotations

from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from remit.core.legible import is_legible
from remit.core.request import MAX_LABEL
from remit.errors import InvalidRequestError, UnauthenticatedError
from remit.oauth import request_form
from remit.oauth.clients import FIELDS, Clients, OAuthClient
from remit.ports.pending import INTERVAL, REMEMBERED, PendingKind, PendingStore, Poll
from remit.web import wire
from remit.web.routes import AppDeps, Route
from remit.web.wire import Form

_HOW = "as a workload: by an SVID, a certificate, a WIT or a token of its platform"
_HINTS = ("login_hint", "id_token_hint", "login_hint_token")
_ASKED = (
    (request_form.FIELDS - {"label"})
    | request_form.TARGETS
    | FIELDS
    | frozenset(_HINTS)
    | {"purpose", "dpop_jkt", "scope", "binding_message", "requested_expiry"}
)


class Backchannel:
    """The backchannel authentication endpoint."""

    def __init__(self, deps: AppDeps) -> None:
        self._broker, self._verifier, self._identity = deps.broker, deps.verifier, deps.identity
        self._clients = Clients(deps.identity.workloads, deps.verifier)
        self._polls = PendingStore(deps.verifier.pending, PendingKind.POLL, Poll)

    def routes(self) -> tuple[Route, ...]:
        """Return the route."""
        client = self._clients.of(_ASKED, request_form.TARGETS)
        return (Route("POST", "/oauth/bc-authorize", self.begin, authenticate=client),)

    async def begin(self, request: Request, client: OAuthClient) -> Response:
        """Ask the human whom a hint names; return what to poll with (CIBA §7.3)."""
        form = client.form
        if client.workload is None:  # CIBA Core §7.1: it would ask in whatever name it likes, and nobody looks where
            raise UnauthenticatedError("a client that asks from afar has to authenticate", help=_HOW)
        refused = _unsupported(form)
        if refused is not None:
            return _refusal(*refused)
        audience, expiry = request_form.audience(form, self._verifier), "requested_expiry"
        # the message that both devices show (CIBA §7.1) is the label, so that the human sees it
        labelled = {**form, "label": form["binding_message"]} if "binding_message" in form else form
        bound = await request_form.proven(form, client, self._verifier, request)
        wanted = request_form.of_human(labelled, bound)
        most = wire.seconds(expiry, wire.whole(expiry, form[expiry])) if expiry in form else timedelta.max
        human = await self._human(form)
        if human is None:
            return _refusal("unknown_user_id", "the hint names nobody who can log in here")
        item = await self._broker.ask_to_open(client.id, wanted, approver=human, life=most)
        poll = Poll(item.id, client.id, self._verifier.clock(), audience=audience)
        life = item.expires_at - self._verifier.clock()
        return wire.answer(
            {
                "auth_req_id": await self._polls.keep(poll, life + REMEMBERED, room=item.room),
                "expires_in": int(life.total_seconds()),
                "interval": int(INTERVAL.total_seconds()),
                "verification_uri": f"{self._verifier.issuer}/approvals/{item.id}",
            }
        )

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


def _unsupported(form: Form) -> tuple[str, str] | None:
    """Return error and description for what CIBA has errors of its own for (§13)."""
    if form.get("scope", "openid") != "openid":
        return "invalid_scope", "what may be done is said in `authorization_details`, not in `scope`"
    message = form.get("binding_message", "")
    if len(message) > MAX_LABEL or not is_legible(message):
        return "invalid_binding_message", f"it must be at most {MAX_LABEL} printable characters"
    return None


def _refusal(error: str, description: str) -> Response:
    return wire.answer({"error": error, "error_description": description.replace("`", "'")}, 400)
