"""The one reader of JSON from outside: what two readers could read differently is refused.

Refused: duplicate names, ``NaN`` and infinities, whole numbers beyond 2^53 - 1 and fractions beyond a double (RFC 8259
§6, RFC 7493), lone surrogates, encodings other than UTF-8, a byte order mark, and what is too large, in too many pieces
or nested too deep.
"""

from __future__ import annotations

import json
import math

from remit.errors import InvalidRequestError, TooLargeError

MAX_SIZE = 65_536  # bytes
MAX_DEPTH = 32  # of arrays and objects
SPARSE = 16  # bytes for each value: reading many small ones costs far more than one large one
MAX_INT = 2**53 - 1
_MAX_DIGITS = 17  # of the longest whole number within MAX_INT, with its sign


def read_json(raw: bytes | str, *, limit: int = MAX_SIZE) -> object:
    """Return the value of a JSON text, or raise InvalidRequestError (TooLargeError beyond ``limit`` bytes)."""
    try:
        data = raw.encode() if isinstance(raw, str) else raw
        if len(data) > limit:
            raise TooLargeError(f"JSON of at most {limit} bytes is accepted")
        if sum(map(data.count, (b",", b"[", b"{"))) > limit // SPARSE:  # no value is without one of them, but the first
            raise TooLargeError(f"JSON of at most {limit // SPARSE} values is accepted")
        value: object = _DECODER.decode(data.decode())
    except json.JSONDecodeError as error:
        raise _refused(f"syntax at character {error.pos}") from error
    except UnicodeError as error:
        raise _refused("text that is not UTF-8") from error
    except RecursionError as error:
        raise _refused("too deep") from error
    _check(value, MAX_DEPTH)
    return value


def _refused(why: str) -> InvalidRequestError:
    return InvalidRequestError(f"this is not JSON that every reader reads the same: {why}")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _refused("a name occurs twice in one object")
    return found


def _whole(text: str) -> int:
    if len(text) > _MAX_DIGITS or abs(int(text)) > MAX_INT:
        raise _refused("a whole number beyond 2^53 - 1")
    return int(text)


def _fraction(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _refused("a number that is not finite")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_fraction, parse_int=_whole, parse_float=_fraction
)


def _check(value: object, depth: int) -> None:
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise InvalidRequestError("the JSON holds half of a surrogate pair")
    elif isinstance(value, dict | list):
        if depth < 1:
            raise InvalidRequestError("the JSON is nested too deep")
        for name in value if isinstance(value, dict) else ():
            _check(name, depth)
        for item in value.values() if isinstance(value, dict) else value:
            _check(item, depth - 1)
