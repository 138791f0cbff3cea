"""Servers that are commands, started for sessions over HTTP: each by a launcher of its own, in a run of its own.

The edge that serves the run says which and when, at the connection that is made first to a socket of ours; it says no
word of a command, which the authority has. What a server says and hears goes to it directly, and nothing is read here
but its last words, which are for whoever started the run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from remit.errors import UnavailableError
from remit.run import again, stdio
from remit.run.spec import SERVERS, LaunchSpec

MOST = 32  # servers at a time, those included that are ending: an edge has half of that in use
GRACE = 5.0  # seconds for one to end that was told to
TAIL = 2_048  # bytes of its last words
_REMIT = (sys.executable, "-I", "-c", "from remit.cli import main; main()")
_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LINE = 4_096


def is_one(listener: Mapping[str, object]) -> bool:
    """Whether what a launcher is to bind is the listener of servers."""
    return listener["name"] == SERVERS


class ServerRuns:
    """The servers of one run."""

    def __init__(self, spec: LaunchSpec, names: Collection[str], say: Callable[[str], None]) -> None:
        """Listen in a folder that is ours. Each server is opened for whom the run was, and sees what it sees.

        ``names``: those that there are, as the authority says. An edge that was taken over has no others started.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="m-", dir=spec.socket.parent))
        opened = spec.request.get("open")
        owner = isinstance(opened, Mapping) and "id_token" not in opened
        self.listener = stdio.listening(self._folder / "s", MOST)
        self._options, self._say = [f"--bind={bind.path}{':rw' * bind.writable}" for bind in spec.binds], say
        self._options += ["--as-owner"] if owner else []
        self._names = names
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._watches: dict[str, threading.Thread] = {}  # each until it has told what there is to tell
        self._stopped: set[str] = set()  # of those: a signal of ours ended them
        self._led: socket.socket | None = None
        self._over = False

    def begin(self) -> None:
        """Start and end what the edge says, from now on, which has the listener."""
        self._led = again.connect(self._folder / "s", socket.SOCK_STREAM)
        threading.Thread(target=self._follow, args=(self._led,), name="remit-servers", daemon=True).start()

    def end(self) -> None:
        """End all, and start none any more."""
        with self._lock:  # what is about to start has been noted, or will not start
            self._over = True
        if self._led is not None:
            with suppress(OSError):
                self._led.shutdown(socket.SHUT_RDWR)
        self._end_all()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _follow(self, led: socket.socket) -> None:
        """Do what the edge says until it has gone: its sessions have ended with it."""
        with led, suppress(OSError, ValueError), led.makefile("rb") as lines:
            while line := lines.readline(_LINE):
                match json.loads(line):
                    case {"start": str(name), "as": str(key)} if name in self._names and _KEY.fullmatch(key):
                        self._start(name, key)
                    case {"end": str(key)}:
                        threading.Thread(target=self._end, args=(key,), daemon=True).start()
        self._end_all()

    def _start(self, name: str, key: str) -> None:
        """Start a server. The connection is there at once; where no server comes, its end says so."""
        with suppress(OSError, UnavailableError), again.connect(self._folder / "s", socket.SOCK_STREAM) as sock:
            sock.sendall(key.encode() + b"\n")
            with self._lock:
                if self._over or key in self._running or len(self._running) >= MOST:
                    return
                command = (*_REMIT, "mcp", "start", "--parent", str(threading.get_native_id()), *self._options, name)
                process = subprocess.Popen(
                    command, stdin=sock.fileno(), stdout=sock.fileno(), stderr=subprocess.PIPE, start_new_session=True
                )
                self._running[key] = process
                self._watches[key] = threading.Thread(target=self._watch, args=(name, key, process), daemon=True)
                self._watches[key].start()

    def _watch(self, name: str, key: str, process: subprocess.Popen[bytes]) -> None:
        """Wait for a server's end; tell its last words to whoever started the run, if no signal of ours ended it.

        That its edge, or the end of the run, has told it to end says nothing: both do as soon as a server is silent.
        """
        tail = b""
        with process:
            while process.stderr is not None and (data := os.read(process.stderr.fileno(), TAIL)):
                tail = (tail + data)[-TAIL:]
        code = process.returncode
        with self._lock:
            stopped = key in self._stopped
            self._stopped.discard(key)
            del self._running[key]
        if code and not stopped:
            self._say(f"remit: the server `{name}` ended with {code}; it said last:")
            for line in tail.decode(errors="replace").splitlines():
                self._say(f"  {line}")
        with self._lock:
            self._watches.pop(key, None)

    def _end(self, key: str) -> None:
        """End a server: nobody speaks to it any more."""
        with self._lock:
            process = self._running.get(key)
        if process is None:
            return
        for end in (process.terminate, process.kill):  # that its input has ended is mostly enough
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
                return
            with self._lock:
                self._stopped.add(key)
            end()
        process.wait()

    def _end_all(self) -> None:
        with self._lock:
            watches = dict(self._watches)
        ends = [threading.Thread(target=self._end, args=(key,)) for key in watches]
        for each in ends:
            each.start()
        for each in ends:
            each.join()
        for watch in watches.values():
            watch.join(GRACE)  # what it left behind may keep its standard error open
