"""The hand-over at an edge: whoever shows the ticket of a run passes its listening sockets, and they are served as it.

The operator's hand-over socket is for processes of our own uid. Each run has one of its own, for the runs inside it. A
connection that shows no ticket leaves nothing behind; one that did lasts as long as its run: end of file ends that.
When this process ends, however it ends, its runs do not: their launchers hand them over anew.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

from remit.core.secret import Secret
from remit.core.task import Report
from remit.errors import GrantTokenError, InvalidRequestError, LimitError, RemitError
from remit.ports import Quota, Start
from remit.ports.broker import Notice
from remit.ports.runs import Places, RedeemedRun, RunListener, RunPort
from remit.process import descent, kernel
from remit.run import handover
from remit.run.acceptor import Acceptor, bound
from remit.run.room import RunRoom

Close = Callable[[], None]  # stop accepting on a listener, and cut its connections

TALK = 3  # descriptors of a conversation: the connection, and two of its thread
LAST = 5.0  # seconds for the last threads to end

_LOG = logging.getLogger("remit.run")


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is about to be served, and where it listens."""

    redeemed: RedeemedRun
    places: Places


# Serves a gateway, database or channel listener as a run; the socket belongs to the callee. With a ``Start`` others may
# hold the socket as well, and only that may accept on it.
Serve = Callable[[Run, RunListener, socket.socket, Start | None], Awaitable[Close]]


@dataclass(frozen=True, slots=True)
class _Port:
    """A socket that launchers connect to: the run whose it is, or that of the operator."""

    uid: int | None = None
    run: RedeemedRun | None = None

    @property
    def task(self) -> str | None:
        """The task whose agents can connect."""
        return None if self.run is None else self.run.holder.task


@dataclass(frozen=True, slots=True)
class _Talk:
    """One launcher: its connection, the socket it came through, and the thread that reads both."""

    peer: socket.socket
    port: _Port
    acceptor: Acceptor


