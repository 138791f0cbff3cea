# Made from aio.py by `make generate`: change that.
"""Tasks, grants and leases as context managers; ``make generate`` makes the blocking ``client.py`` of ``aio.py``.

Example::

    with remit.task("draft the CFO summary", grants=["search"], ttl="15m", depth=1, fan_out=3) as task:
        with task.delegate("research", grants=[remit.detail("search", paths=["/v1/search"])]) as sub:
            httpx.get(sub.url("search") + "/v1/search", params={"q": "revenue"}, auth=sub.auth)
"""

from __future__ import annotations

import os
from contextvars import Token
from datetime import datetime
from typing import Self, TypeVar, Unpack

import httpx

from remit.errors import NotFoundError, RemitError
from remit.sdk import asking, verbs
from remit.sdk._wire import BASE, KEEPING, PASSING, PATIENCE, Flow, request_of, unreachable
from remit.sdk.asking import ApprovalRequest
from remit.sdk.detail import TTL, DetailLike, Wishes, seconds
from remit.sdk.dpop import DPoPKey
from remit.sdk.grant import Credential, GrantHandle, credential_of, current_grant, instant, not_hiding
from remit.sdk.place import Place, find
from remit.sdk.verbs import Bounds, BoundsOptions, Report, TokenResponse

T = TypeVar("T")


class Client:
    """A connection to the broker at ``place``, by default the one that the environment names."""

    def __init__(
        self,
        place: Place | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        limits: httpx.Limits = KEEPING,
    ) -> None:
        self.place = place or find(os.environ)
        self._over_socket = transport is None
        over = transport or httpx.HTTPTransport(uds=str(self.place.socket), verify=False, limits=limits)
        self._http = httpx.Client(transport=over, base_url=BASE, timeout=PATIENCE, trust_env=False)

    def run(self, flow: Flow[T]) -> T:
        """Run one conversation (see ``verbs``), or raise a RemitError."""
        if self._over_socket:
            self.place.check()
        try:
            call = next(flow)
            while True:
                call = flow.send(self._http.send(request_of(self._http, call)))
        except httpx.TransportError as error:
            raise unreachable(error) from error
        except StopIteration as done:
            result: T = done.value
            return result

    def task(self, purpose: str, *, grants: Wishes, bounds: Bounds) -> Task:
        """Open a task; inside a run, where one is open already, a child of the run's grant that is labelled so."""
        if self.place.in_run:
            own = self.run(verbs.own(self.place.grant))
            return Task(self, self.run(verbs.delegate(own.grant, own.details, grants, bounds, purpose)))
        return Task(self, self.run(verbs.open_task(purpose, grants, bounds, DPoPKey())))

    def own(self) -> Grant:
        """Return the grant of the run that this process is in."""
        if not self.place.in_run:
            raise NotFoundError("this process is in no run and has opened no task", help="use `remit.task(...)`")
        return Grant(self, self.run(verbs.own(self.place.grant)))

    def close(self) -> None:
        """Let go of the connection. What was opened stays open."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Grant(GrantHandle):
    """A node of the authority tree. As a context manager it is current within, and revoked at the end."""

    def __init__(self, client: Client, opened: TokenResponse) -> None:
        super().__init__(client.place, opened)
        self._client = client
        self._entered: list[Token[GrantHandle | None]] = []

    def delegate(self, label: str = "", *, grants: Wishes, **bounds: Unpack[BoundsOptions]) -> Grant:
        """Make a child, no wider than this grant. Nobody has to know the child beforehand."""
        flow = verbs.delegate(self.id, self.details, grants, Bounds(**bounds), label, self.binding())
        return Grant(self._client, self._client.run(flow))

    def ask(self, label: str = "", *, grants: Wishes, **bounds: Unpack[BoundsOptions]) -> Approval:
        """Ask the task's human for a child that exceeds this grant; ``wait`` of the answer makes it when approved."""
        flow = asking.ask_for(self.id, self.details, grants, Bounds(**bounds), label, self.binding())
        return Approval(self._client, self._client.run(flow))

    def lease(self, wish: DetailLike, *, key: str | None = None, **overrides: object) -> Lease:
        """Issue a credential for a resource's name, narrowed by ``overrides``, or for a whole detail.

        ``key`` is an Idempotency-Key: asking again with it revokes the earlier lease first.
        """
        narrowed = {"resource": wish, **overrides} if isinstance(wish, str) else {**wish, **overrides}
        answer = self._client.run(verbs.issue(self.task_id, self.id, narrowed, self.details, key))
        return Lease(self._client, credential_of(answer))

    def revoke(self) -> Report:
        """End this grant and everything below it; say truthfully what is outstanding."""
        self.report = self._client.run(verbs.revoke(self.task_id, self.id))
        return self.report

    def _end(self) -> None:
        self.revoke()

    def __enter__(self) -> Self:
        self._entered.append(current_grant.set(self))
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        current_grant.reset(self._entered.pop())
        with not_hiding(error):
            self._end()


class Approval:
    """What a human was asked, and the way on once they have approved."""

    def __init__(self, client: Client, asked: ApprovalRequest) -> None:
        self._client, self.asked = client, asked
        self.id = asked.id  # by which a human decides

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

    def renew(self, ttl: TTL) -> datetime:
        """Let the task end later, by ``ttl`` from now; return its new end. Outside of runs, for who opened it so."""
        return instant(self._client.run(verbs.renew_task(self.task_id, ttl))["expires_at"])

    def _end(self) -> None:
        try:
            self.close()
        finally:
            if self.owns:
                self._client.close()


class Lease:
    """A credential in use. As a context manager it yields the credential, and is revoked at the end."""

    def __init__(self, client: Client, credential: Credential) -> None:
        self._client, self.credential = client, credential
        self.id, self.expires_at = credential.lease, credential.expires_at

    def renew(self, ttl: TTL) -> datetime:
        """Extend the lease in place; return its new end."""
        self.expires_at = instant(self._client.run(verbs.renew(self.id, ttl))["expires_at"])
        return self.expires_at

    def revoke(self) -> Report:
        """End the lease."""
        return self._client.run(verbs.revoke_lease(self.id))

    def __enter__(self) -> Credential:
        return self.credential

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        with not_hiding(error):
            self.revoke()


def task(purpose: str, *, grants: Wishes, **bounds: Unpack[BoundsOptions]) -> Task:
    """Open a task for this purpose; it lasts 15 minutes unless ``ttl`` says otherwise.

    ``grants`` are names of resources (as wide as their bound), narrowed names (``detail``), or whole details.
    """
    client = Client()
    try:
        opened = client.task(purpose, grants=grants, bounds=Bounds(**bounds))
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
