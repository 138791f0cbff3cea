"""The authority's part of runs: it makes what a run is given, gives the ticket for its hand-over, and ends both.

It has no sockets. A run is served by one edge, which redeems the ticket, and by none other; all runs of a task are at
the same edge, so that what a task may have open is counted in one place. A run that nobody redeems in time ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Literal

from remit import jose
from remit.core.grant import ISOLATION
from remit.core.principal import GrantView, Holder, Human, Operator
from remit.core.secret import WHOLE, Secret
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
    RedeemedRun,
    RunOffer,
    RunPort,
)
from remit.run import environment
from remit.run.environment import RunProvisioning
from remit.run.room import RunRoom

TICKET_BYTES = 32
AGAIN = 0.5  # seconds until what a run was given is ended, where its task cannot be read
NESTED = 8  # runs, one inside the other
MAX_FOLDER = 90  # characters; the path of a unix socket has at most 107

_LOG = logging.getLogger("remit.run")


@dataclass(eq=False, slots=True)
class _KnownRun:
    """A run from its offer to its end."""

    id: str
    holder: Holder
    made: Literal["task", "grant"] | None  # for it, to be ended with it
    given: RunProvisioning
    within: _KnownRun | None
    around: tuple[str, ...]  # how the runs around it are isolated, and it itself
    edge: EdgeRuns
    until: datetime  # when it ends unless its ticket was redeemed
    served: bool = False
    ending: asyncio.Task[Report] | None = None

    @property
    def inside(self) -> str | None:
        """The task inside whose runs it was launched."""
        return None if self.within is None else self.within.holder.task

    @property
    def live(self) -> bool:
        return self.served and self.ending is None


class RunRegistry:
    """The runs of one authority: those that are offered, those that an edge serves, and those that are ending."""

    def __init__(
        self,
        broker: BrokerPort,
        operator: Operator,
        kinds: Mapping[str, Kind],
        clock: Clock,
        random: Callable[[int], bytes],
        new_id: NewId,
        humans: Humans | None = None,
    ) -> None:
        self._broker, self._operator, self._kinds, self._humans = broker, operator, kinds, humans
        self._clock, self._random, self._new_id = clock, random, new_id
        self._edges: list[EdgeRuns] = []  # those that take runs
        self._runs: dict[str, _KnownRun] = {}
        self._tickets: dict[bytes, _KnownRun] = {}  # by SHA-256
        self._room = RunRoom()
        self._closing = False

    @property
    def busy(self) -> bool:
        return bool(self._runs)

    def edge(self, handover: str) -> EdgeRuns:
        """Return the runs as a new edge knows them; the operator's launchers come to its socket ``handover``."""
        return EdgeRuns(self, handover)

    def taking(self, edge: EdgeRuns) -> None:
        """Have an edge serve runs."""
        self._edges.append(edge)

    async def edge_gone(self, edge: RunPort) -> None:
        """End the runs of an edge that has died."""
        self._edges = [each for each in self._edges if each is not edge]
        theirs = [run for run in self._runs.values() if run.edge is edge]
        await asyncio.gather(*map(self.end, theirs), return_exceptions=True)

    def close(self) -> None:
        """Try no longer to end what cannot be read: whoever starts next does it."""
        self._closing = True

    async def sweep(self) -> None:
        """End what nobody came for in time."""
        now = self._clock()
        for run in list(self._runs.values()):
            if not run.served and run.until <= now:
                self._ending(run)

    async def begin_run(self, caller: Operator | Holder, launch: LaunchRequest, within: str | None = None) -> RunOffer:
        outer = None
        if isinstance(caller, Holder):
            outer = self._runs.get(within or "")
            if outer is None or outer.holder != caller or not outer.live:
                raise NotFoundError("there is no such run")
        elif not self._edges:
            raise UnavailableError("nothing serves runs now", help="try again")
        posture = _posture(launch, await self._around(outer))
        task = None if outer is None else outer.holder.task
        if not self._room.take(task):
            raise LimitError("too many runs at a time")
        try:
            view, made = await self._authority(caller, launch, posture)
        except BaseException:
            self._room.give(task)
            raise
        around = (*(() if outer is None else outer.around), posture.isolation)
        edge, until = self._edge_of(view.task), self._clock() + TICKET_LIFE
        run = _KnownRun(self._new_id("run"), view.holder, made, RunProvisioning((), {}), outer, around, edge, until)
        self._runs[run.id] = run
        try:
            return await self._offered(run, view, launch)
        except BaseException:
            self._ending(run)
            raise

    async def _around(self, outer: _KnownRun | None) -> tuple[str, ...]:
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

    def _edge_of(self, task: str) -> EdgeRuns:
        """Return the edge of a task: where its runs are, else the one with the fewest runs."""
        same = (run.edge for run in self._runs.values() if run.holder.task == task)
        busy = Counter(run.edge for run in self._runs.values())
        return next(same, None) or min(self._edges, key=busy.__getitem__)

    async def _offered(self, run: _KnownRun, view: GrantView, launch: LaunchRequest) -> RunOffer:
        grant, resources, private = view.grant, await self._resources(), launch.isolation == "namespace"
        run.given = environment.provision(
            grant, resources, self._kinds, self._random, launch.folder, private=private, sockets=run.edge.sockets
        )
        if run.ending is not None or (run.within is not None and not run.within.live):  # what is around it ended
            raise NotFoundError("there is no such run")
        ticket = Secret(jose.encode(self._random(TICKET_BYTES)))
        self._tickets[_digest(ticket)] = run
        handover = run.edge.handover if run.within is None else run.within.given.launch
        return RunOffer(run.id, view.task, grant.id, grant.expires_at, run.given.listeners, ticket, handover)

    def redeem(self, ticket: Secret, edge: EdgeRuns) -> RedeemedRun:
        run = self._tickets.pop(_digest(ticket), None)
        if run is None or run.edge is not edge or run.ending is not None or run.until <= self._clock():
            raise GrantTokenError("the ticket is not one for this hand-over, or it was used, or its time is up")
        run.served = True
        within = None if run.within is None else run.within.id
        return RedeemedRun(run.id, run.holder, run.given.listeners, run.given.placeholders, within)

    def served(self, run_id: str, edge: EdgeRuns) -> _KnownRun:
        """Return a run that an edge serves."""
        run = self._runs.get(run_id)
        if run is None or run.edge is not edge or not run.served:
            raise NotFoundError("there is no such run")
        return run

    async def variables(self, run: _KnownRun, places: Places) -> Mapping[str, str]:
        """Return the variables of a run whose listeners are at ``places``."""
        if places.keys() != {listener.name for listener in run.given.listeners}:
            raise InvalidRequestError("other listeners were bound than was asked for")
        grant = (await self._broker.grant(run.holder.grant)).grant
        return environment.variables(grant, await self._resources(), self._kinds, run.given.placeholders, places)

    async def _resources(self) -> Mapping[str, Resource]:
        return {resource.name: resource for resource in await self._broker.resources()}

    async def end(self, run: _KnownRun) -> Report:
        """End a run and what was made for it, whoever waits for that; return how it ended."""
        return await asyncio.shield(self._ending(run))

    def _ending(self, run: _KnownRun) -> asyncio.Task[Report]:
        if run.ending is None:
            run.ending = asyncio.create_task(self._ended(run))
            run.ending.add_done_callback(_told)
        return run.ending

    async def _ended(self, run: _KnownRun) -> Report:
        for inner in [each for each in self._runs.values() if each.within is run]:
            self._ending(inner)
        self._tickets = {digest: each for digest, each in self._tickets.items() if each is not run}
        try:
            return await self._undone(run)
        finally:
            del self._runs[run.id]
            self._room.give(run.inside)

    async def _undone(self, run: _KnownRun) -> Report:
        """End what was made for a run; while its task cannot be read, again and again."""
        while True:
            try:
                match run.made:
                    case "task":
                        return await self._broker.close(self._operator, run.holder.task)
                    case "grant":
                        return await self._broker.revoke(self._operator, run.holder.grant)
                return Report()
            except UnavailableError:
                if self._closing:
                    raise
            await asyncio.sleep(AGAIN)


