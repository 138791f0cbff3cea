"""Envoy's secret discovery on a run's socket: which secrets there are, when they come again, and how it ends."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from grpclib.client import Channel, StreamStreamMethod
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from remit.core.secret import Secret
from remit.core.spiffe import TrustBundle
from remit.core.task import Grant
from remit.kinds.spiffe import secrets
from remit.kinds.spiffe.listen import MAX_REQUEST
from remit.kinds.spiffe.secrets import MESSAGES, SECRET, SERVICE
from remit.kinds.spiffe.svids import IssuedSvid
from tests.broker.world import OPERATOR, SEARCH
from tests.identity.spire import NOW, Domain
from tests.kinds.spiffe.mesh import BOTH, DOMAIN, Mesh, run

# Written by Envoy's own definitions (xds-protos 1.85.0).
RESPONSE = """
CgExEmMKRHR5cGUuZ29vZ2xlYXBpcy5jb20vZW52b3kuZXh0ZW5zaW9ucy50cmFuc3BvcnRfc29ja2V0cy50bHMudjMuU2VjcmV0EhsKB2RlZmF1bHQSEAoH
EgVDSEFJThIFEgNLRVkS8AEKRHR5cGUuZ29vZ2xlYXBpcy5jb20vZW52b3kuZXh0ZW5zaW9ucy50cmFuc3BvcnRfc29ja2V0cy50bHMudjMuU2VjcmV0EqcB
CgNBTEwinwFinAEKH2Vudm95LnRscy5jZXJ0X3ZhbGlkYXRvci5zcGlmZmUSeQpXdHlwZS5nb29nbGVhcGlzLmNvbS9lbnZveS5leHRlbnNpb25zLnRyYW5z
cG9ydF9zb2NrZXRzLnRscy52My5TUElGRkVDZXJ0VmFsaWRhdG9yQ29uZmlnEh4KDQoGYS50ZXN0EgMSAUEKDQoGYi50ZXN0EgMSAUIiRHR5cGUuZ29vZ2xl
YXBpcy5jb20vZW52b3kuZXh0ZW5zaW9ucy50cmFuc3BvcnRfc29ja2V0cy50bHMudjMuU2VjcmV0KgEx
"""
REQUEST = """
CgEwEg0KAW4SAWMyBWVudm95GgdkZWZhdWx0GgNBTEwiRHR5cGUuZ29vZ2xlYXBpcy5jb20vZW52b3kuZXh0ZW5zaW9ucy50cmFuc3BvcnRfc29ja2V0cy50
bHMudjMuU2VjcmV0KgEx
"""


def test_what_is_sent_is_what_envoys_own_definitions_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl, "DER_cert_to_PEM_cert", bytes.decode)
    svid = IssuedSvid({"certificate": "CHAIN", "key": Secret("KEY")}, "lse_1", NOW, 1)
    context = secrets._validation("ALL", {"spiffe://b.test": [b"B"], "spiffe://a.test": [b"A"]})
    response = secrets._response([secrets._certificate("default", svid), context], "1")
    assert response.SerializeToString() == base64.b64decode(RESPONSE)


def test_what_envoy_asks_is_read_as_its_own_definitions_write_it() -> None:
    request = MESSAGES["DiscoveryRequest"].FromString(base64.b64decode(REQUEST))
    assert list(request.resource_names) == ["default", "ALL"]
    assert (request.type_url, request.response_nonce) == (SECRET, "1")


class Sds:
    """One stream, as an Envoy has it."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.nonce, self.over = stream, "", False

    async def ask(self, *names: str, nonce: str | None = None, type_url: str = SECRET) -> None:
        given = self.nonce if nonce is None else nonce
        request = MESSAGES["DiscoveryRequest"](resource_names=names, response_nonce=given, type_url=type_url)
        await self._stream.send_message(request)

    async def answer(self) -> dict[str, Any]:
        """Return the next secrets by their names."""
        response = await self._stream.recv_message()
        if response is None:
            await self._stream.recv_trailing_metadata()  # raises what the stream ended with
        self.nonce = response.nonce
        assert response.type_url == SECRET
        return _secrets(response)

    async def ended(self) -> Status:
        self.over = True
        try:
            with suppress(StreamTerminatedError):  # which the library says first
                while True:
                    await self.answer()
            self._stream._maybe_raise()
        except GRPCError as error:
            return error.status
        return Status.OK


