"""Security event tokens over HTTP: polled from a transmitter (RFC 8936), pushed to a receiver (RFC 8935).

A polled token is acknowledged with the next request after it was taken, and not before what it says is durable. What
cannot be taken now, as when keys cannot be fetched, is neither acknowledged nor refused, and comes again. A token that
is pushed is sent until it is taken, ever later while it is not.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import httpx

from remit.errors import AudienceError, InvalidRequestError, RemitError, TokenError, UnavailableError
from remit.identity.fetch import MAX_DOCUMENT, PATIENCE
from remit.jose.strict import read_json
from remit.ports import Clock
from remit.ports.events import PendingEvent

MAX_EVENTS = 16  # asked for at once
MAX_ROUNDS = 64  # requests in a row while there is more
PERIOD = timedelta(seconds=5)
LONGEST = timedelta(minutes=5)  # between two tries while the transmitter does not answer
MAX_SECRET = 4_096  # characters

MAX_ANSWER = 4_096  # bytes of a refusal
MEDIA = "application/secevent+jwt"
# Said again, it would be again. Not so `invalid_key`: a receiver fetches keys anew, and a key may have been revoked.
FINAL = frozenset({"invalid_request", "invalid_issuer", "invalid_audience"})

_LOG = logging.getLogger("remit")

Transport = Callable[[], httpx.AsyncBaseTransport]


def bearer(path: Path | None, shortest: int = 1) -> Mapping[str, str]:
    """Return the header that shows the token in a file, read anew each time; UnavailableError when it is no good.

    A token that others made is as long as it is; one that is shown to us has ``shortest`` characters at least.
    """
    if path is None:
        return {}
    try:
        mode, text = path.stat().st_mode, path.read_text("ascii").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UnavailableError(f"the token file `{path.name}` cannot be read") from error
    if mode & 0o077:
        raise UnavailableError(
            f"the token file `{path.name}` can be read or written by others", help=f"chmod 600 {path.name}"
        )
    if not 0 < len(text) <= MAX_SECRET or not text.isprintable() or " " in text:
        raise UnavailableError(f"the token file `{path.name}` does not hold one token")
    if len(text) < shortest:
        raise UnavailableError(
            f"the token in `{path.name}` has fewer than {shortest} characters, and could be guessed",
            help=f"openssl rand -hex 32 > {path.name}",
        )
    return {"authorization": f"Bearer {text}"}


@dataclass
class EventDelivery(ABC):
    """Rounds to one endpoint of somebody else: regularly while it works, ever later while it does not."""

    done: ClassVar[str]  # with events, in the log's words
    url: str
    token: Path | None
    transport: Transport = field(repr=False)
    clock: Clock = field(repr=False)
    due: datetime | None = field(default=None, init=False)
    failures: int = field(default=0, init=False)

    async def round(self) -> None:
        """Deliver what there is, if it is time; the log is told what could not be done, and why."""
        if self.due is not None and self.clock() < self.due:
            return
        try:
            await self._deliver()
        except RemitError as error:
            wait = min(PERIOD * (1 << self.failures), LONGEST)
            self.failures, self.due = min(self.failures + 1, 16), self.clock() + wait
            _LOG.warning("signals cannot be %s %s for %d s: %s", self.done, self.url, wait.seconds, error.detail)
        else:
            self.failures, self.due = 0, self.clock() + PERIOD

    @abstractmethod
    async def _deliver(self) -> None:
        """Deliver what there is, or raise a RemitError."""

    async def _post(self, headers: Mapping[str, str], **body: Any) -> httpx.Response:
        shown = {**headers, "accept": "application/json", **bearer(self.token)}
        client = httpx.AsyncClient(transport=self.transport(), trust_env=False, timeout=PATIENCE)
        try:
            async with asyncio.timeout(PATIENCE), client:
                return await client.post(self.url, headers=shown, **body)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            raise UnavailableError("it does not answer") from error


@dataclass
class Poller(EventDelivery):
    """Polls one endpoint of one transmitter."""

    take: Callable[[str], Awaitable[None]] = field(repr=False)
    _acknowledge: list[str] = field(default_factory=list, init=False, repr=False)
    _refuse: dict[str, Mapping[str, str]] = field(default_factory=dict, init=False, repr=False)

    done = "fetched from"

    async def _deliver(self) -> None:
        for _ in range(MAX_ROUNDS):
            sets, more = await self._poll()
            for jti, token in sets.items():
                try:
                    await self.take(token)
                except (TokenError, InvalidRequestError) as error:
                    name = "invalid_audience" if isinstance(error, AudienceError) else "invalid_request"
                    self._refuse[jti] = {"err": name, "description": error.detail}
                else:
                    self._acknowledge.append(jti)
            if not (more or self._acknowledge or self._refuse):
                return

    async def _poll(self) -> tuple[Mapping[str, str], bool]:
        """Acknowledge what was taken; return the next tokens by name, and whether there are more (RFC 8936 §2)."""
        told: dict[str, object] = {"maxEvents": MAX_EVENTS, "returnImmediately": True}
        told |= {"ack": self._acknowledge} if self._acknowledge else {}
        told |= {"setErrs": self._refuse} if self._refuse else {}
        answer = await self._post({}, json=told)
        if answer.status_code != httpx.codes.OK:
            raise UnavailableError(f"it answered {answer.status_code}")
        try:
            document = read_json(answer.content, limit=MAX_DOCUMENT)
        except InvalidRequestError as error:
            raise UnavailableError("its answer is not JSON") from error
        found = document if isinstance(document, dict) else {}
        sets = found.get("sets")
        if not isinstance(sets, dict) or len(sets) > MAX_EVENTS or not all(isinstance(t, str) for t in sets.values()):
            raise UnavailableError("its answer holds no `sets`, or more than were asked for")
        self._acknowledge, self._refuse = [], {}
        return sets, found.get("moreAvailable") is True


@dataclass
class Pusher(EventDelivery):
    """Pushes to one receiver, in order."""

    pending: Callable[[], Awaitable[Sequence[PendingEvent]]] = field(repr=False)
    acknowledge: Callable[[str], Awaitable[None]] = field(repr=False)

    done = "sent to"

    async def _deliver(self) -> None:
        while batch := await self.pending():
            for event in batch:
                answer = await self._post({"content-type": MEDIA}, content=event.text.encode("ascii"))
                if answer.status_code == httpx.codes.BAD_REQUEST and (name := _refusal(answer.content)) in FINAL:
                    _LOG.error("%s refuses a signal for good: %s", self.url, name)
                elif answer.status_code not in {httpx.codes.ACCEPTED, httpx.codes.OK, httpx.codes.NO_CONTENT}:
                    raise UnavailableError(f"it answered {answer.status_code}")
                await self.acknowledge(event.jti)


def _refusal(raw: bytes) -> str | None:
    """Return why a token was refused (RFC 8935 §2.3), if that is what the answer says."""
    try:
        document = read_json(raw, limit=MAX_ANSWER)
    except InvalidRequestError:
        return None
    name = document.get("err") if isinstance(document, Mapping) else None
    return name if isinstance(name, str) else None
