"""Write ``tokens.json``: tokens that a verifier of remit's tokens accepts, and tokens that it refuses, and why.

Run from the repository's root: ``python -m tests.vectors.make_tokens``. A test holds the file to what this writes, and
what is accepted to a list that a person wrote. Signatures are deterministic (RFC 8032, RFC 6979), so the file is too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from remit import jose
from remit.errors import RemitError
from remit.jose import token as tokens
from remit.jose.keys import PublicKey
from remit.keys.signers import FileSigner

FILE = Path(__file__).parent / "tokens.json"
ISSUER, GATEWAY = "https://remit.test", "https://gateway.remit.test"
NOW = 1_795_608_000
JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"  # of the key in RFC 9449
X5T = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"
PLANNER = "spiffe://remit.test/task/task_1/grt_1"
READER = "spiffe://remit.test/task/task_1/grt_2"

_EC = ec.derive_private_key(7, ec.SECP256R1())
_SIGNER, _OTHER = FileSigner(_EC), FileSigner(ed25519.Ed25519PrivateKey.from_private_bytes(b"7" * 32))
_STRANGER = FileSigner(ed25519.Ed25519PrivateKey.from_private_bytes(b"8" * 32))

ROOT: dict[str, object] = {
    "iss": ISSUER,
    "aud": ISSUER,
    "sub": "https://idp.test#alice",
    "acr": "urn:test:two-factors",
    "auth_time": NOW - 60,
    "amr": ["pwd", "otp"],
    "client_id": PLANNER,
    "act": {"sub": PLANNER},
    "authorization_details": [
        {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any"}
    ],
    "cnf": {"jkt": JKT},
    "iat": NOW,
    "exp": NOW + 600,
    "jti": "tok_1",
    "task": {
        "id": "task_1",
        "grant": "grt_1",
        "parent": None,
        "purpose_s256": jose.digest("draft the CFO summary"),
        "attested": False,
        "posture": {"isolation": "none", "custody": "file", "at_rest": "kek-file"},
    },
    "del_depth": 0,
    "del_max_depth": 2,
    "status": {"status_list": {"idx": 412, "uri": f"{ISSUER}/oauth/status/1"}},
}
HEADER: dict[str, object] = {"typ": "at+jwt", "alg": "ES256", "kid": _SIGNER.kid}


def es256(data: bytes) -> bytes:
    """Return the deterministic ECDSA signature (RFC 6979)."""
    r, s = decode_dss_signature(_EC.sign(data, ec.ECDSA(SHA256(), deterministic_signing=True)))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def signed(header: Mapping[str, object], payload: Mapping[str, object] | bytes, sign: Callable[[bytes], bytes]) -> str:
    """Return a compact JWS of whatever is given."""
    raw = payload if isinstance(payload, bytes) else json.dumps(payload, separators=(",", ":")).encode()
    head = jose.encode(json.dumps(header, separators=(",", ":")).encode())
    start = f"{head}.{jose.encode(raw)}"
    return f"{start}.{jose.encode(sign(start.encode()))}"


def made(sign: Callable[[bytes], bytes] = es256, header: Mapping[str, object] = HEADER, /, **changes: object) -> str:
    """Return a token: the root's, with some claims changed, and those that are None left out."""
    return signed(header, {name: value for name, value in {**ROOT, **changes}.items() if value is not None}, sign)


def about(**changes: object) -> dict[str, object]:
    """Return the ``task`` claim with some members changed, and those that are ``...`` left out."""
    task = ROOT["task"]
    assert isinstance(task, dict)
    return {name: value for name, value in {**task, **changes}.items() if value is not ...}


@dataclass(frozen=True)
class Case:
    """One token: what it is about, and when and by whom it is presented to."""

    flag: str
    comment: str
    token: str
    now: int = NOW + 1
    audiences: tuple[str, ...] = (ISSUER,)


def _chain() -> list[Case]:
    root = made()
    line = {"sub": READER, "act": {"sub": PLANNER}}
    child = {
        "client_id": READER,
        "act": line,
        "jti": "tok_2",
        "task": about(grant="grt_2", parent="grt_1"),
        "del_depth": 1,
        "del_max_depth": 1,
        "par_hash": jose.digest(root),
    }
    return [
        Case("chain", "the token of a root", root),
        Case("chain", "the token of its child, with the digest of its own", made(**child)),
        Case("chain", "a digest of the parent that is none", made(**{**child, "par_hash": "abc"})),
        Case("chain", "a parent that is no id", made(task=about(parent="../grt_1"))),
    ]


