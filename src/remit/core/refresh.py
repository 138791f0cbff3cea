"""Families of refresh tokens (RFC 6749 §6, RFC 9700 §4.14): a spent one tells of theft, or of a lost answer. Pure.

A family belongs to one grant and ends with it. Tokens are known by their SHA-256 alone. Where they are bound to a key
the one that was spent last may be shown again by that key while no answer to it was used: whoever shows it did not get
the answer, or is a second process of the same client. A thief who has the key, too, is seen when both have gone on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MAX_SPENT = 100  # remembered of one family: an older one is worth as little, but its use is not told from a guess
MAX_LIVE = 4  # that count at a time
GRACE = 60.0  # seconds in which answers to one token all count


@dataclass(frozen=True, slots=True)
class RefreshFamily:
    """The refresh tokens of one grant."""

    id: str
    grant: str
    client: str  # the ``client_id`` it was given to
    audience: str | None  # whom the access tokens are for, at the most; None: the broker
    current: str  # SHA-256 of the newest token that counts, base64url
    spent: tuple[str, ...] = ()
    rev: int = 1  # grows by one with every change
    beside: tuple[str, ...] = ()  # the others that count, the oldest first
    before: str = ""  # the one that was spent last, while no answer to it was used
    since: float = 0.0  # when it was spent, in seconds since the epoch
    keyed: bool = False  # whether ``client`` had to prove who it is, and has to every time

    @property
    def known(self) -> tuple[str, ...]:
        """Every token that is known to belong to this family."""
        return (*self.spent, *self.beside, self.current)

    def turn(self, shown: str, fresh: str, now: float, *, bound: bool) -> RefreshFamily | None:
        """Return the family with ``fresh`` in answer to the token that was shown; None where that tells of theft.

        ``bound``: whoever shows it has proven the key that it is bound to.
        """
        if shown in {*self.beside, self.current}:
            left = tuple(one for one in (*self.beside, self.current) if one != shown)
            return self._with(fresh, left, (shown,), before=shown, since=now)
        if not bound or shown != self.before:
            return None
        lost = now - self.since > GRACE  # the answer, and nobody else is to have it
        left = self.beside if lost else (*self.beside, self.current)
        return self._with(fresh, left, (self.current,) if lost else (), before=shown, since=self.since)

    def _with(
        self, fresh: str, left: tuple[str, ...], over: tuple[str, ...], *, before: str, since: float
    ) -> RefreshFamily:
        most = MAX_LIVE - 1
        spent = (*self.spent, *over, *left[:-most])[-MAX_SPENT:]
        beside, rev = left[-most:], self.rev + 1
        return replace(self, current=fresh, spent=spent, rev=rev, beside=beside, before=before, since=since)
