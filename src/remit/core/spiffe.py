"""Names of workloads: SPIFFE IDs (SPIFFE-ID §2) and patterns over them, compared by whole path segments. Pure.

A pattern is a SPIFFE ID in which ``*`` stands for one segment and a final ``**`` for the rest; or ``*`` alone, for
every workload that was attested; or a name that is no SPIFFE ID (``issuer#subject``), which matches itself alone. The
trust domain is always literal. WIMSE's own identifiers (``wimse://``) have the same form, and are other names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from remit.core.paths import path_le
from remit.errors import InvalidRequestError

ANY = "*"
MAX_ID = 2_048  # bytes, SPIFFE-ID §2.3
MAX_PATTERNS = 32
MAX_TEXT = 8_192  # characters of all patterns of a grant: each is compared with each of its parent's

_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
_SCHEME = "spiffe://"
WIMSE = "wimse://"
SCHEMES = (_SCHEME, WIMSE)


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """A workload's name. ``path`` starts with a slash, or is empty for the trust domain itself."""

    domain: str
    path: str

    def __str__(self) -> str:
        return f"{_SCHEME}{self.domain}{self.path}"


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """The public keys of another trust domain: certificates of authorities in DER, and JWKs of JWT-SVIDs."""

    authorities: tuple[bytes, ...]
    jwks: tuple[Mapping[str, object], ...]


def parse(text: str) -> SpiffeId:
    """Return a SPIFFE ID in its one canonical spelling, or raise InvalidRequestError."""
    found = split(text) if text.startswith(_SCHEME) else None
    if found is None or not all(_plain(segment) for segment in found.path.split("/")[1:]):
        raise InvalidRequestError(f"`{text[:100]}` is not a SPIFFE ID")
    return found


def split(text: str) -> SpiffeId | None:
    """Return the parts of a name of either scheme, or None for any other name; one trust domain vouches for both."""
    if not text.startswith(SCHEMES) or len(text) > MAX_ID or not text.isascii():
        return None
    domain, slash, path = text.partition("://")[2].partition("/")
    return SpiffeId(domain, slash + path) if _DOMAIN.fullmatch(domain) else None


def _plain(segment: str) -> bool:
    return _SEGMENT.fullmatch(segment) is not None and segment not in {".", ".."}


def check_pattern(text: str) -> str:
    """Return a pattern, or raise InvalidRequestError."""
    if text == ANY or (text and not text.startswith(SCHEMES) and "*" not in text and text.isprintable()):
        return text
    found = split(text)
    *inner, last = (found.path.split("/")[1:] if found else []) or [""]
    wild = all(_plain(segment) or segment == "*" for segment in inner)
    if not wild or not (_plain(last) or last in {"*", "**"}):
        raise InvalidRequestError(
            f"`{text[:100]}` is not a pattern of workloads", help="write spiffe://domain/segment/*/** or *"
        )
    return text


def pattern_le(child: str, parent: str) -> bool:
    """Whether every workload that ``child`` matches, ``parent`` matches too."""
    if ANY in {child, parent} or child == parent:
        return parent in {ANY, child}
    inner, outer = split(child), split(parent)
    if inner is None or outer is None or not inner.path or not outer.path:
        return False
    same = child.startswith(WIMSE) == parent.startswith(WIMSE) and inner.domain == outer.domain
    return same and path_le(inner.path, outer.path)


def within(child: Iterable[str], parent: Iterable[str]) -> bool:
    """Whether each pattern of ``child`` is within one of ``parent``."""
    outer = tuple(parent)
    return all(any(pattern_le(one, other) for other in outer) for one in child)


def matches(identity: str, patterns: Iterable[str]) -> bool:
    """Whether a workload's name is one of those that the patterns stand for."""
    return within((identity,), patterns) and ANY not in identity
