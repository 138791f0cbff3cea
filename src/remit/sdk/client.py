"""The blocking client: tasks, grants and leases as context managers. ``aio`` is the same with ``await``.

Example::

    with remit.task("draft the CFO summary", grants=["search"], ttl="15m", depth=1, fan_out=3) as task:
        with task.delegate("research", grants=[remit.detail("search", paths=["/v1/search"])]) as sub:
            httpx.get(sub.url("search") + "/v1/search", params={"q": "revenue"}, auth=sub.auth)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import Token
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar

import httpx

from remit.errors import GrantEndedError, NotFoundError, RemitError
from remit.sdk import asking, verbs
from remit.sdk._wire import Flow, drive
from remit.sdk.asking import Asked
from remit.sdk.detail import TTL, Wish, name_of, seconds
from remit.sdk.dpop import Key
from remit.sdk.held import Credential, Held, credential_of, current_grant, instant
from remit.sdk.place import Place, find
from remit.sdk.verbs import Bounds, Opened, Report

T = TypeVar("T")

BASE = "http://localhost"  # over a socket file the host says nothing
PATIENCE = httpx.Timeout(60.0, connect=5.0)  # revoking a large tree visits its targets first
KEEPING = httpx.Limits(keepalive_expiry=30.0)
PASSING = httpx.Limits(max_keepalive_connections=0)  # of clients that nobody closes


class Client:
    """A connection to the broker."""

    def __init__(
        self,
        place: Place | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        limits: httpx.Limits = KEEPING,
    ) -> None:
        """Speak to the broker at ``place``, by default the one that the environment names."""
        self.place = place or find(os.environ)
        self._over_socket = transport is None
        over = transport or httpx.HTTPTransport(uds=str(self.place.socket), verify=False, limits=limits)
        self._http = httpx.Client(transport=over, base_url=BASE, timeout=PATIENCE, trust_env=False)

    def run(self, flow: Flow[T]) -> T:
        """Run one conversation (see ``verbs``), or raise a RemitError."""
        if self._over_socket:
            self.place.check()
        return drive(self._http, flow)

    def task(self, purpose: str, *, grants: Iterable[Wish], bounds: Bounds) -> Task:
        """Open a task; inside a run, where one is open already, a child of the run's grant that is labelled so."""
        if self.place.in_run:
            own = self.run(verbs.own(self.place.grant))
            return Task(self, self.run(verbs.delegate(own.grant, own.details, grants, bounds, purpose)))
        return Task(self, self.run(verbs.open_task(purpose, grants, bounds, Key())))

    def own(self) -> Grant:
        """Return the grant of the run that this process is in."""
        if not self.place.in_run:
            raise NotFoundError("this process is in no run and has opened no task", help="use `remit.task(...)`")
        return Grant(self, self.run(verbs.own(self.place.grant)))

    def close(self) -> None:
        """Let go of the connection. What was opened stays open."""
        self._http.close()

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the connection."""
        self.close()


class Grant(Held):
    """A node of the authority tree. As a context manager it is current within, and revoked at the end."""

    def __init__(self, client: Client, opened: Opened) -> None:
        """Hold ``opened`` through ``client``."""
        super().__init__(client.place, opened)
        self._client = client
        self._entered: list[Token[Held | None]] = []

    def delegate(
        self,
        label: str = "",
        *,
        grants: Iterable[Wish],
        ttl: TTL | None = None,
        depth: int = 0,
        fan_out: int = 0,
        exercise: bool = True,
        delegates: Sequence[str] | None = None,
        unattested: bool = True,
    ) -> Grant:
        """Make a child, no wider than this grant. Nobody has to know the child beforehand."""
        bounds = Bounds(ttl, depth, fan_out, exercise, delegates, unattested)
        flow = verbs.delegate(self.id, self.details, grants, bounds, label, self.binding())
        return Grant(self._client, self._client.run(flow))

    def ask(
        self,
        label: str = "",
        *,
        grants: Iterable[Wish],
        ttl: TTL | None = None,
        depth: int = 0,
        fan_out: int = 0,
        exercise: bool = True,
        delegates: Sequence[str] | None = None,
        unattested: bool = True,
    ) -> Approval:
        """Ask the task's human for a child that exceeds this grant; ``wait`` of the answer makes it when approved."""
        bounds = Bounds(ttl, depth, fan_out, exercise, delegates, unattested)
        flow = asking.ask_for(self.id, self.details, grants, bounds, label, self.binding())
        return Approval(self._client, self._client.run(flow))

    def lease(self, wish: Wish, *, key: str | None = None, **overrides: object) -> Lease:
        """Issue a credential for a resource's name, narrowed by ``overrides``, or for a whole detail.

        ``key`` is an Idempotency-Key: asking again with it revokes the earlier lease first.
        """
        narrowed = {"resource": wish, **overrides} if isinstance(wish, str) else {**wish, **overrides}
        answer = self._client.run(verbs.issue(self.task_id, self.id, narrowed, self.details, key))
        ports = self._client.run(verbs.self()).get("ports", {}) if self.place.in_run else {}
        return Lease(self._client, credential_of(answer, ports, name_of(wish)))

    def revoke(self) -> Report:
        """End this grant and everything below it; say truthfully what is outstanding."""
        self.report = self._client.run(verbs.revoke(self.task_id, self.id))
        return self.report

    def _end(self) -> None:
        self.revoke()

    def __enter__(self) -> Self:
        """Make this the current grant."""
        self._entered.append(current_grant.set(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the grant; an error on the way out does not hide the one that led here."""
        current_grant.reset(self._entered.pop())
        with not_hiding(error):
            self._end()


class Approval:
    """What a human was asked, and the way on once they have approved."""

    def __init__(self, client: Client, asked: Asked) -> None:
        """Hold ``asked`` through ``client``."""
        self._client = client
        self.asked = asked

    @property
    def id(self) -> str:
        """The id of the approval, by which a human decides."""
        return self.asked.id

    def wait(self, within: TTL = "10m") -> Grant:
        """Wait for the decision; return the child that was approved. Once: what was approved is made one time.

        PendingError when nobody has decided by then, ApprovalError when a human refused, LapsedError.
        """
        return Grant(self._client, self._client.run(asking.granted(self.asked, seconds(within))))


class Task(Grant):
    """The root grant of a task that this process opened; at its end the task is closed."""

    owns = False  # whether the connection was made for this task

    def close(self) -> Report:
        """End the task, and everything in it."""
        flow = verbs.revoke(self.task_id, self.id) if self.place.in_run else verbs.close(self.task_id)
        self.report = self._client.run(flow)
        return self.report

    def _end(self) -> None:
        try:
            self.close()
        finally:
            if self.owns:
                self._client.close()


class Lease:
    """A credential in use. As a context manager it yields the credential, and is revoked at the end."""

    def __init__(self, client: Client, credential: Credential) -> None:
        """Hold ``credential`` through ``client``."""
        self._client = client
        self.credential = credential
        self.expires_at = credential.expires_at

    @property
    def id(self) -> str:
        """The id of the lease."""
        return self.credential.lease

    def renew(self, ttl: TTL) -> datetime:
        """Extend the lease in place; return its new end."""
        self.expires_at = instant(self._client.run(verbs.renew(self.id, ttl))["expires_at"])
        return self.expires_at

    def revoke(self) -> Report:
        """End the lease."""
        return self._client.run(verbs.revoke_lease(self.id))

    def __enter__(self) -> Credential:
        """Return the credential."""
        return self.credential

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the lease."""
        with not_hiding(error):
            self.revoke()


@contextmanager
def not_hiding(error: BaseException | None) -> Iterator[None]:
    """Let an ending fail without hiding ``error``; that it had ended already is no failure."""
    try:
        with suppress(GrantEndedError):
            yield
    except RemitError as failed:
        if error is None:
            raise
        error.add_note(f"and ending what was granted failed: {failed.detail}")


def task(
    purpose: str,
    *,
    grants: Iterable[Wish],
    ttl: TTL | None = None,
    depth: int = 0,
    fan_out: int = 0,
    exercise: bool = True,
    delegates: Sequence[str] | None = None,
    unattested: bool = True,
) -> Task:
    """Open a task for this purpose; it lasts 15 minutes unless ``ttl`` says otherwise.

    ``grants`` are names of resources (as wide as their bound), narrowed names (``detail``), or whole details.
    """
    client = Client()
    try:
        opened = client.task(
            purpose, grants=grants, bounds=Bounds(ttl, depth, fan_out, exercise, delegates, unattested)
        )
    except RemitError:
        client.close()
        raise
    opened.owns = True
    return opened


def current() -> Grant:
    """Return the grant this code runs under: the innermost entered, else that of the run."""
    held = current_grant.get()
    if isinstance(held, Grant):
        return held
    client = Client(held.place if held is not None else None, limits=PASSING)
    return Grant(client, held.opened) if held is not None else client.own()
