from __future__ import annotations

import base64
import errno
import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from remit.core.audit import checkpoint, public_bytes, read_checkpoint
from remit.core.tree import EMPTY_ROOT
from remit.errors import ConflictError, IntegrityError, NotFoundError, UnavailableError
from remit.jose import key_set
from remit.keys import file, signers
from remit.keys.file import FileSealer, SealedFiles
from remit.keys.signers import FileKeyring, FileSigner

SEALER = FileSealer(b"k" * 32)


def raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verify(signer: FileSigner, signature: bytes, data: bytes) -> None:
    jwk = signer.public_jwk()
    if signer.alg == "RS256":
        n, e = (int.from_bytes(raw(jwk[name]), "big") for name in "ne")
        rsa.RSAPublicNumbers(e, n).public_key().verify(signature, data, padding.PKCS1v15(), SHA256())
        return
    assert len(signature) == 64
    if signer.alg == "ES256":
        x, y = (int.from_bytes(raw(jwk[name]), "big") for name in "xy")
        der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key().verify(der, data, ec.ECDSA(SHA256()))
    else:
        ed25519.Ed25519PublicKey.from_public_bytes(raw(jwk["x"])).verify(signature, data)


@pytest.mark.parametrize("alg", ["ES256", "Ed25519", "RS256"])
def test_a_signature_holds_under_the_public_jwk(tmp_path: Path, alg: str) -> None:
    signer = FileKeyring(tmp_path / "keys", SEALER, "token", alg).signer
    for number in range(50):  # ECDSA numbers with leading zeros turn up
        verify(signer, signer.sign(b"data%d" % number), b"data%d" % number)
    assert (signer.alg, signer.public_jwk()["alg"]) == (alg, alg)
    assert not set(signer.public_jwk()) & {"d", "k", "p", "q"}


def test_the_thumbprint_is_that_of_the_rfcs_example() -> None:
    jwk = {"crv": "Ed25519", "kty": "OKP", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "x", "use": "sig"}
    assert key_set([jwk]).keys[0].thumbprint == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"  # RFC 8037 A.3


