"""What the operator does with the house itself, as flows: the policies it decides by, the keys it signs with."""

from __future__ import annotations

from urllib.parse import quote

from remit.sdk._wire import Call, Flow, ask
from remit.sdk.verbs import Json

POLICY, KEYS = "/v1/policy", "/v1/keys"


def policies() -> Flow[Json]:
    """Return which policies hold, and what was wrong when they were last to be replaced."""
    found: Json = yield from ask(Call("GET", POLICY))
    return found


def reload() -> Flow[Json]:
    """Load the policies anew; what they do not allow has ended when this returns."""
    found: Json = yield from ask(Call("POST", f"{POLICY}/reload"))
    return found


def explain(grant: str) -> Flow[Json]:
    """Return how the policies decide on a grant now, and why."""
    found: Json = yield from ask(Call("GET", f"{POLICY}/explain/{_part(grant)}"))
    return found


def keys() -> Flow[Json]:
    """Return the keys that verify, by ring, and which of them sign."""
    found: Json = yield from ask(Call("GET", KEYS))
    return found


def rotate(ring: str) -> Flow[Json]:
    """Have a new key of a ring sign."""
    found: Json = yield from ask(Call("POST", f"{KEYS}/{_part(ring)}/rotate"))
    return found


def revoke(ring: str, kid: str) -> Flow[Json]:
    """End what a key has signed."""
    found: Json = yield from ask(Call("POST", f"{KEYS}/{_part(ring)}/{_part(kid)}/revoke"))
    return found


def _part(text: str) -> str:
    return quote(text, safe="")
