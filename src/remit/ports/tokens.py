"""The tokens of grants as workers know them: whoever holds the keys mints them, and says whose they are.

No worker signs, and none names the holder of a grant on its own word: it sends the token along, and is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from remit.core import scope as scopes
from remit.core.approval import Approval
from remit.core.principal import GrantView, Holder, IdToken, Principal, Workload
from remit.core.request import GrantRequest
from remit.core.scope import Access
from remit.errors import RemitError
from remit.jose.proof import Nonces, Proof
from remit.jose.token import TokenSpec
from remit.ports.broker import Opener

PROVE = Access("remit", "prove")  # what the audit calls an attempt to use a token


class Granted(Struct, frozen=True):
    """A grant as its holder is told of it: with a token, if it is bound to what proves one."""

    task: str
    grant: str
    expires_in: int  # seconds that the token is good for, or the grant
    details: str  # its scope, as JSON
    token: str | None = None
    token_type: str | None = None  # RFC 6749 §7.1


def unbound(view: GrantView, now: datetime) -> Granted:
    """Return what the holder of a grant is told that is bound to nothing."""
    return Granted(
        view.task, view.id, int((view.grant.expires_at - now).total_seconds()), scopes.text(view.grant.scope)
    )


class TokenPort(Protocol):
    """The keys for tokens, and the tokens that they signed. Every method raises a RemitError or does what it says."""

    async def mint(self, grant_id: str, spec: TokenSpec) -> Granted:
        """Return a token of a live grant, bound to the grant's own key; its claims are the grant's as it stands.

        TokenError for a grant that is bound to nothing, or to a certificate whose end ``spec`` does not say.
        """

    async def open_with_token(
        self,
        opener: Opener | IdToken,
        request: GrantRequest,
        spec: TokenSpec,
        proof: Proof | None = None,
        *,
        stranger: bool = False,
    ) -> Granted:
        """Burn a proof, as ``Pending.burn`` does, open a task as ``BrokerPort.open`` does, and mint for its root."""

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
        """Burn the child's proof, delegate as ``BrokerPort.delegate`` does, and mint for the child."""

    async def present(self, token: str, proof: Proof | None = None) -> Holder:
        """Return the holder of a token of ours whose grant is live now; ``proof`` is of its key, and burnt.

        TokenError, GrantEndedError, WrongKeyError, ReplayError. Whom the token is for the caller has to see.
        """

    async def token_grant(self, token: str) -> GrantView:
        """Return the grant of a token of ours that is not over, live or ended; whoever shows it has proven nothing."""

    async def refuse_token(self, token: str, error: RemitError) -> None:
        """Record that a token of ours, good or over, was refused to whoever showed it; a flood is counted."""

    async def token_keys(self) -> Sequence[Mapping[str, str]]:
        """Return the public JWKs that verify tokens; when they change, a notice has the new ones."""

    async def nonces(self) -> Nonces:
        """Return what all workers make nonces with; when its key turns, a notice has the new one."""

    async def client_mac(self, statement: str) -> str:
        """Return the MAC by which the id of a client that registered itself with this statement is known again."""

    async def status_list(self) -> str:
        """Return the token status list as it is now, signed."""
