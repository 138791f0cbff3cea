"""Run a command under a grant: the launcher does it, here its request is put together."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli import ids, options, project, sdk
from remit.cli.login import AsOwner, session_token
from remit.cli.options import argument, option
from remit.cli.render import safe

if TYPE_CHECKING:
    from remit.config.settings import Places
    from remit.run.renewal import Lasting
    from remit.run.sandbox import Bind

RUN_TTL = 3_600  # seconds that a task lasts at most which a run opens and its end closes, unless more is asked for


@dataclass(frozen=True, slots=True)
class RunOptions(options.GrantOptions):
    """The options of a grant request for a run."""

    ttl: Annotated[
        str | None,
        option(
            "--ttl TIME",
            "How long at most; else a task 1h, and a child as long as its parent. What is over 8h goes on as long as "
            "the login does: 7d, at most 30d.",
            callback=options.duration,
        ),
    ] = None
    egress: Annotated[
        list[str] | None,
        option("--egress HOST", "A host it reaches itself, without a credential, as an egress resource has it."),
    ] = None

    @property
    def details(self) -> list[str | options.Detail]:
        """What is asked for by name and by detail; hosts come on top of it."""
        named = self.resource or self.grant_detail
        return options.wishes(self.resource, self.grant_detail) if named or not self.egress else []


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """The options of what a command has around it."""

    env: Annotated[list[str] | None, option("--env -e NAME[=VALUE]", "A variable the command gets, too.")] = None
    bind: Annotated[list[str] | None, option("--bind PATH[:rw]", "A path the command sees, read-only or :rw.")] = None
    net: Annotated[str | None, option("--net host", "Share this machine's network.")] = None
    tmpfs: Annotated[
        str | None, option("--tmpfs SIZE", "What its home, /tmp and the like hold, each, in memory: 512M; else 2G.")
    ] = None
    processes: Annotated[
        int | None, option("--processes COUNT", "How many processes and threads it may have; else 4096.", min=1)
    ] = None
    memory: Annotated[
        str | None, option("--memory SIZE", "What each of its processes may have: 4G; else half of this machine's.")
    ] = None
    nest: Annotated[bool, option("--nest", "Let it launch runs inside, and make namespaces: implied by --depth.")] = (
        False
    )
    unsandboxed: Annotated[bool, option("--unsandboxed", "No namespaces: the command runs as you.")] = False
    quiet: Annotated[
        bool, option("--quiet -q", "Do not say what the command is exposed to, nor when its authority ends.")
    ] = False


@options.expanded
def run(
    context: typer.Context,
    command: Annotated[list[str], argument("-- COMMAND…", "What is run, with its arguments.")],
    grant: Annotated[
        str | None,
        option("--grant -g GRANT", "Use this grant; with -r or -d, a child of it.", callback=ids.of("grant")),
    ] = None,
    purpose: Annotated[str | None, option("--purpose -p TEXT", "Open a task for this; else for `run PROGRAM`.")] = None,
    label: Annotated[str, option("--label TEXT", "What a child is called.")] = "",
    *,
    request: RunOptions,
    as_owner: AsOwner = False,
    sandbox: SandboxOptions,
) -> None:
    """Run a command in namespaces of its own, under a grant; what it opened ends with it.

    Outside a run this opens a task, of whoever is logged in, or uses a grant; inside a run it makes a child of the
    run's own grant. Without -r, -d or -g outside a run, the project's file says what is granted (`remit allow`), and
    each option here stands in place of what it says. The exit code is the command's.

    \b
    Examples:
      remit run -p "draft the CFO summary" -r search -r warehouse --depth 1 --fan-out 3 -- python agent.py
      remit run -r openai --egress registry.example -- npx -y cowsay hello
      remit run -g grt_7VYx1bD0Qe2mNf3sK9h6Lw -- bash
      remit run -r search:paths=/v1/search -- python researcher.py      (inside a run)
    """
    raise typer.Exit(launched(context, command, grant, purpose, label, request, as_owner=as_owner, sandbox=sandbox))


def launched(
    context: typer.Context,
    command: Sequence[str],
    grant: str | None,
    purpose: str | None,
    label: str,
    request: RunOptions,
    *,
    as_owner: bool,
    sandbox: SandboxOptions,
    stdio: str | None = None,
    servers: bool = True,
) -> int:
    """Run a command as it was asked for; return its exit code. ``stdio`` is the resource that it is, if it is one."""
    if sandbox.net not in {None, "host"}:
        raise typer.BadParameter("`--net` can only be `host`")
    from remit.compose.embedded import ensure, found, reached
    from remit.run import launcher
    from remit.run.inherited import completed
    from remit.run.sandbox import ROOM
    from remit.run.spec import PROCESSES, LaunchSpec

    os.environ.update(completed(os.environ))
    own = os.environ.get("REMIT_GRANT")
    around = project.Surroundings(_binds(sandbox.bind or ()), sandbox.env or ())
    request, purpose, around = project.completed(context, grant or own, request, purpose, around)
    if own is None:
        ensure(os.environ)
    where = reached(os.environ)
    asked, lasting = _lasting(_launch_request(grant or own, request, purpose or _named(command), label, as_owner))
    channel = os.environ.get("REMIT_SOCKET") if own else None
    spec = LaunchSpec(
        command=tuple(command),
        socket=Path(channel) if channel else where.control,
        request=asked,
        cwd=Path.cwd(),
        environ=dict(os.environ),
        binds=tuple(around.binds),
        env=tuple(around.env),
        named=tuple(around.named),
        hidden=() if channel else (where.state, where.runtime, where.config.parent),
        apart=() if channel else _apart(where),
        host_net=sandbox.net == "host",
        room=ROOM if sandbox.tmpfs is None else _bytes(sandbox.tmpfs),
        processes=sandbox.processes or PROCESSES,
        memory=None if sandbox.memory is None else _bytes(sandbox.memory),
        nest=sandbox.nest,
        unsandboxed=sandbox.unsandboxed,
        quiet=sandbox.quiet,
        lasting=lasting,
        stdio=stdio,
        servers=servers,
    )
    return launcher.main(spec, None if channel else partial(found, os.environ))


def _named(command: Sequence[str]) -> str:
    return f"run {safe(Path(command[0]).name)}"


def _apart(where: Places) -> tuple[Path, ...]:
    """Return what of remit may be elsewhere, by the configuration or by a link."""
    settings = options.settings()
    own = (where.config, *(where.state / name for name in ("kek", "remit.db", "session")))
    return (*own, *filter(None, (settings.keys.kek, settings.audit.witness, settings.policies)))


def _lasting(asked: Mapping[str, Any]) -> tuple[Mapping[str, Any], Lasting | None]:
    """Return what to ask for at first, and, of a task that lasts longer than one can be opened for, how it goes on.

    Whoever it is opened for has it renewed, whoever logs in or out meanwhile.
    """
    from remit.core.request import MAX_TTL
    from remit.run.renewal import Lasting

    opened, most = asked.get("open", {}), int(MAX_TTL.total_seconds())
    if opened.get("ttl", 0) <= most:
        return asked, None
    prove = partial(session_token, as_owner="id_token" not in opened)
    return {"open": {**opened, "ttl": most}}, Lasting(opened["ttl"], prove, most)


def _binds(named: Sequence[str]) -> list[Bind]:
    from remit.run.sandbox import Bind

    split = ((text[:-3], True) if text[1:].endswith(":rw") else (text, False) for text in named)
    return [Bind(PurePosixPath(path), writable) for path, writable in split]


def _bytes(size: str) -> int:
    """Return the bytes of a size such as 512M."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})([KMG])", size)
    if found is None:
        raise typer.BadParameter("a size is written 64K, 512M or 2G")
    return int(found[1]) << {"K": 10, "M": 20, "G": 30}[found[2]]


