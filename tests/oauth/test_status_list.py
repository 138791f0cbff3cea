from __future__ import annotations

import asyncio
import json
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit import jose
from remit.core import scope as scopes
from remit.core.request import Binding, Bounds, GrantRequest
from remit.jose import status
from remit.jose.status import PLACES
from remit.oauth import wellknown
from tests.attacks.forge import parts
from tests.broker.world import SEARCH, World, holder
from tests.oauth.plane import Agent, Plane, later, play
from tests.support import status_reader

LIST = "/oauth/status/1"


async def fetched(plane: Plane) -> dict[str, Any]:
    """Fetch the list as a relying party does, and verify it by the published keys; return its claims."""
    answer = await plane.web.get(LIST, headers={"accept": wellknown.MEDIA})
    assert (answer.status_code, answer.headers["content-type"]) == (200, wellknown.MEDIA)
    compact = jose.read(answer.text, frozenset({"typ", "alg", "kid"}))
    assert compact.header["typ"] == status.TYPE
    keys = {key["kid"]: key for key in (await plane.web.get("/oauth/jwks")).json()["keys"]}
    jose.public_key(keys[str(compact.header["kid"])]).verify(compact)
    claims: dict[str, Any] = json.loads(compact.payload)
    return claims


async def state(plane: Plane, agent: Agent) -> int:
    """Return the status of an agent's token, as a relying party finds it."""
    named: Any = parts(agent.token)[1]["status"]
    claims = await fetched(plane)
    assert named["status_list"]["uri"] == claims["sub"]
    packed = status_reader.decompress(claims["status_list"]["lst"])
    return status_reader.status(packed, claims["status_list"]["bits"], named["status_list"]["idx"])


async def family(plane: Plane) -> list[Agent]:
    """Return a root, a child and a grandchild."""
    root, child, grandchild = Agent(), Agent(), Agent()
    await plane.opened(root)
    await plane.delegated(root, child, depth="2", fan_out="3")
    await plane.delegated(child, grandchild)
    return [root, child, grandchild]


