"""Handles that an upstream hands out to be handed back: sealed for the grant that got them, without any state. Pure.

All grants share the upstream's account, and to the upstream one session is as good as another. So a client is given
each with a code that only this gateway can make, over the handle and whose it is; possession alone is worth nothing.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field

_SIZE = 24  # bytes of a code


@dataclass(frozen=True, slots=True)
class HandleSeal:
    """Seals the handles of one purpose for one owner."""

    _key: bytes = field(repr=False)
    _purpose: str
    _owner: str

    def sealed(self, handle: str) -> str:
        return f"{self._code(handle)}.{handle}"

    def opened(self, text: str) -> str | None:
        """Return the handle, or None if it was sealed for somebody else, for something else, or not at all."""
        code, _, handle = text.partition(".")
        return handle if code.isascii() and hmac.compare_digest(code, self._code(handle)) else None

    def _code(self, handle: str) -> str:
        said = f"{self._purpose}\0{self._owner}\0{handle}".encode("utf-8", "surrogatepass")
        return urlsafe_b64encode(hmac.digest(self._key, said, "sha256")[:_SIZE]).decode()
