"""Verifying a token is as much work at the sixty-fourth hop as at the first: counted, not timed."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType

import pytest

from tests.attacks.forge import parts
from tests.broker.world import SEARCH
from tests.oauth.plane import Agent, Plane, play

DEEP = 64


class Work:
    """Counts the calls of functions of remit, by name, and the lines that they run."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.lines = 0

    def __call__(self, frame: FrameType, event: str, _: object) -> Work | None:
        if "/remit/" not in frame.f_code.co_filename:
            return None
        if event == "call":
            self.calls[frame.f_code.co_qualname] += 1
        elif event == "line":
            self.lines += 1
        return self


async def chain(plane: Plane) -> list[Agent]:
    """Return the agents of a chain, the root first."""
    found = [Agent()]
    await plane.opened(found[0], depth=str(DEEP), fan_out="1", authorization_details=json.dumps([SEARCH]))
    for level in range(DEEP):
        child = Agent()
        await plane.delegated(found[-1], child, depth=str(DEEP - 1 - level), fan_out="1")
        found.append(child)
    return found


async def counted(
    plane: Plane, agent: Agent, verify: Callable[[Plane, Agent], Awaitable[str]], *, known: bool = False
) -> Work:
    """Return the work of a verification that finds the right grant; ``known`` for a token that was seen before."""
    plane.verifier.keys.replace(plane.keys.public_jwks())  # forget what is known to be signed
    if known:
        await verify(plane, agent)
    work, before = Work(), sys.gettrace()
    sys.settrace(work)
    try:
        found = await verify(plane, agent)
    finally:
        sys.settrace(before)
    assert found == agent.grant
    return work


async def at_the_api(plane: Plane, agent: Agent) -> str:
    headers = {name: [value] for name, value in plane.headers(agent, "GET", "/v1/self").items()}
    return (await plane.verifier.holder("GET", f"{plane.base}/v1/self", headers)).grant


async def at_the_gateway(plane: Plane, agent: Agent) -> str:
    url = "http://127.0.0.1:8471/search/v1/x"
    proof = agent.proof("GET", url, plane.world.now, plane.verifier.nonce(), agent.token)
    shown = {"Authorization": f"DPoP {agent.token}", "DPoP": proof}
    return (await plane.verifier.proven(shown, "GET", url, "search")).grant


@pytest.mark.parametrize("verify", [at_the_api, at_the_gateway])
def test_the_work_is_the_same_at_every_depth(tmp_path: Path, verify: Callable[[Plane, Agent], Awaitable[str]]) -> None:
    async def scene(plane: Plane) -> None:
        agents = await chain(plane)
        # from ten on: until then `act` grows with each hop, and with it the JSON that is read
        works = [await counted(plane, agents[depth], verify) for depth in (10, 32, DEEP)]
        assert works[0].calls["read"] > 0
        assert works[0].calls == works[1].calls == works[2].calls
        assert works[0].lines == works[1].lines == works[2].lines

    play(tmp_path, scene)


def test_the_state_is_looked_up_once_at_the_first_hop_and_at_the_last(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agents = await chain(plane)
        first, last = [await counted(plane, agents[depth], at_the_api) for depth in (1, DEEP)]
        assert first.calls["Broker.grant"] == last.calls["Broker.grant"] == 1
        assert first.calls["PublicKey.verify"] == last.calls["PublicKey.verify"]
        assert "Task.lineage" not in last.calls
        assert last.lines < first.lines + 200  # the ten actors that a token names at most

    play(tmp_path, scene)


def test_a_token_that_was_seen_before_is_the_same_work_at_the_first_hop_and_at_the_last(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agents = await chain(plane)
        first, last = [await counted(plane, agents[depth], at_the_api, known=True) for depth in (1, DEEP)]
        assert first.calls == last.calls
        assert first.lines == last.lines
        assert first.calls["PublicKey.verify"] == 1  # of the proof alone

    play(tmp_path, scene)


def test_a_token_does_not_grow_with_its_depth(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agents = await chain(plane)
        assert parts(agents[-1].token)[1]["del_depth"] == DEEP
        assert abs(len(agents[-1].token) - len(agents[10].token)) < 32

    play(tmp_path, scene)