def test_a_token_that_was_just_made_is_valid_in_the_list(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        for agent in await family(plane):
            assert await state(plane, agent) == status.VALID

    play(tmp_path, scene)


def test_of_another_time_there_is_no_list(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        assert (await plane.web.get("/oauth/status/1?time=1764072000")).status_code == 501
        assert (await plane.web.get("/oauth/status/1?foo=1")).status_code == 200

    play(tmp_path, scene)


def test_a_revoked_subtree_is_invalid_at_the_next_fetch_and_nothing_else_is(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        root, child, grandchild = await family(plane)
        await fetched(plane)
        await plane.call(root, "POST", "/oauth/revoke", data={"token": child.token})
        found = [await state(plane, agent) for agent in (root, child, grandchild)]
        assert found == [status.VALID, status.INVALID, status.INVALID]

    play(tmp_path, scene)


def test_a_grant_whose_time_is_up_is_invalid(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        root, child = Agent(), Agent()
        await plane.opened(root)
        await plane.delegated(root, child, ttl="60")
        later(plane, 61)
        assert [await state(plane, agent) for agent in (root, child)] == [status.VALID, status.INVALID]

    play(tmp_path, scene)


def test_a_list_is_good_for_its_ttl_and_says_so(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        claims = await fetched(plane)
        assert claims["exp"] - claims["iat"] == claims["ttl"] == status.TTL
        assert claims["iat"] == int(plane.world.now.timestamp())

    play(tmp_path, scene)


def test_a_list_is_made_once_a_second_and_anew_when_a_grant_ends(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        _, child, _ = await family(plane)
        first = (await plane.web.get(LIST)).text
        assert (await plane.web.get(LIST)).text == first
        await plane.call(child, "POST", "/oauth/revoke", data={"token": child.token})
        second = (await plane.web.get(LIST)).text
        assert second != first
        later(plane, 1)
        assert (await plane.web.get(LIST)).text != second

    play(tmp_path, scene)


def test_places_are_spread_over_the_list_and_no_two_tokens_share_one(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        places = []
        for _ in range(20):
            agent = Agent()
            await plane.opened(agent)
            named: Any = parts(agent.token)[1]["status"]
            places.append(named["status_list"]["idx"])
        assert len(set(places)) == 20
        assert places != sorted(places)
        assert max(places) - min(places) > PLACES // 10

    play(tmp_path, scene)


def test_a_grant_without_a_token_has_no_place(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        await plane.opened()
        assert plane.broker._tasks.places() == []

    play(tmp_path, scene)


def test_after_a_restart_the_list_says_the_same(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        root, child, _ = await family(plane)
        await plane.call(root, "POST", "/oauth/revoke", data={"token": child.token})
        again = plane.world.broker()
        await again.start()
        assert sorted(again._tasks.places()) == sorted(plane.broker._tasks.places())
        assert len(again._tasks.places()) == 1

    play(tmp_path, scene)


def test_in_a_tree_of_ten_thousand_a_middle_node_takes_exactly_its_subtree_off_the_list() -> None:
    async def main() -> None:
        world = World(now=datetime(2026, 11, 25, 12, tzinfo=UTC))
        broker = await world.ready()
        details = scopes.parse([SEARCH])
        root = await world.opened(broker, SEARCH, depth=3, fan_out=200, jkt="k0")
        middles, leaves = [], {}
        for number in range(100):
            wanted = GrantRequest(details, Bounds(depth=1, fan_out=200), Binding(jkt=f"m{number}"))
            middles.append((await broker.delegate(holder(broker, root), root.id, wanted)).grant)
        for middle in middles:
            made = [
                broker.delegate(
                    holder(broker, middle), middle.id, GrantRequest(details, binding=Binding(jkt=f"{middle.id}.{leaf}"))
                )
                for leaf in range(99)
            ]
            leaves[middle.id] = [leaf.grant for leaf in await asyncio.gather(*made)]
        assert len(broker._tasks.places()) == 10_001 == len(set(broker._tasks.places()))
        ended = middles[50]
        await broker.revoke(holder(broker, root), ended.id)
        packed = status_reader.decompress(status_reader.compress(status.live(broker._tasks.places(), PLACES)))
        gone = {grant.id for grant in (ended, *leaves[ended.id])}
        for grant in (root, *middles, *(leaf for found in leaves.values() for leaf in found)):
            assert grant.status is not None
            assert (status_reader.status(packed, 1, grant.status) == status.INVALID) is (grant.id in gone)
        assert len(zlib.compress(packed, 9)) < 64 * 1024
        await broker.stop()

    asyncio.run(main())


SIZE = 64


def test_a_live_place_is_valid_and_every_other_invalid() -> None:
    packed = status.live([0, 9, 63], SIZE)
    assert [place for place in range(SIZE) if status_reader.status(packed, 1, place) == status.VALID] == [0, 9, 63]


@given(st.sampled_from([1, 2, 4, 8]), st.data())
def test_what_is_packed_is_read(bits: int, data: st.DataObject) -> None:
    statuses = data.draw(st.lists(st.integers(0, (1 << bits) - 1), max_size=40))
    packed = status_reader.pack(statuses, bits)
    assert [status_reader.status(packed, bits, index) for index in range(len(statuses))] == statuses
    assert status_reader.decompress(status_reader.compress(packed)) == packed


@given(st.sets(st.integers(0, SIZE - 1)))
def test_a_live_list_is_what_packing_it_would_give(places: set[int]) -> None:
    statuses = [status.VALID if place in places else status.INVALID for place in range(SIZE)]
    assert status.live(places, SIZE) == status_reader.pack(statuses, 1)


@pytest.mark.parametrize("index", [-1, SIZE, 10**9])
def test_a_place_beyond_the_list_is_not_valid(index: int) -> None:
    with pytest.raises(ValueError, match="not in the list"):
        status_reader.status(status.live([0], SIZE), 1, index)


@pytest.mark.parametrize(
    "lst",
    [
        "",
        "AAAA",
        "not base64!",
        jose.encode(zlib.compress(b"\xff") + b"more"),
        jose.encode(zlib.compress(b"\xff" * 100)[:-4]),
        jose.encode(zlib.compress(bytes(status_reader.MAX_LIST + 1), 9)),
    ],
)
def test_what_is_not_one_whole_list_is_refused(lst: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - three readers raise it, each with words of its own
        status_reader.decompress(lst)


def test_a_list_says_until_when_it_may_be_believed() -> None:
    claims = status.claims("https://remit.test/oauth/status/1", b"\xff", 1_000)
    assert (claims["iat"], claims["exp"], claims["ttl"]) == (1_000, 1_000 + status.TTL, status.TTL)
    assert status.TTL <= 60
