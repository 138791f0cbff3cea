"""Where the credential of a gateway request comes from: a static secret, a token that rotates, a signature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

from remit.ports import Resource


@dataclass(frozen=True, slots=True)
class Injection:
    """Header fields that go into each request, and the sensitive bytes, 16 or more each, that no answer may repeat."""

    fields: tuple[tuple[str, str], ...] = field(repr=False)
    patterns: tuple[bytes, ...] = field(repr=False)
    until: datetime | None = None  # from when on it is not sent; None: when its resource or secret is replaced


@dataclass(frozen=True, slots=True)
class UnsignedRequest:
    """A request as it goes to the upstream, without signature and framing (``Content-Length``, ``Connection``)."""

    method: str
    target: str  # path and query, as on the request line
    fields: tuple[tuple[str, str], ...] = field(repr=False)  # names as they are written; Host and injected ones too
    body: bytes = field(repr=False)


class CredentialSource(Protocol):
    """The credential of one resource."""

    names: frozenset[str]  # of all header fields that it writes, in lower case; a caller's own of these are dropped

    async def current(self) -> Injection:
        """Return what is injected now. It is asked again when that is no longer good; requests share the answer."""


@runtime_checkable
class RequestSigner(CredentialSource, Protocol):
    """A source that signs each request when it is finished (AWS SigV4, RFC 9421). Its ``current`` has what is fixed."""

    async def sign(self, request: UnsignedRequest) -> tuple[tuple[str, str], ...]:
        """Return the header fields that sign ``request``."""


SourceOf = Callable[[Resource], CredentialSource | None]  # None: the resource's static secret
