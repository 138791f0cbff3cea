"""The operator's terminal, in front of a run's own."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import termios
import tty

from remit.run import stdio

_CHUNK = 65_536  # bytes copied at once


class Terminal:
    """Copies between the operator's terminal, raw meanwhile, and the other end of a run's fresh one.

    ``places``: which of 0-2 are terminals.
    """

    def __init__(self, places: tuple[int, ...], other_end: int) -> None:
        self.keys = 0 if 0 in places else None  # typed keys are read here
        self.other_end = other_end
        self._screen = next((place for place in (1, 2) if place in places), 0)
        self._before: list[int | list[bytes | int]] | None = None
        self.resize()

    def open(self) -> None:
        if self.keys is not None:
            self._before = termios.tcgetattr(0)
            tty.setraw(0)

    def resize(self) -> None:
        size = fcntl.ioctl(self._screen, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        fcntl.ioctl(self.other_end, termios.TIOCSWINSZ, size)

    def show(self) -> bool:
        """Copy what the command wrote; False when it has closed its terminal."""
        try:
            data = os.read(self.other_end, _CHUNK)
        except OSError as error:
            if error.errno == errno.EIO:  # Linux says so when the last one closes the other side
                return False
            raise
        with contextlib.suppress(OSError):  # the operator has hung up; SIGHUP says so to the command
            stdio.write_all(self._screen, data)
        return bool(data)

    def type(self) -> bool:
        """Copy what the operator typed; False at end of file, and when the operator has hung up."""
        try:
            data = os.read(0, _CHUNK)
        except OSError:
            return False
        with contextlib.suppress(OSError):  # the command has gone, and its status is on the way
            stdio.write_all(self.other_end, data)
        return bool(data)

    def restore(self) -> None:
        """Show what is left, and put the operator's terminal back as it was."""
        os.set_blocking(self.other_end, False)
        with contextlib.suppress(BlockingIOError):
            while self.show():
                pass
        with contextlib.suppress(termios.error):
            if self._before is not None:
                termios.tcsetattr(0, termios.TCSANOW, self._before)
        os.close(self.other_end)
