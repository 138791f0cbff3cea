"""What clients hold while a human decides, and how they redeem it: codes, device codes, back-channel requests.

Only the SHA-256 of each is kept, in memory: after a restart a client asks anew. What a human approved is in the broker
(``core.approval``) and is used up there, in the commit that opens the task.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from msgspec import structs
from starlette.responses import Response

from remit import jose
from remit.console.consent import ConsentPage
from remit.core import approval as approvals
from remit.core.approval import Approval
from remit.core.principal import check_given
from remit.core.request import Binding, GrantRequest
from remit.errors import (
    BearerError,
    GrantTokenError,
    LapsedError,
    NotFoundError,
    RemitError,
    SlowDownError,
    UsedError,
    WrongKeyError,
)
from remit.oauth import token_requests
from remit.oauth.authorization_requests import AuthorizationRequests
from remit.oauth.clients import TARGETS, GrantType, OAuthClient, Registry
from remit.oauth.token_requests import SCOPE, RefreshTokenGrantType, TokenIssuer
from remit.ports.pending import INTERVAL, AuthorizationCode, PendingKind, PendingStore, Poll
from remit.web import wire
from remit.web.routes import AppDeps, Route
from remit.web.verifier import attested

CODE = "authorization_code"
REFRESH_TOKEN = "refresh_token"  # noqa: S105 - the name of a grant type
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
CIBA = "urn:openid:params:grant-type:ciba"

_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 §4.1


class ConsentFlows:
    """Code, device and back-channel flow. Without an issuer of humans there is nobody to decide, so there are none."""

    def __init__(self, deps: AppDeps, tokens: TokenIssuer) -> None:
        self._broker, self._verifier, self._tokens = deps.broker, deps.verifier, tokens
        self._registering = bool(deps.identity.registration)
        self._served, self._clients = deps.identity.logins is not None, deps.identity.clients or Registry()
        self._attesting = deps.identity.workloads is not None  # else no client can authenticate to ask from afar
        self._codes = PendingStore(deps.verifier.pending, PendingKind.CODE, AuthorizationCode)
        self._polls = PendingStore(deps.verifier.pending, PendingKind.POLL, Poll)
        self._delegations = PendingStore(deps.verifier.pending, PendingKind.DELEGATION, Poll)
        self._refresh, self._consent = RefreshTokenGrantType(deps, tokens), ConsentPage(deps)
        self._requests = AuthorizationRequests(deps, self._consent)

    def grant_types(self) -> Mapping[str, GrantType]:
        if not self._served:
            return {}
        return {
            REFRESH_TOKEN: GrantType(TARGETS | SCOPE | {"refresh_token"}, self._refresh.refresh),
            CODE: GrantType(TARGETS | SCOPE | {"code", "redirect_uri", "code_verifier"}, self.code),
            DEVICE: GrantType(TARGETS | SCOPE | {"device_code"}, self.device),
            CIBA: GrantType(TARGETS | SCOPE | {"auth_req_id"}, self.ciba),
        }

    def routes(self) -> tuple[Route, ...]:
        return (*self._consent.routes(), *(self._requests.routes() if self._served else ()))

    def metadata(self) -> Mapping[str, object]:  # RFC 8414, 8628 §4, 9126 §5, 9207 §3, CIBA §4
        if not self._served:
            return {}
        issuer = self._verifier.issuer
        afar = {  # no signing algorithm: signed requests are not taken
            "backchannel_authentication_endpoint": f"{issuer}/oauth/bc-authorize",
            "backchannel_token_delivery_modes_supported": ["poll"],
            "backchannel_user_code_parameter_supported": False,
        }
        return {
            "authorization_endpoint": f"{issuer}/oauth/authorize",
            "pushed_authorization_request_endpoint": f"{issuer}/oauth/par",
            "device_authorization_endpoint": f"{issuer}/oauth/device_authorization",
            **(afar if self._attesting else {}),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            "request_parameter_supported": False,
            "request_uri_parameter_supported": False,
            "client_id_metadata_document_supported": self._clients.documents,
            **({"registration_endpoint": f"{issuer}/oauth/register"} if self._registering else {}),
        }

    async def code(self, client: OAuthClient) -> Response:
        """Redeem an authorization code (RFC 6749 §4.1.3, RFC 7636 §4.6)."""
        client.check_named()
        binding, until = await self._tokens.binding(client)  # first: a proof that lacks a nonce uses up no code
        code = wire.text(client.form, "code")
        found = await self._first_use(code, client, binding)
        return await self._opened(found, client, binding, until, code)

    async def device(self, client: OAuthClient) -> Response:
        """Poll for the decision on a device code (RFC 8628 §3.4)."""
        return await self._polled(wire.text(client.form, "device_code"), client)

    async def ciba(self, client: OAuthClient) -> Response:
        """Poll for the decision on a back-channel request, or on an approval that a grant asked for (CIBA §10.1)."""
        secret = wire.text(client.form, "auth_req_id")
        if secret.startswith("apr_"):
            return await self._delegated(secret, client)
        return await self._polled(secret, client)

    async def _opened(
        self,
        found: AuthorizationCode | Poll,
        client: OAuthClient,
        binding: Binding,
        until: datetime | None,
        code: str | None = None,
    ) -> Response:
        """Open what a human approved of, and answer with its tokens; ``code`` is what was found by it, if one was."""
        approval, asked = await self._requested(found.approval, binding, client)
        audience = self._audience(client, found, asked)
        approvals.ready(approval, self._verifier.clock())
        grant = await self._broker.open(approval, asked)
        try:  # whatever fails from here on, nobody has what was opened
            token = await self._refresh.begin(grant.id, client, audience)
            if code is not None and await self._codes.find(code) != found:  # used again while this was being answered
                raise UsedError("the code was used twice, so what it opened has ended")
            return await self._tokens.answer(grant.id, audience, until, refresh_token=token)
        except RemitError as error:
            await self._end(found.approval, error)
            raise

    async def _first_use(self, code: str, client: OAuthClient, binding: Binding) -> AuthorizationCode:
        """Return what a code means, used from now on. Who merely found it uses up nothing, and ends nothing."""
        while True:
            found = await self._codes.find(code)
            if found is None:
                raise GrantTokenError("the code is not known, or its time is up")
            _check_code(found, client)
            _, asked = await self._requested(found.approval, binding, client)
            if not found.used:  # what cannot be answered uses up nothing
                self._audience(client, found, asked)
                if asked.binding.bearer is not None:
                    await self._broker.to_open(asked)  # what is asked for may take bearers no more
            used = structs.replace(found, used=found.used + 1)
            if await self._codes.swap(code, found, used):
                break  # else another use came between
        if used.used > 1:
            await self._end(found.approval, UsedError())
            raise UsedError("the code was used before, so what it opened has ended")
        if self._verifier.clock() >= used.until:
            raise GrantTokenError("the code is not known, or its time is up")
        return used

    async def _end(self, approval_id: str, error: RemitError) -> None:
        """Revoke what a code opened: it was used a second time (RFC 6749 §10.5), or its first use failed half-way."""
        with suppress(NotFoundError):  # long over, or nothing yet: then its first use ends it
            await self._broker.revoke_opened(approval_id, error)

    async def _requested(
        self, approval_id: str, binding: Binding, client: OAuthClient
    ) -> tuple[Approval, GrantRequest]:
        """Return an approval, and its request as it is made for who redeems it; raise if it is not for them."""
        try:
            approval = (await self._broker.look(approval_id)).approval
        except NotFoundError:
            raise LapsedError from None  # so long ago that nobody remembers what was asked
        found = approvals.request_of(approval)
        if found.binding.jkt not in {None, binding.jkt}:
            raise WrongKeyError("the human approved of another key")
        if binding.bearer is not None and found.binding.bearer is None:
            raise BearerError  # a human decided on a key, or what was asked for takes no bearers
        if found.binding.identity is not None:
            if client.workload is None or client.workload.id != found.binding.identity:
                raise GrantTokenError("the human approved of another workload")
            binding = attested(binding, client.workload)
        borne = None if binding.bearer is None else found.binding.bearer
        return approval, replace(found, binding=replace(binding, bearer=borne))

    async def _polled(self, secret: str, client: OAuthClient) -> Response:
        client.check_named()
        binding, until = await self._tokens.binding(client)
        poll = await self._polls.find(secret)
        if poll is None:
            raise GrantTokenError("the code is not known")
        check_given(poll.client_id, client.id, keyed=poll.keyed, proven=client.proven)
        token_requests.narrowed(client.form, self._verifier, poll.audience)
        await self._slowly(self._polls, secret, poll)
        return await self._opened(poll, client, binding, until)

    async def _delegated(self, approval_id: str, client: OAuthClient) -> Response:
        """Make the child that a human approved, for whoever proves the key it was asked for with."""
        binding, _ = await self._tokens.binding(client)
        try:
            approval = (await self._broker.look(approval_id)).approval
        except NotFoundError:
            raise GrantTokenError("there is no such request") from None
        asked = approvals.request_of(approval)
        jkt, audience = asked.binding.jkt, token_requests.audience(client.form, self._verifier)
        if approval.grant is None or jkt is None or jkt != binding.jkt:
            raise GrantTokenError("there is no such request for this key")
        token_requests.check_audience(audience, asked.scope, asked.binding, self._verifier)
        poll, now = await self._delegations.find(approval.id), self._verifier.clock()
        if poll is None:
            poll = Poll(approval.id, approval.asker, now)
            await self._delegations.keep(poll, max(approval.expires_at - now, INTERVAL), approval.id)
        await self._slowly(self._delegations, approval.id, poll)
        approvals.ready(approval, self._verifier.clock())
        child = await self._broker.delegate_approved(approval.id, jkt)
        try:
            return await self._tokens.answer(child.id, audience, None)
        except RemitError:  # nobody has what was made
            await self._broker.revoke(child.holder, child.id)
            raise

    def _audience(self, client: OAuthClient, found: AuthorizationCode | Poll, asked: GrantRequest) -> str | None:
        """Return whom the token is to be for, that a client comes for; TargetError where it cannot be made for that."""
        whom = token_requests.narrowed(client.form, self._verifier, found.audience)
        token_requests.check_audience(whom, asked.scope, asked.binding, self._verifier)
        return whom

    async def _slowly(self, polls: PendingStore[Poll], name: str, poll: Poll) -> None:
        """Count a poll; SlowDownError for one that comes too early, or together with another (RFC 8628 §3.5)."""
        now = self._verifier.clock()
        early = now < poll.next_at
        interval = poll.interval + INTERVAL if early else poll.interval
        counted = structs.replace(poll, interval=interval, next_at=now + interval)
        if not await polls.swap(name, poll, counted) or early:
            raise SlowDownError(retry_after=int(interval.total_seconds()))


def _check_code(found: AuthorizationCode, client: OAuthClient) -> None:
    form = client.form
    check_given(found.client_id, client.id, keyed=found.keyed, proven=client.proven)
    if form.get("redirect_uri") != found.redirect_uri:
        raise GrantTokenError("`redirect_uri` is not the one that the code was sent to")
    verifier = form.get("code_verifier", "")
    if not _VERIFIER.fullmatch(verifier):
        raise GrantTokenError("`code_verifier` is missing, or not one")
    if not hmac.compare_digest(jose.digest(verifier), found.challenge):
        raise GrantTokenError("`code_verifier` is not what `code_challenge` was made from")
