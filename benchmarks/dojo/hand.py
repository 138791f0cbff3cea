"""The model's end of an agent's process, which does what it says. For the interpreter of `.venv-agentdojo`."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

REDACTED = "[redacted]"
Json = dict[str, Any]


class Hand:
    """An agent's process, started as ``start`` says: command, environ, folder, user, and what a redactor knows."""

    def __init__(self, start: Json, kit: Mapping[str, str]) -> None:
        self._start, self._kit, self.said = start, kit, list[bytes]()
        known = [re.escape(each) for each in start.get("redact", [])]
        self._known = re.compile("|".join([*known, "[Bb]earer [-_.0-9A-Za-z]+"])) if known else None

    def __enter__(self) -> Self:
        user: int | None = self._start.get("user")
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            self._start["command"],
            env=self._start["environ"],
            cwd=self._start["folder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, tool: str, arguments: Json, seconds: list[float]) -> str:
        """Have a tool called; return what it says."""
        told = self.do({"do": "call", "kit": self._kit[tool], "tool": tool, "arguments": arguments})
        seconds.append(float(told.get("seconds", 0.0)))
        return str(told["text"])

    def do(self, order: Json, *, last: bool = False) -> Json:
        """Have something done; what the process says is kept, as the model sees it. It may end at the ``last``."""
        assert self._process.stdin is not None  # noqa: S101 - they are pipes
        assert self._process.stdout is not None  # noqa: S101 - as above
        text = self._redacted(json.dumps(order, ensure_ascii=False))
        try:
            self._process.stdin.write(text.encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line and not last:
            raise RuntimeError(f"the agent's process has ended: {self._start['command']}")
        line = self._redacted(line.decode()).encode() or b'{"text": "the process has ended"}'
        self.said.append(line)
        found: Json = json.loads(line)
        return found

    def _redacted(self, text: str) -> str:
        return self._known.sub(REDACTED, text) if self._known else text
