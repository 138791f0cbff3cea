"""How the demo's agents call their services: the base URL and the key that their environment gives them.

With keys in the environment these are the real ones. Under remit they are the gateway's address and a placeholder. The
agents cannot tell, and need not.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

TIMEOUT = 5.0  # seconds
HEADERS = {"search": "Authorization", "documents": "X-Api-Key", "messages": "Authorization"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; status 0 when nothing did."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the upstream did what was asked."""
        return self.status // 100 == 2  # noqa: PLR2004 - the class of successes


@dataclass(frozen=True, slots=True)
class Api:
    """One service as an agent sees it."""

    name: str
    base: str
    key: str

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Call the service with the key where its SDK would put it."""
        header = HEADERS[self.name]
        given = f"Bearer {self.key}" if header == "Authorization" else self.key
        return request(method, self.base + path, body, {header: given, **headers})


def api(name: str) -> Api:
    """Return a service by what the environment says of it: a run's own variables, else the usual ones."""
    label = name.upper()
    base = os.environ.get(f"REMIT_URL_{label}") or os.environ.get(f"{label}_BASE_URL", "")
    key = os.environ.get(f"REMIT_KEY_{label}") or os.environ.get(f"{label}_API_KEY", "")
    return Api(name, base.rstrip("/"), key)


def request(method: str, url: str, body: bytes | None, headers: dict[str, str]) -> Answer:
    """Make one request on a connection of its own."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=TIMEOUT)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    kind = {"Content-Type": "application/json"} if body is not None else {}
    try:
        connection.request(method, target, body, {**kind, **headers})
        response = connection.getresponse()
        return Answer(response.status, response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Answer(0, str(error).encode())
    finally:
        connection.close()


def stream(url: str, headers: dict[str, str]) -> Iterator[bytes]:
    """Yield the lines of a response as they come, until it ends or breaks off."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=TIMEOUT)
    try:
        connection.request("GET", parts.path, headers=headers)
        response = connection.getresponse()
        while line := response.readline():
            yield line
    except (OSError, http.client.HTTPException):
        return
    finally:
        connection.close()


def query(path: str, **values: str) -> str:
    """Return a path with a query."""
    return f"{path}?{urlencode(values, quote_via=quote)}"


def say(event: str, **fields: object) -> None:
    """Print one line of JSON: what the demo's screen is made from."""
    line = json.dumps({"event": event, "at": time.monotonic(), "pid": os.getpid(), **fields})
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
