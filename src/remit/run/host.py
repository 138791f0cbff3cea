"""The broker's side of the hand-over: authority is the listener a launcher connects to, and lasts as long as it stays.

``launch.sock`` of the operator stands for the operator, and is for processes of our own uid. Each run has one of its
own, which stands for that run's grant. Whoever connects names the authority that its run shall have, gets told what to
bind, and passes the listening sockets; they are served as that run from then on. End of file ends the channel, the
grant that was made for the run, and the task that was opened for it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

from remit.core import request as requests
from remit.core.grant import ISOLATION
from remit.core.principal import GrantView, Holder, Human, Operator, Principal
from remit.core.request import GrantRequest
from remit.core.task import Posture, Report
from remit.errors import DeniedError, GrantTokenError, InvalidRequestError, LimitError, RemitError, UnavailableError
from remit.ports import Quota, Resource, Start
from remit.ports.broker import BrokerPort
from remit.ports.identity import Humans
from remit.ports.kind import Kind
from remit.ports.runs import NESTED, RUNS, RUNS_INSIDE, RUNS_OF_A_TASK, Places, RunListener
from remit.run import environment, handover
from remit.run.acceptor import Acceptor, bound
from remit.run.environment import RunProvisioning
from remit.run.handover import Message

Close = Callable[[], None]  # stop accepting on a listener, and cut its connections

TALK = 3  # descriptors of a conversation: the connection, and two of its thread
AGAIN = 0.5  # seconds until what a run was given is ended, where its task cannot be read
LAST = 5.0  # seconds for the last threads to end
MAX_FOLDER = 90  # characters; the path of a unix socket has at most 107

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7)
_LOG = logging.getLogger("remit.run")


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is about to be served: whom its channel stands for, and what it was given."""

    holder: Holder
    provisioning: RunProvisioning
    places: Places


# Serves a gateway, database or channel listener as a run; the socket belongs to the callee. With a ``Start`` others may
# hold the socket as well, and only that may accept on it.
Serve = Callable[[Run, RunListener, socket.socket, Start | None], Awaitable[Close]]
Ends = Callable[[], Awaitable[Report]]


@dataclass(frozen=True, slots=True)
class _Port:
    """A socket that launchers connect to: whom it stands for, and the runs around it with what isolates them."""

    caller: Principal
    uid: int | None = None
    around: tuple[str, ...] = ()

    @property
    def trusted(self) -> bool:
        """Whether its launchers keep nothing of what they hand over: the operator's, and no agent's."""
        return isinstance(self.caller, Operator)


@dataclass(frozen=True, slots=True)
class _Talk:
    """One launcher: its connection, the socket it came through, and the thread that reads both."""

    peer: socket.socket
    port: _Port
    acceptor: Acceptor


