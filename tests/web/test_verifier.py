from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from remit.errors import LimitError, ProofError, TokenError
from remit.jose.proof import MAX_AGE, SKEW, Proof
from remit.web import verifier
from remit.web.routes import Identity
from remit.web.verifier import Replays
from tests.attacks.forge import parts, signed
from tests.broker.world import World
from tests.oauth.desk import Issuer
from tests.oauth.plane import Agent, Plane, claims_of, play

NOW = 1_795_608_000


def proof(jti: str = "a", iat: int = NOW, jkt: str = "key") -> Proof:
    return Proof(jkt, jti, iat)


def test_a_proof_passes_once() -> None:
    replays = Replays()
    replays.note(proof(), NOW)
    with pytest.raises(ProofError, match="used before"):
        replays.note(proof(), NOW)


@pytest.mark.parametrize("other", [proof("b"), proof(jkt="another"), proof(iat=NOW + 1)])
def test_another_proof_passes_too(other: Proof) -> None:
    replays = Replays()
    replays.note(proof(), NOW)
    replays.note(other, NOW)


@pytest.mark.attack("DOS-04")
def test_a_proof_is_remembered_as_long_as_its_window_and_no_longer() -> None:
    replays = Replays(most=2)
    replays.note(proof(), NOW)
    last = NOW + MAX_AGE + SKEW
    with pytest.raises(ProofError):
        replays.note(proof(), last)
    replays.note(proof(iat=last + 1), last + 1)
    replays.note(proof("b", last + 1), last + 1)


@pytest.mark.attack("DOS-04")
def test_when_the_memory_is_full_no_proof_passes() -> None:
    replays = Replays(most=1)
    replays.note(proof(), NOW)
    with pytest.raises(LimitError) as caught:
        replays.note(proof("b"), NOW)
    assert caught.value.retry_after == MAX_AGE


@pytest.mark.attack("DOS-04")
def test_strangers_fill_a_memory_of_their_own_and_it_empties_again() -> None:
    replays = Replays(most=2, most_strange=1)
    replays.note(proof(), NOW, stranger=True)
    with pytest.raises(LimitError):
        replays.note(proof("b"), NOW, stranger=True)
    replays.note(proof("b"), NOW)
    replays.note(proof("c"), NOW)
    with pytest.raises(LimitError):
        replays.note(proof("d"), NOW)
    later = NOW + MAX_AGE + SKEW + 1
    replays.note(proof(iat=later), later, stranger=True)
    replays.note(proof("b", later), later)


@pytest.mark.parametrize("stranger", [True, False])
def test_what_a_stranger_proved_is_not_proven_again_as_a_holder(stranger: bool) -> None:  # noqa: FBT001 - a parameter
    replays = Replays()
    replays.note(proof(), NOW, stranger=stranger)
    with pytest.raises(ProofError, match="used before"):
        replays.note(proof(), NOW, stranger=not stranger)


def test_strangers_at_the_token_endpoint_keep_no_holder_out(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        plane.verifier._replays = Replays(most=4, most_strange=2)
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
        plane.verifier._replays = Replays(most=1)
        agent, stranger = Agent(), Agent(token="no.such.token")
        for _ in range(3):
            assert (await plane.call(stranger, "GET", "/v1/self")).status_code == 401
        await plane.control.get("/v1/self")
        agent.token = stranger.token
        await plane.opened(agent)
        assert (await plane.call(agent, "GET", "/v1/self")).status_code == 429

    play(tmp_path, scene)


def test_claims_that_the_state_does_not_bear_out_are_worth_nothing(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agent, other = Agent(), Agent()
        await plane.opened(agent)
        await plane.opened(other)
        claims = claims_of(plane.verifier, agent.token)
        wrong = [replace(claims, grant="grt_none"), replace(claims, grant=other.grant)]
        wrong += [replace(claims, task=other.task), replace(claims, jkt=other.signer.kid)]
        for item in wrong:
            with pytest.raises(TokenError):
                await plane.verifier.living(item)
        assert (await plane.verifier.living(claims)).grant == agent.grant

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
