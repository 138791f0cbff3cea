"""Forged and stolen tokens, presented wherever a token is taken."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

import pytest

from remit.errors import UnauthenticatedError
from tests.oauth.plane import ACCESS_TOKEN, EXCHANGE, Agent, Plane, b64, jws, play

FAR = 2_000_000_000


def walk(directory: Path, scene: Callable[[Plane, Agent], Awaitable[None]]) -> None:
    """Run a scene with an agent that holds a good token."""

    async def opened(plane: Plane) -> None:
        agent = Agent()
        await plane.opened(agent)
        await scene(plane, agent)

    play(directory, opened)


def parts(token: str) -> tuple[dict[str, object], dict[str, object]]:
    """Return header and claims of a token."""
    header, claims, _ = (
        json.loads(_unpadded(part)) if index < 2 else {} for index, part in enumerate(token.split("."))
    )
    return header, claims


def _unpadded(text: str) -> bytes:
    import base64

    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def signed(plane: Plane, header: Mapping[str, object], claims: Mapping[str, object] | bytes) -> str:
    """Return what the broker's own key would sign."""
    return jws(header, claims, plane.signer.sign)


def unsigned(header: Mapping[str, object], claims: Mapping[str, object]) -> str:
    """Return a token with an empty signature."""
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}."


async def at_the_api(plane: Plane, agent: Agent, token: str) -> int:
    """Present a token to the API with a good proof; return the status."""
    proof = agent.proof("GET", f"{plane.base}/v1/self", plane.world.now, plane.verifier.nonce(), token)
    answer = await plane.web.get("/v1/self", headers={"authorization": f"DPoP {token}", "dpop": proof})
    return answer.status_code


async def at_the_token_endpoint(plane: Plane, agent: Agent, token: str) -> tuple[int, str]:
    """Present a token as the subject of an exchange; return status and error."""
    form = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS_TOKEN}
    answer = await plane.exchange(agent, form)
    return answer.status_code, answer.json().get("error", "")


async def at_the_gateway(plane: Plane, agent: Agent, token: str) -> str:
    """Present a token to what the gateway asks; return the grant."""
    url = "http://127.0.0.1:8471/search/v1/x"
    proof = agent.proof("GET", url, plane.world.now, plane.verifier.nonce(), token)
    shown = {"authorization": f"DPoP {token}", "dpop": proof}
    return (await plane.verifier.proven(shown, "GET", url, "search")).grant


async def refused_everywhere(plane: Plane, agent: Agent, tokens: Iterable[str]) -> int:
    """Assert that each token is refused wherever it is presented; return how many there were."""
    count = 0
    for count, token in enumerate(tokens, 1):  # noqa: B007 - the count is the answer
        with pytest.raises(UnauthenticatedError):
            await at_the_gateway(plane, agent, token)
        if len(token) < 60_000:
            assert await at_the_token_endpoint(plane, agent, token) == (400, "invalid_request"), token[:80]
        if token.isascii() and token.isprintable() and token.strip() == token and len(token) < 40_000:
            assert await at_the_api(plane, agent, token) == 401, token[:80]
    return count
