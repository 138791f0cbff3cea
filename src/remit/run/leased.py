"""Credentials that a run has from its start in variables: issued on its own channel, and renewed in place.

The channel is taken hold of before the command runs, so that nothing in the run can put another socket in its place.
"""

from __future__ import annotations

import math
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from remit.errors import ConflictError, InvalidRequestError, RemitError, UnavailableError
from remit.run import again, offer
from remit.run.named import NamedVariable
from remit.run.renewal import Lasting

RETRY = 5.0  # seconds between attempts while nobody answers
AT_ONCE = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A credential that the command has; ``ttl`` seconds is what it is renewed for.

    What ends with its grant (``last``) is renewed when that is.
    """

    variable: str
    id: str
    ttl: int
    expires_at: datetime
    last: bool = False

    def due(self, grant_ends: datetime) -> datetime | None:
        """Return when it is renewed: with half of its time left; None: not before its grant is."""
        if self.last:
            return AT_ONCE if grant_ends > self.expires_at else None
        return self.expires_at - timedelta(seconds=self.ttl / 2)


class RunChannel:
    """The channel of a run, from outside of it. ``pid`` is its first process, before the command runs."""

    def __init__(self, pid: int, path: str) -> None:
        try:
            self._socket = os.open(f"/proc/{pid}/root{path}", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise UnavailableError(f"the run's channel cannot be reached: {error.strerror}") from error

    def post(self, path: str, request: Mapping[str, object]) -> Mapping[str, object]:
        with again.connect(Path(f"/proc/self/fd/{self._socket}"), socket.SOCK_STREAM) as sock:
            return offer.post(sock, path, request)


def detail(of: str, request: Mapping[str, object]) -> Mapping[str, object]:
    """Return the one detail for a resource in what a run asked for."""
    asked = next(iter(request.values()))
    listed = asked.get("authorization_details") if isinstance(asked, Mapping) else None
    found = [one for one in listed or () if isinstance(one, Mapping) and one.get("resource") == of]
    if len(found) != 1:
        raise InvalidRequestError(f"there are {len(found)} details for `{of}`, and a lease is of one")
    return found[0]


def issued(
    channel: RunChannel,
    named: Iterable[NamedVariable],
    request: Mapping[str, object],
    given: Mapping[str, object],
    lasting: Lasting | None = None,
) -> tuple[dict[str, str], tuple[HeldLease, ...]]:
    """Issue what is named; return the variables, and the leases that end before the run, all where it is ``lasting``.

    InvalidRequestError for one that would end before it and cannot be renewed.
    """
    values, held = {}, []
    for each in named:
        wanted = detail(each.of, request)
        lease = channel.post(f"/v1/tasks/{given['task']}/leases", {"grant": given["grant"], "detail": wanted})
        credential, ttl = lease.get("credential"), wanted.get("ttl")
        if not isinstance(credential, Mapping) or "dsn" not in credential:
            raise InvalidRequestError(f"`{each.name}` cannot be set: a credential for `{each.of}` has no DSN")
        values[each.name] = str(credential["dsn"])
        ends = datetime.fromisoformat(str(lease["expires_at"]))
        if lasting is not None and not isinstance(ttl, int):
            ttl = lasting.step
        sooner = lasting is not None or ends < datetime.fromisoformat(str(given["expires_at"]))
        if isinstance(ttl, int) and sooner:
            held.append(_proven(channel, HeldLease(each.name, str(lease["lease"]), ttl, ends)))
    return values, tuple(held)


def _proven(channel: RunChannel, lease: HeldLease) -> HeldLease:
    try:
        return renewed(channel, lease)
    except ConflictError as error:
        raise InvalidRequestError(
            f"`{lease.variable}` cannot be set: its credential ends before the run does, and {error.detail}",
            help="a shorter `ttl` of the project, or have the command issue one when it needs it",
        ) from error


def renewed(channel: RunChannel, lease: HeldLease) -> HeldLease:
    answer = channel.post(f"/v1/leases/{lease.id}/renew", {"ttl": lease.ttl})
    ends = datetime.fromisoformat(str(answer["expires_at"]))
    return replace(lease, expires_at=ends, last=bool(answer.get("ends_with_grant")))


class Renewals:
    """Renews leases in a thread of its own, until the run ends; what cannot be renewed any more is said once."""

    def __init__(
        self,
        channel: RunChannel,
        leases: tuple[HeldLease, ...],
        say: Callable[[str, str], None],
        *,
        lasting: bool = False,  # whether the grant may be renewed, too
    ) -> None:
        self._channel, self._leases, self._say, self._lasting = channel, leases, say, lasting
        self._ended, self._woken = threading.Event(), threading.Event()
        self._grant_ends = AT_ONCE  # later than what ends with it, once it was renewed
        if leases:
            threading.Thread(target=self._work, name="remit-renewals", daemon=True).start()

    def end(self) -> None:
        self._ended.set()
        self._woken.set()

    def longer(self, grant_ends: datetime) -> None:
        """Renew what ends with the grant, which was renewed."""
        self._grant_ends = grant_ends
        self._woken.set()

    def _work(self) -> None:
        left = list(self._leases)
        while (left := [each for each in left if self._lasting or not each.last]) and not self._ended.is_set():
            due = [(at, each) for each in left if (at := each.due(self._grant_ends)) is not None]
            at, lease = min(due, key=lambda one: one[0], default=(None, left[0]))
            if at is None or at > datetime.now(UTC):
                self._woken.wait(None if at is None else math.ceil((at - datetime.now(UTC)).total_seconds()))
                self._woken.clear()
                continue
            left.remove(lease)
            try:
                longer: HeldLease | None = renewed(self._channel, lease)
            except RemitError as error:
                waits = isinstance(error, UnavailableError) and lease.expires_at > datetime.now(UTC)
                longer = lease if waits else None  # there may be a next broker
                if waits:
                    self._ended.wait(RETRY)
                elif not self._ended.is_set():
                    self._say(f"remit: {lease.variable} cannot be renewed: {error.detail}", "\r\n")
            left += [] if longer is None else [longer]