def _hosts(egress: Sequence[str], known: Sequence[Mapping[str, object]]) -> list[options.Detail]:
    if not egress:
        return []
    from remit.cli import hosts  # it loads all kinds, which takes a third of a start

    return hosts.details(egress, known)


def _launch_request(
    grant: str | None, request: RunOptions, purpose: str, label: str, as_owner: bool
) -> Mapping[str, object]:
    """Return what the broker is asked for: an open, a delegate, or a grant that is there."""
    if not (request.resource or request.grant_detail or request.egress):
        if grant is not None:
            return {"grant": grant}
        raise typer.BadParameter("say what is granted, with --resource or --grant-detail, or name a --grant")
    from remit.sdk.detail import expand

    wishes, egress = request.details, request.egress or ()
    if grant is None:
        details = expand(wishes, sdk.ask(sdk.verbs.known_bounds(wishes)))
        there = sdk.ask(sdk.verbs.resources()) if egress else []
        details += _hosts(egress, [detail for item in there for detail in item["bound"]])
        token = session_token(as_owner)
        of_human = {} if token is None else {"id_token": token}
        asked = {"ttl": RUN_TTL, **sdk.verbs.grant_request(details, request.bounds)}
        return {"open": {"purpose": purpose, **asked, **of_human}}
    task = sdk.ask(sdk.verbs.find(grant))
    known, bounds = sdk.verbs.details_of(task, grant), request.bounds
    details = [*expand(wishes, known), *_hosts(egress, known)]
    ends = next(datetime.fromisoformat(each["expires_at"]) for each in task["grants"] if each["grant"] == grant)
    if bounds.ttl is not None and datetime.now(UTC) + timedelta(seconds=options.seconds(str(bounds.ttl))) >= ends:
        bounds = replace(bounds, ttl=None)  # at most so long: as long as its parent
    return {"delegate": {"parent": grant, **sdk.verbs.grant_request(details, bounds, label)}}
