"""Credentials that a run has from its start in variables: issued on its own channel, and renewed in place.

The channel is taken hold of before the command runs, so that nothing in the run can put another socket in its place.
"""

from __future__ import annotations

import math
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from remit.errors import ConflictError, InvalidRequestError, RemitError, UnavailableError
from remit.run import again, offer
from remit.run.named import NamedVariable

RETRY = 5.0  # seconds between attempts while nobody answers


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A credential that the command has; ``ttl`` seconds is what it is renewed for."""

    variable: str
    id: str
    ttl: int
    expires_at: datetime

    @property
    def due(self) -> datetime:
        """When it is renewed: with half of its time left."""
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
    channel: RunChannel, named: Iterable[NamedVariable], request: Mapping[str, object], given: Mapping[str, object]
) -> tuple[dict[str, str], tuple[HeldLease, ...]]:
    """Issue what is named; return the variables, and the leases that end before the grant of the run.

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
        if isinstance(ttl, int) and ends < datetime.fromisoformat(str(given["expires_at"])):
            held.append(_proven(channel, HeldLease(each.name, str(lease["lease"]), ttl, ends)))
    return values, tuple(each for each in held if each is not None)


def _proven(channel: RunChannel, lease: HeldLease) -> HeldLease | None:
    try:
        return renewed(channel, lease)
    except ConflictError as error:
        raise InvalidRequestError(
            f"`{lease.variable}` cannot be set: its credential ends before the run does, and {error.detail}",
            help="a shorter `ttl` of the project, or have the command issue one when it needs it",
        ) from error


def renewed(channel: RunChannel, lease: HeldLease) -> HeldLease | None:
    """Renew a lease; None: from now on it ends with its grant."""
    answer = channel.post(f"/v1/leases/{lease.id}/renew", {"ttl": lease.ttl})
    ends = datetime.fromisoformat(str(answer["expires_at"]))
    return None if answer.get("ends_with_grant") else HeldLease(lease.variable, lease.id, lease.ttl, ends)


class Renewals:
    """Renews leases in a thread of its own, until the run ends; what cannot be renewed any more is said once."""

    def __init__(self, channel: RunChannel, leases: tuple[HeldLease, ...], say: Callable[[str, str], None]) -> None:
        self._channel, self._leases, self._say = channel, leases, say
        self._ended = threading.Event()
        if leases:
            threading.Thread(target=self._work, name="remit-renewals", daemon=True).start()

    def end(self) -> None:
        self._ended.set()

    def _work(self) -> None:
        left = list(self._leases)
        while left and not self._ended.wait(self._patience(left)):
            lease = min(left, key=lambda each: each.due)
            left.remove(lease)
            try:
                longer = renewed(self._channel, lease)
            except RemitError as error:
                waits = isinstance(error, UnavailableError) and lease.expires_at > datetime.now(UTC)
                longer = lease if waits else None  # there may be a next broker
                if waits:
                    self._ended.wait(RETRY)
                elif not self._ended.is_set():
                    self._say(f"remit: {lease.variable} cannot be renewed: {error.detail}", "\r\n")
            left += [] if longer is None else [longer]

    @staticmethod
    def _patience(left: Iterable[HeldLease]) -> float:
        return max(0.0, math.ceil((min(each.due for each in left) - datetime.now(UTC)).total_seconds()))
