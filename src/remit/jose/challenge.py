"""What a refusal says of how to get in: the `Bearer` challenge of an upstream (RFC 6750 §3, RFC 9728 §5.1). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

INSUFFICIENT = "insufficient_scope"
MOST = 4_096  # characters of a line that are read
MOST_SCOPES = 32
_SCOPE = re.compile(r"[A-Za-z0-9_.:/+*-]{1,100}")  # of RFC 6749 §3.3 what no shell and no page takes for more than text
_PART = re.compile(
    r'(?:^|,)[ \t]{0,8}([A-Za-z0-9-]{1,64})(?=[ \t]+[^ \t=]|[ \t]*(?:,|$))'
    r'|(?<![A-Za-z0-9_-])([A-Za-z0-9_-]{1,64})[ \t]{0,8}=[ \t]{0,8}(?:"((?:[^"\\]|\\.){0,4096})"|([^ \t",]{1,2048}))'
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Challenge:
    """``metadata`` is the URL where a resource says who its provider is. Empty: it is not said."""

    error: str = ""
    scopes: tuple[str, ...] = ()
    metadata: str = ""


def read(lines: Iterable[str]) -> Challenge:
    """Return what `WWW-Authenticate` says about bearers: of what is said twice, the first; of the rest, nothing."""
    said: dict[str, str] = {}
    for line in lines:
        scheme = ""
        for part in _PART.finditer(line[:MOST]):
            begun, name, quoted, plain = part.groups()
            scheme = begun.lower() if begun else scheme
            if name and scheme == "bearer":
                said.setdefault(name.lower(), plain or re.sub(r"\\(.)", r"\1", quoted or ""))
    scopes = [each for each in said.get("scope", "").split(" ") if _SCOPE.fullmatch(each)]
    return Challenge(
        said.get("error", ""), tuple(dict.fromkeys(scopes[:MOST_SCOPES])), said.get("resource_metadata", "")
    )
