"""Families of refresh tokens (RFC 6749 §6, RFC 9700 §4.14): one counts at a time, a spent one tells of theft. Pure.

A family belongs to one grant and ends with it. Tokens are known by their SHA-256 alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MAX_SPENT = 100  # remembered of one family: an older one is worth as little, but its use is not told from a guess


@dataclass(frozen=True, slots=True)
class RefreshFamily:
    """The refresh tokens of one grant."""

    id: str
    grant: str
    client: str  # the ``client_id`` it was given to
    audience: str | None  # whom the access tokens are for; None: the broker
    current: str  # SHA-256 of the token that counts, base64url
    spent: tuple[str, ...] = ()
    rev: int = 1  # grows by one with every change

    @property
    def known(self) -> tuple[str, ...]:
        """Every token that is known to belong to this family."""
        return (*self.spent, self.current)

    def rotate(self, fresh: str) -> RefreshFamily:
        """Return the family with ``fresh`` as the token that counts, and the one before it spent."""
        spent = (*self.spent, self.current)[-MAX_SPENT:]
        return replace(self, current=fresh, spent=spent, rev=self.rev + 1)
