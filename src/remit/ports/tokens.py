"""The tokens of grants as workers know them: whoever holds the keys mints them, and says whose they are.

No worker signs, and none names the holder of a grant on its own word: it sends the token along, and is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from remit.core.principal import GrantView, Holder
from remit.core.scope import Access
from remit.errors import RemitError
from remit.jose.proof import Nonces, Proof
from remit.jose.token import TokenSpec

PROVE = Access("remit", "prove")  # what the audit calls an attempt to use a token


class MintedToken(Struct, frozen=True):
    """A token, and how many seconds it is good for."""

    text: str
    expires_in: int


class TokenPort(Protocol):
    """The keys for tokens, and the tokens that they signed. Every method raises a RemitError or does what it says."""

    async def mint(self, grant_id: str, spec: TokenSpec) -> MintedToken:
        """Return a token of a live grant, bound to the grant's own key; its claims are the grant's as it stands.

        TokenError for a grant that is bound to nothing, or to a certificate whose end ``spec`` does not say.
        """

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

    async def status_list(self) -> str:
        """Return the token status list as it is now, signed."""
