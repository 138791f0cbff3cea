from __future__ import annotations

import base64
import hmac
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from remit import jose
from remit.compose.key_rings import OVERLAP
from remit.errors import ConflictError, RemitError
from remit.keys.file import FileSealer
from remit.keys.signers import FileKeyring, FileSigner
from tests.attacks import forge
from tests.oauth.plane import ACCESS_TOKEN, EXCHANGE, Agent, Plane, b64, claims_of, jws, later

VECTORS = Path(__file__).parents[1] / "vectors" / "published" / "wycheproof"
ABSENT = object()


@pytest.mark.attack("TOK-01")
def test_a_token_without_a_signature_is_refused_however_none_is_spelt(tmp_path: Path) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        header, claims = forge.parts(agent.token)
        spelt: list[object] = ["none", "None", "NONE", "nOnE", "", None, ABSENT]
        headers = [{**header, "alg": alg} if alg is not ABSENT else {"typ": header["typ"]} for alg in spelt]
        bare = [forge.unsigned(item, claims) for item in headers]
        kept = [item + agent.token.rpartition(".")[2] for item in bare]
        assert await forge.refused_everywhere(plane, agent, [*bare, *kept]) == 14

    forge.walk(tmp_path, scene)


def _hmac(key: bytes, bits: int) -> Callable[[bytes], bytes]:
    return lambda data: hmac.digest(key, data, f"sha{bits}")


def _spellings(public: ec.EllipticCurvePublicKey, jwk: object) -> list[bytes]:
    encoding, shape = serialization.Encoding, serialization.PublicFormat
    point = public.public_numbers()
    return [
        public.public_bytes(encoding.PEM, shape.SubjectPublicKeyInfo),
        public.public_bytes(encoding.DER, shape.SubjectPublicKeyInfo),
        json.dumps(jwk).encode(),
        point.x.to_bytes(32, "big") + point.y.to_bytes(32, "big"),
        public.public_bytes(encoding.OpenSSH, shape.OpenSSH),
    ]


@pytest.mark.attack("TOK-02")
def test_a_public_key_is_never_the_secret_of_an_hmac(tmp_path: Path) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        header, claims = forge.parts(agent.token)
        published = (await plane.web.get("/oauth/jwks")).json()["keys"][0]
        x, y = (int.from_bytes(jose.decode(published[name])) for name in ("x", "y"))
        public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        forged = [
            jws({**header, "alg": f"HS{bits}"}, claims, _hmac(key, bits))
            for key in _spellings(public, published)
            for bits in (256, 384, 512)
        ]
        assert await forge.refused_everywhere(plane, agent, forged) == 15

    forge.walk(tmp_path, scene)


def _certificate(key: ec.EllipticCurvePrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "remit")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    dated = made.not_valid_before(datetime(2026, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2030, 1, 1, tzinfo=UTC))
    der = dated.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    return base64.b64encode(der).decode()


@pytest.mark.attack("TOK-03")
def test_a_key_that_a_token_brings_along_is_not_trusted(tmp_path: Path) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        header, claims = forge.parts(agent.token)
        key = ec.generate_private_key(ec.SECP256R1())
        mine = FileSigner(key)
        jwk = {**agent.jwk, **{name: mine.public_jwk()[name] for name in ("x", "y")}}
        brought: list[Mapping[str, object]] = [
            {},
            {"jwk": jwk},
            {"x5c": [_certificate(key)]},
            {"jku": f"{plane.base}/x"},
            {"x5u": f"{plane.base}/x"},
        ]
        bases: list[Mapping[str, object]] = [header, {"typ": "at+jwt", "alg": "ES256"}, {**header, "kid": mine.kid}]
        forged = [jws({**base, **extra}, claims, mine.sign) for base in bases for extra in brought]
        assert await forge.refused_everywhere(plane, agent, forged) == 15

    forge.walk(tmp_path, scene)


@contextmanager
def files_opened() -> Iterator[list[str]]:
    """Collect the files that this process opens meanwhile."""
    opened: list[str] = []
    on = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if on and event == "open":
            opened.append(str(arguments[0]))

    sys.addaudithook(hook)
    try:
        yield opened
    finally:
        on = False


