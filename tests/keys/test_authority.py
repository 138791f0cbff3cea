from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from remit import jose
from remit.errors import ConflictError, IntegrityError, TokenError
from remit.jose import svid
from remit.jose.keys import key_set
from remit.keys.authority import CA_LIFE, MAX_LIFE, SKEW, TURN_AFTER, FileAuthority
from remit.keys.file import FileSealer
from remit.keys.signers import FileSigner

SEALER = FileSealer(b"k" * 32)
AGENT = "spiffe://remit.test/task/task_1/grt_1"
HOUR = timedelta(hours=1)


@dataclass
class KeyDirectory:
    """A directory of keys, and the time."""

    folder: Path
    now: datetime = field(default_factory=lambda: datetime(2026, 11, 25, 12, tzinfo=UTC))

    def opened(self, domain: str = "remit.test") -> FileAuthority:
        return FileAuthority(self.folder / "keys", SEALER, domain, lambda: self.now)

    def later(self, by: timedelta) -> None:
        self.now += by


@pytest.fixture
def directory(tmp_path: Path) -> KeyDirectory:
    return KeyDirectory(tmp_path)


def leaf(authority: FileAuthority, end: datetime, agent: str = AGENT) -> x509.Certificate:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    encoded = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    (only,) = authority.certify(agent, encoded, 7, end)
    return x509.load_der_x509_certificate(only)


def verified_by(certificate: x509.Certificate, ders: object) -> list[int]:
    """Return which of some CA certificates signed this one."""
    assert isinstance(ders, list)
    return [at for at, der in enumerate(ders) if _signed(certificate, x509.load_der_x509_certificate(der))]


