"""What a browser keeps for us between our pages and while it is away at an issuer: sealed, so that we keep nothing.

Whoever asks takes no room that others need, and nobody can have forgotten what another browser began.
"""

from __future__ import annotations

import hmac
import secrets
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Literal
from urllib.parse import urlencode

import msgspec

from remit import jose
from remit.core.principal import Human

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RedirectTarget:
    """Where an authorization response goes, and what its code will be bound to."""

    client_id: str
    redirect_uri: str
    challenge: str
    state: str | None
    issuer: str
    audience: str | None = None
    anew: bool = False  # whether the client wants the human to log in again

    def url(self, **answer: str) -> str:
        """Return the redirect with an answer: ``state`` as it came, ``iss`` (RFC 9207) always."""
        given = {**answer, **({} if self.state is None else {"state": self.state}), "iss": self.issuer}
        return f"{self.redirect_uri}{'&' if '?' in self.redirect_uri else '?'}{urlencode(given)}"

    def refusal(self, error: str, description: str) -> str:
        """Return the redirect that tells a client no (RFC 6749 §4.1.2.1)."""
        return self.url(error=error, error_description=described(description))


@dataclass(frozen=True, slots=True)
class ClientDisplay:
    """What is said beside a request: the name of who asks, what to know of them, and facts."""

    client: str = ""
    warning: str = ""
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A client's request, on record once the human goes on; ``pushed`` is its ``request_uri`` until then."""

    client_id: str
    request: str
    pushed: str = ""


@dataclass(frozen=True, slots=True)
class ConsentSession:
    """One browser before one request. Only digests of what the browser holds are kept."""

    approval: str  # empty while there is but a draft
    about: ClientDisplay = ClientDisplay()
    back: RedirectTarget | None = None
    again: str = ""  # where it is shown once more, unless the answer goes back to a program
    draft: AuthorizationRequest | None = None
    id: str = ""
    cookie: str = ""
    csrf: str = ""
    until: datetime = _NEVER
    approves: bool = True  # or came to refuse: then the login need not be strong, and approves of nothing
    issuer: str = ""  # where to log in
    human: Human | None = None  # who came back from there; nobody decides before


@dataclass(frozen=True, slots=True)
class PushedRequest:
    """A request as it waits for its browser: as text, as large as it is."""

    about: ClientDisplay
    back: RedirectTarget
    draft: AuthorizationRequest


Purpose = Literal["form", "login"]


@dataclass(frozen=True, slots=True)
class Seal:
    """Seals sessions with a key of this process: whoever holds one can neither make nor change it."""

    _key: bytes = field(default_factory=partial(secrets.token_bytes, 32), repr=False)

    def close(self, purpose: Purpose, session: ConsentSession) -> str:
        """Return a session as text for the browser."""
        raw = zlib.compress(msgspec.json.encode(session))
        return f"{jose.encode(raw)}.{jose.encode(self._mac(purpose, raw))}"

    def open(self, purpose: Purpose, text: str, now: datetime) -> ConsentSession | None:
        """Return the session that was sealed, if its time is not up."""
        body, _, mac = text.partition(".")
        try:
            raw, shown = jose.decode(body), jose.decode(mac)
        except ValueError:
            raw = shown = b""
        if not hmac.compare_digest(shown, self._mac(purpose, raw)):
            return None
        session = msgspec.json.decode(zlib.decompress(raw), type=ConsentSession)
        return session if now < session.until else None

    def _mac(self, purpose: Purpose, raw: bytes) -> bytes:
        return hmac.digest(self._key, purpose.encode() + b"\n" + raw, "sha256")


def described(text: str) -> str:
    """Return text as ``error_description`` may hold it (RFC 6749 §4.1.2.1)."""
    return "".join(char if " " <= char <= "~" and char not in '"\\' else "'" for char in text)