@pytest.mark.attack("TOK-04")
def test_a_kid_is_looked_up_and_never_interpreted(tmp_path: Path) -> None:
    kids: list[object] = [
        "' OR 1=1--",
        "../../../../dev/null",
        "/proc/self/environ",
        "0 UNION SELECT 'AA=='",
        "a" * 65_536,
        "\0",
        {"$ne": 1},
        ["k1"],
        12,
    ]

    async def scene(plane: Plane, agent: Agent) -> None:
        header, claims = forge.parts(agent.token)
        forged = [forge.signed(plane, {**header, "kid": kid}, claims) for kid in kids]
        with files_opened() as opened:
            for token in forged:
                with pytest.raises(RemitError):
                    claims_of(plane.verifier, token)
        assert opened == []
        assert await forge.refused_everywhere(plane, agent, forged) == len(kids)

    forge.walk(tmp_path, scene)


@pytest.mark.attack("TOK-05")
def test_no_critical_header_is_understood(tmp_path: Path) -> None:
    extras: list[dict[str, object]] = [
        {"crit": ["exp2"], "exp2": 1},
        {"crit": ["b64"], "b64": False},
        {"crit": []},
        {"crit": "exp"},
        {"crit": ["absent"]},
    ]

    async def scene(plane: Plane, agent: Agent) -> None:
        header, claims = forge.parts(agent.token)
        forged = [forge.signed(plane, {**header, **extra}, claims) for extra in extras]
        assert await forge.refused_everywhere(plane, agent, forged) == 5

    forge.walk(tmp_path, scene)


def _respelt(segment: str) -> list[str]:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet[alphabet.index(segment[-1]) ^ 1]
    spare = [segment[:-1] + last] if len(segment) % 4 else []
    swapped = [segment.replace("-", "+").replace("_", "/")] if set(segment) & set("-_") else []
    inserted = [segment[:3] + char + segment[3:] for char in ("\0", " ", "\n", "=", "é")]
    return [segment + "=", segment + "==", segment + "\n", segment + " ", *spare, *swapped, *inserted]


@pytest.mark.attack("TOK-06")
def test_a_token_has_one_spelling(tmp_path: Path) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        segments = agent.token.split(".")
        forged = [
            ".".join([*segments[:index], spelt, *segments[index + 1 :]])
            for index, segment in enumerate(segments)
            for spelt in _respelt(segment)
        ]
        assert await forge.refused_everywhere(plane, agent, forged) >= 27

    forge.walk(tmp_path, scene)


def _cases() -> Iterator[tuple[str, list[dict[str, object]], str, str]]:
    """Yield id, keys, JWS and result of every Wycheproof case."""
    for name in ("signature", "key", "crypto"):
        for group in json.loads((VECTORS / f"json_web_{name}_test.json").read_text("utf-8"))["testGroups"]:
            given = group.get("public") or group.get("private") or {}
            for case in group["tests"]:
                text = case.get("jws") or case.get("jwe") or ""
                text = text if isinstance(text, str) else json.dumps(text)
                yield f"{name} {case['tcId']}", given.get("keys", [given]), text, case["result"]


def _accepted(keys: list[dict[str, object]], text: str) -> bool:
    """Whether a reader that knows ``keys`` by their kid accepts a compact JWS, as the token reader would."""
    try:
        compact = jose.read(text, frozenset({"alg", "kid", "typ"}))
        by_kid = {key.get("kid"): key for key in keys}
        jose.public_key(by_kid.get(compact.header.get("kid"))).verify(compact)
    except RemitError:
        return False
    return True


@pytest.mark.attack("TOK-07")
def test_no_invalid_wycheproof_vector_is_accepted() -> None:
    wrong = [case for case, keys, text, result in _cases() if result == "invalid" and _accepted(keys, text)]
    assert wrong == []


@pytest.mark.attack("TOK-07")
def test_every_valid_wycheproof_vector_of_our_algorithm_is_accepted() -> None:
    ours = [
        (case, _accepted(keys, text))
        for case, keys, text, result in _cases()
        if result == "valid" and keys[0].get("alg") == "ES256" and len(keys) == 1
    ]
    assert len(ours) >= 3
    assert [case for case, accepted in ours if not accepted] == []


