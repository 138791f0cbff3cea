from __future__ import annotations

import asyncio
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from remit import jose
from remit.core.principal import Workload
from remit.errors import UnauthenticatedError
from remit.identity.workloads.attested import AttestedWorkloads
from remit.identity.workloads.bundles import TrustBundles
from remit.keys.signers import FileSigner
from tests.identity.spire import NOW, Domain, Held, Times, signed

DOMAIN = Domain("prod.example")
AT = int(NOW.timestamp())
TARGET = "https://remit.example/oauth/token"


def test_what_is_not_configured_is_not_believed() -> None:
    async def scene() -> None:
        nothing = AttestedWorkloads({}, "", Times())
        for shown in (
            nothing.assertion("token", "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"),
            nothing.certified(DOMAIN.svid().ders),
            nothing.proven("wit", "wpt", TARGET, None),
        ):
            with pytest.raises(UnauthenticatedError):
                await shown

    asyncio.run(scene())


def test_an_assertion_is_verified_as_what_it_says_it_is() -> None:
    async def verified(token: str) -> Workload:
        return Workload(token, "oidc", NOW)

    async def scene() -> None:
        made = AttestedWorkloads({"urn:one": verified}, "", Times())
        assert (await made.assertion("me", "urn:one")).id == "me"
        with pytest.raises(UnauthenticatedError, match="not configured"):
            await made.assertion("me", "urn:two")

    asyncio.run(scene())


def test_certificates_and_tokens_go_to_their_own_verifiers() -> None:
    signer = FileSigner(ec.generate_private_key(ec.SECP256R1()))
    jwk = {name: value for name, value in signer.public_jwk().items() if name in {"kty", "crv", "x", "y"}}
    claims = {"sub": DOMAIN.id(), "exp": AT + 60, "cnf": {"jwk": {**jwk, "alg": "ES256"}}}
    wit = signed(DOMAIN.wit_key, {"alg": "ES256", "kid": "wit-1", "typ": "wit+jwt"}, claims)
    proof = {"aud": TARGET, "exp": AT + 60, "jti": "j" * 22, "wth": jose.digest(wit)}
    text = ".".join(jose.encode(json.dumps(part).encode()) for part in ({"typ": "wpt+jwt", "alg": "ES256"}, proof))
    wpt = f"{text}.{jose.encode(signer.sign(text.encode()))}"

    async def scene() -> None:
        bundles, clock, allow = TrustBundles({DOMAIN.name: Held(DOMAIN.bundle())}, Times()), Times(), (DOMAIN.id(),)
        made = AttestedWorkloads({}, "", clock, bundles, allow)
        assert (await made.certified(DOMAIN.svid().ders)).method == "x509-svid"
        assert (await made.proven(wit, wpt, TARGET, None)).method == "wit"

    asyncio.run(scene())
