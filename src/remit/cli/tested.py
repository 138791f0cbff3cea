"""Whether the key of a resource works: one GET at its provider, of a run of its own; a status and a time are told.

So it goes the way of every request: within the resource's bound, permitted and recorded by the authority, with the key
put in by an edge. This module is the run's command too; of the answer's body nobody reads a byte.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import typer

from remit.catalog import Probe

_REMIT = (sys.executable, "-c", "from remit.cli import main; main()")
_SECONDS = 30.0  # for an answer
_REFUSED = (401, 403)


def tested(resource: Mapping[str, Any], probe: Probe) -> dict[str, Any]:
    """Return what a provider answers to its probe. A refusal by remit is on stderr, and ends the command."""
    name, base = resource["resource"], urlsplit(resource["destination"]).path
    target = probe.path.removeprefix(base) if probe.path.startswith(f"{base}/") else probe.path
    path, _, query = target.partition("?")
    args = {f"query.{key}": value for key, value in parse_qsl(query)}
    detail = {"type": resource["kind"], "resource": name, "actions": ["GET"], "paths": [path], "uses": 1}
    words = ["-q", "--unsandboxed", "--ttl", "2m", "-p", f"test the key of {name}"]
    words += ["-d", json.dumps({**detail, "args": args} if args else detail)]
    command = [sys.executable, "-m", __name__, f"/{name}{target}", json.dumps(dict(probe.headers))]
    done = subprocess.run(  # noqa: S603 - remit itself; in no project, whose file would be merged in
        [*_REMIT, "run", *words, "--", *command], cwd="/", stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise typer.Exit(1)
    found = json.loads(done.stdout)
    status = found["status"]
    works = True if status in range(200, 300) else False if status in _REFUSED else None
    return {"resource": name, "works": works, **found}


def main(target: str, headers: str) -> int:
    """Ask inside of the run, and print the status and the milliseconds, or what remit refused."""
    gateway = urlsplit(os.environ["REMIT_GATEWAY"])
    connection, began = http.client.HTTPConnection(gateway.netloc, timeout=_SECONDS), time.monotonic()
    connection.request("GET", target, headers=json.loads(headers))
    answer = connection.getresponse()
    took = round((time.monotonic() - began) * 1000)
    if (answer.headers.get("Proxy-Status") or "").startswith("remit;"):
        problem = json.load(answer)
        sys.stderr.write(f"error: {problem['detail']}\n")
        return 1
    sys.stdout.write(json.dumps({"status": answer.status, "milliseconds": took}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
