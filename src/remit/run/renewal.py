"""A run that goes on for days: its launcher has its task renewed, each time by a new proof of the login.

That is done from outside of the run, on the operator's control socket. What proves a login is never in the run.
"""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from remit.errors import GrantEndedError, NotFoundError, RemitError
from remit.run import again, offer

BEFORE = (5, 1)  # minutes: early enough to finish, or to begin another run
LONGER = "another run has it anew, and longer with `--ttl`"


@dataclass(frozen=True, slots=True)
class Lasting:
    """For how long a run goes on, and who says so: ``prove`` gets a new ID token, or None for the owner's own."""

    seconds: int  # from its beginning
    prove: Callable[[], str | None]
    step: int = 28_800  # seconds for which it is renewed at once: the longest that there is
    retry: float = 60.0  # seconds between attempts


class RunRenewal:
    """Has the task of a run renewed, with half of its time left, in a thread of its own.

    When ``moved`` is readable, its end has moved to ``ends``; ``refused`` says why the last attempt was in vain. It
    tries until the run has lasted as long as it is to, or the task has ended, or no later end is given.
    """

    def __init__(self, control: Path, task: str, ends: datetime, lasting: Lasting) -> None:
        self._control, self._path, self._lasting = control, f"/v1/tasks/{task}/renew", lasting
        self.ends, self.refused = ends, ""
        self.until = datetime.now(UTC) + timedelta(seconds=lasting.seconds)
        self._due = ends - timedelta(seconds=lasting.step / 2)
        self._over = threading.Event()
        self.moved, self._told = socket.socketpair()
        threading.Thread(target=self._work, name="remit-renewal", daemon=True).start()

    def end(self) -> None:
        """Renew no more, and say nothing more."""
        self._over.set()
        self.moved.close()

    def _work(self) -> None:
        with self._told:
            while self.ends < self.until and not self._over.wait(_seconds(self._due)):
                try:
                    ends = self._renewed()
                except (GrantEndedError, NotFoundError):
                    return
                except (RemitError, OSError) as error:
                    self.refused = error.detail if isinstance(error, RemitError) else str(error)
                    self._due = datetime.now(UTC) + timedelta(seconds=self._lasting.retry)
                    continue
                if ends <= self.ends:  # it lasts no longer, however often it is renewed
                    return
                self._due = ends - (ends - datetime.now(UTC)) / 2
                self.ends, self.refused = ends, ""
                with suppress(OSError):
                    self._told.send(b"\0")

    def _renewed(self) -> datetime:
        left = math.ceil(_seconds(self.until))
        asked: dict[str, object] = {"ttl": max(1, min(self._lasting.step, left))}
        if (token := self._lasting.prove()) is not None:
            asked["id_token"] = token
        with again.connect(self._control, socket.SOCK_STREAM) as sock:
            answer = offer.post(sock, self._path, asked)
        return datetime.fromisoformat(str(answer["expires_at"]))


def _seconds(until: datetime) -> float:
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def announced(expires_at: datetime, now: datetime, *, quiet: bool) -> tuple[tuple[datetime, str], ...]:
    """Return what to say and when, the earliest first, of a run that ends then; nothing if it is quiet."""
    before = [(expires_at - timedelta(minutes=minutes), minutes) for minutes in BEFORE]
    due = [(at, f"ends in {minutes} minute{'s' if minutes > 1 else ''}") for at, minutes in before if at > now]
    due.append((expires_at, "has expired"))
    return () if quiet else tuple((at, f"remit: this run's authority {text}") for at, text in due)


def patience(due: Sequence[tuple[datetime, str]], now: datetime) -> float | None:
    """Return for how many seconds there is nothing to say; None: for good."""
    return max(0.0, (due[0][0] - now).total_seconds()) if due else None


def why(renewal: RunRenewal | None) -> str:
    """Return what to say of a run that ends: why it was not renewed, or what to do."""
    return f"it is not renewed: {renewal.refused}" if renewal is not None and renewal.refused else LONGER
