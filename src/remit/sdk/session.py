"""The login of whoever works at this terminal: one file, readable by its owner alone, never part of a run.

It holds a refresh token and an ID token in clear. What protects them is the file's mode (0600) in the state directory,
which is hidden from every run; sealing them would put the key beside them.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from remit.errors import DeniedError, UnauthenticatedError, UnavailableError
from remit.sdk.login import AGAIN, ClientRegistration, TokenSet, claims_of
from remit.sdk.place import state


@dataclass(frozen=True, slots=True)
class LoginSession:
    """A login that is kept, with the newest ID token and, if the issuer gives those, a refresh token."""

    issuer: str
    client_id: str
    scopes: tuple[str, ...]
    groups_claim: str | None  # None: none is configured
    claims_token: str = field(repr=False)  # the newest ID token, for its claims
    unused: bool = True  # whether that token may still open a task
    refresh_token: str | None = field(default=None, repr=False)
    ended: bool = False  # whether the issuer has said that it no longer knows this login

    @property
    def of(self) -> ClientRegistration:
        """The issuer, and what it knows us as."""
        return ClientRegistration(self.issuer, self.client_id, self.scopes)

    @property
    def tokens(self) -> TokenSet:
        """What the issuer gave last."""
        return TokenSet(self.claims_token, self.refresh_token, claims_of(self.claims_token))


def session_of(issuer: ClientRegistration, groups_claim: str | None, tokens: TokenSet, *, unused: bool) -> LoginSession:
    """Return what is kept of a login."""
    return LoginSession(
        issuer.url, issuer.client_id, issuer.scopes, groups_claim, tokens.id_token, unused, tokens.refresh_token
    )


class SessionFile:
    """The file, and who may use it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Look where this user's state is; a run has no login, and is refused."""
        if environ.get("REMIT_GRANT"):
            raise DeniedError(
                "a run has no login: it acts by its grant alone",
                help="log in outside of runs; inside, ask for an approval",
            )
        self._path = state(environ) / "session"

    def load(self) -> LoginSession | None:
        """Return the login, or None; DeniedError when others could have read or written it."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError("the session file cannot be read") from error
        with os.fdopen(descriptor, "rb") as file:
            about = os.fstat(file.fileno())
            if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o077 or not stat.S_ISREG(about.st_mode):
                raise DeniedError("others have had access to the session file", help=f"`remit logout`, then {AGAIN}")
            return _read(file.read())

    def need(self) -> LoginSession:
        """Return the login, or raise UnauthenticatedError."""
        found = self.load()
        if found is None:
            raise UnauthenticatedError("nobody is logged in", help="log in with `remit login`")
        return found

    def save(self, session: LoginSession) -> None:
        """Put a login in place of the last, whole or not at all."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._path.with_name("session.new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(asdict(session)).encode())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)

    def forget(self) -> None:
        """Remove the login."""
        self._path.unlink(missing_ok=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from using the refresh token meanwhile: a token that rotates is good once."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path.with_name("session.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _read(raw: bytes) -> LoginSession:
    try:
        kept = json.loads(raw)
        return LoginSession(**{**kept, "scopes": tuple(kept["scopes"])})
    except (ValueError, TypeError, KeyError) as error:
        raise UnavailableError("the session file is damaged", help=f"`remit logout`, then {AGAIN}") from error