class LaunchServer:
    """Serves launchers: the operator's, and those inside runs."""

    def __init__(
        self,
        broker: BrokerPort,
        kinds: Mapping[str, Kind],
        serve: Serve,
        share: Callable[[str], Quota],
        sockets: Collection[str] = (),
        humans: Humans | None = None,
    ) -> None:
        # ``share`` returns what a task may have open, ``sockets`` are those of kinds that ``serve`` knows
        self._broker, self._kinds, self._serve, self._share = broker, kinds, serve, share
        self._sockets, self._humans = sockets, humans
        self._conversations: set[asyncio.Task[None]] = set()
        self._nested: dict[str, set[asyncio.Task[None]]] = {}  # those inside runs, by task
        self._acceptors: set[Acceptor] = set()
        self._ports: set[socket.socket] = set()

    @property
    def busy(self) -> bool:
        return bool(self._conversations)

    def listen(self, sock: socket.socket, caller: Principal, uid: int | None = None) -> Close:
        """Accept launchers on a listening SOCK_SEQPACKET socket, for ``caller``; ``uid``: only of that user."""
        return self._listen(sock, _Port(caller, uid), None)

    def _listen(self, sock: socket.socket, port: _Port, acceptor: Acceptor | None) -> Close:
        mine: set[asyncio.Task[None]] = set()
        if acceptor is not None:
            acceptor.add(sock, lambda peer: self._welcome(peer, port, mine, acceptor))
        else:
            sock.setblocking(False)
            asyncio.get_running_loop().add_reader(sock, self._accept, sock, port, mine)
            self._ports.add(sock)

        def close() -> None:
            self._close_port(sock)
            for conversation in tuple(mine):
                conversation.cancel()

        return close

    def _close_port(self, sock: socket.socket) -> None:
        if sock in self._ports:
            self._ports.discard(sock)
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()

    async def close(self) -> None:
        """End every run that is being served, and wait for its end."""
        for sock in tuple(self._ports):
            self._close_port(sock)
        waiting = tuple(self._conversations)
        for conversation in waiting:
            conversation.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST):
                await asyncio.gather(*(acceptor.gone() for acceptor in tuple(self._acceptors)))

    def _accept(self, sock: socket.socket, port: _Port, mine: set[asyncio.Task[None]]) -> None:
        with suppress(OSError):
            self._welcome(sock.accept()[0], port, mine)

    def _welcome(
        self, peer: socket.socket, port: _Port, mine: set[asyncio.Task[None]], through: Acceptor | None = None
    ) -> None:
        peer.setblocking(False)
        if port.uid is not None and _uid(peer) != port.uid:
            peer.close()
            return
        taken = self._take(port.caller)
        try:
            acceptor = Acceptor(lambda: _hang_up(peer), peer) if taken else None
        except RuntimeError:  # no thread can be started
            self._give(port.caller)
            acceptor = None
        if acceptor is None:
            with suppress(OSError):
                handover.send(peer, handover.problem(LimitError("too many runs at a time")))
            if through is None:
                peer.close()
            else:
                through.put_away([peer.detach()])  # with what it may have sent already
            return
        self._acceptors.add(acceptor)
        conversation = asyncio.create_task(self._converse(_Talk(peer, port, acceptor)))
        kept = [mine, self._conversations]
        if isinstance(port.caller, Holder):
            kept.append(self._nested.setdefault(port.caller.task, set()))
        for group in kept:
            group.add(conversation)
        # one that is ended before it begins does nothing itself
        conversation.add_done_callback(lambda _: acceptor.leave())
        conversation.add_done_callback(lambda done: acceptor.when_gone(lambda: self._over(done, acceptor, port, kept)))

    def _take(self, caller: Principal) -> bool:
        if not isinstance(caller, Holder):
            return len(self._conversations) < RUNS
        inside = sum(map(len, self._nested.values()))
        mine = len(self._nested.get(caller.task, ()))
        return inside < RUNS_INSIDE and mine < RUNS_OF_A_TASK and self._share(caller.task).take(TALK)

    def _give(self, caller: Principal) -> None:
        if isinstance(caller, Holder):
            self._share(caller.task).give(TALK)

    def _over(
        self, conversation: asyncio.Task[None], acceptor: Acceptor, port: _Port, kept: Sequence[set[asyncio.Task[None]]]
    ) -> None:
        self._acceptors.discard(acceptor)
        for group in kept:
            group.discard(conversation)
        self._give(port.caller)
        if isinstance(port.caller, Holder) and not self._nested[port.caller.task]:
            del self._nested[port.caller.task]

    async def _converse(self, talk: _Talk) -> None:
        try:
            await self._run(talk)
        except RemitError as error:
            await handover.send_async(talk.peer, handover.problem(error))
        except Exception:  # noqa: BLE001 - whatever it was, the launcher gets an answer and the others go on
            _LOG.exception("a hand-over failed")
            await handover.send_async(talk.peer, handover.problem(RemitError()))

    async def _run(self, talk: _Talk) -> None:
        request, _ = await talk.acceptor.heard()
        place = _surroundings(request, await self._around(talk.port))
        view, ends = await self._authority(talk.port.caller, request, place.posture)
        report = Report()
        try:
            async with AsyncExitStack() as stack:
                stack.callback(talk.acceptor.close)
                await self._hand_over(talk, view, place, stack)
                # only the end is due: whatever comes ends the run, unread, since the run may keep the thread busy
                await handover.readable(talk.peer)
        finally:
            if ends is not None:
                report = await asyncio.shield(self._end(ends))
        await handover.send_async(talk.peer, report.wire(lambda at: f"{at:%Y-%m-%dT%H:%M:%SZ}"))

    async def _end(self, ends: Ends) -> Report:
        """End what a run was given; while that cannot be read, again and again. After a restart ``recover`` does."""
        while True:
            try:
                return await ends()
            except UnavailableError:
                if not self._ports:  # this server is being closed
                    raise
            await asyncio.sleep(AGAIN)

    async def _hand_over(self, talk: _Talk, view: GrantView, place: _Surroundings, stack: AsyncExitStack) -> None:
        grant, resources, private = view.grant, await self._resources(), place.isolation == "namespace"
        provisioning = environment.provision(
            grant, resources, self._kinds, secrets.token_bytes, place.folder, private=private, sockets=self._sockets
        )
        if not talk.port.trusted:
            share, descriptors = self._share(view.task), len(provisioning.listeners)
            if not share.take(descriptors):  # for as long as the thread has them
                raise LimitError("the task has too many sockets and connections open", retry_after=1)
            talk.acceptor.when_gone(lambda: share.give(descriptors))
        wanted = [listener.wire() for listener in provisioning.listeners]
        told = {"task": view.task, "grant": grant.id, "ends": grant.expires_at.isoformat(), "listeners": wanted}
        await handover.send_async(talk.peer, told)
        sockets, places = await bound(talk.acceptor, provisioning.listeners)
        run = Run(view.holder, provisioning, places)
        inner = _Port(run.holder, None, (*talk.port.around, place.posture.isolation))
        for listener in provisioning.listeners:
            stack.callback(await self._start(talk, run, listener, sockets.pop(0), inner))
        grant, resources = (await self._broker.grant(view.id)).grant, await self._resources()
        variables = environment.variables(grant, resources, self._kinds, provisioning.placeholders, places)
        await handover.send_async(talk.peer, {"ready": True, "environment": variables})

    async def _resources(self) -> Mapping[str, Resource]:
        return {resource.name: resource for resource in await self._broker.resources()}

    async def _start(self, talk: _Talk, run: Run, listener: RunListener, sock: socket.socket, inner: _Port) -> Close:
        if listener.kind == "launch":
            return self._listen(sock, inner, talk.acceptor)
        if not talk.port.trusted:
            return await self._serve(run, listener, sock, talk.acceptor.serve)
        if listener.path is not None:
            handover.refuse_descriptors(sock)
        return await self._serve(run, listener, sock, None)

    async def _authority(self, caller: Principal, request: Message, posture: Posture) -> tuple[GrantView, Ends | None]:
        """Return the grant of a run, and what ends with it if that was made for the run."""
        match request:
            case {"open": dict(members)}:
                if not isinstance(caller, Operator):
                    raise DeniedError("a run cannot open a task", help="delegate from its own grant")
                token = members.pop("id_token", None)
                opener = caller if token is None else await self._human(token)
                view = await self._broker.open(opener, _requested(members), posture)
                return view, lambda: self._broker.close(caller, view.task)
            case {"delegate": dict(members)}:
                parent = members.get("parent", caller.grant if isinstance(caller, Holder) else None)
                if not isinstance(parent, str):
                    raise InvalidRequestError("`parent` is missing")
                view = await self._broker.delegate(caller, parent, _requested(members), posture=posture)
                return view, lambda: self._broker.revoke(caller, view.id)
            case {"grant": str(grant_id)}:
                return await self._broker.attach(caller, grant_id, posture), None
        raise InvalidRequestError("a launch names one of `open`, `delegate` and `grant`")

    async def _human(self, token: object) -> Human:
        if self._humans is None or not isinstance(token, str):
            raise GrantTokenError("this broker takes no ID tokens", help="configure `[[humans]]`, or open `--as-owner`")
        return await self._humans.id_token(token)

    async def _around(self, port: _Port) -> tuple[str, ...]:
        if not isinstance(port.caller, Holder):
            return port.around
        if len(port.around) >= NESTED:
            raise LimitError(f"{NESTED} runs are one inside the other already")
        view = await self._broker.grant(port.caller.grant)
        return (*port.around, view.grant.posture.isolation)


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """Where a launcher says that its run is; ``posture`` is what the broker makes of it."""

    isolation: str
    folder: str
    posture: Posture


