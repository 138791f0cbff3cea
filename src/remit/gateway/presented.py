"""The token that a caller shows: it is for remit alone, and refused wherever it would be sent on. Pure."""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

from remit.errors import PlaceholderError
from remit.gateway.framing import Fields

_SHORTEST = 16  # bytes: what is shorter is no token, and stands in many places
_JWT = b"eyJ"


def token(fields: Fields, *, proven: bool) -> bytes | None:
    """Return what `Authorization` shows. Where nobody proved it (``proven`` is false), only what looks like ours."""
    shown = (fields.get(b"authorization") or b"").partition(b" ")[2].strip(b" ")
    return shown if len(shown) >= _SHORTEST and (proven or shown.startswith(_JWT)) else None


def spellings(shown: bytes) -> tuple[bytes, ...]:
    """Return a token as it may stand in a body: as it is, and as a form escapes it."""
    return tuple({shown, quote(shown, safe="").encode()})


def check_head(shown: bytes, block: bytes, target: bytes) -> None:
    """Raise PlaceholderError if a token stands in a head anywhere but once, where it is shown, escaped or not."""
    for raw, right in ((block, 1), (target, 0)):
        if raw.count(shown) > right or (b"%" in raw and unquote_to_bytes(raw).count(shown) > right):
            raise PlaceholderError
