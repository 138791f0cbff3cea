"""Keys in files: the key-encryption key, the sealer under it, and files sealed by it.

- The KEK is 32 random bytes in a file of mode 0600, made once; a looser mode is refused, because somebody may have
  read it. Beside the database on one disk it protects copies of the database, not the disk.
- Each purpose has its own subkey (HKDF-SHA256): what is sealed cannot be confused with what is authenticated.
"""

from __future__ import annotations

import errno
import hmac
import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from remit.errors import IntegrityError, NotFoundError, UnavailableError
from remit.ports import Sealer

KEY = 32  # bytes
NONCE = 12  # bytes, RFC 8452
FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
MAX_FILE = 65_536  # bytes
VERSION = b"\x01"  # first byte of everything sealed


def load_kek(path: Path, *, create: bool) -> bytes:
    """Return the key-encryption key; make it first if there is none and ``create`` says so.

    NotFoundError when there is none; IntegrityError when it is not 32 bytes, not ours, or open to others.
    """
    try:
        return read_private(path, KEY)
    except NotFoundError:
        if not create:
            raise
    write_private(path, os.urandom(KEY))
    return read_private(path, KEY)


def _opened(path: Path | str, place: int | None = None) -> int:
    """Open a file for reading, never waiting for a pipe or a device, and following no link."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)


def read_regular(name: Path | str, limit: int, place: int | None = None) -> bytes:
    """Return the content of a file, in the open directory ``place`` if given, whoever may have put what there.

    OSError when there is none, when it is something else than a file, or longer than ``limit`` bytes.
    """
    handle = _opened(name, place)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a file")
        content = os.read(handle, limit + 1)
    finally:
        os.close(handle)
    if len(content) > limit:
        raise OSError(errno.EFBIG, "it is too long")
    return content


def read_private(path: Path, size: int | None = None) -> bytes:
    """Return the content of a file that only we can open, or raise IntegrityError naming the chmod that helps."""
    try:
        handle = _opened(path)
    except FileNotFoundError as error:
        raise NotFoundError("the key file is missing", help=f"restore `{path}`") from error
    except OSError as error:
        raise UnavailableError("the key file cannot be read", help=f"look at `{path}`") from error
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise IntegrityError("the key file is not a file of this user", help=f"look at `{path}`")
        if stat.S_IMODE(found.st_mode) & ~FILE_MODE:
            raise IntegrityError("others may open the key file", help=f"chmod 600 '{path}'")
        content = os.read(handle, MAX_FILE)
    finally:
        os.close(handle)
    if size is not None and len(content) != size:
        raise IntegrityError(f"the key file must hold {size} bytes", help=f"restore `{path}`")
    return content


def write_private(path: Path, content: bytes, *, over: bool = False) -> None:
    """Write a file of mode 0600, durably and never in halves; one that is there stays unless this is ``over`` it."""
    fresh = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        write_new(fresh, content)
        try:
            if over:
                fresh.replace(path)
            else:
                os.link(fresh, path)  # unlike a rename, it fails when another process was first
        except FileExistsError:
            return
        finally:
            fresh.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise UnavailableError("a key file cannot be written", help=f"look at `{path}`") from error


def write_new(name: Path | str, content: bytes, place: int | None = None) -> None:
    """Make a file of mode 0600, in the open directory ``place`` if given, and its content durable; not yet its name."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(name, flags, FILE_MODE, dir_fd=place), "wb") as file:  # noqa: PTH123 - by descriptor, for the flags
        os.fchmod(file.fileno(), FILE_MODE)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def private_directory(path: Path) -> None:
    """Make a directory of keys with mode 0700 unless it is there; IntegrityError when others may open it."""
    if not path.exists():
        path.mkdir(mode=DIRECTORY_MODE)
        path.chmod(DIRECTORY_MODE)
    if path.stat().st_mode & 0o077:
        raise IntegrityError("others may open the directory of signing keys", help=f"chmod 700 '{path}'")


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def subkey(kek: bytes, purpose: str) -> bytes:
    """Return the 32-byte key for one purpose. The KEK is uniform, so HKDF needs no extract step (RFC 5869 §3.3)."""
    return HKDFExpand(SHA256(), KEY, b"remit/1/" + purpose.encode()).derive(kek)


class FileSealer:
    """AES-256-GCM-SIV (RFC 8452) under a subkey of the KEK; MACs are HMAC-SHA256 under another.

    Chosen over GCM and ChaCha20-Poly1305 because a repeated nonce costs nothing but the knowledge that two sealed
    texts are equal: a virtual machine resumed twice from one snapshot draws the same random numbers. Nonces are
    random; at 2^48 messages a repeat is still improbable, and harmless.
    """

    def __init__(self, kek: bytes) -> None:
        self._aead = AESGCMSIV(subkey(kek, "seal"))
        self._mac_key = subkey(kek, "mac")

    def seal(self, plaintext: bytes, associated: bytes) -> bytes:
        nonce = os.urandom(NONCE)
        return VERSION + nonce + self._aead.encrypt(nonce, plaintext, VERSION + associated)

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        if sealed[:1] == VERSION:
            with suppress(InvalidTag, ValueError):
                return self._aead.decrypt(sealed[1 : 1 + NONCE], sealed[1 + NONCE :], VERSION + associated)
        raise IntegrityError("a sealed value does not open: it was changed or moved, or the key is another")

    def mac(self, data: bytes) -> bytes:
        return hmac.digest(self._mac_key, data, "sha256")


class SealedFiles:
    """The numbered files of one purpose and kind in a directory (0700): ``<purpose>.<number>.<suffix>``.

    Each is sealed for its place: under another number, purpose or kind it does not open.
    """

    def __init__(self, directory: Path, sealer: Sealer, purpose: str, kind: str, suffix: str) -> None:
        private_directory(directory)
        self._directory, self._sealer = directory, sealer
        self._purpose, self._kind, self._suffix = purpose, kind, suffix

    def numbers(self) -> list[int]:
        """Return the numbers of the files that are there, the highest first."""
        pattern = re.compile(rf"{self._purpose}\.([1-9][0-9]*)\.{self._suffix}")
        named = (pattern.fullmatch(file.name) for file in self._directory.iterdir())
        return sorted((int(name[1]) for name in named if name), reverse=True)

    def read(self, number: int) -> bytes:
        """Return what a file holds, or raise IntegrityError."""
        return self._sealer.open(read_private(self._path(number)), self._associated(number))

    def write(self, number: int, content: bytes, *, over: bool = False) -> None:
        """Write a file durably; one that is there stays as it is unless this is written ``over`` it."""
        write_private(self._path(number), self._sealer.seal(content, self._associated(number)), over=over)

    def remove(self, *numbers: int) -> None:
        """Remove files durably; they may be gone already."""
        for number in numbers:
            self._path(number).unlink(missing_ok=True)
        if numbers:
            sync_directory(self._directory)

    def _path(self, number: int) -> Path:
        return self._directory / f"{self._purpose}.{number}.{self._suffix}"

    def _associated(self, number: int) -> bytes:
        return f"{self._kind}\n{self._purpose}\n{number}".encode()
