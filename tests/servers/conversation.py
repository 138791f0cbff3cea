"""A small MCP client on stdio: lines of JSON-RPC as they are, so that no server is too odd for it."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from typing import IO, Any

PATIENCE = 60  # seconds for an answer
Json = dict[str, Any]
ABOUT = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "remit-test", "version": "1"}}


class GoneError(Exception):
    """The server ended, or answered nothing."""


class Conversation:
    """What a client says to a server that speaks on the ends of a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in: IO[str] = process.stdin
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._count = 0
        threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()

    def begin(self) -> Json:
        """Introduce oneself; return what the server says of itself."""
        told = self.ask("initialize", ABOUT)
        self._say({"method": "notifications/initialized"})
        return told

    def ask(self, method: str, params: Json) -> Json:
        """Ask, and return the whole answer; GoneError if none comes."""
        self._count += 1
        self._say({"id": self._count, "method": method, "params": params})
        while True:
            answer = self._heard()
            if answer.get("id") == self._count and "method" not in answer:
                return answer
            if "method" in answer and "id" in answer:  # the server asks back, for roots or a sample: there are none
                self._say({"id": answer["id"], "error": {"code": -32601, "message": "not here"}})

    def _say(self, message: Json) -> None:
        try:
            self._in.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
            self._in.flush()
        except BrokenPipeError as error:
            raise GoneError from error

    def _heard(self) -> Json:
        while True:
            try:
                line = self._lines.get(timeout=PATIENCE)
            except queue.Empty:
                line = None
            if line is None:
                raise GoneError
            try:
                found: Json = json.loads(line)
            except ValueError:  # some print what they do
                continue
            return found

    def _read(self, out: IO[str]) -> None:
        for line in out:
            self._lines.put(line)
        self._lines.put(None)