def test_the_thumbprint_of_an_rsa_key_is_that_of_the_rfcs_example() -> None:
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3okn"
        "jhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qM"
        "QvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJz"
        "KnqDKgw"
    )
    jwk = {"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}
    assert key_set([jwk]).keys[0].thumbprint == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"  # RFC 7638 §3.1


def test_a_short_rsa_key_is_not_used() -> None:
    with pytest.raises(IntegrityError):
        FileSigner(rsa.generate_private_key(65_537, 1_024))  # noqa: S505 - it is to be refused


def test_the_kid_is_the_thumbprint(tmp_path: Path) -> None:
    signer = FileKeyring(tmp_path / "keys", SEALER, "token", "ES256").signer
    assert signer.kid == key_set([signer.public_jwk()]).keys[0].thumbprint == signer.public_jwk()["kid"]


def test_a_ring_reopens_with_its_keys(tmp_path: Path) -> None:
    kid = FileKeyring(tmp_path / "keys", SEALER, "token", "ES256").signer.kid
    assert FileKeyring(tmp_path / "keys", SEALER, "token", "ES256").signer.kid == kid


def test_rings_of_two_purposes_share_a_directory_and_no_key(tmp_path: Path) -> None:
    token = FileKeyring(tmp_path / "keys", SEALER, "token", "ES256")
    audit = FileKeyring(tmp_path / "keys", SEALER, "audit", "Ed25519")
    assert (token.signer.alg, audit.signer.alg) == ("ES256", "Ed25519")
    assert len(token.public_jwks()) == len(audit.public_jwks()) == 1


START = datetime(2026, 11, 25, 12, tzinfo=UTC)
OVERLAP = timedelta(minutes=10)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def opened(directory: Path, clock: Clock | None = None, overlap: timedelta | None = OVERLAP) -> FileKeyring:
    """Open a ring of keys for tokens."""
    return FileKeyring(directory, SEALER, "token", "ES256", overlap=overlap, clock=clock or Clock())


def kids(ring: FileKeyring) -> list[str]:
    return [jwk["kid"] for jwk in ring.public_jwks()]


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_rotated_key_signs_and_the_one_before_it_still_verifies(tmp_path: Path) -> None:
    clock = Clock()
    ring = opened(tmp_path / "keys", clock)
    first, second = ring.signer.kid, ring.rotate().kid
    assert kids(ring) == kids(opened(tmp_path / "keys", clock)) == [second, first]
    assert [(key.kid, key.signing, key.until) for key in ring.published()] == [
        (second, True, None),
        (first, False, START + OVERLAP),
    ]
    clock.now += OVERLAP
    third = ring.rotate().kid
    assert kids(ring) == kids(opened(tmp_path / "keys", clock)) == [third, second]


def test_rotating_again_while_the_key_before_is_needed_changes_nothing(tmp_path: Path) -> None:
    ring = opened(tmp_path / "keys")
    ring.rotate()
    before, written = kids(ring), files(tmp_path / "keys")
    with pytest.raises(ConflictError) as caught:
        ring.rotate()
    assert "12:10:00" in str(caught.value.help)
    assert (kids(ring), files(tmp_path / "keys")) == (before, written)


def test_the_private_half_of_a_retired_key_is_gone(tmp_path: Path) -> None:
    opened(tmp_path / "keys").rotate()
    assert files(tmp_path / "keys") == ["token.1.pub", "token.2.key"]


def test_a_retired_key_is_published_until_what_it_signed_has_ended(tmp_path: Path) -> None:
    clock = Clock()
    ring = opened(tmp_path / "keys", clock)
    first, second = ring.signer.kid, ring.rotate().kid
    clock.now += OVERLAP - timedelta(seconds=1)
    assert kids(ring) == [second, first]
    clock.now += timedelta(seconds=1)
    assert kids(ring) == kids(opened(tmp_path / "keys", clock)) == [second]


def test_tending_removes_what_is_not_published_any_more(tmp_path: Path) -> None:
    clock = Clock()
    ring = opened(tmp_path / "keys", clock)
    ring.rotate()
    ring.prune()
    assert files(tmp_path / "keys") == ["token.1.pub", "token.2.key"]
    clock.now += OVERLAP
    ring.prune()
    assert files(tmp_path / "keys") == ["token.2.key"]


def test_without_an_overlap_retired_keys_are_published_for_good(tmp_path: Path) -> None:
    clock = Clock()
    ring = opened(tmp_path / "keys", clock, overlap=None)
    first, second = ring.signer.kid, ring.rotate().kid
    clock.now += timedelta(days=10_000)
    ring.prune()
    assert kids(opened(tmp_path / "keys", clock, overlap=None)) == [second, first]


def test_revoking_the_key_that_signs_publishes_another_alone(tmp_path: Path) -> None:
    ring = opened(tmp_path / "keys")
    first = ring.signer.kid
    ring.revoke(first)
    assert len(kids(ring)) == 1
    assert first not in kids(ring)
    assert kids(opened(tmp_path / "keys")) == kids(ring)
    assert files(tmp_path / "keys") == ["token.2.key"]


def test_revoking_a_retired_key_leaves_the_others(tmp_path: Path) -> None:
    ring = opened(tmp_path / "keys", overlap=None)
    first, second, third = ring.signer.kid, ring.rotate().kid, ring.rotate().kid
    ring.revoke(second)
    assert kids(ring) == kids(opened(tmp_path / "keys", overlap=None)) == [third, first]


def test_the_key_that_signs_can_be_revoked_right_after_a_rotation(tmp_path: Path) -> None:
    ring = opened(tmp_path / "keys")
    first, second = ring.signer.kid, ring.rotate().kid
    ring.revoke(second)
    assert second not in kids(ring)
    assert kids(ring)[1:] == [first]


def test_a_key_of_elsewhere_is_not_revoked(tmp_path: Path) -> None:
    ring = opened(tmp_path / "keys")
    before = kids(ring)
    with pytest.raises(NotFoundError):
        ring.revoke("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I")
    assert kids(ring) == before


def dying(directory: Path, step: int, turn: Callable[[FileKeyring], object]) -> None:
    """Turn a ring in a process that dies before one of its changes of the directory."""
    left = iter(range(step))

    class Dead(Exception):  # noqa: N818 - it is no error of remit
        pass

    class MortalFiles(SealedFiles):
        def write(self, number: int, content: bytes, *, over: bool = False) -> None:
            self._live()
            super().write(number, content, over=over)

        def remove(self, *numbers: int) -> None:
            if numbers:
                self._live()
            super().remove(*numbers)

        def _live(self) -> None:
            if next(left, None) is None:
                raise Dead

    with pytest.MonkeyPatch.context() as patched, suppress(Dead):
        patched.setattr(signers, "SealedFiles", MortalFiles)
        turn(opened(directory))


@pytest.mark.parametrize("step", range(6))
def test_a_crash_in_a_rotation_leaves_a_ring_that_signs_and_verifies_what_was_signed(tmp_path: Path, step: int) -> None:
    first = opened(tmp_path / "keys").signer.kid
    dying(tmp_path / "keys", step, FileKeyring.rotate)
    ring = opened(tmp_path / "keys")
    assert first in kids(ring)
    assert len([name for name in files(tmp_path / "keys") if name.endswith(".key")]) == 1
    assert kids(opened(tmp_path / "keys")) == kids(ring)


@pytest.mark.parametrize("step", range(6))
def test_a_crash_in_a_revocation_leaves_the_key_revoked_as_soon_as_anything_was_written(
    tmp_path: Path, step: int
) -> None:
    first = opened(tmp_path / "keys").signer.kid
    before = files(tmp_path / "keys")
    dying(tmp_path / "keys", step, lambda ring: ring.revoke(first))
    begun = files(tmp_path / "keys") != before
    assert begun or step <= 1
    assert (first in kids(opened(tmp_path / "keys"))) is not begun


def test_a_key_that_a_crash_left_half_revoked_stays_revoked_whatever_is_tried_next(tmp_path: Path) -> None:
    first = opened(tmp_path / "keys").signer.kid
    ring = opened(tmp_path / "keys")
    ring._note(1, ring.signer, START)
    ring.rotate()
    assert first not in kids(ring)


def test_a_retirement_that_fails_again_on_a_full_disk_leaves_the_key_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = opened(tmp_path / "keys")
    first = ring.signer.kid
    ring._note(1, ring.signer, START)  # a revocation that got no further

    def full(name: Path | str, content: bytes, place: int | None = None) -> None:
        del name, content, place
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(file, "write_new", full)
        with pytest.raises(UnavailableError):
            ring.revoke(first)
    assert files(tmp_path / "keys") == ["token.1.key", "token.1.pub"]
    assert first not in kids(opened(tmp_path / "keys"))


def test_a_ring_of_a_version_that_kept_private_halves_is_taken_over(tmp_path: Path) -> None:
    ring = opened(tmp_path / "keys")
    first = ring.signer.kid
    ring._keys.write(2, signers.generate("ES256"))
    again = opened(tmp_path / "keys")
    assert kids(again)[1:] == [first]
    assert files(tmp_path / "keys") == ["token.1.pub", "token.2.key"]


def test_a_public_half_as_earlier_versions_spelled_it_is_read(tmp_path: Path) -> None:
    ring = opened(tmp_path / "keys")
    first = ring.signer
    ring.rotate()
    document = json.dumps({"jwk": first.public_jwk(), "until": (START + OVERLAP).isoformat()}).encode()
    ring._publics.write(1, document, over=True)
    again = opened(tmp_path / "keys")
    assert kids(again) == [ring.signer.kid, first.kid]
    assert again.published()[1].until == START + OVERLAP


def test_a_public_half_that_somebody_put_there_is_refused(tmp_path: Path) -> None:
    ring = opened(tmp_path / "keys")
    ring.rotate()
    (tmp_path / "keys" / "token.1.pub").rename(tmp_path / "keys" / "token.9.pub")
    with pytest.raises(IntegrityError):
        opened(tmp_path / "keys")


def test_the_files_hold_no_key_in_the_clear_and_are_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ring = FileKeyring(tmp_path / "keys", SEALER, "audit", "Ed25519")
    finally:
        os.umask(before)
    content = (tmp_path / "keys" / "audit.1.key").read_bytes()
    opened = SEALER.open(content, b"signer\naudit\n1")
    seed = opened[-32:]
    assert ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw() == raw(
        ring.signer.public_jwk()["x"]
    )
    assert seed not in content
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "keys" / "audit.1.key").stat().st_mode) == 0o600


