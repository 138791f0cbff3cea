"""A whole broker, in each of whose workers a test's code runs instead of remit's: forked, confined and linked as ever.

Run as ``python -m tests.live.taken_over FD FD FD``: a socket each for edge, web and targets, over which comes Python, a
JSON text a line; what it leaves in ``found`` goes back. ``{"ready": …}`` is printed when the broker serves.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from remit.compose import planes
from remit.config.settings import load
from remit.link.frames import FrameReader
from remit.link.messages import (
    MAX_ANSWER,
    Acted,
    Answer,
    Batch,
    Call,
    Noticed,
    Permits,
    Permitted,
    Refusal,
    from_authority,
)
from remit.ports.broker import UseRequest
from remit.process.supervisor import ProcessRole, RoleContext, supervise
from tests.process.supervised import evaluated
from tests.support.link import sent

ROLES = ("edge", "web", "targets")


class Raw:
    """The link as somebody uses it who keeps to nothing but its frames."""

    def __init__(self, context: RoleContext) -> None:
        self.calls, self.ends = context.links[:2]
        self.asks = self.ends if context.name.startswith("targets") else self.calls
        self.acts, self._number, self._frames = True, 0, FrameReader(MAX_ANSWER)
        for sock in context.links:
            sock.setblocking(True)
        if self.asks is not self.ends:
            threading.Thread(target=self._act, daemon=True).start()

    def _act(self) -> None:
        frames = FrameReader(MAX_ANSWER)
        while data := self.ends.recv(65_536):
            for message in map(from_authority, frames.feed(data)):
                if isinstance(message, Noticed) and self.acts:
                    self.ends.sendall(sent(Acted(message.number)))

    def _next(self) -> Any:
        while data := self.asks.recv(65_536):
            for each in self._frames.feed(data):
                return from_authority(each)
        raise EOFError("the link ended")

    def call(self, name: str, *values: object) -> list[str]:
        """Call a method; return ``["answer", …]`` or ``["refusal", the error's name]``."""
        self._number += 1
        self.asks.sendall(sent(Call(self._number, name, list(values))))
        found = self._next()
        if isinstance(found, Refusal):
            return ["refusal", found.failure.kind]
        assert isinstance(found, Answer), found
        return ["answer", repr(found.value)]

    def use(self, grant: str, request: str) -> str:
        """Have a use permitted; return ``permitted``, or the error's name."""
        self.asks.sendall(sent(Batch([UseRequest(grant, "search", "GET", request, 0)], [])))
        found = self._next()
        assert isinstance(found, Permits), found
        (one,) = found.uses
        return "permitted" if isinstance(one, Permitted) else one.kind


def worker(context: RoleContext) -> int:
    """Run the code that comes, until there is no more."""
    raw = Raw(context)
    raw.call("started")
    if context.name.startswith("edge"):
        raw.call("take_runs", [])
    test = context.listeners["test"]
    while line := _line(test):
        test.sendall(json.dumps(evaluated(json.loads(line), {"context": context, "raw": raw})).encode() + b"\n")
    return 0


def _line(sock: socket.socket) -> bytes:
    """Read one line and no more: the next one may be for whoever comes after this process."""
    line = b""
    while not line.endswith(b"\n") and (byte := sock.recv(1)):
        line += byte
    return line


def _taken(role: ProcessRole, sock: socket.socket) -> ProcessRole:
    def listen(name: str) -> Mapping[str, socket.socket]:
        return {**role.listen(name), "test": sock.dup()}

    return replace(role, main=worker, listen=listen)


def _supervised(
    sockets: Mapping[str, socket.socket],
    authority: ProcessRole,
    roles: Mapping[str, ProcessRole],
    *,
    ready: Callable[[], None],
    ending: Callable[[], None],
) -> int:
    taken = {name: _taken(role, sockets[name]) if name in sockets else role for name, role in roles.items()}
    return supervise(authority, taken, ready=ready, ending=ending)


def main() -> None:
    sockets = {name: socket.socket(fileno=int(number)) for name, number in zip(ROLES, sys.argv[1:], strict=True)}
    planes.supervise = partial(_supervised, sockets)  # type: ignore[attr-defined]  # of this process alone
    settings = load(os.environ)

    def ready() -> None:
        print(json.dumps({"ready": str(settings.places.control)}), flush=True)  # noqa: T201 - read by the test

    planes.run(planes.Serving(settings, tell=lambda _: None), ready)


if __name__ == "__main__":
    main()
