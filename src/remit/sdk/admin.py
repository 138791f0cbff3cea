"""What the operator does with the house itself, as flows: the policies it decides by, the keys it signs with."""

from __future__ import annotations

from remit.sdk._wire import ApiCall, Flow, Json, ask, quoted

POLICY, KEYS = "/v1/policy", "/v1/keys"


def processes() -> Flow[Json]:
    """Return how the broker is: its processes, what its kernel lacks, where it listens, how many tasks and runs."""
    return ask(ApiCall("GET", "/v1/processes"))


def policies() -> Flow[Json]:
    """Return which policies hold, and what was wrong when they were last to be replaced."""
    return ask(ApiCall("GET", POLICY))


def reload() -> Flow[Json]:
    """Load the policies anew; what they do not allow has ended when this returns."""
    return ask(ApiCall("POST", f"{POLICY}/reload"))


def explain(grant: str) -> Flow[Json]:
    return ask(ApiCall("GET", f"{POLICY}/explain/{quoted(grant)}"))


def keys() -> Flow[Json]:
    return ask(ApiCall("GET", KEYS))


def rotate(ring: str) -> Flow[Json]:
    return ask(ApiCall("POST", f"{KEYS}/{quoted(ring)}/rotate"))


def revoke(ring: str, kid: str) -> Flow[Json]:
    return ask(ApiCall("POST", f"{KEYS}/{quoted(ring)}/{quoted(kid)}/revoke"))
