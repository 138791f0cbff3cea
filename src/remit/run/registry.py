"""The authority's part of runs: it makes what a run is given, gives the ticket for its hand-over, and ends both.

It has no sockets. A run is served by one edge, which redeems the ticket, and by none other; all runs of a task are at
the same edge, so that what a task may have open is counted in one place. A run that nobody serves permits nothing and
ends in time: one that is offered, and one whose edge or authority has gone, until its launcher hands it over anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Literal

from remit import jose
from remit.broker.run_records import RunRecords
from remit.core.principal import GrantView, Holder, Human, Operator
from remit.core.secret import Secret
from remit.core.task import Posture, Report
from remit.errors import (
    DeniedError,
    GrantTokenError,
    InvalidRequestError,
    LimitError,
    NotFoundError,
    RemitError,
    UnavailableError,
)
from remit.ports import Clock, NewId, Resource
from remit.ports.broker import BrokerPort
from remit.ports.identity import Humans
from remit.ports.kind import Kind
from remit.ports.runs import (
    TICKET_LIFE,
    DelegatedToRun,
    HeldByRun,
    LaunchRequest,
    OpenedForRun,
    Places,
    ReadyRun,
    RedeemedRun,
    RunOffer,
    RunPort,
)
from remit.run import certificate, environment
from remit.run.apart import OwnEdges
from remit.run.environment import RunProvisioning
from remit.run.known import KnownRun, digest, to_keep
from remit.run.posture import posture
from remit.run.room import RunRoom

TICKET_BYTES = 32
PATIENCE = 5.0  # seconds for an edge to take runs
AGAIN = 0.5  # seconds until what a run was given is ended, where its task cannot be read
NESTED = 8  # runs, one inside the other

_LOG = logging.getLogger("remit.run")


class RunRegistry:
    """The runs of one authority: those that are offered, those that an edge serves, and those that are ending."""

    def __init__(
        self,
        broker: BrokerPort,
        records: RunRecords,
        operator: Operator,
        kinds: Mapping[str, Kind],
        clock: Clock,
        random: Callable[[int], bytes],
        new_id: NewId,
        humans: Humans | None = None,
    ) -> None:
        self._broker, self._records, self._operator = broker, records, operator
        self._kinds, self._humans = kinds, humans
        self._clock, self._random, self._new_id = clock, random, new_id
        self._edges: dict[str, EdgeRuns] = {}  # those that take runs, by their hand-over sockets
        self._taking = asyncio.Event()  # whether there are some
        self._sockets: Sequence[str] = ()  # of kinds, that edges serve
        self._runs: dict[str, KnownRun] = {}
        self._room = RunRoom()
        self.own = OwnEdges(self._moved)
        self._closing = False

    @property
    def count(self) -> int:
        return len(self._runs)

    def edge(self, handover: str, *, own: bool = False) -> EdgeRuns:
        """Return the runs as a new edge knows them, by its socket for launchers; ``own``: none begins there."""
        return EdgeRuns(self, handover, own=own)

    async def load(self) -> None:
        """Have the runs of the broker before wait for their launchers; end what else was held by a channel."""
        for kept in sorted(await self._records.load(), key=lambda each: len(each.around)):  # the outer ones first
            outer = self._runs.get(kept.within or "")
            inside = None if outer is None else outer.holder.task
            if (outer is None) is (kept.within is None) and self._room.take(inside):
                given, until = RunProvisioning(kept.listeners, kept.placeholders), self._clock() + TICKET_LIFE
                run = KnownRun(
                    kept.id, Holder(kept.task, kept.grant), kept.made, given, outer, kept.around, kept.handover, until
                )
                run.ticket, run.reach, run.places, run.rev = kept.ticket, kept.reach, kept.places, kept.rev
                self._runs[run.id] = run
                self._permit(run, served=False)
        made = {run.holder.grant for run in self._runs.values() if run.made}
        for holder, what in list(self._records.held()):
            if holder.grant not in made:
                await self._undo(holder, what)

    def taking(self, edge: EdgeRuns) -> None:
        """Have an edge serve runs."""
        self._edges[edge.handover], self._sockets = edge, edge.sockets
        self._taking.set()

    def placed(self) -> None:
        """Have edges of their own for tasks that had them with the authority before: all others take runs by now."""
        self.own.need({run.holder.task for run in self._runs.values() if run.handover not in self._edges})

    def edge_gone(self, edge: RunPort) -> None:
        """Have the runs of an edge that has died wait for their launchers."""
        for handover in [handover for handover, each in self._edges.items() if each is edge]:
            del self._edges[handover]
        if not self._edges:
            self._taking.clear()
        lost = [run for run in self._runs.values() if run.edge is edge]
        for run in lost:
            run.edge, run.until = None, self._clock() + TICKET_LIFE
            self._permit(run, served=False)
        self.own.died({run.holder.task for run in lost})

    def _moved(self, task: str, handover: str) -> None:
        for run in self._runs.values():
            if run.holder.task == task:
                run.handover = handover

    def _permit(self, run: KnownRun, *, served: bool) -> None:
        """Permit nothing under what was made for a run while it is not served."""
        if run.made is not None:
            (self._records.served if served else self._records.wait)(run.holder.grant)

    def close(self) -> None:
        """Try no longer to end what cannot be read: whoever starts next does it."""
        self._closing = True

    async def end_all(self) -> int:
        """End every run; return how many there were."""
        runs = list(self._runs.values())
        await asyncio.gather(*map(self.end, runs), return_exceptions=True)
        await self._records.notices.runs_ended()
        return len(runs)

    async def sweep(self) -> None:
        """End what nobody came for in time."""
        now = self._clock()
        for run in list(self._runs.values()):
            if run.edge is None and run.until <= now:
                self._ending(run)

    async def begin_run(self, caller: Operator | Holder, launch: LaunchRequest, within: str | None = None) -> RunOffer:
        outer = None
        if isinstance(caller, Holder):
            outer = self._runs.get(within or "")
            if outer is None or outer.holder != caller or not outer.live:
                raise NotFoundError("there is no such run")
        place = await self._place() if outer is None else outer.handover
        how = posture(launch, await self._around(outer))
        task = None if outer is None else outer.holder.task
        if not self._room.take(task):
            raise LimitError("too many runs at a time")
        try:
            view, made = await self._authority(caller, launch, how)
        except BaseException:
            self._room.give(task)
            raise
        around = (*(() if outer is None else outer.around), how.isolation)
        until = self._clock() + TICKET_LIFE
        place = next((run.handover for run in self._runs.values() if run.holder.task == view.task), place)
        run = KnownRun(self._new_id("run"), view.holder, made, RunProvisioning((), {}), outer, around, place, until)
        self._runs[run.id] = run
        try:
            return await self._offered(run, view, launch)
        except BaseException:
            self._ending(run)
            raise

    async def _place(self) -> str:
        """Return the hand-over socket of the edge with the fewest runs; one may just be starting."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._taking.wait()
        except TimeoutError:
            raise UnavailableError("nothing serves runs now", help="try again") from None
        busy = Counter(run.handover for run in self._runs.values())
        return min(self._edges, key=busy.__getitem__)

    async def _around(self, outer: KnownRun | None) -> tuple[str, ...]:
        """Return how what is around a new run is isolated."""
        if outer is None:
            return ()
        if len(outer.around) >= NESTED:
            raise LimitError(f"{NESTED} runs are one inside the other already")
        view = await self._broker.grant(outer.holder.grant)
        return (*outer.around, view.grant.posture.isolation)

    async def _authority(
        self, caller: Operator | Holder, launch: LaunchRequest, posture: Posture
    ) -> tuple[GrantView, Literal["task", "grant"] | None]:
        """Return the grant of a run, and what was made for it."""
        match launch.authority:
            case OpenedForRun(request, token):
                if not isinstance(caller, Operator):
                    raise DeniedError("a run cannot open a task", help="delegate from its own grant")
                opener = caller if token is None else await self._human(token)
                return await self._broker.open(opener, request, posture), "task"
            case DelegatedToRun(request, parent):
                parent = caller.grant if parent is None and isinstance(caller, Holder) else parent
                if parent is None:
                    raise InvalidRequestError("`parent` is missing")
                return await self._broker.delegate(caller, parent, request, posture=posture), "grant"
            case HeldByRun(grant):
                return await self._broker.attach(caller, grant, posture), None

    async def _human(self, token: Secret) -> Human:
        if self._humans is None:
            raise GrantTokenError("this broker takes no ID tokens", help="configure `[[humans]]`, or open `--as-owner`")
        return await self._humans.id_token(token.reveal())

    async def _offered(self, run: KnownRun, view: GrantView, launch: LaunchRequest) -> RunOffer:
        grant, resources, private = view.grant, await self._resources(), launch.isolation == "namespace"
        run.given = environment.provision(
            grant,
            resources,
            self._kinds,
            self._random,
            launch.folder,
            private=private,
            sockets=self._sockets,
            stdio=launch.stdio,
            servers=launch.servers and run.within is None,
            elsewhere=self._started(run),
        )
        if run.ending is not None or (run.within is not None and not run.within.live):  # what is around it ended
            raise NotFoundError("there is no such run")
        ticket, hosts, passed = self._drawn(), run.given.hosts, run.given.passed
        run.ticket = digest(ticket)
        if hosts or passed:
            now = self._clock()  # what reads the certificate in the run does so once
            until = grant.expires_at if launch.lasts is None else max(grant.expires_at, now + launch.lasts)
            run.reach = certificate.reach(run.id, hosts, now, until, passed)
        handover = run.handover if run.within is None else run.within.given.launch
        listeners = run.given.listeners
        return RunOffer(run.id, view.task, grant.id, grant.expires_at, listeners, ticket, handover, run.reach)

    def _started(self, run: KnownRun) -> set[str]:
        """Return the servers that launchers of other runs of a task start: each is one launcher's, as it was begun."""
        others = [each for each in self._runs.values() if each.holder.task == run.holder.task and each is not run]
        return {name for each in others if each.ending is None for to in each.given.listeners for name in to.serves}

    def _drawn(self) -> Secret:
        return Secret(jose.encode(self._random(TICKET_BYTES)))

    def redeem(self, ticket: Secret, edge: EdgeRuns) -> RedeemedRun:
        shown = digest(ticket)
        run = next((each for each in self._runs.values() if each.ticket == shown), None)
        if run is not None:
            self.own.check(run.holder.task, edge.handover)
        if run is None or run.edge or run.ending or run.handover != edge.handover or run.until <= self._clock():
            raise GrantTokenError("the ticket is not one for this hand-over, or it was used, or its time is up")
        run.edge = edge
        self._permit(run, served=True)
        within = None if run.within is None else run.within.id
        return RedeemedRun(run.id, run.holder, run.given.listeners, run.given.placeholders, within, run.reach)

    def served(self, run_id: str, edge: EdgeRuns) -> KnownRun:
        """Return a run that an edge serves."""
        run = self._runs.get(run_id)
        if run is None or run.edge is not edge:
            raise NotFoundError("there is no such run")
        return run

    async def ready(self, run: KnownRun, places: Places) -> ReadyRun:
        """Keep where a run listens, before its launcher is told that it is served; at a later hand-over it is there."""
        names = {listener.name for listener in run.given.listeners}
        if places.keys() != names or places != (run.places or places):
            raise InvalidRequestError("other listeners were bound than was asked for")
        resources, ticket = await self._resources(), self._drawn()
        async with run.keeping:
            view = await self._broker.grant(run.holder.grant)
            variables = environment.variables(view.grant, resources, self._kinds, run.given.placeholders, places)
            run.places, shared = places, environment.shared(view.grant, resources, self._kinds)
            await self._records.keep(to_keep(run, digest(ticket)), view.grant.expires_at)
            run.ticket, run.rev = digest(ticket), run.rev + 1
        return ReadyRun(variables, ticket, shared)

    async def renewed(self, root: GrantView) -> None:
        """Keep what holds the root of a task that was renewed on record as long as it."""
        for run in [run for run in self._runs.values() if run.holder == root.holder and run.rev]:
            async with run.keeping:
                await self._records.keep(to_keep(run, run.ticket), root.grant.expires_at, "run.keep")
                run.rev += 1

    async def _resources(self) -> Mapping[str, Resource]:
        return {resource.name: resource for resource in await self._broker.resources()}

    async def end(self, run: KnownRun) -> Report:
        """End a run and what was made for it, whoever waits for that; return how it ended."""
        return await asyncio.shield(self._ending(run))

    def _ending(self, run: KnownRun) -> asyncio.Task[Report]:
        if run.ending is None:
            run.ending = asyncio.create_task(self._ended(run))
            run.ending.add_done_callback(_told)
        return run.ending

    async def _ended(self, run: KnownRun) -> Report:
        for inner in [each for each in self._runs.values() if each.within is run]:
            self._ending(inner)
        try:
            return await self._undone(run)
        finally:
            del self._runs[run.id]
            self._permit(run, served=True)
            self._room.give(run.inside)
            self.own.ended(run.holder.task, {each.holder.task for each in self._runs.values()})

    async def _undone(self, run: KnownRun) -> Report:
        """End what was made for a run; while its task cannot be read, again and again."""
        while True:
            try:
                if run.made is not None:
                    return await self._undo(run.holder, run.made)
                with suppress(RemitError):
                    if run.rev:  # nothing else says that it has ended
                        await self._records.keep(to_keep(run, b""), self._clock(), "run.end")
                return Report()
            except UnavailableError:
                if self._closing:
                    raise
            await asyncio.sleep(AGAIN)

    async def _undo(self, holder: Holder, made: Literal["task", "grant"]) -> Report:
        if made == "task":
            return await self._broker.close(self._operator, holder.task)
        return await self._broker.revoke(self._operator, holder.grant)


