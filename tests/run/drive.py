"""Launch what the first argument describes as JSON, as the command line does; its own environment is the operator's."""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path, PurePosixPath

from remit.errors import RemitError
from remit.run import launcher, named, stdio
from remit.run.renewal import Lasting
from remit.run.sandbox import ROOM, Bind
from remit.run.spec import PROCESSES, LaunchSpec


def main() -> int:
    """Return the exit code of the command, or 3 with the error's code and words on stderr."""
    told = json.loads(sys.argv[1])
    stdio.GRACE = told.get("grace", stdio.GRACE)
    spec = LaunchSpec(
        command=tuple(told["command"]),
        socket=Path(told["socket"]),
        request=told["request"],
        cwd=Path.cwd(),
        environ=dict(os.environ),
        binds=tuple(Bind(PurePosixPath(path), writable) for path, writable in told.get("binds", [])),
        env=tuple(told.get("env", ())),
        named=tuple(named.read(name, text) for name, text in told.get("named", {}).items()),
        hidden=tuple(map(Path, told.get("hidden", ()))),
        apart=tuple(map(Path, told.get("apart", ()))),
        host_net=told.get("host_net", False),
        unsandboxed=told.get("unsandboxed", False),
        quiet=told.get("quiet", False),
        nest=told.get("nest", False),
        room=told.get("room", ROOM),
        processes=told.get("processes", PROCESSES),
        memory=told.get("memory"),
        stdio=told.get("stdio"),
        lasting=_lasting(**told["lasting"]) if "lasting" in told else None,
    )
    try:
        return launcher.main(spec)
    except RemitError as error:
        sys.stderr.write(f"{error.code}: {error.detail}\nhelp: {error.help}\n")
        return 3


def _lasting(seconds: int, step: int, retry: float, token: str | None = None) -> Lasting:
    """Go on for so long, as the human whose tokens are counted, or as the owner."""
    count = itertools.count()
    return Lasting(seconds, lambda: None if token is None else f"{token}-{next(count)}", step, retry)


if __name__ == "__main__":
    sys.exit(main())
