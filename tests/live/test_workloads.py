from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from spiffe import WorkloadApiClient

from remit import jose
from remit.identity.workloads import bundles
from tests.identity.spire import Svid, signed
from tests.identity.workload_api import Agent
from tests.live import idp
from tests.live.fleet import (
    EXCHANGE,
    ID_TOKEN,
    JWT,
    PLANNER,
    WRITER,
    Fleet,
    Key,
    claims_of,
    fresh,
    opening,
    place,
    play,
    run,
    running,
    until,
)
from tests.live.idp import Provider

pytestmark = pytest.mark.live

CREDENTIALS = {"grant_type": "client_credentials"}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """Serve a real identity provider."""
    with idp.served() as found:
        yield found


# -- JWT-SVID ---------------------------------------------------------------------------------------------------------


def test_a_workload_that_nobody_registered_opens_a_task_for_a_human(tmp_path: Path, provider: Provider) -> None:
    async def scene(fleet: Fleet) -> None:
        client, key = await fleet.client(), Key()
        human = await asyncio.to_thread(provider.tokens)
        form = opening(grant_type=EXCHANGE, subject_token=human["id_token"], subject_token_type=ID_TOKEN)
        answer = await fleet.ask(client, key, **form, **fleet.assertion())
        assert answer.status_code == 200, answer.text
        said = claims_of(answer.json()["access_token"])
        assert said["client_id"] == said["act"]["sub"] == fleet.domain.id(PLANNER)
        assert said["sub"] == f"{provider.issuer}#alice"
        assert said["task"]["attested"] is True
        assert said["cnf"]["jkt"] == jose.public_key(key.jwk).thumbprint
        entry = await fleet.event(answer.json()["grant"], "task.open")
        assert (entry["agent"], entry["attested"]) == (fleet.domain.id(PLANNER), True)
        again = await fleet.ask(client, key, **form, **fleet.assertion())
        assert again.status_code == 400  # one ID token opens one task

    play(tmp_path, scene, humans=[{"issuer": provider.issuer, "client_id": "remit"}])