def _signed(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except Exception:  # noqa: BLE001 - another issuer, or another key
        return False
    return True


def token(signer: FileSigner, now: datetime) -> str:
    claims = {"sub": AGENT, "aud": "https://a", "exp": int(now.timestamp()) + 60}
    header = {"alg": signer.alg, "kid": signer.kid, "typ": "JWT"}
    signed = ".".join(jose.encode(json.dumps(part).encode()) for part in (header, claims))
    return f"{signed}.{jose.encode(signer.sign(signed.encode()))}"


def verified(authority: FileAuthority, text: str) -> Mapping[str, object]:
    """Return the claims of a JWT-SVID for ``https://a``."""
    return svid.verify(text, "https://a", key_set(authority.public.jwks), authority.trust_domain, authority._clock())


def test_an_authority_reopens_as_it_was(directory: KeyDirectory) -> None:
    first, again = directory.opened(), directory.opened()
    assert first.public == again.public


def test_its_file_is_private_and_shows_no_key(directory: KeyDirectory) -> None:
    directory.opened()
    (file,) = (directory.folder / "keys").iterdir()
    assert (file.name, file.stat().st_mode & 0o777) == ("spiffe.1.key", 0o600)
    assert b"generations" not in file.read_bytes()


def test_a_file_that_was_changed_is_refused(directory: KeyDirectory) -> None:
    directory.opened()
    (file,) = (directory.folder / "keys").iterdir()
    *start, last = file.read_bytes()
    file.write_bytes(bytes([*start, last ^ 1]))
    with pytest.raises(IntegrityError):
        directory.opened()


def test_a_file_as_earlier_versions_spelled_it_is_read(directory: KeyDirectory) -> None:
    authority = directory.opened()
    authority.rotate()
    held = asdict(authority._held)
    for generation in held["generations"]:
        until = generation["until"]
        generation |= {name: base64.b64encode(generation[name]).decode() for name in ("ca", "certificate", "jwt")}
        generation["until"] = None if until is None else until.isoformat()
    document = json.dumps({**held, "turned": held["turned"].isoformat()}).encode()
    authority._files.write(2, document, over=True)
    assert directory.opened()._held == authority._held


def test_a_file_under_another_number_is_refused(directory: KeyDirectory) -> None:
    directory.opened()
    (file,) = (directory.folder / "keys").iterdir()
    file.rename(file.with_name("spiffe.2.key"))  # a bundle of the past, as if it were newer
    with pytest.raises(IntegrityError):
        directory.opened()


def test_an_svid_is_verified_by_the_first_certificate_of_the_bundle(directory: KeyDirectory) -> None:
    authority = directory.opened()
    assert verified_by(leaf(authority, directory.now + HOUR), authority.certificates()) == [0]


def test_the_next_keys_are_published_before_they_sign(directory: KeyDirectory) -> None:
    authority = directory.opened()
    before, jwks = authority.certificates(), [jwk["kid"] for jwk in authority.public.jwks]
    authority.rotate()
    assert verified_by(leaf(authority, directory.now + HOUR), before) == [1]
    assert authority.signer.kid == jwks[1]


def test_what_signed_before_a_rotation_is_published_until_its_last_svid_has_expired(directory: KeyDirectory) -> None:
    authority = directory.opened()
    old, signer = leaf(authority, directory.now + HOUR), authority.signer
    authority.rotate()
    directory.later(HOUR)
    authority.prune()
    assert verified_by(old, authority.certificates())
    assert verified(authority, token(signer, directory.now))["sub"] == AGENT
    directory.later(SKEW)
    authority.prune()
    assert not verified_by(old, authority.certificates())
    with pytest.raises(TokenError):
        verified(authority, token(signer, directory.now))


def test_every_change_makes_the_sequence_larger(directory: KeyDirectory) -> None:
    authority, seen = directory.opened(), []
    seen.append(authority.sequence)
    authority.rotate()
    seen.append(authority.sequence)
    directory.later(MAX_LIFE + SKEW)
    authority.prune()
    seen += [authority.sequence, directory.opened().sequence]
    assert seen == [1, 2, 3, 3]


def test_nothing_changes_while_nothing_is_due(directory: KeyDirectory) -> None:
    authority = directory.opened()
    directory.later(TURN_AFTER - timedelta(seconds=1))
    authority.prune()
    assert authority.sequence == 1


def test_it_rotates_by_itself_also_when_it_was_not_running(directory: KeyDirectory) -> None:
    before = directory.opened().certificates()
    directory.later(TURN_AFTER)
    authority = directory.opened()
    assert verified_by(leaf(authority, directory.now + HOUR), list(before)) == [1]


def test_a_ca_outlives_what_it_may_have_signed(directory: KeyDirectory) -> None:
    made = directory.now
    directory.opened()
    directory.later(TURN_AFTER)  # it begins to sign
    directory.opened()
    directory.later(TURN_AFTER)  # it signs for the last time
    assert made - SKEW + CA_LIFE > directory.now + MAX_LIFE


@pytest.mark.parametrize("days", [31, 59, 61, 89, 91, 1_000])
def test_after_an_absence_of_any_length_svids_are_signed_by_a_ca_that_outlives_its_turn(
    directory: KeyDirectory, days: int
) -> None:
    directory.opened()
    directory.later(timedelta(days=days))
    authority = directory.opened()
    directory.later(TURN_AFTER - timedelta(seconds=1))  # the last ones that it signs
    authority.prune()
    svid = leaf(authority, directory.now + HOUR)
    (at,) = verified_by(svid, list(authority.certificates()))
    ca = x509.load_der_x509_certificate(authority.certificates()[at])
    assert ca.not_valid_before_utc < svid.not_valid_before_utc
    assert svid.not_valid_after_utc < ca.not_valid_after_utc


def test_who_watches_is_told_of_each_change(directory: KeyDirectory) -> None:
    authority, told = directory.opened(), []
    authority.on_change(lambda: told.append(authority.sequence))
    authority.rotate()
    assert told == [2]


def test_rotating_without_end_is_refused_while_svids_of_all_the_keys_are_valid(directory: KeyDirectory) -> None:
    authority = directory.opened()
    for _ in range(8):
        authority.rotate()
    with pytest.raises(ConflictError):
        authority.rotate()
    directory.later(MAX_LIFE + SKEW)
    authority.prune()
    authority.rotate()


def test_no_svid_lives_longer_than_an_hour(directory: KeyDirectory) -> None:
    authority = directory.opened()
    assert leaf(authority, directory.now + 2 * HOUR).not_valid_after_utc == directory.now + HOUR


def test_another_trust_domain_has_other_keys_and_a_larger_sequence(directory: KeyDirectory) -> None:
    first = directory.opened()
    other = directory.opened("other.test")
    assert other.sequence == 2
    assert not set(first.certificates()) & set(other.certificates())


def test_the_bundle_says_what_each_key_is_for_and_holds_nothing_private(directory: KeyDirectory) -> None:
    authority = directory.opened()
    x5c, jwt = authority.public.bundle[:2], authority.public.bundle[2:]
    assert [set(key) for key in x5c] == [{"kty", "crv", "x", "y", "use", "x5c"}] * 2
    assert [set(key) for key in jwt] == [{"kty", "n", "e", "kid", "alg", "use"}] * 2
    assert [key["use"] for key in authority.public.bundle] == ["x509-svid", "x509-svid", "jwt-svid", "jwt-svid"]
