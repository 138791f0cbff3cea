"""What a browser keeps for us: it can read it, and neither make nor change it."""

from __future__ import annotations

import hmac
import secrets
import zlib
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

import msgspec

from remit import jose

T = TypeVar("T")
Purpose = Literal["form", "login"]


@dataclass(frozen=True, slots=True)
class Seal:
    """Seals values with a key of this process."""

    _key: bytes = field(default_factory=partial(secrets.token_bytes, 32), repr=False)

    def close(self, purpose: Purpose, value: object) -> str:
        """Return a value as text for the browser."""
        raw = zlib.compress(msgspec.json.encode(value))
        return f"{jose.encode(raw)}.{jose.encode(self._mac(purpose, raw))}"

    def open(self, purpose: Purpose, text: str, kind: type[T]) -> T | None:
        """Return the value that was sealed for a purpose, or None for text that is nothing of the kind."""
        body, _, mac = text.partition(".")
        try:
            raw, shown = jose.decode(body), jose.decode(mac)
        except ValueError:
            raw = shown = b""
        if not hmac.compare_digest(shown, self._mac(purpose, raw)):
            return None
        return msgspec.json.decode(zlib.decompress(raw), type=kind)

    def _mac(self, purpose: str, raw: bytes) -> bytes:
        return hmac.digest(self._key, purpose.encode() + b"\n" + raw, "sha256")