WRONG: list[object] = [ABSENT, None, "", "1795608000", 1795608000.5, True, -1, 10**400, [], {}]
GOOD = [("nbf", ABSENT), ("jti", "1795608000")]  # nbf is optional, and a jti is text


def _mistyped(plane: Plane, token: str) -> Iterator[str]:
    header, claims = forge.parts(token)
    for name in ("exp", "nbf", "iat", "aud", "iss", "jti"):
        for value in WRONG:
            if (name, value) in GOOD:
                continue
            changed = {**claims, name: value}
            if value is ABSENT:
                del changed[name]
            yield forge.signed(plane, header, changed)
    yield forge.signed(plane, header, json.dumps({**claims, "exp": 0}).replace('"exp": 0', '"exp": 1e400').encode())


@pytest.mark.attack("TOK-08")
def test_a_claim_that_is_missing_or_of_another_type_is_refused(tmp_path: Path) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        header, claims = forge.parts(agent.token)
        again = forge.signed(plane, header, claims)
        assert await forge.at_the_api(plane, agent, again) == 200
        assert await forge.refused_everywhere(plane, agent, _mistyped(plane, agent.token)) == 59

    forge.walk(tmp_path, scene)


@pytest.mark.attack("TOK-10")
def test_a_key_is_good_until_its_tokens_have_ended_and_a_revoked_one_for_nothing(tmp_path: Path) -> None:
    sealer, late = FileSealer(b"k" * 32), [timedelta(0)]
    start = datetime(2026, 11, 25, 12, tzinfo=UTC)
    ring = FileKeyring(tmp_path / "keys", sealer, "token", "ES256", overlap=OVERLAP, clock=lambda: start + late[0])

    async def scene(plane: Plane, agent: Agent) -> None:
        def turned() -> None:
            plane.turned(ring.signer, ring.public_jwks()[1:])

        async def signed() -> str:
            form = {"grant_type": EXCHANGE, "subject_token": agent.token, "subject_token_type": ACCESS_TOKEN}
            agent.token = (await plane.exchange(agent, form)).json()["access_token"]
            return agent.token

        plane.turned(ring.signer, [plane.signer.public_jwk()])
        first = await signed()
        ring.rotate()
        turned()
        second = await signed()
        assert [await forge.at_the_api(plane, agent, token) for token in (second, first)] == [200, 200]
        with pytest.raises(ConflictError):
            ring.rotate()
        late[0] = OVERLAP
        ring.rotate()
        turned()
        third = await signed()
        assert [await forge.at_the_api(plane, agent, token) for token in (third, second, first)] == [200, 200, 401]
        ring.revoke(ring.signer.kid)
        turned()
        assert [await forge.at_the_api(plane, agent, token) for token in (third, second, first)] == [401, 200, 401]

    forge.walk(tmp_path, scene)


def test_a_proof_is_no_token_and_a_token_is_no_proof(tmp_path: Path) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        proof = plane.proof(agent, "GET", "/v1/self")
        assert await forge.at_the_api(plane, agent, proof) == 401
        headers = {"authorization": f"DPoP {agent.token}", "dpop": agent.token}
        assert (await plane.web.get("/v1/self", headers=headers)).status_code == 401

    forge.walk(tmp_path, scene)


def test_a_token_is_worth_nothing_after_its_time(tmp_path: Path) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        later(plane, 601)
        assert await forge.at_the_api(plane, agent, agent.token) == 401

    forge.walk(tmp_path, scene)


def test_the_right_bytes_are_what_the_forgeries_differ_from(tmp_path: Path) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        assert await forge.at_the_api(plane, agent, agent.token) == 200
        assert await forge.at_the_gateway(plane, agent, agent.token) == agent.grant
        assert (await forge.at_the_token_endpoint(plane, agent, agent.token))[0] == 200
        assert b64(jose.decode(agent.token.split(".")[1])) == agent.token.split(".")[1]

    forge.walk(tmp_path, scene)
