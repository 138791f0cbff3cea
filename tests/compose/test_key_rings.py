from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import structs

from remit import jose
from remit.broker import notices
from remit.compose.key_rings import OVERLAP, KeyRing, KeyRings
from remit.config.sections import AuditSection
from remit.config.settings import Settings, read
from remit.core import audit
from remit.errors import TokenError, UnavailableError
from remit.jose import token
from remit.jose.proof import Nonces
from remit.keys.authority import TURN_AFTER, FileAuthority
from remit.keys.file import FileSealer
from remit.ports.broker import Notice
from tests.compose.test_serving import EXCHANGE, configured, opened, serving
from tests.oauth.plane import Agent, claims_of
from tests.support.one_process import Edges

SHOWN = "what-a-receiver-shows-is-long-enough-not-to-be-guessed"
DETAIL = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any"}


async def told(client: httpx.AsyncClient, ring: str) -> list[dict[str, Any]]:
    """Return the keys of a ring as the operator sees them."""
    return list((await client.get("/v1/keys")).json()["rings"][ring])


def headed(text: str) -> dict[str, Any]:
    """Return the header of a JWS."""
    return dict(jose.read(text, frozenset({"alg", "kid", "typ"})).header)


async def published(client: httpx.AsyncClient) -> list[str]:
    return [key["kid"] for key in (await client.get("/oauth/jwks")).json()["keys"]]


async def a_token(edges: Edges, client: httpx.AsyncClient, agent: Agent) -> str:
    """Open a task with a token for ``agent``."""
    await opened(client)
    url = f"{edges.authority.verifier.issuer}/oauth/token"
    proof = agent.proof("POST", url, edges.application.clock(), edges.authority.verifier.nonce())
    form = {
        "grant_type": EXCHANGE,
        "subject_token_type": "urn:remit:peer",
        "subject_token": "self",
        "purpose": "look",
        "ttl": "900",
        "authorization_details": json.dumps([DETAIL]),
        "req_cnf": json.dumps({"jwk": agent.jwk}),
        "req_cnf_proof": proof,
    }
    return str((await client.post("/oauth/token", data=form)).json()["access_token"])


async def events(client: httpx.AsyncClient) -> list[tuple[str, str, str, str]]:
    found = (await client.get("/v1/audit", params={"start": "0", "limit": "100"})).json()["entries"]
    keys = [entry for entry in found if entry["event"].startswith("key.")]
    return [(entry["event"], entry["decision"], entry["action"], entry["key"]) for entry in keys]


def test_the_overlap_is_as_long_as_a_token_can_live() -> None:
    assert OVERLAP.total_seconds() == token.LIFE.total_seconds() + token.SKEW


def test_a_rotation_is_seen_at_once_by_all_who_sign_verify_and_publish(tmp_path: Path) -> None:
    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        old = await a_token(edges, client, Agent())
        (first,) = await published(client)
        answer = (await client.post("/v1/keys/token/rotate")).json()
        assert await published(client) == [answer["signing"], first]
        assert claims_of(edges.authority.verifier, old).grant
        new = await a_token(edges, client, Agent())
        assert headed(new)["kid"] == answer["signing"]
        assert claims_of(edges.authority.verifier, new).grant
        assert await events(client) == [
            ("key.rotate", "allow", "token", first),
            ("key.rotate", "done", "token", answer["signing"]),
        ]

    serving(configured(tmp_path), body)


def test_a_revoked_key_takes_its_tokens_with_it_at_once(tmp_path: Path) -> None:
    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        old = await a_token(edges, client, Agent())
        (first,) = await published(client)
        answer = (await client.post(f"/v1/keys/token/{first}/revoke")).json()
        assert await published(client) == [answer["signing"]]
        with pytest.raises(TokenError):
            claims_of(edges.authority.verifier, old)
        with pytest.raises(TokenError):
            claims_of(edges.authority.verifier, old, expired=True)
        assert claims_of(edges.authority.verifier, await a_token(edges, client, Agent())).grant
        assert (await events(client))[-1] == ("key.revoke", "done", "token", answer["signing"])

    serving(configured(tmp_path), body)


def test_a_key_is_revoked_only_once_every_edge_has_the_keys_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "WAIT", 30.0)

    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        (first,) = await published(client)
        told = edges.application.broker.notices()
        asking = asyncio.create_task(client.post(f"/v1/keys/token/{first}/revoke"))
        assert [jwk["kid"] for jwk in (await anext(told)).token_keys or ()] == await published(client) != [first]
        assert await asyncio.wait({asking}, timeout=0.2) == (set(), {asking})
        assert [event[1] for event in await events(client)] == ["allow"]
        done = asyncio.ensure_future(anext(told))
        assert (await asking).status_code == 200
        done.cancel()

    serving(configured(tmp_path), body)


