"""Ten hops of sub-agents that nobody registered, attacked at every hop: refused, and told apart in the audit."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from remit.core.audit import Event
from tests.attacks.forge import parts
from tests.broker.world import SEARCH, TABLE
from tests.oauth.plane import ACCESS_TOKEN, EXCHANGE, Agent, Form, Plane, later, play

HOPS = 10
GATEWAY = "http://127.0.0.1:8471"
NARROW = json.dumps([SEARCH])

Attack = Callable[[Plane, Agent], Awaitable[tuple[str, httpx.Response]]]


async def hop(plane: Plane, parent: Agent, depth: int, **more: str) -> Agent:
    """Delegate to an agent that nobody has heard of."""
    child = Agent()
    await plane.delegated(parent, child, depth=str(depth), fan_out="50", **more)
    return child


def again(agent: Agent, **more: str) -> Form:
    """Return the form that renews an agent's token."""
    return {"grant_type": EXCHANGE, "subject_token": agent.token, "subject_token_type": ACCESS_TOKEN, **more}


# -- the attacks: each returns the grant that the audit must name, and the answer -------------------------------------


async def widening(plane: Plane, parent: Agent) -> tuple[str, httpx.Response]:
    wide = json.dumps([{**SEARCH, "actions": ["DELETE", "GET"]}])
    return parent.grant, await plane.exchange(parent, plane.delegation(parent, Agent(), authorization_details=wide))


async def splicing(plane: Plane, parent: Agent) -> tuple[str, httpx.Response]:
    """Present the token of another task's agent as that of the actor (RFC 8693 chain splicing)."""
    stranger = Agent()
    await plane.opened(stranger)
    form = plane.delegation(parent, Agent(), actor_token=stranger.token, actor_token_type=ACCESS_TOKEN)
    return parent.grant, await plane.exchange(parent, form)


async def replay(plane: Plane, parent: Agent) -> tuple[str, httpx.Response]:
    proof = parent.proof("POST", plane.endpoint, plane.world.now, plane.verifier.nonce(), None)
    first, second = (plane.delegation(parent, Agent()) for _ in range(2))
    assert (await plane.web.post("/oauth/token", data=first, headers={"dpop": proof})).status_code == 200
    return parent.grant, await plane.web.post("/oauth/token", data=second, headers={"dpop": proof})


async def wrong_audience(plane: Plane, parent: Agent) -> tuple[str, httpx.Response]:
    """Take a token that is for the gateway alone to the token endpoint."""
    renewed = (await plane.exchange(parent, again(parent, resource=GATEWAY))).json()["access_token"]
    theirs = Agent(parent.signer, renewed, parent.grant, parent.task)
    return parent.grant, await plane.exchange(theirs, plane.delegation(theirs, Agent()))


async def wrong_key(plane: Plane, parent: Agent) -> tuple[str, httpx.Response]:
    thief = Agent(token=parent.token)
    return parent.grant, await plane.exchange(thief, plane.delegation(thief, Agent()))


async def expired_parent(plane: Plane, parent: Agent) -> tuple[str, httpx.Response]:
    brief = await hop(plane, parent, 1, ttl="5")
    later(plane, 6)
    return brief.grant, await plane.exchange(brief, plane.delegation(brief, Agent()))


async def revoked_ancestor(plane: Plane, parent: Agent) -> tuple[str, httpx.Response]:
    above = await hop(plane, parent, 2)
    below = await hop(plane, await hop(plane, above, 1), 0)
    answer = await plane.call(parent, "POST", "/oauth/revoke", data={"token": above.token})
    assert answer.json()["revoked"] == 3
    return below.grant, await plane.exchange(below, again(below))


ATTACKS: dict[str, Attack] = {
    "attenuation": widening,
    "spliced": splicing,
    "replay": replay,
    "audience": wrong_audience,
    "wrong-key": wrong_key,
    "expired": expired_parent,
    "revoked": revoked_ancestor,
}
WIRE = {"expired": "token"}  # RFC 6750 §3.1: to a client, a token that has expired is one that is no good


async def refusals(plane: Plane, start: int) -> list[Event]:
    """Return the denials that the audit has from an entry on."""
    return [event for event in (await plane.world.events())[start:] if event.decision == "deny"]


@pytest.mark.parametrize("code", ATTACKS)
def test_at_each_of_ten_hops_an_attack_is_refused_and_the_audit_has_its_own_code(tmp_path: Path, code: str) -> None:
    async def scene(plane: Plane) -> None:
        agent = Agent()
        await plane.opened(agent, depth=str(HOPS + 3), authorization_details=json.dumps([SEARCH]))
        lineage = [agent.grant]
        for level in range(HOPS):
            start = len(await plane.world.events())
            grant, answer = await ATTACKS[code](plane, agent)
            assert (answer.status_code, answer.json()["code"]) == (400, WIRE.get(code, code))
            (entry,) = await refusals(plane, start)
            assert (entry.code, entry.grant) == (code, grant)
            assert entry.lineage[: len(lineage)] == tuple(lineage)
            assert (entry.subject, entry.attested) == ("unix://host#1000", False)
            agent = await hop(plane, agent, HOPS + 2 - level)
            lineage.append(agent.grant)
        assert parts(agent.token)[1]["del_depth"] == HOPS
        assert (await plane.call(agent, "GET", "/v1/self")).status_code == 200

    play(tmp_path, scene, gateway=GATEWAY)


def test_every_hop_leaves_a_receipt_with_the_key_of_the_child(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        chain = [Agent()]
        await plane.opened(chain[0], depth=str(HOPS), authorization_details=NARROW)
        for level in range(HOPS):
            chain.append(await hop(plane, chain[-1], HOPS - 1 - level))
        made = [event for event in await plane.world.events() if event.event in {"task.open", "grant.delegate"}]
        assert [event.key for event in made] == [agent.signer.kid for agent in chain]
        assert [event.lineage[-1] for event in made] == [agent.grant for agent in chain]
        assert {event.detail_s256 for event in made} == {made[0].detail_s256}

    play(tmp_path, scene)


def test_a_refused_attack_makes_no_grant(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agent = Agent()
        await plane.opened(agent, authorization_details=json.dumps([SEARCH, TABLE]))
        for attack in (widening, splicing, wrong_audience, wrong_key):
            before = len(plane.broker._tasks.task_of(agent.grant).grants)
            await attack(plane, agent)
            assert len(plane.broker._tasks.task_of(agent.grant).grants) == before

    play(tmp_path, scene, gateway=GATEWAY)
