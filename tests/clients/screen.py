"""A program at a terminal: what it shows, and what is typed."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.live.terminal import PATIENCE

_CODES = re.compile(r"\x1b(?:\[[0-9;?>]*[a-zA-Z]|\][^\x07\x1b]*(?:\x07|\x1b\\))")


@dataclass
class Screen:
    """Its end of the terminal, and what was shown, without colours and line ends."""

    fd: int
    shown: str = ""

    def until(self, *texts: str, typing: str = "") -> str:
        """Wait until one of these is shown, or the program ends; ``typing`` is typed when it is still."""
        end = time.monotonic() + PATIENCE
        while not any(text in self.shown for text in texts):
            assert time.monotonic() < end, self.shown[-4000:]
            if not select.select([self.fd], [], [], 1)[0]:
                self.type(typing)
            elif not self._read():
                break
        return self.shown

    def type(self, text: str) -> None:
        """Type."""
        os.write(self.fd, text.encode())

    def _read(self) -> bool:
        try:
            found = os.read(self.fd, 65_536)
        except OSError:  # nobody has the other end
            return False
        self.shown += " ".join(_CODES.sub("", found.decode(errors="replace")).split()) + " "
        return bool(found)


@contextmanager
def terminal(words: Sequence[str], environ: Mapping[str, str], place: Path) -> Iterator[Screen]:
    """Run a program at a terminal until the block ends."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 140))
    process = subprocess.Popen(
        words, env=environ, cwd=place, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    try:
        yield Screen(ours)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(PATIENCE)
        os.close(ours)
