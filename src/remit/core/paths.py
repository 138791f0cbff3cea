"""Patterns of paths and of URIs: how they are read, and which is part of which. Pure.

A path is whole segments: a literal, ``*`` for one segment that is not empty, a final ``**`` for the rest, which may be
empty. Segments compare byte for byte.
"""

from __future__ import annotations

import re
from functools import lru_cache

from remit.errors import UnknownDetailError

MAX_TEXT = 1_024  # characters of one string

Places = list[tuple[dict[str, int], int, int]]

# octets in one spelling: no unreserved one is encoded, and none that is a separator, a percent sign or a control
_OCTET = "%(?:2[0-46-9A-C]|3[A-F]|40|5[BDE]|60|7[B-D]|[89A-F][0-9A-F])"
_SEGMENT = rf"(?:\*(?=/|\Z)|(?!\.\.?(?:/|\Z))(?:[A-Za-z0-9\-._~!$&'()+,;=:@]++|{_OCTET})++)"
_URI = re.compile(r"([a-z][a-z0-9+.-]{0,31})://((?!:).*)")
_PATH = re.compile(rf"(?:/{_SEGMENT})*+(?:/(?:\*\*)?)?")


def check_path(name: str, path: object) -> str:
    """Return a path pattern in canonical form, or raise UnknownDetailError."""
    if not isinstance(path, str) or not path.startswith("/") or len(path) > MAX_TEXT:
        raise UnknownDetailError(f"`{name}` must hold paths that start with `/`")
    if not _PATH.fullmatch(path):
        raise UnknownDetailError(f"`{name}` has a path that is not whole segments in canonical form: `{path}`")
    return path


def uri_path(uri: str) -> str:
    """Return a URI, or a pattern of URIs, as a path: its scheme, its authority (`:` where it is empty), its path.

    What is no URI in canonical form becomes a path that no pattern but `**` matches. Of one that no pattern could be
    nothing is kept: strangers say those, at any length.
    """
    return _uri_path(uri) if len(uri) <= MAX_TEXT and uri.isascii() else f"//{uri}"


@lru_cache(maxsize=2_048)  # more than two scopes have: each URI is compared with those of each detail that is alike
def _uri_path(uri: str) -> str:
    if uri == "**":
        return "/**"
    found = _URI.fullmatch(uri)
    if found is None:
        return f"//{uri}"
    authority, slash, rest = found[2].partition("/")
    path = f"/{found[1]}:/{authority or ':'}{slash}{rest}"
    return path if _PATH.fullmatch(path) else f"//{uri}"


def check_uri(name: str, uri: object) -> str:
    """Return a pattern of URIs in canonical form, or raise UnknownDetailError."""
    if not isinstance(uri, str) or len(uri) > MAX_TEXT or uri_path(uri).startswith("//"):
        raise UnknownDetailError(
            f"`{name}` must hold URIs in canonical form",
            help="write `scheme://place/path`, with `*` for a segment and a final `**` for the rest, or `**` for all",
        )
    return uri


def path_le(child: str, parent: str) -> bool:
    """Whether every path that ``child`` matches is matched by ``parent``. A path is its own pattern."""
    wide = parent[1:].split("/")
    narrow = child[1:].split("/", len(wide))  # one more is longer, however much
    for index, segment in enumerate(wide):
        if segment == "**":
            return True
        if index >= len(narrow) or narrow[index] == "**":
            return False
        if segment == "*" and narrow[index] != "":
            continue
        if narrow[index] != segment:
            return False
    return len(narrow) == len(wide)


@lru_cache(maxsize=128)  # more than one comparison of scopes comes by
def places(paths: tuple[str, ...]) -> Places:
    """Return, for each place in a path, which of ``paths`` go on there, as bits: by segment, by any, and by ``**``."""
    split = [_segments(path) for path in paths]
    found: list[dict[str, int]] = [{"": 0, "/": 0, "**": 0, "*": 0} for _ in range(max(map(len, split), default=1))]
    for number, segments in enumerate(split):
        for place, segment in zip(found, segments, strict=False):
            place[segment] = place.get(segment, 0) | 1 << number
    done: Places = []
    for at in found:
        any_, rest = at.pop("*"), at.pop("**")
        named = {segment: bits if segment in {"", "/"} else bits | any_ for segment, bits in at.items()}
        done.append(({**named, "**": 0}, any_, rest))
    return done


@lru_cache(maxsize=512)  # the paths of a detail are compared with each detail alike
def _segments(path: str) -> tuple[str, ...]:
    return (*path[1:].split("/"), "/")  # which is in no segment, so it is what comes after the last


def within(path: str, wide: Places) -> bool:
    """Whether one of the paths of ``places`` covers ``path`` as by ``path_le``, at the cost of its own segments."""
    return _covered(_segments(path), wide)


def matched(path: str, wide: Places) -> bool:
    """Whether one of the paths of ``places`` matches the path of a request, of which nothing is kept."""
    return _covered((*path[1:].split("/", len(wide)), "/"), wide)


def _covered(segments: tuple[str, ...], wide: Places) -> bool:
    left = -1  # those that cover it so far
    for (named, any_, rest), segment in zip(wide, segments, strict=False):
        if left & rest:
            return True
        left &= named.get(segment, any_)
        if not left:
            return False
    return True
