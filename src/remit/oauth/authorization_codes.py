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

from msgspec import structs
from starlette.requests import Request
from starlette.responses import Response

from remit import jose
from remit.console.consent import ConsentPage
from remit.core import approval as approvals
from remit.core.approval import Approval
from remit.core.principal import GrantView, Holder
from remit.core.request import Binding, GrantRequest
from remit.core.scope import Access
from remit.errors import (
    GrantTokenError,
    LapsedError,
    NotFoundError,
    SlowDownError,
    TargetError,
    UsedError,
    WrongKeyError,
)
from remit.oauth import request_form
from remit.oauth.authorize import Authorize
from remit.oauth.backchannel import Backchannel
from remit.oauth.clients import OAuthClient
from remit.oauth.device import Devices
from remit.oauth.registry import Registry
from remit.oauth.token_endpoint import GrantType
from remit.oauth.token_issuer import RefreshGrant, TokenIssuer
from remit.ports.pending import INTERVAL, AuthorizationCode, PendingKind, PendingStore, Poll
from remit.web import wire
from remit.web.routes import AppDeps, Route
from remit.web.verifier import attested
from remit.web.wire import Form

CODE = "authorization_code"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
CIBA = "urn:openid:params:grant-type:ciba"

REDEEM = Access("remit", "redeem")  # what the audit calls a second use of a code

_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 §4.1


class AuthorizationCodes:
    """The handlers of the three grant types."""

    def __init__(self, deps: AppDeps, tokens: TokenIssuer) -> None:
        self._broker, self._verifier, self._tokens = deps.broker, deps.verifier, tokens
        pending = deps.verifier.pending
        self._codes = PendingStore(pending, PendingKind.CODE, AuthorizationCode)
        self._polls = PendingStore(pending, PendingKind.POLL, Poll)
        self._delegations = PendingStore(pending, PendingKind.DELEGATION, Poll)
        self._refresh = RefreshGrant(deps, tokens)

    def grant_types(self) -> Mapping[str, GrantType]:
        """Return the grant types for the token endpoint."""
        return {
            CODE: GrantType(request_form.TARGETS | {"code", "redirect_uri", "code_verifier"}, self.code),
            DEVICE: GrantType(request_form.TARGETS | {"device_code"}, self.device),
            CIBA: GrantType(request_form.TARGETS | {"auth_req_id"}, self.ciba),
        }

    async def code(self, request: Request, form: Form, client: OAuthClient) -> Response:
        """Redeem an authorization code (RFC 6749 §4.1.3, RFC 7636 §4.6)."""
        client.check_named()
        # first: a proof that lacks a nonce uses up no code
        binding, until = await self._tokens.binding(request, client)
        found = await self._first_use(form, client, binding)
        audience = self._audience(form, found.audience)
        grant = await self._open(found.approval, binding, client)
        opened = structs.replace(found, opened=grant.holder)
        await self._codes.swap(form["code"], found, opened)
        token = await self._refresh.begin(grant.id, client.id, audience)
        if await self._codes.find(form["code"]) != opened:  # used again while the first use was being answered
            await self._end(grant.holder)
            raise UsedError("the code was used twice, so what it opened has ended")
        return self._tokens.answer(grant, audience=audience, until=until, refresh_token=token)

    async def device(self, request: Request, form: Form, client: OAuthClient) -> Response:
        """Poll for the decision on a device code (RFC 8628 §3.4)."""
        return await self._polled(request, wire.text(form, "device_code"), form, client)

    async def ciba(self, request: Request, form: Form, client: OAuthClient) -> Response:
        """Poll for the decision on a back-channel request, or on an approval that a grant asked for (CIBA §10.1)."""
        secret = wire.text(form, "auth_req_id")
        if secret.startswith("apr_"):
            return await self._delegated(request, secret, client)
        return await self._polled(request, secret, form, client)

    async def _first_use(self, form: Form, client: OAuthClient, binding: Binding) -> AuthorizationCode:
        """Return what a code means, used from now on. Who merely found it uses up nothing, and ends nothing."""
        code = wire.text(form, "code")
        while True:
            found = await self._codes.find(code)
            if found is None:
                raise GrantTokenError("the code is not known, or its time is up")
            _check_code(found, form, client)
            await self._requested(found.approval, binding)
            used = structs.replace(found, used=found.used + 1)
            if await self._codes.swap(code, found, used):
                break  # else another use came between
        if used.used > 1:
            if used.opened is not None:
                await self._end(used.opened)
            raise UsedError("the code was used before, so what it opened has ended")
        if self._verifier.clock() >= used.until:
            raise GrantTokenError("the code is not known, or its time is up")
        return used

    async def _end(self, opened: Holder) -> None:
        """Revoke what a code opened that somebody uses a second time (RFC 6749 §10.5)."""
        with suppress(NotFoundError):  # long over
            await self._broker.deny(opened.grant, REDEEM, UsedError())
            await self._broker.revoke(opened, opened.grant)

    async def _requested(self, approval_id: str, binding: Binding) -> tuple[Approval, GrantRequest]:
        try:
            approval = (await self._broker.look(approval_id)).approval
        except NotFoundError:
            raise LapsedError from None  # so long ago that nobody remembers what was asked
        found = approvals.request_of(approval)
        if found.binding.jkt not in {None, binding.jkt}:
            raise WrongKeyError("the human approved of another key")
        return approval, found

    async def _open(self, approval_id: str, binding: Binding, client: OAuthClient) -> GrantView:
        approval, found = await self._requested(approval_id, binding)
        approvals.ready(approval, self._verifier.clock())
        if found.binding.identity is not None:
            if client.workload is None or client.workload.id != found.binding.identity:
                raise GrantTokenError("the human approved of another workload")
            binding = attested(binding, client.workload)
        return await self._broker.open(approval, replace(found, binding=binding))

    async def _polled(self, request: Request, secret: str, form: Form, client: OAuthClient) -> Response:
        client.check_named()
        binding, until = await self._tokens.binding(request, client)
        poll = await self._polls.find(secret)
        if poll is None or poll.client_id != client.id:
            raise GrantTokenError("the code is not known, or was given to another client")
        audience = self._audience(form, poll.audience)
        await self._slowly(self._polls, secret, poll)
        grant = await self._open(poll.approval, binding, client)
        token = await self._refresh.begin(grant.id, client.id, audience)
        return self._tokens.answer(grant, audience=audience, until=until, refresh_token=token)

    async def _delegated(self, request: Request, approval_id: str, client: OAuthClient) -> Response:
        """Make the child that a human approved, for whoever proves the key it was asked for with."""
        binding, _ = await self._tokens.binding(request, client)
        try:
            approval = (await self._broker.look(approval_id)).approval
        except NotFoundError:
            raise GrantTokenError("there is no such request") from None
        found = approvals.request_of(approval)
        jkt = found.binding.jkt
        if approval.grant is None or approval.task is None or jkt is None or jkt != binding.jkt:
            raise GrantTokenError("there is no such request for this key")
        poll, now = await self._delegations.find(approval.id), self._verifier.clock()
        if poll is None:
            poll = Poll(approval.id, approval.asker, now)
            await self._delegations.keep(poll, max(approval.expires_at - now, INTERVAL), approval.id)
        await self._slowly(self._delegations, approval.id, poll)
        approvals.ready(approval, self._verifier.clock())
        holder = Holder(approval.task, approval.grant)
        return self._tokens.answer(await self._broker.delegate(holder, approval.grant, found, approval))

    def _audience(self, form: Form, meant: str | None) -> str | None:
        """Return whom the token is for: as was asked at the start, or less; never more (RFC 8707 §2.2)."""
        if not form.keys() & request_form.TARGETS:
            return meant
        named = request_form.audience(form, self._verifier)
        if meant not in {None, named}:
            raise TargetError("this was asked for with another audience")
        return named

    async def _slowly(self, polls: PendingStore[Poll], name: str, poll: Poll) -> None:
        """Count a poll; SlowDownError for one that comes too early, or together with another (RFC 8628 §3.5)."""
        now = self._verifier.clock()
        early = now < poll.next_at
        interval = poll.interval + INTERVAL if early else poll.interval
        counted = structs.replace(poll, interval=interval, next_at=now + interval)
        if not await polls.swap(name, poll, counted) or early:
            raise SlowDownError(retry_after=int(interval.total_seconds()))