class EdgeRuns(RunPort):
    """The runs as one edge knows them: those that it redeemed, and no others."""

    def __init__(self, registry: RunRegistry, handover: str) -> None:
        self._registry, self.handover = registry, handover
        self.sockets: Sequence[str] = ()

    async def take_runs(self, sockets: Sequence[str]) -> None:
        self.sockets = sockets
        self._registry.taking(self)

    async def begin_run(self, caller: Operator | Holder, launch: LaunchRequest, within: str | None = None) -> RunOffer:
        if within is not None:
            self._registry.served(within, self)
        return await self._registry.begin_run(caller, launch, within)

    async def redeem_run(self, ticket: Secret) -> RedeemedRun:
        return self._registry.redeem(ticket, self)

    async def run_ready(self, run_id: str, places: Places) -> Mapping[str, str]:
        return await self._registry.variables(self._registry.served(run_id, self), places)

    async def end_run(self, run_id: str) -> Report:
        return await self._registry.end(self._registry.served(run_id, self))


def _posture(launch: LaunchRequest, around: Iterable[str]) -> Posture:
    """Return the posture of a run: no better than what is ``around`` its launcher, whatever that one says."""
    if launch.isolation not in ISOLATION:
        raise InvalidRequestError("`isolation` must say how the run is isolated")
    if not launch.folder.startswith("/") or len(launch.folder) > MAX_FOLDER:
        raise InvalidRequestError("`folder` must be where the run has its sockets")
    known = [each for each in around if each in ISOLATION]  # a grant that is held outside of runs promises nothing
    weakest = min(launch.isolation, *known, key=ISOLATION.index) if known else launch.isolation
    return Posture(isolation=weakest, custody="channel", at_rest="kek-file")


def _digest(ticket: Secret) -> bytes:
    return sha256(ticket.parts().get(WHOLE, b"")).digest()


def _told(ending: asyncio.Task[Report]) -> None:
    """Tell the log of an end that failed: perhaps nobody waits for it."""
    error = None if ending.cancelled() else ending.exception()
    if error is not None and not isinstance(error, RemitError):
        _LOG.error("a run was not ended", exc_info=error)
