"""The workers of an authority: their links, what they report, and who is killed because it did not act on an end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from remit.compose import logs
from remit.compose.authority import AuthorityRole
from remit.errors import RemitError, UnavailableError
from remit.link import roles
from remit.link.authority import AuthorityEnd, LinkedBroker, serve
from remit.link.frames import LinkSockets
from remit.link.targets import TargetsLink
from remit.ports import Clock
from remit.ports.reports import LogLine
from remit.ports.runs import RunPort
from remit.process.orders import Ended, Supervision, Worker

TARGETS = "targets"
OWN = "edge-own"  # the role of edges for one task each
ROLES = {roles.EDGE.name: roles.EDGE, OWN: roles.EDGE, roles.WEB.name: roles.WEB}
PATIENCE = 15.0  # seconds that a worker has until it serves
LEAVING = 2.0  # seconds that all have to say how what they served ended

_LOG = logging.getLogger("remit")


@dataclass(eq=False, slots=True)
class _Reports:
    """What one worker reports (``ports.reports``)."""

    worker: str
    serves: asyncio.Future[None]

    async def started(self) -> None:
        if not self.serves.done():
            self.serves.set_result(None)

    async def failed(self, error: RemitError) -> None:
        _LOG.error("the %s cannot serve: %s", self.worker, error.detail)
        if not self.serves.done():
            self.serves.set_exception(error)

    async def logged(self, lines: Sequence[LogLine]) -> None:
        await logs.write(self.worker, lines)


class Workers:
    """Joins each worker that starts, also again, and lets go of it when it is dead."""

    def __init__(self, supervision: Callable[[Workers], Supervision]) -> None:
        self._reports: dict[str, _Reports] = {}
        self._ends: dict[str, AuthorityEnd] = {}
        self._runs: dict[str, RunPort] = {}
        self._own: dict[str, Worker] = {}  # edges for one task each, by their hand-over sockets
        self._doing: set[asyncio.Task[None]] = set()
        self._one = asyncio.Lock()
        self._authority: AuthorityRole | None = None
        self.targets = TargetsLink(self._reach)
        self.supervision = supervision(self)

    async def _reach(self) -> None:
        """Have targets reached: the process that does is started when it is first needed."""
        async with self._one:
            if TARGETS not in self._reports:
                await self.start(TARGETS)
            await self._serving(TARGETS)

    def serve(self, authority: AuthorityRole) -> None:
        """Answer workers from now on; none but targets is started earlier."""
        self._authority = authority
        authority.runs.own.starter = self

    async def start(self, role: str) -> None:
        """Start one more worker of a role, and wait until it serves, or raise what keeps it from that."""
        await self._serving((await self.supervision.start(role)).name)

    async def start_own(self) -> str:
        worker = await self.supervision.start(OWN)
        try:
            await self._serving(worker.name)
        except RemitError:
            await self.supervision.kill(worker, again=False)
            raise
        handover = self._handover(worker.name)
        self._own[handover] = worker
        return handover

    async def end_own(self, handover: str) -> None:
        await self.supervision.kill(self._own.pop(handover), again=False)

    def _handover(self, name: str) -> str:
        assert self._authority is not None  # noqa: S101 - no edge is started earlier
        return str(self._authority.application.settings.places.handover(name))

    async def _serving(self, name: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.shield(self._reports[name].serves)
        except TimeoutError:
            raise UnavailableError(f"the {name} does not start", help="the log says why") from None

    async def close(self) -> None:
        """Have all workers end what they serve, and record how that went: none is started again."""
        self.supervision.ending()
        await asyncio.gather(*(end.leave(LEAVING) for end in tuple(self._ends.values())))

    def started(self, worker: Worker) -> None:
        serves = asyncio.get_running_loop().create_future()
        serves.add_done_callback(lambda done: done.cancelled() or done.exception())  # that may concern nobody
        reports = self._reports[worker.name] = _Reports(worker.name, serves)
        self._do(self._join(worker, reports))

    def ended(self, report: Ended) -> None:
        reports = self._reports.get(report.name)
        if reports is not None and not reports.serves.done():
            reports.serves.set_exception(UnavailableError(f"the {report.name} died at its start", help="see the log"))
        if report.status and not report.name.startswith(OWN):  # whose tasks are over are killed
            _LOG.error("the %s died (%d) and is started again", report.name, report.status)
        if report.name in self._ends:
            self._ends.pop(report.name).gone()
        if report.name in self._runs and self._authority is not None:
            self._authority.runs.edge_gone(self._runs.pop(report.name))

    async def _join(self, worker: Worker, reports: _Reports) -> None:
        sockets = LinkSockets(*worker.links)
        if worker.role == TARGETS:
            await self.targets.connect(sockets, reports, lambda: self._kill(worker))
            return
        broker, ports, clock = self._answering(worker)
        self._ends[worker.name] = await serve(
            sockets,
            ROLES[worker.role],
            broker,
            (reports, *ports),
            clock,
            stuck=lambda _: self._stuck(worker),
            ended=lambda _: self._kill(worker),  # whose link is broken serves nobody any more
        )

    def _answering(self, worker: Worker) -> tuple[LinkedBroker, Sequence[object], Clock]:
        """Return what answers a worker, and the clock by which it does."""
        role = self._authority
        assert role is not None  # noqa: S101 - no other worker is started earlier
        app, who = role.application, role.application.identity
        known = (app.broker, role.pending, role.tokens, role.published, role.certificates, role.events)
        ports: list[object] = [port for port in (*known, who.workloads, who.humans) if port is not None]
        if ROLES[worker.role] is roles.EDGE:
            runs = role.runs.edge(self._handover(worker.name), own=worker.role == OWN)
            self._runs[worker.name] = runs
            ports.append(runs)
        return app.broker, ports, app.clock

    def _stuck(self, worker: Worker) -> None:
        _LOG.error("the %s did not act on an end in time, and is killed", worker.name)
        self._kill(worker)

    def _kill(self, worker: Worker) -> None:
        self._do(self.supervision.kill(worker))

    def _do(self, what: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(what)
        self._doing.add(task)
        task.add_done_callback(self._doing.discard)
