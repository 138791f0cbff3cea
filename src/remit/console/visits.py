"""What one browser came for, and where the answer to it goes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

from remit.console.pages import ClientDisplay
from remit.core.principal import Human

_NEVER = datetime.min.replace(tzinfo=UTC)


def described(text: str) -> str:
    """Return text as ``error_description`` may hold it (RFC 6749 §4.1.2.1)."""
    return "".join(char if " " <= char <= "~" and char not in '"\\' else "'" for char in text)


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
    keyed: bool = False  # whether it has to authenticate when it comes with the code

    def url(self, **answer: str) -> str:
        """Return the redirect with an answer: ``state`` as it came, ``iss`` (RFC 9207) always."""
        given = {**answer, **({} if self.state is None else {"state": self.state}), "iss": self.issuer}
        return f"{self.redirect_uri}{'&' if '?' in self.redirect_uri else '?'}{urlencode(given)}"

    def refusal(self, error: str, description: str) -> str:
        """Return the redirect that tells a client no (RFC 6749 §4.1.2.1)."""
        return self.url(error=error, error_description=described(description))


@dataclass(frozen=True, slots=True)
class ConsentSession:
    """One browser before one request. Only digests of what the browser holds are kept."""

    approval: str  # empty while there is but a draft
    about: ClientDisplay
    back: RedirectTarget | None = None
    again: str = ""  # where it is shown once more, unless the answer goes back to a program
    draft: str = ""  # what a client wants to ask, as text; on record once the human goes on
    pushed: str = ""  # the name of that request, if it was pushed
    id: str = ""
    cookie: str = ""
    csrf: str = ""
    until: datetime = _NEVER
    approves: bool = True  # or came to refuse: then the login need not be strong, and approves of nothing
    issuer: str = ""  # where to log in
    connect: str = ""  # a resource that is to be connected: then nothing is asked, and nothing decided
    human: Human | None = None  # who came back from there; nobody decides before
    begun: str = ""  # what came back from the provider of that resource,
    shown: str = ""  # to a browser that has shown this
    mine: bool = False  # they see their own connections, and end one: as little is asked or decided


@dataclass(frozen=True, slots=True)
class PushedRequest:
    """A request as it waits for its browser: as text, as large as it is. ``name`` is that of its ``request_uri``."""

    about: ClientDisplay
    back: RedirectTarget
    request: str
    name: str = ""
