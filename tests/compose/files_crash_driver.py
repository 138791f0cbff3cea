"""A broker that kills itself before its N-th step with a file of the state: an open for writing, a rename, a removal.

``main`` of a process that has registered the kinds. For each N, until there is no such step, a reload of
policies, a rotation of keys and an end are played and cut off there; the next start then has bad policies to begin
with. Prints what was said to be done, and what the next start found, one line each.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from remit.compose.wiring import Application
from remit.errors import RemitError
from tests.compose.policies import BAD, MAIL, NO_MAIL, OPEN, SEARCH, Deployment, opened, reloaded, resources

STEPS = 40  # more than there are


def apart(body: Callable[[], None]) -> int:
    """Do something in a process of its own; return how that ended."""
    pid = os.fork()
    if pid == 0:
        status = 1
        with suppress(BaseException):
            body()
            status = 0
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def dies(place: Path, step: int) -> None:
    """Kill this process before its step-th change of a file in ``place``."""
    left = [step]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in {"os.rename", "os.remove"}) and str(arguments[0]).startswith(str(place)):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def prepared(made: Deployment) -> None:
    """Have two grants live by policies that allow all."""

    async def body(app: Application) -> None:
        await resources(app)
        (made.directory / "grants").write_text(" ".join([(await opened(app, what)).id for what in (MAIL, SEARCH)]))

    made.write(OPEN)
    made.up(body)


def played(made: Deployment, step: int) -> None:
    """Reload stricter policies, rotate, end; say what is done as it is."""

    async def body(app: Application) -> None:
        _, search = (made.directory / "grants").read_text().split()
        made.write(NO_MAIL)
        dies(made.state, step)
        await reloaded(app)
        said("reload")
        app.tokens.rotate()
        said("rotate")
        await app.broker.revoke(app.operator, search)
        said("revoke")

    def said(what: str) -> None:
        with (made.directory / "said").open("a") as file:
            file.write(f"{what} ")

    (made.directory / "said").touch()
    made.up(body)


def found(made: Deployment) -> None:
    """Start with bad policies: say which ones hold, and what is live."""

    async def body(app: Application) -> None:
        grants = (made.directory / "grants").read_text().split()
        names = [one.id for one in app.policies.current.policies] if app.policies.current else None
        live = [alive(app, grant) for grant in grants]
        signs = bool(app.tokens.signer.sign(b"text"))
        (made.directory / "found").write_text(json.dumps({"policies": names, "live": live, "signs": signs}))

    made.write(BAD)
    made.up(body)


def alive(app: Application, grant: str) -> bool:
    try:
        app.broker._tasks.check(grant)
    except RemitError:
        return False
    return True


def main(place: Path) -> None:
    """Play it for each step there is."""
    (place / "first").mkdir()
    first = Deployment(place / "first")
    assert apart(lambda: prepared(first)) == 0
    for step in range(1, STEPS):
        shutil.copytree(place / "first", place / str(step))
        made = Deployment.__new__(Deployment)
        made.state, made.directory = place / str(step) / "state", place / str(step) / "policies"
        status = apart(lambda made=made, step=step: played(made, step))  # type: ignore[misc]  # of this round
        starts = [apart(lambda made=made: found(made)) for _ in range(2)]  # type: ignore[misc]  # as above
        told = json.loads((made.directory / "found").read_text()) if starts == [0, 0] else {}
        line = {"status": status, "said": (made.directory / "said").read_text().split(), "starts": starts, **told}
        print(json.dumps(line), flush=True)  # noqa: T201 - read by the test
        if status == 0:
            return
