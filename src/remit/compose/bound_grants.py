"""Grants that are made with their first token, in one step: between a proof and its token nothing else is asked."""

from __future__ import annotations

from dataclasses import replace

from remit.broker.tokens import GrantTokens
from remit.core.approval import Approval
from remit.core.principal import GrantView, Human, IdToken, Principal, Workload
from remit.core.request import GrantRequest
from remit.errors import GrantTokenError, RemitError, UnauthenticatedError
from remit.jose.proof import Proof
from remit.jose.token import TokenSpec
from remit.ports.broker import Opener
from remit.ports.tokens import PROVE, Granted, unbound


class BoundGrants(GrantTokens):
    """Opens and delegates for whoever proves a key. What each method does stands in ``ports/tokens.py``."""

    async def open_with_token(
        self,
        opener: Opener | IdToken,
        request: GrantRequest,
        spec: TokenSpec,
        proof: Proof | None = None,
        *,
        stranger: bool = False,
    ) -> Granted:
        if request.binding.by_token:  # before anything is used up
            self._audience(spec.audience, request.scope, request.binding)
        await self.burn(proof, stranger=stranger)
        named = await self.human(opener) if isinstance(opener, IdToken) else opener
        root = await self._broker.open(named, request)
        return unbound(root, self._clock()) if not request.binding.by_token else await self._first(root, spec)

    async def delegate_with_token(
        self,
        principal: Principal,
        parent_id: str,
        request: GrantRequest,
        spec: TokenSpec,
        proof: Proof | None = None,
        approval: Approval | None = None,
        actor: Workload | None = None,
    ) -> Granted:
        self._audience(spec.audience, request.scope, request.binding)
        await self.burn(proof)
        child = await self._broker.delegate(principal, parent_id, request, approval, actor)
        return await self._first(child, spec)

    async def _first(self, made: GrantView, spec: TokenSpec) -> Granted:
        """Return the first token of a grant; what it cannot be made for has ended: nobody holds it."""
        try:
            return await self.mint(made.id, spec)
        except RemitError:
            await self._broker.revoke(made.holder, made.id)
            raise

    async def human(self, shown: IdToken) -> Human:
        """Return the human of an ID token; a refusal is recorded."""
        if self._humans is None:
            raise GrantTokenError("no issuer of humans is configured here")
        try:
            return replace(await self._humans.id_token(shown.text), brought_by=shown.client)
        except (UnauthenticatedError, GrantTokenError) as error:
            await self._broker.deny(None, PROVE, error)
            raise