def _check_code(found: AuthorizationCode, form: Form, client: OAuthClient) -> None:
    if client.id != found.client_id:
        raise GrantTokenError("the code was given to another client")
    if form.get("redirect_uri") != found.redirect_uri:
        raise GrantTokenError("`redirect_uri` is not the one that the code was sent to")
    verifier = form.get("code_verifier", "")
    if not _VERIFIER.fullmatch(verifier):
        raise GrantTokenError("`code_verifier` is missing, or not one")
    if not hmac.compare_digest(jose.digest(verifier), found.challenge):
        raise GrantTokenError("`code_verifier` is not what `code_challenge` was made from")


class ConsentFlows:
    """Code, device and back-channel flow. Without an issuer of humans there is nobody to decide, so there are none."""

    def __init__(self, deps: AppDeps, tokens: TokenIssuer) -> None:
        self._deps, self._open = deps, deps.identity.logins is not None
        self._consent, self._codes = ConsentPage(deps), AuthorizationCodes(deps, tokens)
        self._asking = (Authorize(deps, self._consent), Devices(deps, self._consent), Backchannel(deps))

    def grant_types(self) -> Mapping[str, GrantType]:
        """Return the grant types for the token endpoint."""
        return self._codes.grant_types() if self._open else {}

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        asking = tuple(replace(row, tcp=True) for part in self._asking for row in part.routes())
        return (*self._consent.routes(), *asking) if self._open else self._consent.pages()

    def metadata(self) -> Mapping[str, object]:
        """Return what server metadata says of them (RFC 8414, 8628 §4, 9126 §5, 9207 §3, CIBA §4)."""
        if not self._open:
            return {}
        issuer = self._deps.verifier.issuer
        return {
            "authorization_endpoint": f"{issuer}/oauth/authorize",
            "pushed_authorization_request_endpoint": f"{issuer}/oauth/par",
            "device_authorization_endpoint": f"{issuer}/oauth/device_authorization",
            "backchannel_authentication_endpoint": f"{issuer}/oauth/bc-authorize",
            "backchannel_token_delivery_modes_supported": ["poll"],
            "backchannel_user_code_parameter_supported": False,
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            "request_parameter_supported": False,
            "request_uri_parameter_supported": False,
            "client_id_metadata_document_supported": (self._deps.identity.clients or Registry()).documents,
        }