def test_a_workload_opens_a_task_for_itself_where_a_policy_says_so(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        client, key = await fleet.client(), Key()
        answer = await fleet.ask(client, key, **opening(**CREDENTIALS), **fleet.assertion())
        assert answer.status_code == 200, answer.text
        assert answer.json()["token_type"] == "DPoP"
        said = claims_of(answer.json()["access_token"])
        assert said["sub"] == said["client_id"] == fleet.domain.id(PLANNER)
        wide = '[{"type": "http", "resource": "other", "actions": ["GET"], "paths": ["/**"], "args": "any"}]'
        form = opening(**CREDENTIALS, authorization_details=wide)
        assert (await fleet.ask(client, key, **form, **fleet.assertion())).status_code in {400, 403}

    play(tmp_path, scene)


def test_a_workload_that_is_not_who_it_says_opens_nothing(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        client, key, form = await fleet.client(), Key(), opening(**CREDENTIALS)
        stranger = fresh("stranger.example")
        foreign = {**fleet.assertion(), "client_assertion": stranger.jwt(fleet.issuer)}
        forged = {**fleet.assertion(), "client_assertion": stranger.jwt(fleet.issuer, sub=fleet.domain.id(PLANNER))}
        for bad in (
            {},
            {"client_id": fleet.domain.id(PLANNER)},
            {**fleet.assertion(), "client_id": fleet.domain.id(WRITER)},
            fleet.assertion("/ns/others/planner"),
            fleet.assertion(audience=[fleet.issuer, "https://other.example"]),
            fleet.assertion(audience=fleet.endpoint),
            fleet.assertion(exp=int(datetime.now(UTC).timestamp()) - 1),
            foreign,
            forged,
        ):
            answer = await fleet.ask(client, key, **form, **bad)
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client"), answer.text
        assert not [one for one in await fleet.entries() if one["event"] == "task.open" and one["decision"] == "allow"]

    play(tmp_path, scene)


# -- X.509-SVID -------------------------------------------------------------------------------------------------------


async def certified(fleet: Fleet, svid: Svid, path: str = PLANNER) -> tuple[httpx.AsyncClient, httpx.Response]:
    """Open a task over mutual TLS, without another key."""
    client = await fleet.client(svid)
    form = opening(**CREDENTIALS, client_id=fleet.domain.id(path))
    return client, await fleet.ask(client, None, **form)


async def shown(client: httpx.AsyncClient, token: str, url: str = "/v1/self") -> int:
    """Use a token that is bound to a certificate; return the status."""
    return (await client.get(url, headers={"authorization": f"Bearer {token}"})).status_code


def test_a_token_is_bound_to_the_certificate_it_was_given_for(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        svid = fleet.domain.svid(life=timedelta(minutes=5))
        client, answer = await certified(fleet, svid)
        assert answer.status_code == 200, answer.text
        assert answer.json()["token_type"] == "Bearer"
        token = answer.json()["access_token"]
        said = claims_of(token)
        assert said["cnf"] == {"x5t#S256": svid.x5t}
        assert said["client_id"] == fleet.domain.id(PLANNER)
        assert said["exp"] <= svid.chain[0].not_valid_after_utc.timestamp()
        assert await shown(client, token) == 200
        for other in (fleet.domain.svid(), fleet.domain.svid(WRITER), None):
            assert await shown(await fleet.client(other), token) == 401
        plain = f"http://127.0.0.1:{fleet.edges.application.settings.api[1]}/v1/self"  # type: ignore[index]  # it is on
        assert await shown(client, token, plain) == 401
        refused = [one for one in await fleet.entries() if one["decision"] == "deny"]
        assert "wrong-key" in {one.get("code") for one in refused}

    play(tmp_path, scene)


def test_a_certificate_with_a_proof_of_a_key_gives_a_token_that_outlives_it(tmp_path: Path) -> None:
    """An X.509-SVID is replaced every hour: what is bound to a key need not be asked for again then."""

    async def scene(fleet: Fleet) -> None:
        client, key = await fleet.client(fleet.domain.svid()), Key()
        form = opening(**CREDENTIALS, client_id=fleet.domain.id(PLANNER))
        answer = await fleet.ask(client, key, **form)
        assert (answer.status_code, answer.json()["token_type"]) == (200, "DPoP"), answer.text
        token = answer.json()["access_token"]
        assert claims_of(token)["cnf"] == {"jkt": jose.public_key(key.jwk).thumbprint}
        assert await shown(client, token) == 401  # not as a bearer's, though the certificate is the same
        url, nonce = f"{fleet.issuer}/v1/self", fleet.edges.authority.verifier.nonce()
        headers = {"authorization": f"DPoP {token}", "dpop": key.proof("GET", url, nonce, token)}
        assert (await (await fleet.plain()).get("/v1/self", headers=headers)).status_code == 200

    play(tmp_path, scene)


def test_a_certificate_of_another_workload_is_not_its_client_id(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        _, answer = await certified(fleet, fleet.domain.svid(WRITER), PLANNER)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        _, answer = await certified(fleet, fleet.domain.authority.svid(fleet.domain.id(), fleet.domain.id(WRITER)))
        assert answer.status_code == 401
        _, answer = await certified(fleet, fleet.domain.svid("/ns/others/a"), "/ns/others/a")
        assert answer.status_code == 401
        with pytest.raises(httpx.TransportError):
            await certified(fleet, fresh("prod.example").svid())

    play(tmp_path, scene)


# -- WIT and WPT ------------------------------------------------------------------------------------------------------


def test_a_workload_identity_token_comes_with_a_proof_of_its_key(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        client, key, at = await fleet.client(), Key(), int(datetime.now(UTC).timestamp())
        body = {"sub": fleet.domain.id(PLANNER), "exp": at + 600, "cnf": {"jwk": {**key.jwk, "alg": "ES256"}}}
        wit = signed(fleet.domain.wit_key, {"alg": "ES256", "kid": "wit-1", "typ": "wit+jwt"}, body)

        async def asked(by: Key, dpop: Key) -> httpx.Response:
            proof = {"aud": fleet.endpoint, "exp": at + 120, "wth": jose.digest(wit)}
            nonce = fleet.edges.authority.verifier.nonce()
            headers = {"workload-identity-token": wit, "workload-proof-token": by.signed("wpt+jwt", proof)}
            headers |= {"dpop": dpop.proof("POST", fleet.endpoint, nonce)}
            return await client.post("/oauth/token", data=opening(**CREDENTIALS), headers=headers)

        answer = await asked(key, key)
        assert answer.status_code == 200, answer.text
        assert claims_of(answer.json()["access_token"])["client_id"] == fleet.domain.id(PLANNER)
        assert (await asked(Key(), key)).status_code == 400  # the proof is by another key
        assert not (await asked(key, Key())).is_success  # the token would be bound to another key

    play(tmp_path, scene)


# -- delegation -------------------------------------------------------------------------------------------------------


async def opened(fleet: Fleet, client: httpx.AsyncClient, **more: str) -> Key:
    """Return the key of a planner with a task of its own."""
    key = Key()
    answer = await fleet.ask(client, key, **opening(**CREDENTIALS, **more), **fleet.assertion())
    assert answer.status_code == 200, answer.text
    key.token = answer.json()["access_token"]
    return key


def test_a_sub_agent_shows_who_it_is_or_has_the_brokers_name_for_it(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        client = await fleet.client()
        planner = await opened(fleet, client)
        proven = {"actor_token": fleet.jwt(WRITER), "actor_token_type": JWT}
        for more, attested in ((proven, True), ({}, False)):
            answer = await fleet.child(client, planner, Key(), **more)
            assert answer.status_code == 200, answer.text
            grant, task = answer.json()["grant"], answer.json()["task"]
            name = fleet.domain.id(WRITER) if attested else f"spiffe://remit.local/task/{task}/{grant}"
            said = claims_of(answer.json()["access_token"])
            client_id = fleet.domain.id(WRITER if attested else PLANNER)  # who obtained it: what is named is no client
            assert (said["client_id"], said["task"]["attested"]) == (client_id, attested)
            assert said["act"] == {"sub": name, "act": {"sub": fleet.domain.id(PLANNER)}}
            entry = await fleet.event(grant, "grant.delegate")
            assert (entry["agent"], entry["attested"]) == (name, attested)

    play(tmp_path, scene)


def test_a_child_whose_credential_has_a_key_is_made_for_that_key_alone(tmp_path: Path) -> None:
    """What its parent is shown, it cannot show again: so `exercise: false` binds where delegates have such names."""

    async def scene(fleet: Fleet) -> None:
        client, child, at = await fleet.client(), Key(), int(datetime.now(UTC).timestamp())
        only = {"unattested": "false", "delegates": '["wimse://prod.example/*"]', "exercise": "false"}
        planner = await opened(fleet, client, **only)
        body = {"sub": "wimse://prod.example/writer", "exp": at + 600, "cnf": {"jwk": {**child.jwk, "alg": "ES256"}}}
        wit = signed(fleet.domain.wit_key, {"alg": "ES256", "kid": "wit-1", "typ": "wit+jwt"}, body)
        actor = {"actor_token": wit, "actor_token_type": JWT, "unattested": "false"}
        stolen = await fleet.child(client, planner, Key(), **actor)
        assert (stolen.status_code, stolen.json()["code"]) == (400, "wrong-key")
        bearer = {"actor_token": fleet.jwt(WRITER), "actor_token_type": JWT, "unattested": "false"}
        assert (await fleet.child(client, planner, Key(), **bearer)).json()["error"] == "access_denied"
        forged = {**actor, "actor_token": child.signed("wit+jwt", body, kid="wit-1")}
        assert (await fleet.child(client, planner, child, **forged)).status_code == 401
        made = await fleet.child(client, planner, child, **actor)
        assert made.status_code == 200, made.text
        assert claims_of(made.json()["access_token"])["client_id"] == "wimse://prod.example/writer"

    play(tmp_path, scene)


def test_a_grant_may_be_for_attested_children_alone(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        client = await fleet.client()
        bounds = {"unattested": "false", "delegates": '["spiffe://prod.example/ns/agents/writer"]'}
        planner = await opened(fleet, client, **bounds)
        assert (await fleet.child(client, planner, Key())).json()["error"] == "access_denied"
        other = {"actor_token": fleet.jwt("/ns/agents/reader"), "actor_token_type": JWT}
        assert (await fleet.child(client, planner, Key(), **other)).json()["error"] == "access_denied"
        proven = {"actor_token": fleet.jwt(WRITER), "actor_token_type": JWT}
        assert (await fleet.child(client, planner, Key(), unattested="false", **proven)).status_code == 200
        forged = {"actor_token": fresh().jwt(fleet.issuer), "actor_token_type": JWT}
        assert (await fleet.child(client, planner, Key(), unattested="false", **forged)).status_code == 401

    play(tmp_path, scene)


# -- rotation and outage ----------------------------------------------------------------------------------------------


async def lets_in(fleet: Fleet, assertion: dict[str, str]) -> int:
    """Return the status of an attempt to open a task."""
    return (await fleet.ask(await fleet.plain(), Key(), **opening(**CREDENTIALS), **assertion)).status_code


def test_a_bundle_rotates_under_a_running_broker(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        old, old_svid = fleet.assertion(), fleet.domain.svid()
        client, answer = await certified(fleet, old_svid)
        token = answer.json()["access_token"]
        assert await lets_in(fleet, old) == await shown(client, token) == 200
        fleet.domain = fresh()
        place(tmp_path / "bundle.json", fleet.domain.bundle(spiffe_sequence=2))

        async def old_is_out() -> bool:
            return await lets_in(fleet, old) == 401

        await until(old_is_out)

        async def old_is_cut() -> bool:
            try:
                return await shown(client, token) != 200
            except httpx.TransportError:
                return True

        await until(old_is_cut)  # the connection was open all the time
        assert await lets_in(fleet, fleet.assertion()) == 200
        _, answer = await certified(fleet, fleet.domain.svid())
        assert answer.status_code == 200, answer.text
        with pytest.raises(httpx.TransportError):
            await certified(fleet, old_svid)
        with pytest.raises(httpx.TransportError):
            await shown(await fleet.client(old_svid), token)
        place(tmp_path / "bundle.json", fresh().bundle(spiffe_sequence=1))  # an old edition is put back
        assert await lets_in(fleet, fleet.assertion()) == 200

    play(tmp_path, scene)


def test_a_bundle_that_is_out_of_reach_serves_for_a_while_and_then_nobody_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "LIFE", timedelta(seconds=5))
    monkeypatch.setattr(bundles, "RETRY", timedelta(seconds=0.2))

    async def scene(fleet: Fleet) -> None:
        path, svid = tmp_path / "bundle.json", fleet.domain.svid()
        assert await lets_in(fleet, fleet.assertion()) == 200
        path.unlink()
        seen = [await lets_in(fleet, fleet.assertion())]
        assert seen == [200]

        async def closed() -> bool:
            seen.append(await lets_in(fleet, fleet.assertion()))
            return seen[-1] != 200

        await until(closed)
        assert set(seen) == {200, 503}

        async def certified_status() -> int:
            try:
                client, answer = await certified(fleet, svid)
            except httpx.TransportError:
                return 0
            await client.aclose()
            return answer.status_code

        async def refused() -> bool:
            return await certified_status() in {0, 503}

        await until(refused)
        place(path, fleet.domain.bundle())

        async def back() -> bool:
            return await lets_in(fleet, fleet.assertion()) == await certified_status() == 200

        await until(back)

    play(tmp_path, scene)


@pytest.mark.slow
def test_a_broker_that_starts_without_a_bundle_lets_nobody_in_until_there_is_one(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        answer = await fleet.ask(await fleet.plain(), Key(), **opening(**CREDENTIALS), **fleet.assertion())
        assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
        place(tmp_path / "later.json", fleet.domain.bundle())

        async def there() -> bool:
            return await lets_in(fleet, fleet.assertion()) == 200

        await until(there)

    row = {"name": "prod.example", "allow": ["spiffe://prod.example/**"], "bundle_file": str(tmp_path / "later.json")}
    play(tmp_path, scene, trust_domains=[row])


@pytest.mark.parametrize(("once", "answers"), [(False, [200, 200]), (True, [200, 401])])
def test_a_jwt_svid_without_a_jti_opens_one_task_alone_where_its_trust_domain_makes_each_anew(
    tmp_path: Path,
    once: bool,  # noqa: FBT001 - a case
    answers: list[int],
) -> None:
    async def scene(fleet: Fleet) -> None:
        form, client = opening(**CREDENTIALS, **fleet.assertion()), await fleet.plain()
        assert [(await fleet.ask(client, Key(), **form)).status_code for _ in range(2)] == answers

    domain = {"name": "prod.example", "allow": ["spiffe://prod.example/**"], "jwt_svids_once": once}
    play(tmp_path, scene, trust_domains=[{**domain, "bundle_file": str(tmp_path / "bundle.json")}])


# -- Workload API -----------------------------------------------------------------------------------------------------


def test_an_agent_on_both_sides_is_all_the_trust_there_is(tmp_path: Path) -> None:
    """The broker takes its bundle from a SPIFFE agent; the workload takes both its SVIDs from it; nothing is shared."""
    domain = fresh()

    async def scene(agent: Agent) -> None:
        row = {"name": domain.name, "allow": [domain.id("/ns/agents/*")], "workload_api": agent.url}
        async with running(tmp_path, domain, trust_domains=[row]) as fleet:
            with WorkloadApiClient(agent.url) as local:
                jwt = await asyncio.to_thread(local.fetch_jwt_svid, {fleet.issuer})
                x509 = await asyncio.to_thread(local.fetch_x509_svid)
            form = {**fleet.assertion(), "client_assertion": jwt.token}
            assert await lets_in(fleet, form) == 200
            leaf = Svid(x509.private_key, tuple(x509.cert_chain))  # type: ignore[arg-type]  # an EC key
            _, answer = await certified(fleet, leaf)
            assert answer.status_code == 200, answer.text
            assert claims_of(answer.json()["access_token"])["cnf"] == {"x5t#S256": leaf.x5t}

    with Agent(tmp_path / "agent.sock", (domain,)) as agent:
        run(scene(agent))


# -- discovery --------------------------------------------------------------------------------------------------------


def test_discovery_says_how_workloads_are_let_in(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        told = (await (await fleet.client()).get("/.well-known/oauth-authorization-server")).json()
        assert told["issuer"] == fleet.issuer
        assert {"spiffe_jwt", "spiffe_x509"} <= set(told["token_endpoint_auth_methods_supported"])
        assert told["tls_client_certificate_bound_access_tokens"] is True
        assert "client_credentials" in told["grant_types_supported"]

    play(tmp_path, scene)
