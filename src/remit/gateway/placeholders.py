"""What a caller shows and must not send on: the placeholders of its run, and its own token. Pure.

A placeholder stands for a credential inside a run: it is swapped where the credential goes, and refused anywhere else.
A token is for remit alone: it may stand once, where it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes

from remit.errors import PlaceholderError
from remit.gateway.framing import Fields
from remit.gateway.scrub import UPLOAD, Meter, Scrubber, SecretPatterns
from remit.gateway.target import HttpTarget

_SHORTEST = 16  # bytes: what is shorter is no token, and stands in many places
_JWT = b"eyJ"


class Placeholders:
    """The placeholder of each resource of a run, and how a token is told: ``proven``, or by its looks alone."""

    __slots__ = ("_all", "_of", "_proven", "patterns")

    def __init__(self, values: Mapping[str, str], *, proven: bool = False) -> None:
        self._of = {name: value.encode() for name, value in values.items()}
        self._all = tuple(dict.fromkeys(self._of.values()))
        self._proven = proven
        self.patterns = SecretPatterns(sorted(self._all))

    def check_head(self, block: bytes, fields: Fields, raw: bytes, target: HttpTarget) -> None:
        """Raise PlaceholderError if a placeholder, or the caller's token, stands where it does not belong."""
        token = self._token(fields)
        if token is not None:
            for part, right in ((block, 1), (raw, 0)):  # once, where it is shown, escaped or not
                if part.count(token) > right or (b"%" in part and unquote_to_bytes(part).count(token) > right):
                    raise PlaceholderError
        if self._all:
            self._check_fields(block, fields, target)
            if self.patterns.hit(raw) or (b"%" in raw and self.patterns.hit(unquote_to_bytes(raw))):
                raise PlaceholderError

    def scrubber(self, fields: Fields) -> Scrubber | None:
        """Return what looks for placeholders, and for the caller's token as a form may escape it, in a body."""
        token = self._token(fields)
        if token is None and not self._all:
            return None
        patterns = self.patterns
        if token is not None:
            patterns = patterns.beside({token, quote(token, safe="").encode()})
        return Scrubber(patterns, meter=Meter(UPLOAD))

    def _token(self, fields: Fields) -> bytes | None:
        """Return what `Authorization` shows. Where nobody proved it, only what looks like a token of remit's."""
        shown = (fields.get(b"authorization") or b"").partition(b" ")[2].strip(b" ")
        return shown if len(shown) >= _SHORTEST and (self._proven or shown.startswith(_JWT)) else None

    def _check_fields(self, block: bytes, fields: Fields, target: HttpTarget) -> None:
        """Raise PlaceholderError if a placeholder stands anywhere but alone in a credential's header."""
        mine = self._of.get(target.resource.name)
        right = 0
        if mine is not None:
            proper = {(name, form.replace("{}", mine.decode()).encode()) for name, form in target.positions}
            right = len(proper.intersection(fields.items))
        if sum(block.count(value) for value in self._all) != right:
            raise PlaceholderError
        for value in self._all if right else ():
            block = block.replace(value, b"")
        if self.patterns.hit(block):
            raise PlaceholderError
