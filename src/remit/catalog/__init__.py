"""What is known of providers: where their keys go, where clients look for them, what keys look like. Pure data.

Example::

    provider = load()["openai"]
    value = placeholder(provider, secrets.token_bytes(32))
    environment(provider, "http://127.0.0.1:8471/openai", value)
    # {"OPENAI_API_KEY": "sk-proj-…", "OPENAI_BASE_URL": "http://127.0.0.1:8471/openai/v1"}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from itertools import count

from remit.catalog.reading import Base, Operation, Part, Position, Provider, plain, read
from remit.core.paths import path_le
from remit.errors import InvalidRequestError

__all__ = [
    "Base",
    "Operation",
    "Part",
    "Position",
    "Provider",
    "environment",
    "load",
    "named",
    "placeholder",
    "provider_of",
    "read",
]

MIN_RANDOM = 16  # bytes
_DEEP = 8  # segments before the word
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

# Where servers by custom take requests that carry other requests, of any path and method: OData's and Microsoft Graph's
# `$batch`, `batch` as the last segment, Google's `/batch/api/version`.
BATCHES = (
    Operation("*", "/batch/**"),
    *(Operation("*", "/" + "*/" * depth + word) for word in ("$batch", "batch") for depth in range(_DEEP + 1)),
)


@cache
def load() -> Mapping[str, Provider]:
    """Return the providers that remit ships, by name."""
    return read(files(__name__).joinpath("providers.toml").read_text(encoding="utf-8"))


def placeholder(provider: Provider, random_bytes: bytes) -> str:
    """Return a value that looks like a key of ``provider`` and is worth nothing. Pure: same bytes, same value.

    ``random_bytes`` are at least 16 fresh random bytes; ValueError if there are fewer.
    """
    if len(random_bytes) < MIN_RANDOM:
        msg = f"a placeholder needs {MIN_RANDOM} random bytes"
        raise ValueError(msg)
    seeds = (sha256(f"{provider.name} {index} ".encode() + random_bytes).digest() for index in count())
    return "".join(part.text or _draw(part, seed) for part, seed in zip(provider.shape, seeds, strict=False))


def _draw(part: Part, seed: bytes) -> str:
    # Four hash bytes a character: the bias of the modulus is below 2^-26, and placeholders are no keys.
    size = len(part.alphabet)
    drawn = (sha256(seed + index.to_bytes(2)).digest() for index in range(part.count))
    return "".join(part.alphabet[int.from_bytes(octets[:4]) % size] for octets in drawn)


def environment(provider: Provider, url: str, key: str) -> dict[str, str]:
    """Return what a client reads: ``key`` as its key, and its base URL from ``url``, the resource's at the gateway."""
    variables = dict.fromkeys(provider.variables, key)
    if provider.base is not None:
        variables[provider.base.variable] = provider.base.value.replace("{}", url)
    return variables


def named(provider: Provider | None, method: str, path: str, patterns: Iterable[str]) -> bool:
    """Whether a grant's path patterns permit a request by name, if it makes standing credentials or carries others.

    True for every other request. Requests are compared as the most lenient server reads them. A pattern names an
    operation when all that it matches is that operation: ``/user/keys`` does, ``/user/*`` and ``/**`` do not.
    """
    said = plain(path)
    mints = provider.mints if provider is not None else ()
    batches = BATCHES if "batch" in said and method not in _SAFE else ()
    for operation in (*mints, *batches):
        if operation.includes(method, said):
            return any(path_le(path, wide) and path_le(plain(wide), operation.path) for wide in patterns)
    return True


def provider_of(name: object) -> Provider:
    """Return a provider by name, or raise InvalidRequestError that lists the names there are."""
    found = load().get(name) if isinstance(name, str) else None
    if found is None:
        raise InvalidRequestError(f"`provider` must be one of {', '.join(sorted(load()))}")
    return found