def _time() -> list[Case]:
    token = made()
    return [
        Case("time", "in its last second", token, NOW + 599),
        Case("time", "at its end", token, NOW + 600),
        Case("time", "long after its end", token, NOW + 10**6),
        Case("time", "five seconds before it was made: clocks differ", token, NOW - 5),
        Case("time", "six seconds before it was made", token, NOW - 6),
        Case("time", "not before a time that has come", made(nbf=NOW)),
        Case("time", "not before a time to come", made(nbf=NOW + 60)),
        Case("time", "an end that is text", made(exp=str(NOW + 600))),
        Case("time", "an end that is a fraction", made(exp=NOW + 0.5)),
        Case("time", "an end that is true", made(exp=True)),
        Case("time", "an end beyond the year 9999", made(exp=10**12)),
        Case("time", "no end", made(exp=None)),
        Case("time", "no beginning", made(iat=None)),
        Case("time", "a not-before that is text", made(nbf="0")),
    ]


def _audience() -> list[Case]:
    gateway = made(aud=GATEWAY)
    return [
        Case("audience", "the broker, in a list of one", made(aud=[ISSUER])),
        Case("audience", "the gateway, at the gateway", gateway, audiences=(ISSUER, GATEWAY)),
        Case("audience", "the broker, at the gateway", made(), audiences=(ISSUER, GATEWAY)),
        Case("audience", "the gateway, at the broker", gateway),
        Case("audience", "somebody else", made(aud="https://other.test")),
        Case("audience", "the broker with a slash more", made(aud=f"{ISSUER}/")),
        Case("audience", "the broker and somebody else", made(aud=[ISSUER, "https://other.test"])),
        Case("audience", "nobody", made(aud=[])),
        Case("audience", "no audience", made(aud=None)),
        Case("issuer", "another issuer", made(iss="https://other.test")),
        Case("issuer", "no issuer", made(iss=None)),
    ]


def _binding() -> list[Case]:
    return [
        Case("binding", "bound to a certificate", made(cnf={"x5t#S256": X5T})),
        Case("binding", "bound to nothing", made(cnf=None)),
        Case("binding", "bound to no key", made(cnf={})),
        Case("binding", "bound to a key and a certificate", made(cnf={"jkt": JKT, "x5t#S256": X5T})),
        Case("binding", "bound to a key that is not named by its digest", made(cnf={"jwk": _OTHER.public_jwk()})),
        Case("binding", "bound to half a digest", made(cnf={"jkt": JKT[:20]})),
        Case("binding", "bound to a digest and something unknown", made(cnf={"jkt": JKT, "more": "x"})),
    ]


def _claims() -> list[Case]:
    names = ("sub", "client_id", "jti", "task")
    return [
        *(Case("claims", f"without `{name}`", made(**{name: None})) for name in names),
        Case("claims", "an empty subject", made(sub="")),
        Case("claims", "a subject that is a list", made(sub=["https://idp.test#alice"])),
        Case("claims", "a grant that is no id", made(task=about(grant="grt 1"))),
        Case("claims", "without a grant", made(task=about(grant=...))),
        Case("claims", "a claim that nobody has heard of", made(shoe_size=43)),
        Case("json", "a claim given twice", signed(HEADER, _twice(), es256)),
        Case("json", "claims that are a list", signed(HEADER, b"[]", es256)),
        Case("json", "claims that are no JSON", signed(HEADER, b"{", es256)),
        Case("json", "a number that is none", signed(HEADER, b'{"exp":NaN}', es256)),
    ]


def _twice() -> bytes:
    return json.dumps(ROOT, separators=(",", ":")).encode()[:-1] + b',"sub":"https://idp.test#mallory"}'


