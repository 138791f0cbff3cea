"""Follows one request through src/remit, and writes down the files that a reader opens on its way.

The way's own files are those with a function that waits on the stack where the request has its effect (``marks``:
the commit, what goes upstream, what goes to the client): they carry the request there. A hop is a call from one of them
into another file of src/remit, counted once for a pair of files, as a reader opens a file once. What a leaf calls in
its turn is no hop: it has returned before the request goes on. Nor is a property, which reads as a field.

``python -m tests.house.hops`` writes both ways into ARCHITECTURE.md; a test compares them.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType

from remit.keys.file import FileSealer
from remit.stores.sqlite import SqliteStore
from tests.broker.world import World
from tests.gateway import rig as gateways
from tests.oauth import plane as planes
from tests.oauth.plane import Agent, Plane

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "remit"
PAGE = ROOT / "ARCHITECTURE.md"
DELEGATE, REQUEST = "### The way of a delegate", "### The way of a request through the gateway"
_INSIDE = f"{SOURCE}/"


@dataclass(frozen=True, slots=True)
class Hop:
    """A call from ``caller``, a file, into another: the first, or the one by which the request goes to its effect."""

    caller: str
    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """Return it as ARCHITECTURE.md has it."""
        return f"{self.caller} -> {self.file}:{self.line} {self.function}"


@dataclass(slots=True)
class Trace:
    """What was called while a request was followed: one call for each pair of files, and the way's own files."""

    calls: dict[tuple[str, str], Hop] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)
    carrying: set[tuple[str, str]] = field(default_factory=set)  # pairs whose call was on the stack at an effect

    @property
    def hops(self) -> list[Hop]:
        """Return the hops in the order of the request."""
        return [hop for (caller, _), hop in self.calls.items() if caller in self.own]


def _file(code: CodeType) -> str | None:
    name = code.co_filename
    return name.removeprefix(_INSIDE) if name.startswith(_INSIDE) else None


def _is_property(frame: FrameType) -> bool:
    found: object = frame.f_globals
    for name in frame.f_code.co_qualname.split("."):
        found = found.get(name) if isinstance(found, dict) else getattr(found, name, None)
    return isinstance(found, property)


def _above(frame: FrameType | None) -> Iterator[tuple[str, FrameType]]:
    while frame is not None:
        here = _file(frame.f_code)
        if here is not None:
            yield here, frame
        frame = frame.f_back


def _hop(caller: str, here: str, code: CodeType) -> Hop:
    return Hop(caller, here, code.co_firstlineno, code.co_qualname)


@contextmanager
def followed(marks: Collection[str]) -> Iterator[Trace]:
    """Follow what runs in this thread; ``marks`` are the qualified names of functions that have the effect."""
    trace = Trace()
    entered: set[FrameType] = set()  # a coroutine that goes on is not called again; kept, so that no id is used twice

    def profile(frame: FrameType, event: str, _: object) -> None:
        here = _file(frame.f_code)
        if event != "call" or here is None or frame in entered:
            return
        entered.add(frame)
        above = next(_above(frame.f_back), None)
        if above is not None and above[0] != here and not _is_property(frame):
            trace.calls.setdefault((above[0], here), _hop(above[0], here, frame.f_code))
        if frame.f_code.co_qualname in marks:
            stack = list(_above(frame))
            trace.own.update(file for file, _ in stack[1:])
            for (callee, called), (caller, _) in pairwise(stack):
                if caller != callee and (caller, callee) not in trace.carrying:
                    trace.carrying.add((caller, callee))
                    trace.calls[caller, callee] = _hop(caller, callee, called.f_code)

    sys.setprofile(profile)
    try:
        yield trace
    finally:
        sys.setprofile(None)


async def _delegate(plane: Plane) -> Trace:
    parent = Agent()
    await plane.opened(parent)
    await plane.delegated(parent, Agent())  # what is made once for a broker is there
    form = plane.delegation(parent, Agent())
    with followed({"SqliteStore.commit"}) as trace:
        answer = await plane.exchange(parent, form)
    assert answer.status_code == HTTPStatus.OK
    return trace


def of_a_delegate(folder: Path) -> Trace:
    """Follow ``POST /oauth/token`` over TCP: an agent with a token delegates to a child with a key of its own."""
    traces: list[Trace] = []

    async def scene(plane: Plane) -> None:
        traces.append(await _delegate(plane))

    store = SqliteStore(folder / "state", FileSealer(bytes(32)))
    planes.play(folder, scene, World(store=store, now=datetime(2026, 11, 25, 12, tzinfo=UTC)))
    return traces[0]


def of_a_request_through_the_gateway(folder: Path) -> Trace:
    """Follow a GET of a run, from the first byte to the entry of its outcome."""
    traces: list[Trace] = []

    async def scene() -> None:
        store = SqliteStore(folder / "state", FileSealer(bytes(32)))
        async with gateways.rig(store=store) as rig:
            wire = await rig.wire()
            with followed({"SqliteStore.commit", "UpstreamConnection.begin", "Downstream.write"}) as trace:
                await wire.send(rig.request("/api/v1/public/x"))
                reply = await wire.reply()
                await rig.outcomes(1)
            assert reply.status == HTTPStatus.OK
            traces.append(trace)
        await store.close()

    gateways.play(scene)
    return traces[0]


def written(page: str, title: str) -> list[str]:
    """Return the hops that a page lists under a title."""
    block = page.partition(f"{title}\n")[2].partition("```\n")[2].partition("```")[0]
    return block.splitlines()


def tables(page: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the rows that say what decides on a way, with the files and functions that each names."""
    rows = []
    for line in page.partition("## The ways\n")[2].partition("\n## ")[0].splitlines():
        what, _, where = line.removeprefix("| ").partition(" | ")
        named, file = list[tuple[str, str]](), ""
        for name in re.findall(r"`([^`]+)`", where) if line.startswith("| ") else []:
            file = name if name.endswith(".py") else file
            named.append((file, "" if name == file else name))
        if named:
            rows.append((what, named))
    return rows


def rewritten(page: str, title: str, trace: Trace) -> str:
    """Return a page with the hops of a trace under a title."""
    before, found, rest = page.partition(f"{title}\n")
    text, fence, after = rest.partition("```\n")
    assert found, title
    assert fence, title
    return (
        f"{before}{found}{text}{fence}" + "".join(f"{hop}\n" for hop in trace.hops) + "```" + after.partition("```")[2]
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        page = PAGE.read_text(encoding="utf-8")
        page = rewritten(page, DELEGATE, of_a_delegate(Path(scratch)))
    with tempfile.TemporaryDirectory() as scratch:
        PAGE.write_text(rewritten(page, REQUEST, of_a_request_through_the_gateway(Path(scratch))), encoding="utf-8")
