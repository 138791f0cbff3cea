"""Follows one request through src/remit, and writes down the files that a reader opens on its way.

The way's own files are those with a function on the stack where the request has its effect (``marks``: the commit, what
goes upstream, what goes to the client): they carry the request. A hop is a call from one of them into another file of
src/remit, counted once for a pair of files, as a reader opens a file once. What a leaf calls in its turn is no hop: it
has returned before the request goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType

SOURCE = Path(__file__).parents[2] / "src" / "remit"
_INSIDE = f"{SOURCE}/"


@dataclass(frozen=True, slots=True)
class Hop:
    """The first call from ``caller``, a file, into another; ``callee`` is file, line and function there."""

    caller: str
    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """Return it as ARCHITECTURE.md has it."""
        return f"{self.caller} -> {self.file}:{self.line} {self.function}"


@dataclass(slots=True)
class Trace:
    """What was called while a request was followed: the first call of each pair of files, and the way's own files."""

    calls: dict[tuple[str, str], Hop] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)

    @property
    def hops(self) -> list[Hop]:
        """Return the hops in the order of the request."""
        return [hop for (caller, _), hop in self.calls.items() if caller in self.own]


def _file(code: CodeType) -> str | None:
    name = code.co_filename
    return name.removeprefix(_INSIDE) if name.startswith(_INSIDE) else None


def _files_above(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        here = _file(frame.f_code)
        if here is not None:
            yield here
        frame = frame.f_back


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
        above = next(_files_above(frame.f_back), None)
        if frame.f_code.co_qualname in marks:
            trace.own.update(_files_above(frame))
        if above not in {None, here}:
            hop = Hop(str(above), here, frame.f_code.co_firstlineno, frame.f_code.co_qualname)
            trace.calls.setdefault((hop.caller, here), hop)

    sys.setprofile(profile)
    try:
        yield trace
    finally:
        sys.setprofile(None)
