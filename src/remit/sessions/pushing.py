"""Security event tokens delivered to a receiver (RFC 8935): each until it is taken, ever later while it is not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from remit.errors import InvalidRequestError, RemitError, UnavailableError
from remit.identity.fetch import PATIENCE
from remit.jose.strict import read_json
from remit.sessions.polling import Pace, Transport, bearer

MAX_ANSWER = 4_096  # bytes of a refusal
MEDIA = "application/secevent+jwt"
# Said again, it would be again. Not so `invalid_key`: a receiver fetches keys anew, and a key may have been revoked.
FINAL = frozenset({"invalid_request", "invalid_issuer", "invalid_audience"})

_LOG = logging.getLogger("remit")

Untold = Callable[[], Awaitable[Sequence[tuple[int, str]]]]  # the next tokens, with the places they are known by
Told = Callable[[int], Awaitable[None]]


@dataclass
class Push:
    """One receiver."""

    url: str
    token: Path | None
    transport: Transport = field(repr=False)
    untold: Untold = field(repr=False)
    told: Told = field(repr=False)
    pace: Pace = field(repr=False)

    async def round(self) -> None:
        """Deliver what there is, in order, if it is time; failures are told to the log."""
        if not self.pace.ready():
            return
        try:
            while batch := await self.untold():
                for place, text in batch:
                    await self._deliver(text)
                    await self.told(place)
        except RemitError as error:
            wait = self.pace.failed()
            _LOG.warning("signals cannot be sent to %s for %d s: %s", self.url, wait.total_seconds(), error.detail)
        else:
            self.pace.worked()

    async def _deliver(self, text: str) -> None:
        headers = {"content-type": MEDIA, "accept": "application/json", **bearer(self.token)}
        client = httpx.AsyncClient(transport=self.transport(), trust_env=False, timeout=PATIENCE)
        try:
            async with asyncio.timeout(PATIENCE), client:
                answer = await client.post(self.url, content=text.encode("ascii"), headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            raise UnavailableError("it does not answer") from error
        if answer.status_code == httpx.codes.BAD_REQUEST and (name := _err(answer.content)) in FINAL:
            _LOG.error("%s refuses a signal for good: %s", self.url, name)
            return
        if answer.status_code not in {httpx.codes.ACCEPTED, httpx.codes.OK, httpx.codes.NO_CONTENT}:
            raise UnavailableError(f"it answered {answer.status_code}")


def _err(raw: bytes) -> str | None:
    """Return why a token was refused (RFC 8935 §2.3), if that is what the answer says."""
    try:
        document = read_json(raw, limit=MAX_ANSWER)
    except InvalidRequestError:
        return None
    name = document.get("err") if isinstance(document, Mapping) else None
    return name if isinstance(name, str) else None