def test_a_key_file_moved_to_another_purpose_or_number_does_not_open(tmp_path: Path) -> None:
    FileKeyring(tmp_path / "keys", SEALER, "audit", "Ed25519")
    for name in ("token.1.key", "audit.2.key"):
        (tmp_path / "keys" / "audit.1.key").rename(tmp_path / "keys" / name)
        with pytest.raises(IntegrityError):
            FileKeyring(tmp_path / "keys", SEALER, name.split(".")[0], "Ed25519")
        (tmp_path / "keys" / name).rename(tmp_path / "keys" / "audit.1.key")


def test_a_loose_key_file_is_refused(tmp_path: Path) -> None:
    FileKeyring(tmp_path / "keys", SEALER, "audit", "Ed25519")
    (tmp_path / "keys" / "audit.1.key").chmod(0o644)
    with pytest.raises(IntegrityError) as caught:
        FileKeyring(tmp_path / "keys", SEALER, "audit", "Ed25519")
    assert caught.value.help
    assert caught.value.help.startswith("chmod 600")


def test_a_loose_directory_is_refused(tmp_path: Path) -> None:
    FileKeyring(tmp_path / "keys", SEALER, "audit", "Ed25519")
    (tmp_path / "keys").chmod(0o750)
    with pytest.raises(IntegrityError) as caught:
        FileKeyring(tmp_path / "keys", SEALER, "audit", "Ed25519")
    assert caught.value.help == f"chmod 700 '{tmp_path}/keys'"


def test_a_key_of_another_kind_is_refused() -> None:
    with pytest.raises(IntegrityError):
        FileSigner(ec.generate_private_key(ec.SECP384R1()))


def test_an_audit_key_signs_checkpoints(tmp_path: Path) -> None:
    signer = FileKeyring(tmp_path / "keys", SEALER, "audit", "Ed25519").signer
    note = checkpoint("log", 0, EMPTY_ROOT, signer)
    assert read_checkpoint(note.text, "log", [public_bytes(signer.public_jwk())]) == note
