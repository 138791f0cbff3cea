"""A supervisor whose authority does what a test says, line by line, and whose workers run the code they are sent.

Started with the number of a socket to the test, and a JSON object of settings. The test sends one JSON list a line,
its answer is a line, too; what happens by itself is told in lines of its own.
"""

from __future__ import annotations

import asyncio
import codecs
import errno
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from remit.errors import RemitError, UnavailableError
from remit.process import files, kernel, landlock
from remit.process.confinement import Confinement, Walls
from remit.process.orders import Ended, Supervision, Worker
from remit.process.supervisor import ProcessRole, RoleContext, supervise

SETTINGS = json.loads(sys.argv[2])


class Driven:
    """The authority."""

    def __init__(self, context: RoleContext) -> None:
        self._links: dict[str, Worker] = {}
        self._context, self._told = context, context.listeners["test"]
        self._stopped = asyncio.Event()

    async def run(self) -> int:
        supervision = Supervision(
            self._context.links[0],
            started=self._started,
            ended=self._ended,
            stop=self._stop,
            reload=partial(self._say, "reload"),
        )
        self._told.setblocking(False)
        reader, _ = await asyncio.open_connection(sock=self._told.dup())
        reading = asyncio.create_task(self._read(reader, supervision))
        self._say("authority", os.getpid())
        stopped = asyncio.create_task(self._stopped.wait())
        await asyncio.wait((reading, stopped), return_when=asyncio.FIRST_COMPLETED)
        return reading.result() if reading.done() else 0

    async def _read(self, reader: asyncio.StreamReader, supervision: Supervision) -> int:
        while line := await reader.readline():
            match json.loads(line):
                case ["exit", status]:
                    return int(status)
                case ["raise"]:
                    raise ValueError("as it was told to")
                case ["ready" | "ending" as what]:
                    (supervision.ready if what == "ready" else supervision.ending)()
                    self._say("done", None)
                case [str(verb), *rest]:
                    self._say("done", await self._answer(supervision, verb, rest))
        return 0

    async def _answer(self, supervision: Supervision, verb: str, rest: list[str]) -> object:
        match verb, rest:
            case "start", [role]:
                try:
                    return (await supervision.start(role)).name
                except RemitError as error:
                    return {"error": error.detail}
            case "kill", [name, again]:
                await supervision.kill(self._links[name], again=bool(again))
                return None
            case "run", [name, code]:
                return await self._run(self._links[name].links[0], code)
            case "state", []:
                state = await supervision.state()
                return {"processes": [[p.name, p.pid, p.restarts, p.walls] for p in state.processes]}
            case "own", [code]:
                return evaluated(code, {"context": self._context})
        raise ValueError(verb)

    async def _run(self, link: socket.socket, code: str) -> object:
        loop, answer = asyncio.get_running_loop(), b""
        try:
            await loop.sock_sendall(link, json.dumps(code).encode() + b"\n")
            while not answer.endswith(b"\n"):
                part = await loop.sock_recv(link, 65_536)
                if not part:
                    return {"error": "the link ended"}
                answer += part
        except ConnectionError:
            return {"error": "the link ended"}
        return json.loads(answer)

    def _started(self, worker: Worker) -> None:
        self._links[worker.name] = worker
        self._say("started", worker.name, worker.pid)

    def _ended(self, ended: Ended) -> None:
        self._say("ended", ended.name, ended.pid, ended.status)

    def _stop(self) -> None:
        if SETTINGS.get("stubborn"):
            self._say("stop")
        else:
            self._stopped.set()

    def _say(self, *what: object) -> None:
        self._told.send(json.dumps(what).encode() + b"\n")


def evaluated(code: str, names: Mapping[str, object]) -> object:
    """Run code that leaves what it finds in ``found``; return that, or the name of its error."""
    space = dict(names)
    try:
        exec(code, space)  # noqa: S102 - the test's own
    except OSError as error:
        return {"error": errno.errorcode[error.errno or 0]}
    except Exception as error:  # noqa: BLE001 - told to the test
        return {"error": type(error).__name__, "text": "".join(traceback.format_exception(error))[-2000:]}
    return space.get("found")


def worker(context: RoleContext) -> int:
    """Run the code that comes over the link, until its end."""
    file = context.links[0].makefile("rw")
    for line in file:
        file.write(json.dumps(evaluated(json.loads(line), {"context": context})) + "\n")
        file.flush()
    return 0


def crashing(context: RoleContext) -> int:
    """Die at once."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise RuntimeError(context.name)


def listeners(name: str) -> Mapping[str, socket.socket]:
    if name == "edge.3":
        raise UnavailableError("no such listener")
    sock = socket.create_server(("127.0.0.1", 0))
    return {"tcp": sock}


def main() -> int:
    told = socket.socket(fileno=int(sys.argv[1]))
    walls = {
        "namespaces": None,
        "landlock": Walls(landlock=landlock.abi(), seccomp=True),
        "none": Walls(),
    }[SETTINGS["walls"]]
    covered = tuple(Path(path) for path in SETTINGS["covered"])
    readable = (*files.system(), *files.python(), *(Path(path) for path in SETTINGS["readable"]))
    edge = Confinement(readable, covered)
    targets = Confinement((*readable, Path("/usr")), covered)
    roles = {
        "edge": ProcessRole("edge", worker, edge, listeners),
        "targets": ProcessRole("targets", worker, targets),
        "crashing": ProcessRole("crashing", crashing),
    }
    if SETTINGS["uid"] is not None:
        codecs.lookup("ascii")  # what may lie where this user cannot import from
        os.setgroups([])
        os.setresgid(*[SETTINGS["uid"]] * 3)
        os.setresuid(*[SETTINGS["uid"]] * 3)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # as the supervisor of a broker is
    return supervise(ProcessRole("authority", authority, listen=lambda _: {"test": told}), roles, walls)


def authority(context: RoleContext) -> int:
    async def driven() -> int:
        return await Driven(context).run()

    return asyncio.run(driven())


if __name__ == "__main__":
    sys.exit(main())
