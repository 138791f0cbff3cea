"""Credentials of targets: where they come from, and how they are written into requests.

A credential that cannot stand in a header is not written at all, so that nothing of it becomes another header.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime

from remit.core.secret import Secret
from remit.errors import UpstreamError
from remit.gateway.scrub import SecretPatterns
from remit.gateway.target import HEADER, NEVER, VALUE, HttpTarget
from remit.ports.credential import CredentialSource, Injection, RequestSigner, UnsignedRequest

SECONDS = 10.0  # that a source may take


class BoundCredential:
    """An injection as it is written for a target; ``names`` are all header fields that its source writes.

    ``fixed`` are the header lines of every request, with Host; with a ``signer`` each is signed when it is finished.
    """

    __slots__ = ("_names", "fixed", "patterns", "signer", "target", "until")

    def __init__(
        self, target: HttpTarget, injection: Injection, names: frozenset[str], signer: RequestSigner | None = None
    ) -> None:
        self.target = target
        self.signer = signer
        self._names = names
        self.until: datetime | None = injection.until
        host = f"Host: {target.destination.authority}\r\n".encode()
        self.fixed = host + _lines(injection.fields, names) + b"Accept-Encoding: identity\r\n"
        self.patterns = SecretPatterns(injection.patterns)

    def __repr__(self) -> str:
        """Mask the credential."""
        return f"BoundCredential({self.target.resource.name!r})"

    async def signed(self, signer: RequestSigner, start: bytes, lines: bytes, body: bytes) -> bytes:
        """Return the lines that sign a request of a request line, header lines and a body."""
        method, target, _ = start.decode("ascii").split(" ", 2)
        fields = (line.partition(": ") for line in (self.fixed + lines).decode("ascii").split("\r\n")[:-1])
        request = UnsignedRequest(method, target, tuple((name, value) for name, _, value in fields), body)
        async with asyncio.timeout(SECONDS):
            return _lines(await signer.sign(request), self._names)


def static(target: HttpTarget, secret: Secret | None) -> BoundCredential:
    """Return the credential that is a resource's static secret, where its settings or its provider say."""
    text = secret.reveal() if secret is not None else ""
    fields = ((target.header, target.format.replace("{}", text)),) if text else ()
    injection = Injection(fields, (text.encode(),) if text else ())  # what holds the secret holds a form of it
    return BoundCredential(target, injection, frozenset({target.header.lower()}))


async def fetched(target: HttpTarget, source: CredentialSource, now: Callable[[], datetime]) -> BoundCredential:
    """Ask a source for what is injected; UpstreamError when it has nothing in time that is still good."""
    try:
        async with asyncio.timeout(SECONDS):
            injection = await source.current()
    except TimeoutError as error:
        raise UpstreamError("the credential was not there in time") from error
    if injection.until is not None and injection.until <= now():
        raise UpstreamError("the credential has expired")
    return BoundCredential(target, injection, source.names, source if isinstance(source, RequestSigner) else None)


def _lines(fields: Iterable[tuple[str, str]], names: frozenset[str]) -> bytes:
    written = []
    for name, value in fields:
        known = name.lower() in names and name.lower().encode() not in NEVER
        if not known or not HEADER.fullmatch(name) or not VALUE.fullmatch(value):
            raise UpstreamError("the credential cannot stand in a header, so the request was not sent")
        written.append(f"{name}: {value}\r\n")
    return "".join(written).encode("ascii")
