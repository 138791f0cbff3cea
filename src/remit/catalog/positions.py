"""Where a key stands in a request: how it is written there, and how a client's placeholder is taken out. Pure.

A placeholder is letters, digits, ``.``, ``-`` and ``_``, so that each position has one spelling of it. What is nearly
that spelling is left where it stands: who looks for placeholders finds it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args
from urllib.parse import quote, unquote_plus

from remit.core import fields
from remit.errors import InvalidRequestError

Place = Literal["header", "basic", "query", "body", "form"]
_PATTERNS: Mapping[str, re.Pattern[str]] = {
    "header": re.compile(r"[A-Za-z0-9-]{1,64}"),
    "basic": re.compile(r"[!-~]{2,256}"),
    "query": re.compile(r"[A-Za-z0-9_-]{1,64}"),
    "body": re.compile(r"[A-Za-z0-9_-]{1,64}(?:\.[A-Za-z0-9_-]{1,64}){0,7}"),
    "form": re.compile(r"[A-Za-z0-9_-]{1,64}"),
}
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_USER = re.compile(r"(?:(?![:{}])[!-~]){1,128}")
_APART = re.compile(r"[^a-z0-9]")
_DECODED = 3  # times that a lenient reader undoes escapes


@dataclass(frozen=True, slots=True)
class Position:
    """A place for a key. ``format`` has ``{}`` for it, and ``{user}`` where the resource says who the key is of.

    ``name`` is that of a header, of a parameter of the query or of a form in the body, or the names on the way to a
    field of a JSON body, with dots.
    For ``basic`` (RFC 7617) it is the header, and ``format`` the user, ``:`` and the password, before base64.
    """

    place: Place
    name: str
    format: str = "{}"

    @property
    def in_header(self) -> bool:
        return self.place in {"header", "basic"}

    def value(self, key: str) -> str:
        """Return what stands at this position for ``key``."""
        text = self.format.replace("{}", key)
        if self.place == "basic":
            return f"Basic {b64encode(text.encode()).decode()}"
        return quote(text, safe="") if self.place == "query" else text

    def shown(self) -> str:
        """Return this position as a human reads it."""
        text = self.format.replace("{}", "…")
        forms = {
            "basic": f"{self.name}: Basic base64({text})",
            "query": f"?{self.name}=…",
            "body": f'"{self.name}": "…"',
            "form": f"{self.name}=… in a form",
        }
        return forms.get(self.place, f"{self.name}: {text}")

    def of_user(self, user: object) -> Position:
        """Return this for one user, or raise InvalidRequestError where one is needed and not named."""
        if "{user}" not in self.format:
            return self
        if user is None:
            raise InvalidRequestError(
                "`user` is missing: this provider takes the key with the name of whose it is",
                help="say whose key it is: --setting user=NAME",
            )
        return replace(self, format=self.format.replace("{user}", fields.text("user", user, _USER)))


def read(where: str, raw: object, default: Position) -> Position:
    """Read a position, or raise InvalidRequestError. What a header leaves out is that of ``default``."""
    keys = raw.keys() if isinstance(raw, Mapping) else set[str]()
    one = (
        keys <= {"header", "format"} if "header" in keys or "format" in keys else len(keys) == 1 and keys < {*_PATTERNS}
    )
    if not isinstance(raw, Mapping) or not one:
        raise InvalidRequestError(
            f"`{where}` is an object with `header` and `format`, or one of `basic`, `query`, `body`, `form`"
        )
    if keys <= {"header", "format"}:
        known = default if default.place == "header" else Position("header", "Authorization")
        name = fields.text(f"{where}.header", raw.get("header", known.name), _PATTERNS["header"])
        return Position("header", name, _format(f"{where}.format", raw.get("format", known.format), _VALUE))
    [place] = (place for place in get_args(Place) if place in raw)
    text = fields.text(f"{where}.{place}", raw[place], _PATTERNS[place])
    if place != "basic":
        return Position(place, text)
    if text.count(":") != 1:
        raise InvalidRequestError(f"`{where}.basic` is a user, one `:` and a password")
    return Position(place, "Authorization", _format(f"{where}.basic", text, _VALUE))


def _format(where: str, raw: object, pattern: re.Pattern[str]) -> str:
    text = fields.text(where, raw, pattern)
    if text.count("{}") != 1:
        raise InvalidRequestError(f"`{where}` is text with one `{{}}`")
    return text


def taken_from_query(query: bytes | None, position: Position, placeholder: bytes | None) -> bytes | None:
    """Return a raw query, or form, without the one parameter that holds a placeholder, or raise InvalidRequestError.

    A parameter that some server reads as the credential's, by whatever spelling of its name, is the credential's alone.
    """
    if query is None:
        return None
    parts = query.split(b"&")
    proper = None if placeholder is None else b"%b=%b" % (position.name.encode(), placeholder)
    if proper in parts:
        parts.remove(proper)
    own = _plain_name(position.name)
    if any(_plain_name(part.partition(b"=")[0].decode("latin-1")) == own for part in parts):
        raise InvalidRequestError(
            f"`{position.name}` is where the credential goes: it holds a placeholder, once, or is left out",
            help="send the placeholder there as it is, or no such parameter",
        )
    return b"&".join(parts) if parts else None


def _plain_name(text: str) -> str:
    """Return a parameter's name as the most lenient server reads it."""
    for _ in range(_DECODED):
        text = unquote_plus(text)
    return _APART.sub("", unicodedata.normalize("NFKC", text).casefold().partition("[")[0])


def taken_from_body(value: object, position: Position, placeholder: str | None) -> bool:
    """Take the field that holds a placeholder out of a JSON body, in place; say whether it was there.

    A field that some server reads as the credential's, by whatever spelling of a name on the way to it, is the
    credential's alone: InvalidRequestError for anything else in it.
    """
    *way, last = position.name.split(".")
    at = value
    for name in way:
        at = at.get(name) if isinstance(at, dict) else None
    if there := placeholder is not None and isinstance(at, dict) and at.get(last) == placeholder:
        del at[last]
    levels = [value] if isinstance(value, dict) else []
    for index, name in enumerate((*way, last)):
        own = _plain_name(name)
        levels = [level[key] for level in levels for key in level if _plain_name(key) == own]
        if levels and (index == len(way) or not all(isinstance(level, dict) for level in levels)):
            raise InvalidRequestError(
                f"the body's `{position.name}` is where the credential goes: it holds a placeholder, or is left out",
                help="send the placeholder there as it is, or no such field",
            )
    return there


def opened(value: object, position: Position) -> dict[str, object]:
    """Return a JSON body with the field of the credential, empty, as the first of all; InvalidRequestError for none."""
    if not isinstance(value, dict):
        raise InvalidRequestError("the credential goes into a field of the body, which is no object")
    name, _, below = position.name.partition(".")
    inner = opened(value.get(name, {}), Position("body", below)) if below else ""
    return {name: inner, **{key: item for key, item in value.items() if key != name}}


def filled(body: bytes, position: Position, value: str) -> bytes:
    """Return a body that begins as ``opened`` has it, in JSON without blanks, with ``value`` in its empty field."""
    before = "".join(f'{{"{name}":' for name in position.name.split(".")).encode()
    return before + json.dumps(value).encode() + body.removeprefix(before + b'""')
