"""The login of whoever works at this terminal: one file, readable by its owner alone, never part of a run.

It holds a refresh token and an ID token in clear. What protects them is the file's mode (0600) in the state directory,
which is hidden from every run; sealing them would put the key beside them.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace

from remit.errors import DeniedError, GrantTokenError, RemitError, UnauthenticatedError, UnavailableError
from remit.sdk.login import AGAIN, ClientRegistration, OpenIDClient, Pause, TokenSet, claims_of
from remit.sdk.place import state

ANEW = f"`remit logout`, then {AGAIN}"
WAITS = (0.0, 1.0, 1.0)  # seconds before each try to get an ID token that is not spent

Connect = Callable[[ClientRegistration], OpenIDClient]


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
                raise DeniedError("others have had access to the session file", help=ANEW)
            try:
                kept = json.load(file)
                return LoginSession(**{**kept, "scopes": tuple(kept["scopes"])})
            except (ValueError, TypeError, KeyError) as error:
                raise UnavailableError("the session file is damaged", help=ANEW) from error

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

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from using the refresh token meanwhile: a token that rotates is good once."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path.with_name("session.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def id_token(self, connect: Connect, pause: Pause) -> str:
        """Return a new ID token of the issuer, or that of the login itself if it gives no refresh tokens: once.

        Issuers count in seconds: within one they may make the very token that is spent already. Then the next second is
        waited for.
        """
        with self.alone():
            last = session = self.need()
            if session.refresh_token is None:
                if not session.unused:
                    raise GrantTokenError("this issuer's login opens one task, and it has", help=AGAIN)
                self.save(replace(session, unused=False))
                return session.claims_token
            for wait in WAITS:
                pause(wait)
                session = self._refreshed(session, connect)
                # The broker knows a token by what of it is signed, however it was signed.
                if last.unused or session.claims_token.rpartition(".")[0] != last.claims_token.rpartition(".")[0]:
                    return session.claims_token
            raise GrantTokenError("the issuer gives the same ID token again and again", help=AGAIN)

    def _refreshed(self, session: LoginSession, connect: Connect) -> LoginSession:
        """Refresh a login; the refresh token that comes with it is kept before anything is done with the ID token."""
        try:
            if session.ended:
                raise GrantTokenError("this login cannot be renewed any more", help=AGAIN)
            with closing(connect(session.of)) as issuer:
                tokens = issuer.refresh(session.refresh_token or "", session.tokens.claims)
        except RemitError as error:
            if isinstance(error, GrantTokenError):
                self.save(replace(session, ended=True))
            error.add_note("with --as-owner nobody has to be logged in")
            raise
        fresh = replace(session, claims_token=tokens.id_token, refresh_token=tokens.refresh_token, unused=False)
        self.save(fresh)
        return fresh

    def log_out(self, connect: Connect) -> tuple[bool, str | None]:
        """Forget the login and give its refresh token back; whether there was one, and the issuer's logout page."""
        with self.alone():
            try:
                session = self.load()
            except RemitError:  # damaged, or seen by others: forgotten all the same
                session = None
            self._path.unlink(missing_ok=True)
        if session is None:
            return False, None
        try:
            with closing(connect(session.of)) as issuer:
                return session.refresh_token is not None, issuer.log_out(session.tokens)
        except RemitError as error:
            error.add_note("the login is forgotten here, but the issuer was not told")
            raise