def test_a_restart_has_the_keys_that_were_there(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    async def first(edges: Edges, client: httpx.AsyncClient) -> None:
        del edges
        await client.post("/v1/keys/token/rotate")
        seen.append(await published(client))

    async def second(edges: Edges, client: httpx.AsyncClient) -> None:
        del edges
        assert [await published(client)] == seen

    made = configured(tmp_path)
    serving(made, first)
    serving(made, second)


def test_what_nothing_needs_any_more_is_published_no_longer(tmp_path: Path) -> None:
    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        answer = (await client.post("/v1/keys/token/rotate")).json()
        edges.application.tokens._clock = lambda: edges.application.clock() + OVERLAP
        await edges.authority.rings.prune()
        assert await published(client) == [answer["signing"]]

    serving(configured(tmp_path), body)


def telling(tmp_path: Path) -> Settings:
    """Return a configuration in which somebody is told of tasks that end."""
    token = tmp_path / "soc.token"
    token.write_text(SHOWN)
    token.chmod(0o600)
    told = [{"receiver": "soc", "audience": "https://soc.test", "token_file": str(token)}]
    made = configured(tmp_path)
    return structs.replace(made, signals=read(made.places, {"signals": told}).signals)


def test_the_keys_of_events_turn_and_those_that_retired_verify_until_they_are_revoked(tmp_path: Path) -> None:
    made = telling(tmp_path)

    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        async def verify() -> list[str]:
            return [key["kid"] for key in (await client.get("/v1/signals/jwks")).json()["keys"]]

        task = await opened(client)
        await client.post(f"/v1/tasks/{task['task']}/close")
        (first,) = await verify()
        kids = [first]
        for _ in range(2):
            kids.insert(0, (await client.post("/v1/keys/events/rotate")).json()["signing"])
            await edges.authority.rings.prune()
            assert await verify() == kids
        assert [key["alg"] for key in await told(client, "events")] == ["RS256"] * 3
        answer = (await client.post(f"/v1/keys/events/{kids[0]}/revoke")).json()
        assert sorted(await verify()) == sorted([answer["signing"], *kids[1:]])
        got = await client.post(
            "/v1/signals/streams/soc", json={"returnImmediately": True}, headers={"authorization": f"Bearer {SHOWN}"}
        )
        (text,) = got.json()["sets"].values()
        assert headed(text)["kid"] == answer["signing"]

    serving(made, body)

    async def again(edges: Edges, client: httpx.AsyncClient) -> None:
        del edges
        assert len(await told(client, "events")) == 3

    serving(made, again)


def test_nobody_is_told_and_so_there_is_no_ring_of_events(tmp_path: Path) -> None:
    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        del edges
        assert sorted((await client.get("/v1/keys")).json()["rings"]) == ["audit", "spiffe", "token"]
        assert (await client.post("/v1/keys/events/rotate")).status_code == 404

    serving(configured(tmp_path), body)


def test_the_key_for_services_is_published_beside_that_of_tokens_and_turns_by_itself(tmp_path: Path) -> None:
    made = configured(tmp_path)
    wanted = {"shop": {"resource": "https://shop.test", "signing_alg": "RS256"}}
    made = structs.replace(made, services=read(made.places, {"services": wanted}).services)

    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        del edges
        token_key, first = await published(client)
        fresh = (await client.post("/v1/keys/services/rotate")).json()["signing"]
        assert await published(client) == [token_key, fresh, first]
        assert [key["alg"] for key in await told(client, "services")] == ["RS256"] * 2
        assert (await client.post(f"/v1/keys/services/{first}/revoke")).status_code == 200
        assert await published(client) == [token_key, fresh]

    serving(made, body)


@pytest.mark.parametrize("ring", ["token", "audit", "spiffe", "events"])
def test_each_ring_turns_and_lists_its_keys(tmp_path: Path, ring: str) -> None:
    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        del edges
        before = await told(client, ring)
        answer = await client.post(f"/v1/keys/{ring}/rotate")
        after = await told(client, ring)
        assert [key["kid"] for key in after if key["signing"]] == [answer.json()["signing"]]
        assert before[0]["kid"] in [key["kid"] for key in after if not key["signing"]]
        answer = await client.post(f"/v1/keys/{ring}/{before[0]['kid']}/revoke")
        assert before[0]["kid"] not in [key["kid"] for key in await told(client, ring)]
        assert answer.json()["signing"] == (await told(client, ring))[0]["kid"]

    serving(telling(tmp_path), body)


@pytest.mark.parametrize("path", ["/v1/keys/none/rotate", "/v1/keys/none/abc/revoke", "/v1/keys/token/abc/revoke"])
def test_what_there_is_not_is_not_turned_and_leaves_no_entry(tmp_path: Path, path: str) -> None:
    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        del edges
        before = (await client.get("/v1/keys")).json()
        assert (await client.post(path)).status_code == 404
        assert (await client.get("/v1/keys")).json() == before
        assert await events(client) == []

    serving(configured(tmp_path), body)


def test_checkpoints_of_before_and_after_verify_by_the_published_keys(tmp_path: Path) -> None:
    made = configured(tmp_path)

    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        await opened(client)
        before = await edges.application.broker.checkpoint()
        await client.post("/v1/keys/audit/rotate")
        after = await edges.application.broker.checkpoint()
        lines = (made.places.state / "audit.vkey").read_text().splitlines()
        publics = [audit.read_verifier_key(line)[1] for line in lines]
        assert len(publics) == 2
        for note, public in ((after, publics[0]), (before, publics[1])):
            assert audit.read_checkpoint(note.text, edges.application.origin, [public]) == note

    serving(made, body)


def test_revoking_the_audit_key_first_gives_the_second_place_what_another_key_signed(tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    made = structs.replace(configured(tmp_path), audit=AuditSection(second))

    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        await opened(client)
        await edges.application.broker.checkpoints.look()
        (first,) = await told(client, "audit")
        old = (second / "checkpoint").read_text()
        assert (await client.post(f"/v1/keys/audit/{first['kid']}/revoke")).status_code == 200
        assert (second / "checkpoint").read_text() != old
        assert edges.application.witness is not None
        assert edges.application.witness.last() is not None
        (second / "checkpoint").write_text(old)
        with pytest.raises(UnavailableError):
            edges.application.witness.last()
        (second / "checkpoint").write_text((await edges.application.broker.checkpoint()).text)

    async def again(edges: Edges, client: httpx.AsyncClient) -> None:
        del client
        assert not edges.application.broker._tasks.rolled_back

    serving(made, body)
    serving(made, again)


def test_a_revocation_that_could_not_tell_the_second_place_says_so_and_is_in_the_audit(tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    made = structs.replace(configured(tmp_path), audit=AuditSection(second))

    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        del edges
        await opened(client)
        (first,) = await told(client, "audit")
        second.rename(tmp_path / "away")
        answer = await client.post(f"/v1/keys/audit/{first['kid']}/revoke")
        (tmp_path / "away").rename(second)
        assert (answer.status_code, answer.json()["code"]) == (503, UnavailableError.code)
        assert first["kid"] in [key["kid"] for key in await told(client, "audit")]
        assert (await events(client))[-1][:2] == ("key.revoke", "failed")
        assert (await client.post(f"/v1/keys/audit/{first['kid']}/revoke")).status_code == 200

    serving(made, body)


def test_the_gateway_is_the_one_other_audience_of_tokens(tmp_path: Path) -> None:
    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        del client
        gateway = edges.application.settings.gateway
        assert gateway is not None
        assert edges.authority.verifier.gateway == f"http://127.0.0.1:{gateway[1]}"

    serving(configured(tmp_path), body)


def test_the_keys_of_the_trust_domain_rotate_by_themselves_when_it_is_time(tmp_path: Path) -> None:
    at = [datetime(2026, 11, 25, 12, tzinfo=UTC)]
    authority = FileAuthority(tmp_path / "keys", FileSealer(b"k" * 32), "remit.test", lambda: at[0])
    ring, before = KeyRing(authority), authority.signer.kid
    asyncio.run(ring.prune())
    assert authority.signer.kid == before
    at[0] += TURN_AFTER
    asyncio.run(ring.prune())
    assert authority.signer.kid != before


def test_a_ring_that_cannot_be_pruned_holds_up_no_other() -> None:
    class Broken:
        async def prune(self) -> None:
            raise UnavailableError

    class Counted:
        pruned = 0

        async def prune(self) -> None:
            self.pruned += 1

    counted = Counted()
    rings = KeyRings(None, {"audit": Broken(), "token": counted})  # type: ignore[arg-type, dict-item]  # pruning asks for no more
    with pytest.raises(UnavailableError):
        asyncio.run(rings.prune())
    assert counted.pruned == 1


def test_proofs_made_before_the_key_of_nonces_turned_count_until_it_turns_again(tmp_path: Path) -> None:
    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        del client
        verifier = edges.authority.verifier
        nonce = verifier.nonce()
        await edges.authority.turn_nonces()
        assert verifier.nonce() != nonce
        assert verifier.nonces.good(nonce, verifier.now())
        for role in (edges.edge, edges.web):
            verifier.nonces = Nonces(b"of before")
            role.noticed(Notice(nonces=await edges.authority.tokens.nonces()))
            assert verifier.nonces.good(nonce, verifier.now())
        await edges.authority.turn_nonces()
        assert not verifier.nonces.good(nonce, verifier.now())
        assert edges.authority.turn_nonces in [what for _, what in edges.authority.rounds]

    serving(configured(tmp_path), body)