def _surroundings(request: Message, around: Sequence[str]) -> _Surroundings:
    """Read where a run is. Its posture is no better than what is ``around`` its launcher, whatever that one says."""
    said, folder = request.get("posture"), request.get("folder")
    isolation = said.get("isolation") if isinstance(said, dict) else None
    if not isinstance(isolation, str) or isolation not in ISOLATION:
        raise InvalidRequestError("`posture` must say how the run is isolated")
    if not isinstance(folder, str) or not folder.startswith("/") or len(folder) > MAX_FOLDER:
        raise InvalidRequestError("`folder` must be where the run has its sockets")
    known = [each for each in around if each in ISOLATION]  # a grant that is held outside of runs promises nothing
    weakest = min(isolation, *known, key=ISOLATION.index) if known else isolation
    return _Surroundings(isolation, folder, Posture(isolation=weakest, custody="channel", at_rest="kek-file"))


def _requested(members: Mapping[str, object]) -> GrantRequest:
    for name in members.keys() - requests.FIELDS - {"parent"}:
        raise InvalidRequestError(f"`{name}` is not a field of a launch")
    return requests.read(members)


def _hang_up(peer: socket.socket) -> None:
    """End the conversation with a launcher whose run has broken a socket that it handed over."""
    with suppress(OSError):
        peer.shutdown(socket.SHUT_RDWR)


def _uid(peer: socket.socket) -> int:
    return int(_CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1])