class EdgeRuns(RunPort):
    """The runs as one edge knows them: those that it redeemed, and no others."""

    def __init__(self, registry: RunRegistry, handover: str, *, own: bool) -> None:
        self._registry, self.handover, self._own = registry, handover, own
        self.sockets: Sequence[str] = ()

    async def take_runs(self, sockets: Sequence[str]) -> None:
        self.sockets = sockets
        if not self._own:
            self._registry.taking(self)

    async def begin_run(self, caller: Operator | Holder, launch: LaunchRequest, within: str | None = None) -> RunOffer:
        if within is not None:
            self._registry.served(within, self)
        return await self._registry.begin_run(caller, launch, within)

    async def redeem_run(self, ticket: Secret) -> RedeemedRun:
        return self._registry.redeem(ticket, self)

    async def run_ready(self, run_id: str, places: Places) -> ReadyRun:
        return await self._registry.ready(self._registry.served(run_id, self), places)

    async def end_run(self, run_id: str) -> Report:
        return await self._registry.end(self._registry.served(run_id, self))


def _told(ending: asyncio.Task[Report]) -> None:
    """Tell the log of an end that failed: perhaps nobody waits for it."""
    error = None if ending.cancelled() else ending.exception()
    if error is not None and not isinstance(error, RemitError):
        _LOG.error("a run was not ended", exc_info=error)
