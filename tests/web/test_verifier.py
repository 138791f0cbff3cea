from __future__ import annotations

from pathlib import Path

import pytest

from remit.broker.pending import PendingMemory
from remit.web import verifier
from remit.web.routes import Identity
from tests.attacks.forge import parts, signed
from tests.broker.world import World
from tests.oauth.consent_driver import Issuer
from tests.oauth.plane import Agent, Plane, claims_of, play


def rationed(plane: Plane, *most: int) -> None:
    """Let so many proofs be remembered, and so many of strangers."""
    pending = PendingMemory(plane.verifier.clock, *most)
    plane.verifier.pending = plane.tokens._pending = pending


def test_strangers_at_the_token_endpoint_keep_no_holder_out(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        rationed(plane, 4, 2)
        agent = Agent()
        await plane.opened(agent)
        form = {"grant_type": "refresh_token", "refresh_token": "x", "client_id": "nobody"}
        told = [(await plane.exchange(Agent(), form)).status_code for _ in range(4)]
        assert told == [400, 400, 429, 429]
        assert (await plane.call(agent, "GET", "/v1/self")).status_code == 200

    world = World()
    play(tmp_path, scene, world, Identity(logins=Issuer(world)))


def test_a_stranger_fills_nothing(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        rationed(plane, 1)
        agent, stranger = Agent(), Agent(token="no.such.token")
        for _ in range(3):
            assert (await plane.call(stranger, "GET", "/v1/self")).status_code == 401
        await plane.control.get("/v1/self")
        agent.token = stranger.token
        await plane.opened(agent)
        assert (await plane.call(agent, "GET", "/v1/self")).status_code == 429

    play(tmp_path, scene)


def test_the_tokens_known_to_be_good_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "MAX_KNOWN", 3)

    async def scene(plane: Plane) -> None:
        agent = Agent()
        await plane.opened(agent)
        header, claims = parts(agent.token)
        for number in range(10):
            claims_of(plane.verifier, signed(plane, header, {**claims, "jti": f"tok_{number}"}))
        assert len(plane.verifier.keys._known) <= 3

    play(tmp_path, scene)


def test_the_tokens_known_to_be_good_are_bounded_by_their_size_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(plane: Plane) -> None:
        agent, keys = Agent(), plane.verifier.keys
        await plane.opened(agent)
        header, claims = parts(agent.token)
        monkeypatch.setattr(verifier, "MAX_KNOWN_SIZE", 3 * len(agent.token) + 300)
        for number in range(10):
            claims_of(plane.verifier, signed(plane, header, {**claims, "jti": f"tok_{number}"}))
            claims_of(plane.verifier, agent.token)
            assert sum(map(len, keys._known)) <= verifier.MAX_KNOWN_SIZE
        assert keys._known

    play(tmp_path, scene)