def _signature() -> list[Case]:
    good, other = made(), {**HEADER, "alg": "Ed25519", "kid": _OTHER.kid}
    head, payload, signature = good.split(".")
    raw = jose.decode(signature)
    order = int("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)
    zero = jose.encode(bytes(64))
    return [
        Case("signature", "by another published key, by its name", made(_OTHER.sign, other)),
        Case("signature", "by a key that is not published", made(_STRANGER.sign, {**other, "kid": _STRANGER.kid})),
        Case("signature", "by another key than is named", made(_OTHER.sign)),
        Case("signature", "by the right key under a wrong algorithm", made(es256, {**HEADER, "alg": "Ed25519"})),
        Case("signature", "of other claims", f"{head}.{made(sub='mallory').split('.')[1]}.{signature}"),
        Case(
            "signature",
            "of another header",
            f"{made(es256, {**HEADER, 'kid': 'x'}).split('.')[0]}.{payload}.{signature}",
        ),
        Case("signature", "zero", f"{head}.{payload}.{zero}"),
        Case("signature", "out of range", f"{head}.{payload}.{jose.encode(raw[:32] + order.to_bytes(32, 'big'))}"),
        Case("signature", "in DER", signed(HEADER, dict(ROOT), lambda data: _EC.sign(data, _DETERMINISTIC))),
        Case("signature", "none", made(lambda _: b"x", {**HEADER, "alg": "none"})),
        Case("signature", "missing", f"{head}.{payload}."),
        Case("signature", "by a secret that is the public key", made(_mac, {**HEADER, "alg": "HS256"})),
    ]


_DETERMINISTIC = ec.ECDSA(SHA256(), deterministic_signing=True)


def _mac(data: bytes) -> bytes:
    import hmac

    return hmac.digest(json.dumps(_SIGNER.public_jwk()).encode(), data, "sha256")


def _form() -> list[Case]:
    good = made()
    return [
        Case("type", "any JWT", made(es256, {**HEADER, "typ": "JWT"})),
        Case("type", "a proof", made(es256, {**HEADER, "typ": "dpop+jwt"})),
        Case("type", "the type in capitals", made(es256, {**HEADER, "typ": "AT+JWT"})),
        Case("type", "no type", made(es256, {name: HEADER[name] for name in ("alg", "kid")})),
        Case("header", "no key", made(es256, {name: HEADER[name] for name in ("typ", "alg")})),
        Case("header", "a key of its own", made(_STRANGER.sign, {**HEADER, "jwk": dict(_STRANGER.public_jwk())})),
        Case("header", "the address of a key", made(es256, {**HEADER, "jku": "https://mallory.test/jwks"})),
        Case("header", "something critical", made(es256, {**HEADER, "crit": ["b64"], "b64": False})),
        Case("form", "padded", f"{good}="),
        Case("form", "with white space", f"{good} "),
        Case("form", "a part more", f"{good}.e30"),
        Case("form", "a part less", good.rpartition(".")[0]),
        Case("form", "empty", ""),
    ]


def _keys() -> dict[str, PublicKey]:
    return {jwk["kid"]: jose.public_key(jwk) for jwk in (_SIGNER.public_jwk(), _OTHER.public_jwk())}


def judged(case: Case) -> tuple[str | None, Mapping[str, object] | None]:
    """Return the code of the error with which remit refuses a token, or its claims."""
    from datetime import UTC, datetime

    try:
        found = tokens.read(case.token, _keys(), ISSUER, datetime.fromtimestamp(case.now, UTC))
        tokens.check_audience(found, set(case.audiences))
    except RemitError as error:
        return error.code, None
    return None, found.all


def _test(number: int, case: Case) -> dict[str, object]:
    error, claims = judged(case)
    return {
        "tcId": number,
        "comment": case.comment,
        "flags": [case.flag],
        "token": case.token,
        "now": case.now,
        "audiences": list(case.audiences),
        "result": "valid" if error is None else "invalid",
        "error": error,
        "claims": claims,
    }


def text() -> str:
    """Return the file's text."""
    cases = [*_chain(), *_time(), *_audience(), *_binding(), *_claims(), *_signature(), *_form()]
    document = {
        "algorithm": "token",
        "schema": "tokens.schema.json",
        "issuer": ISSUER,
        "keys": [dict(_SIGNER.public_jwk()), dict(_OTHER.public_jwk())],
        "numberOfTests": len(cases),
        "tests": [_test(number, case) for number, case in enumerate(cases, 1)],
    }
    return json.dumps(document, indent=1) + "\n"


def main() -> int:
    """Write the file."""
    FILE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
