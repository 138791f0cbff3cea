"""Compact JWS (RFC 7515 §7.1), read strictly before the library sees it.

Libraries accept more than one spelling of one token: padding, spare bits, duplicate members (Wycheproof tcId 367, 370).
Here a text is accepted in its one canonical form only; of its header only listed members are looked at, so ``jku`` and
``x5c`` mean nothing; and what changes how it is to be read refuses it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass

from remit.core.orders import base64url
from remit.errors import RemitError, TokenError
from remit.jose.strict import read_json

MAX_TOKEN = 32_768  # characters
CHANGING = frozenset({"crit", "b64", "zip"})  # who ignores these reads another token than was signed

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Compact:
    """A JWS in compact form, well formed but not verified."""

    header: Mapping[str, object]
    payload: bytes
    signed: bytes
    signature: bytes


def decode(text: str) -> bytes:
    """Return the bytes of canonical base64url without padding, or raise ValueError."""
    whole = _SEGMENT.fullmatch(text) and len(text) % 4 != 1
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if whole else b""
    if not data or base64url(data) != text:
        raise ValueError("not canonical base64url")
    return data


def read(text: str, members: frozenset[str], error: type[RemitError] = TokenError, *, others: bool = False) -> Compact:
    """Return a compact JWS whose header has ``members`` only, or raise ``error``.

    With ``others`` it may have more, of which nothing is looked at (RFC 7515 §4): for what others make.
    """
    parts = text.split(".") if len(text) <= MAX_TOKEN else []
    if len(parts) != 3:  # noqa: PLR2004 - RFC 7515 §7.1
        raise error("it is not a compact JWS")
    try:
        raw, payload, signature = (decode(part) for part in parts)
    except ValueError:
        raise error("it is not canonical base64url") from None
    header = document(raw, error)
    if others and not header.keys() & CHANGING:
        header = {name: value for name, value in header.items() if name in members}
    if not header.keys() <= members:
        raise error("its header has a member that is not accepted here")
    if not all(isinstance(value, str) for name, value in header.items() if name != "jwk"):
        raise error("its header has a member that is not text")
    return Compact(header, payload, text[: -len(parts[2]) - 1].encode("ascii"), signature)


def document(raw: bytes, error: type[RemitError]) -> Mapping[str, object]:
    """Return a strictly read JSON object, or raise ``error``."""
    try:
        value = read_json(raw)
    except RemitError:
        raise error("it does not hold strict JSON") from None
    if not isinstance(value, dict):
        raise error("it does not hold a JSON object")
    return value