def _secrets(response: Any) -> dict[str, Any]:
    assert {each.type_url for each in response.resources} <= {SECRET}
    found = [MESSAGES["Secret"].FromString(each.value) for each in response.resources]
    assert len({each.name for each in found}) == len(found)
    return {each.name: each for each in found}


@asynccontextmanager
async def sds(mesh: Mesh, grant: Grant) -> AsyncIterator[Sds]:
    """Serve a grant, and begin a stream. No metadata is sent: an Envoy sends none."""
    types = MESSAGES["DiscoveryRequest"], MESSAGES["DiscoveryResponse"]
    async with mesh.place(grant) as path, Channel(path=str(path)) as channel:
        call = channel.request(f"{SERVICE}/StreamSecrets", Cardinality.STREAM_STREAM, *types)
        begun = await call.__aenter__()
        found = Sds(begun)
        yield found
        with suppress(GRPCError, StreamTerminatedError) if found.over else nullcontext():
            await begun.cancel()
            await call.__aexit__(None, None, None)


def leaf(secret: Any) -> x509.Certificate:
    return x509.load_pem_x509_certificate(secret.tls_certificate.certificate_chain.inline_bytes)


def trusted(secret: Any) -> Mapping[str, Sequence[x509.Certificate]]:
    """Return what a validation context has Envoy believe, by trust domain."""
    extension = secret.validation_context.custom_validator_config
    assert extension.name == "envoy.tls.cert_validator.spiffe"
    config = MESSAGES["Validator"].FromString(extension.typed_config.value)
    return {each.name: x509.load_pem_x509_certificates(each.trust_bundle.inline_bytes) for each in config.trust_domains}


# -- which secrets there are ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_id", [False, True])
def test_the_svid_comes_by_its_name_and_by_the_usual_one(tmp_path: Path, by_id: bool) -> None:  # noqa: FBT001
    async def body(mesh: Mesh) -> None:
        grant = await mesh.opened()
        name = grant.agent if by_id else "default"
        async with sds(mesh, grant) as stream:
            await stream.ask(name)
            (secret,) = (await stream.answer()).values()
        assert secret.name == name
        names = leaf(secret).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [each.value for each in names] == [grant.agent]
        leaf(secret).verify_directly_issued_by(x509.load_der_x509_certificate(mesh.authority.certificates()[0]))
        key = serialization.load_pem_private_key(secret.tls_certificate.private_key.inline_bytes, None)
        assert key.public_key() == leaf(secret).public_key()

    run(tmp_path, body)