class HandoverServer:
    """Serves launchers: the operator's, and those inside runs."""

    def __init__(self, runs: RunPort, serve: Serve, share: Callable[[str], Quota]) -> None:
        # ``share`` returns what a task may have open
        self._runs, self._serve, self._share = runs, serve, share
        self._conversations: set[asyncio.Task[None]] = set()
        self._room = RunRoom()
        self._acceptors: set[Acceptor] = set()
        self._leaving = False
        self._ports: set[socket.socket] = set()
        self._served: dict[str, str] = {}  # run -> its grant
        self._ended: set[str] = set()  # runs whose grant has ended

    @property
    def busy(self) -> bool:
        return bool(self._conversations)

    def listen(self, sock: socket.socket, uid: int) -> Close:
        """Accept the operator's launchers on a listening SOCK_SEQPACKET socket: processes of that user."""
        return self._listen(sock, _Port(uid), None)

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

    def noticed(self, notice: Notice) -> None:
        """Note which runs have ended, or their authority: nobody need wait for the next process that serves them."""
        self._ended |= {run for run, grant in self._served.items() if notice.runs or grant in notice.grants}

    def _close_port(self, sock: socket.socket) -> None:
        if sock in self._ports:
            self._ports.discard(sock)
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()

    async def close(self) -> None:
        """Leave every run that is being served to whoever serves it next: its launcher hands it over anew.

        One whose grant has ended gets a last word instead.
        """
        self._leaving = True
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
        if port.uid is not None and descent.peer(peer)[1] != port.uid:
            peer.close()
            return
        taken = self._take(port.task)
        try:
            acceptor = Acceptor(lambda: _hang_up(peer), peer) if taken else None
        except RuntimeError:  # no thread can be started
            self._give(port.task)
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
        for group in kept:
            group.add(conversation)
        # one that is ended before it begins does nothing itself
        conversation.add_done_callback(lambda _: acceptor.leave())
        conversation.add_done_callback(lambda done: acceptor.when_gone(lambda: self._over(done, acceptor, port, kept)))

    def _take(self, task: str | None) -> bool:
        if not self._room.take(task):
            return False
        if task is None or self._share(task).take(TALK):
            return True
        self._room.give(task)
        return False

    def _give(self, task: str | None) -> None:
        self._room.give(task)
        if task is not None:
            self._share(task).give(TALK)

    def _over(
        self, conversation: asyncio.Task[None], acceptor: Acceptor, port: _Port, kept: Sequence[set[asyncio.Task[None]]]
    ) -> None:
        self._acceptors.discard(acceptor)
        for group in kept:
            group.discard(conversation)
        self._give(port.task)

    async def _converse(self, talk: _Talk) -> None:
        try:
            await self._run(talk)
        except RemitError as error:
            await send_async(talk.peer, handover.problem(error))
        except Exception:  # noqa: BLE001 - whatever it was, the launcher gets an answer and the others go on
            _LOG.exception("a hand-over failed")
            await send_async(talk.peer, handover.problem(RemitError()))

    async def _run(self, talk: _Talk) -> None:
        shown, _ = await talk.acceptor.heard()
        run = await self._runs.redeem_run(_ticket(shown))
        report = Report()
        self._served[run.run] = run.holder.grant
        try:
            async with AsyncExitStack() as stack:
                stack.callback(talk.acceptor.close)
                await self._hand_over(talk, run, stack)
                # only the end is due: whatever comes ends the run, unread, since the run may keep the thread busy
                await readable(talk.peer)
        except asyncio.CancelledError:
            if self._leaving and run.run in self._ended:
                await _last_word(talk.peer, report)
            raise
        finally:
            del self._served[run.run]
            self._ended.discard(run.run)
            if not self._leaving:
                report = await asyncio.shield(self._runs.end_run(run.run))
        await _last_word(talk.peer, report)

    async def _hand_over(self, talk: _Talk, redeemed: RedeemedRun, stack: AsyncExitStack) -> None:
        around = talk.port.run
        if redeemed.within != (None if around is None else around.run):
            raise GrantTokenError("the ticket is for another socket")
        if around is not None:
            share, descriptors = self._share(redeemed.holder.task), len(redeemed.listeners)
            if not share.take(descriptors):  # for as long as the thread has them
                raise LimitError("the task has too many sockets and connections open", retry_after=1)
            talk.acceptor.when_gone(lambda: share.give(descriptors))
        await send_async(talk.peer, {"redeemed": redeemed.run})
        sockets, places = await bound(talk.acceptor, redeemed.listeners)
        run = Run(redeemed, places)
        for listener in redeemed.listeners:
            stack.callback(await self._start(talk, run, listener, sockets.pop(0)))
        ready = await self._runs.run_ready(redeemed.run, places)
        told = {"environment": dict(ready.environment), "shared": dict(ready.shared)}
        await send_async(talk.peer, {"ready": True, **told, "ticket": ready.ticket.reveal()})

    async def _start(self, talk: _Talk, run: Run, listener: RunListener, sock: socket.socket) -> Close:
        if listener.kind == "launch":
            return self._listen(sock, _Port(run=run.redeemed), talk.acceptor)
        if talk.port.run is not None:  # an agent's launcher may keep copies of what it hands over
            return await self._serve(run, listener, sock, talk.acceptor.serve)
        if listener.path is not None:
            kernel.refuse_descriptors(sock)
        return await self._serve(run, listener, sock, None)


async def _last_word(peer: socket.socket, report: Report) -> None:
    await send_async(peer, report.wire(lambda at: f"{at:%Y-%m-%dT%H:%M:%SZ}"))


async def send_async(sock: socket.socket, message: Mapping[str, object]) -> None:
    """Send one message on a non-blocking socket; a peer that has gone is no error."""
    with suppress(ConnectionError):
        await asyncio.get_running_loop().sock_sendall(sock, handover.encode(message))


async def readable(sock: socket.socket) -> None:
    """Wait until a socket has something to read, or its end."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(sock)


def _ticket(message: Mapping[str, object]) -> Secret:
    ticket = message.get("ticket")
    if not isinstance(ticket, str):
        raise InvalidRequestError("a hand-over begins with a ticket")
    return Secret(ticket)


def _hang_up(peer: socket.socket) -> None:
    """End the conversation with a launcher whose run has broken a socket that it handed over."""
    with suppress(OSError):
        peer.shutdown(socket.SHUT_RDWR)
