"""Tokens that are bound to an X.509-SVID (RFC 8705), through their whole life."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from tests.identity.spire import Svid
from tests.live.fleet import (
    ACCESS_TOKEN,
    EXCHANGE,
    PLANNER,
    SEARCH,
    Fleet,
    Key,
    claims_of,
    opening,
    play,
)

pytestmark = pytest.mark.live


async def opened(fleet: Fleet, svid: Svid) -> tuple[httpx.AsyncClient, str]:
    """Return a client with a certificate, and the token of the task it opened."""
    client = await fleet.client(svid)
    form = opening(grant_type="client_credentials", client_id=fleet.domain.id(PLANNER))
    answer = await fleet.ask(client, None, **form)
    assert answer.status_code == 200, answer.text
    return client, str(answer.json()["access_token"])


def delegation(fleet: Fleet, token: str, child: Key) -> dict[str, str]:
    nonce = fleet.edges.authority.verifier.nonce()
    return {
        "grant_type": EXCHANGE,
        "subject_token": token,
        "subject_token_type": ACCESS_TOKEN,
        "authorization_details": json.dumps([SEARCH]),
        "req_cnf": json.dumps({"jwk": child.jwk}),
        "req_cnf_proof": child.proof("POST", fleet.endpoint, nonce, token),
    }


def renewal(token: str) -> dict[str, str]:
    return {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS_TOKEN}


def test_its_certificate_delegates_and_renews_and_no_other_does(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        svid = fleet.domain.svid(life=timedelta(minutes=5))
        client, token = await opened(fleet, svid)
        answer = await fleet.ask(client, None, **delegation(fleet, token, Key()))
        assert answer.status_code == 200, answer.text
        child = claims_of(answer.json()["access_token"])
        assert (answer.json()["token_type"], set(child["cnf"])) == ("DPoP", {"jkt"})
        answer = await fleet.ask(client, None, **renewal(token))
        assert answer.status_code == 200, answer.text
        said = claims_of(answer.json()["access_token"])
        assert said["cnf"] == {"x5t#S256": svid.x5t}
        assert said["exp"] <= svid.chain[0].not_valid_after_utc.timestamp()
        for stranger in (fleet.domain.svid(), None):
            other = await fleet.client(stranger)
            for form in (delegation(fleet, token, Key()), renewal(token)):
                for key in (None, Key()):
                    assert not (await fleet.ask(other, key, **form)).is_success

    play(tmp_path, scene)


def test_a_token_of_a_certificate_is_no_dpop_token_and_the_other_way_round(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        client, token = await opened(fleet, fleet.domain.svid())
        key, url = Key(), f"{fleet.issuer}/v1/self"
        for scheme, proofs in (("DPoP", True), ("Bearer", True), ("DPoP", False)):
            proof = key.proof("GET", url, fleet.edges.authority.verifier.nonce(), token)
            headers = {"authorization": f"{scheme} {token}", **({"dpop": proof} if proofs else {})}
            assert (await client.get("/v1/self", headers=headers)).status_code == 401
        assert (await client.get("/v1/self", headers={"authorization": f"bearer {token}"})).status_code == 200

    play(tmp_path, scene)


def test_a_renewed_certificate_opens_anew_and_takes_over_no_token(tmp_path: Path) -> None:
    """The price of binding to a certificate: what runs longer than an SVID binds to a key."""

    async def scene(fleet: Fleet) -> None:
        _, token = await opened(fleet, fleet.domain.svid())
        renewed, fresh = await opened(fleet, fleet.domain.svid())
        assert claims_of(fresh)["client_id"] == claims_of(token)["client_id"]
        headers = {"authorization": f"Bearer {token}"}
        assert (await renewed.get("/v1/self", headers=headers)).status_code == 401
        assert not (await fleet.ask(renewed, None, **renewal(token))).is_success

    play(tmp_path, scene)


def test_the_broker_tells_others_what_a_token_is_bound_to(tmp_path: Path) -> None:
    """RFC 8705 §3.2: introspection has the thumbprint."""

    async def scene(fleet: Fleet) -> None:
        svid = fleet.domain.svid()
        client, token = await opened(fleet, svid)
        headers = {"authorization": f"Bearer {token}"}
        told = (await client.post("/oauth/introspect", data={"token": token}, headers=headers)).json()
        assert (told["active"], told["token_type"], told["cnf"]) == (True, "Bearer", {"x5t#S256": svid.x5t})

    play(tmp_path, scene)
