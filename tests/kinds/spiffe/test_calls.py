"""The five calls for one run, as a client meets them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpclib.client import Channel, UnaryStreamMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from spiffe._proto import workload_pb2 as pb

from remit.core.policy import Decision, Question
from remit.core.principal import Holder
from remit.core.spiffe import TrustBundle
from remit.errors import NotFoundError
from remit.kinds.spiffe.calls import SECURITY, SERVICE
from remit.kinds.spiffe.svids import Known, Svids
from tests.broker.world import OPERATOR, SEARCH
from tests.kinds.spiffe.mesh import BOTH, CALLS, LEDGER, MAIL, METADATA, PATIENCE, STREAMS, Client, Mesh, meshed, run

FIELDS: dict[str, dict[str, Any]] = {
    "FetchJWTSVID": {"audience": [LEDGER]},
    "ValidateJWTSVID": {"audience": LEDGER, "svid": "x"},
}


async def refusal(client: Client, name: str, metadata: dict[str, str] | None = None, **fields: object) -> Status:
    """Return the status with which a call is refused."""
    with pytest.raises(GRPCError) as caught:
        await client.once(name, metadata, **fields)
    return caught.value.status


def leaf(response: Any) -> x509.Certificate:
    return x509.load_der_x509_certificate(response.svids[0].x509_svid)


# -- who may call ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("metadata", [{}, {SECURITY: "false"}, {SECURITY: "True"}, {SECURITY: "true,true"}])
def test_a_call_without_the_security_header_is_refused(tmp_path: Path, name: str, metadata: dict[str, str]) -> None:
    async def body(mesh: Mesh) -> None:
        async with mesh.client(await mesh.opened()) as client:
            assert await refusal(client, name, metadata, **FIELDS.get(name, {})) is Status.INVALID_ARGUMENT

    run(tmp_path, body)


@pytest.mark.parametrize("name", CALLS)
def test_a_grant_that_has_ended_has_no_identity(tmp_path: Path, name: str) -> None:
    async def body(mesh: Mesh) -> None:
        grant = await mesh.opened()
        async with mesh.client(grant) as client:
            await mesh.broker.revoke(OPERATOR, grant.id)
            assert await refusal(client, name, **FIELDS.get(name, {})) is Status.PERMISSION_DENIED

    run(tmp_path, body)


@pytest.mark.parametrize("name", CALLS)
def test_a_grant_without_a_detail_for_svids_has_no_identity(tmp_path: Path, name: str) -> None:
    async def body(mesh: Mesh) -> None:
        async with mesh.client(await mesh.opened(SEARCH)) as client:
            assert await refusal(client, name, **FIELDS.get(name, {})) is Status.PERMISSION_DENIED

    run(tmp_path, body)


@pytest.mark.parametrize("name", ["FetchWITSVID", "FetchWITBundles"])
def test_a_call_that_there_is_none_of_is_unimplemented(tmp_path: Path, name: str) -> None:
    async def body(mesh: Mesh) -> None:
        async with mesh.place(await mesh.opened()) as path, Channel(path=str(path)) as channel:
            call = UnaryStreamMethod(channel, f"{SERVICE}/{name}", pb.JWTSVIDRequest, pb.JWTSVIDResponse)
            with pytest.raises(GRPCError) as caught:
                await call(pb.JWTSVIDRequest(spiffe_id="spiffe://remit.test/x"), metadata=METADATA)
        assert caught.value.status is Status.UNIMPLEMENTED

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("actions", "refused"), [(["x509"], "FetchJWTSVID"), (["jwt"], "FetchX509SVID")], ids=["x509 alone", "jwt alone"]
)
def test_a_grant_for_one_kind_of_svid_gets_none_of_the_other(tmp_path: Path, actions: list[str], refused: str) -> None:
    async def body(mesh: Mesh) -> None:
        async with mesh.client(await mesh.opened({**BOTH, "actions": actions})) as client:
            assert await refusal(client, refused, **FIELDS.get(refused, {})) is Status.PERMISSION_DENIED

    run(tmp_path, body)


# -- X.509-SVIDs ----------------------------------------------------------------------------------------------------


def test_an_svid_is_the_name_of_the_listeners_grant_and_verifies_under_the_bundle(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        grant = await mesh.opened()
        async with mesh.client(grant) as client:
            response = await client.once("FetchX509SVID")
        (svid,) = response.svids
        assert svid.spiffe_id == grant.agent
        names = leaf(response).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [name.value for name in names] == [grant.agent]
        assert svid.bundle == b"".join(mesh.authority.certificates())
        leaf(response).verify_directly_issued_by(x509.load_der_x509_certificate(mesh.authority.certificates()[0]))
        key = serialization.load_der_private_key(svid.x509_svid_key, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.public_key() == leaf(response).public_key()
        assert (svid.hint, dict(response.federated_bundles)) == ("", {})

    run(tmp_path, body)


def test_sub_agents_have_names_of_their_own(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        root = await mesh.opened()
        children = [await mesh.delegated(root, name) for name in ("reader", "payer")]
        seen = []
        for grant in (root, *children):
            async with mesh.client(grant) as client:
                seen.append((await client.once("FetchX509SVID")).svids[0].spiffe_id)
        assert seen == [grant.agent for grant in (root, *children)]
        assert len(set(seen)) == 3

    run(tmp_path, body)


def test_no_run_gets_svids_of_its_ancestors_or_siblings(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        root = await mesh.opened()
        reader, payer = [await mesh.delegated(root, name) for name in ("reader", "payer")]
        async with mesh.client(payer) as client:
            for other in (root, reader):
                assert (
                    await refusal(client, "FetchJWTSVID", audience=[LEDGER], spiffe_id=other.agent)
                    is Status.PERMISSION_DENIED
                )
                with pytest.raises(NotFoundError):
                    await mesh.broker.issue(mesh.holder(payer), other.id, root.scope[0])
            below = await mesh.broker.issue(mesh.holder(root), payer.id, root.scope[0])
            assert below.credential["spiffe_id"] == payer.agent
            own = await client.once("FetchJWTSVID", audience=[LEDGER], spiffe_id=payer.agent)
            assert own.svids[0].spiffe_id == payer.agent

    run(tmp_path, body)


def test_all_who_ask_while_an_svid_is_fresh_get_the_same(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        grant = await mesh.opened()
        async with mesh.client(grant) as client:
            both = await asyncio.gather(*(client.once("FetchX509SVID") for _ in range(4)))
            assert len({each.svids[0].x509_svid for each in both}) == 1
            assert len(mesh.leases(grant)) == 1
            mesh.later(149)
            assert leaf(await client.once("FetchX509SVID")) == leaf(both[0])
            mesh.later(1)  # half its life
            assert leaf(await client.once("FetchX509SVID")) != leaf(both[0])

    run(tmp_path, body)


def test_an_svid_whose_lease_was_revoked_is_not_handed_out_again(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        grant = await mesh.opened()
        async with mesh.client(grant) as client:
            first = leaf(await client.once("FetchX509SVID"))
            token = (await client.once("FetchJWTSVID", audience=[LEDGER])).svids[0].svid
            for lease in mesh.leases(grant):
                await mesh.broker.revoke_lease(OPERATOR, lease)
            assert leaf(await client.once("FetchX509SVID")) != first
            assert (await client.once("FetchJWTSVID", audience=[LEDGER])).svids[0].svid != token

    run(tmp_path, body)


def test_a_grant_that_may_only_delegate_gets_no_svid(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        grant = await mesh.opened(exercise=False, depth=1, unattested=False)
        async with mesh.client(grant) as client:
            assert await refusal(client, "FetchX509SVID") is Status.PERMISSION_DENIED

    run(tmp_path, body)


def test_an_agent_that_others_attested_has_its_svids_from_them(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        root = await mesh.opened()
        grant = await mesh.delegated(root, "planner", agent="spiffe://prod.test/ns/a/sa/planner", attested=True)
        async with mesh.client(grant) as client:
            assert await refusal(client, "FetchX509SVID") is Status.PERMISSION_DENIED
            assert await refusal(client, "FetchJWTSVID", audience=[LEDGER]) is Status.PERMISSION_DENIED
            assert list((await client.once("FetchX509Bundles")).bundles) == ["spiffe://remit.test"]
        assert mesh.leases(grant) == []

    run(tmp_path, body)


def test_no_svid_outlives_the_grant(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        grant = await mesh.opened()
        mesh.later(3_500)
        async with mesh.client(grant) as client:
            assert leaf(await client.once("FetchX509SVID")).not_valid_after_utc == grant.expires_at
            token = (await client.once("FetchJWTSVID", audience=[LEDGER])).svids[0].svid
        assert mesh.verified(token, LEDGER)["exp"] == int(grant.expires_at.timestamp())

    run(tmp_path, body)


# -- JWT-SVIDs ------------------------------------------------------------------------------------------------------


def test_a_jwt_svid_is_for_its_audiences_and_says_that_nobody_attested_the_agent(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        grant = await mesh.opened()
        async with mesh.client(grant) as client:
            (svid,) = (await client.once("FetchJWTSVID", audience=[LEDGER])).svids
        claims = mesh.verified(svid.svid, LEDGER)
        assert (svid.spiffe_id, claims["sub"], claims["aud"]) == (grant.agent, grant.agent, LEDGER)
        assert claims["attested"] is False

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("audiences", "status"),
    [
        ([], Status.INVALID_ARGUMENT),
        (["https://other.test"], Status.PERMISSION_DENIED),
        ([LEDGER, "https://other.test"], Status.PERMISSION_DENIED),
        (["not an audience"], Status.INVALID_ARGUMENT),
    ],
)
def test_audiences_that_the_grant_does_not_have_are_refused(
    tmp_path: Path, audiences: list[str], status: Status
) -> None:
    async def body(mesh: Mesh) -> None:
        grant = await mesh.opened()
        async with mesh.client(grant) as client:
            assert await refusal(client, "FetchJWTSVID", audience=audiences) is status
        assert mesh.leases(grant) == []

    run(tmp_path, body)


def test_the_detail_that_has_the_audiences_is_used(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        grant = await mesh.opened({**BOTH, "audiences": [MAIL]}, {**BOTH, "audiences": [LEDGER], "ttl": 60})
        async with mesh.client(grant) as client:
            token = (await client.once("FetchJWTSVID", audience=[LEDGER])).svids[0].svid
        assert mesh.verified(token, LEDGER)["exp"] == int(mesh.now.timestamp()) + 60

    run(tmp_path, body)


def test_bundles_hold_the_keys_of_this_trust_domain_alone(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        async with mesh.client(await mesh.opened()) as client:
            certified = (await client.once("FetchX509Bundles")).bundles
            signed = (await client.once("FetchJWTBundles")).bundles
        assert dict(certified) == {"spiffe://remit.test": b"".join(mesh.authority.certificates())}
        assert list(signed) == ["spiffe://remit.test"]
        keys = json.loads(signed["spiffe://remit.test"])["keys"]
        assert [(key["kid"], key["use"]) for key in keys] == [
            (jwk["kid"], "jwt-svid") for jwk in mesh.authority.public.jwks
        ]

    run(tmp_path, body)


def test_a_jwt_svid_of_another_run_is_validated(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        reader, payer = await mesh.opened(), await mesh.opened()
        async with mesh.client(reader) as client:
            token = (await client.once("FetchJWTSVID", audience=[LEDGER])).svids[0].svid
        async with mesh.client(payer) as client:
            valid = await client.once("ValidateJWTSVID", audience=LEDGER, svid=token)
            assert valid.spiffe_id == reader.agent
            assert dict(valid.claims) == mesh.verified(token, LEDGER)
            assert await refusal(client, "ValidateJWTSVID", audience=MAIL, svid=token) is Status.INVALID_ARGUMENT
            await mesh.broker.revoke(OPERATOR, reader.id)
            assert await refusal(client, "ValidateJWTSVID", audience=LEDGER, svid=token) is Status.INVALID_ARGUMENT

    run(tmp_path, body)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "..", "a" * 10_000])
def test_what_is_no_jwt_svid_is_an_invalid_argument(tmp_path: Path, token: str) -> None:
    async def body(mesh: Mesh) -> None:
        async with mesh.client(await mesh.opened()) as client:
            assert await refusal(client, "ValidateJWTSVID", audience=LEDGER, svid=token) is Status.INVALID_ARGUMENT

    run(tmp_path, body)


# -- other trust domains ------------------------------------------------------------------------------------------


def test_bundles_of_other_trust_domains_come_each_under_its_own_name(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        mesh.changed({"prod.test": TrustBundle((b"der",), ({"kty": "EC", "kid": "1", "use": "jwt-svid"},))})
        async with mesh.client(await mesh.opened()) as client:
            svid = await client.once("FetchX509SVID")
            certified = (await client.once("FetchX509Bundles")).bundles
            signed = (await client.once("FetchJWTBundles")).bundles
        own = b"".join(mesh.authority.certificates())
        assert (svid.svids[0].bundle, dict(svid.federated_bundles)) == (own, {"spiffe://prod.test": b"der"})
        assert dict(certified) == {"spiffe://remit.test": own, "spiffe://prod.test": b"der"}
        assert json.loads(signed["spiffe://prod.test"]) == {"keys": [{"kty": "EC", "kid": "1", "use": "jwt-svid"}]}
        assert set(signed) == {"spiffe://remit.test", "spiffe://prod.test"}

    run(tmp_path, body)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_sends_again_when_another_trust_domain_changes(tmp_path: Path, name: str) -> None:
    async def body(mesh: Mesh) -> None:
        async with mesh.client(await mesh.opened()) as client, client.stream(name) as stream:
            first = await stream.recv_message()
            mesh.changed({"prod.test": TrustBundle((b"der",), ({"kid": "1"},))})
            assert await stream.recv_message() != first
            await stream.cancel()

    run(tmp_path, body)


def test_no_other_bundle_takes_the_place_of_the_own_one(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        mesh.changed({"remit.test": TrustBundle((b"der",), ({"kid": "1"},))})
        async with mesh.client(await mesh.opened()) as client:
            assert dict((await client.once("FetchX509Bundles")).bundles) == {
                "spiffe://remit.test": b"".join(mesh.authority.certificates())
            }
            assert not dict((await client.once("FetchX509SVID")).federated_bundles)
            assert b'"1"' not in (await client.once("FetchJWTBundles")).bundles["spiffe://remit.test"]

    run(tmp_path, body)


# -- refusals of the broker -----------------------------------------------------------------------------------------


def test_a_policy_that_denies_is_a_permission_denied_and_leaves_no_svid(tmp_path: Path) -> None:
    def decide(question: Question) -> Decision:
        return Decision(question.verb == "open", ("no SVIDs today",))

    async def main() -> None:
        async with asyncio.timeout(PATIENCE), meshed(tmp_path, decide) as mesh:
            grant = await mesh.opened()
            async with mesh.client(grant) as client:
                assert await refusal(client, "FetchX509SVID") is Status.PERMISSION_DENIED
            assert mesh.leases(grant) == []

    asyncio.run(main())


def test_a_holder_of_a_grant_that_there_is_none_of_is_refused(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        svids = Svids(mesh.broker, Holder("task_9", "grt_9"), Known(mesh.trust), lambda: mesh.now)
        with pytest.raises(NotFoundError):
            await svids.entitled()

    run(tmp_path, body)