def test_bundles_come_by_the_names_of_trust_domains_and_are_never_merged(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        prod = Domain("prod.test").authority.certificate
        mesh.changed({"prod.test": TrustBundle((prod.public_bytes(serialization.Encoding.DER),), ())})
        own = [x509.load_der_x509_certificate(each) for each in mesh.authority.certificates()]
        async with sds(mesh, await mesh.opened()) as stream:
            await stream.ask("ROOTCA", "ALL", f"spiffe://{DOMAIN}", "spiffe://prod.test")
            found = {name: trusted(secret) for name, secret in (await stream.answer()).items()}
        assert found == {
            "ROOTCA": {DOMAIN: own},
            f"spiffe://{DOMAIN}": {DOMAIN: own},
            "spiffe://prod.test": {"prod.test": [prod]},
            "ALL": {DOMAIN: own, "prod.test": [prod]},
        }

    run(tmp_path, body)


def test_whoever_names_nothing_gets_all_there_is(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        grant = await mesh.opened()
        async with sds(mesh, grant) as stream:
            await stream.ask()
            assert set(await stream.answer()) == {grant.agent, f"spiffe://{DOMAIN}"}

    run(tmp_path, body)


def test_one_answer_may_be_asked_for_alone(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        types = MESSAGES["DiscoveryRequest"], MESSAGES["DiscoveryResponse"]
        async with mesh.place(await mesh.opened()) as path, Channel(path=str(path)) as channel:
            async with channel.request(f"{SERVICE}/FetchSecrets", Cardinality.UNARY_UNARY, *types) as stream:
                await stream.send_message(types[0](resource_names=["ALL", "ALL", "default"]), end=True)
                assert set(_secrets(await stream.recv_message())) == {"ALL", "default"}
            delta = StreamStreamMethod(channel, f"{SERVICE}/DeltaSecrets", *types)
            with pytest.raises(GRPCError) as caught:
                await delta([types[0]()])
        assert caught.value.status is Status.UNIMPLEMENTED

    run(tmp_path, body)


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "type_url", "status"),
    [
        (["default", "spiffe://remit.test/task/other/grant"], SECRET, Status.PERMISSION_DENIED),
        (["spiffe://other.test"], SECRET, Status.PERMISSION_DENIED),
        (["default"], "type.googleapis.com/envoy.config.cluster.v3.Cluster", Status.INVALID_ARGUMENT),
    ],
)
def test_what_there_is_none_of_is_refused(tmp_path: Path, names: list[str], type_url: str, status: Status) -> None:
    async def body(mesh: Mesh) -> None:
        grant = await mesh.opened()
        async with sds(mesh, grant) as stream:
            await stream.ask(*names, type_url=type_url)
            assert await stream.ended() is status
        assert mesh.leases(grant) == []

    run(tmp_path, body)


def test_a_grant_for_other_svids_gets_bundles_alone(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        grant = await mesh.opened({**BOTH, "actions": ["jwt"]})
        async with sds(mesh, grant) as stream:
            await stream.ask("ROOTCA")
            assert set(await stream.answer()) == {"ROOTCA"}
            await stream.ask("ROOTCA", "default")
            assert await stream.ended() is Status.PERMISSION_DENIED

    run(tmp_path, body)


@pytest.mark.parametrize("name", ["default", "ROOTCA"])
def test_a_grant_without_a_detail_for_svids_has_no_secret(tmp_path: Path, name: str) -> None:
    async def body(mesh: Mesh) -> None:
        async with sds(mesh, await mesh.opened(SEARCH)) as stream:
            await stream.ask(name)
            assert await stream.ended() is Status.PERMISSION_DENIED

    run(tmp_path, body)


# -- when they come again -------------------------------------------------------------------------------------------


def test_a_secret_comes_again_when_it_is_another_and_not_when_it_is_acknowledged(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        async with sds(mesh, await mesh.opened()) as stream:
            await stream.ask("default")
            first = leaf((await stream.answer())["default"])
            await stream.ask("default")  # as an Envoy acknowledges
            await stream.ask("default", nonce="0")  # or says that it could not take an answer of before
            mesh.authority.rotate()
            second = leaf((await stream.answer())["default"])
            assert (first.subject, first.issuer) != (second.subject, second.issuer) or first != second
            await stream.ask("default", "ROOTCA")  # names of which some are new are answered at once
            assert set(await stream.answer()) == {"default", "ROOTCA"}

    run(tmp_path, body)


def test_the_next_svid_comes_at_half_the_life_of_the_one_before(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        async with sds(mesh, await mesh.opened()) as stream:
            await stream.ask("default")
            first = leaf((await stream.answer())["default"])
            mesh.later(150)
            mesh.changed()
            second = leaf((await stream.answer())["default"])
        assert second.not_valid_after_utc > first.not_valid_after_utc

    run(tmp_path, body)


def test_a_stream_ends_at_once_when_its_grant_is_revoked(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        root = await mesh.opened()
        async with sds(mesh, await mesh.delegated(root, "payer")) as stream:
            await stream.ask("ROOTCA")
            await stream.answer()
            await mesh.broker.revoke(OPERATOR, root.id)
            assert await stream.ended() is Status.PERMISSION_DENIED

    run(tmp_path, body)


# -- what a run can make the broker hold ----------------------------------------------------------------------------


def test_a_stream_may_acknowledge_for_as_long_as_it_likes(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        async with sds(mesh, await mesh.opened()) as stream:
            await stream.ask("ROOTCA")
            await stream.answer()
            for _ in range(40):
                await stream.ask("ROOTCA", nonce="n" * 2_000)
            mesh.authority.rotate()
            assert set(await stream.answer()) == {"ROOTCA"}

    run(tmp_path, body)


def test_one_request_is_as_long_as_one_may_be_and_no_longer(tmp_path: Path) -> None:
    async def body(mesh: Mesh) -> None:
        async with sds(mesh, await mesh.opened()) as stream:
            await stream.ask("ROOTCA")
            await stream.answer()
            stream.over = True
            with pytest.raises((StreamTerminatedError, ConnectionError)):
                await stream.ask("x" * (8 * MAX_REQUEST))  # it waits for room that there is not

    run(tmp_path, body)
