"""The broker itself: up, down, status, stop, doctor, its signing keys (list, rotate, revoke), and the demo."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from remit.cli import options, sdk
from remit.cli.options import argument, option
from remit.cli.render import Table, answer, safe, waiting
from remit.errors import NotFoundError


def up(
    edges: Annotated[int, option("--edges COUNT", "How many processes serve agents; up to 8.", min=1, max=8)] = 1,
    json: options.Json = False,
) -> None:
    """Start the broker and stay in the foreground, until interrupted.

    One edge is best on up to two cores; `remit status` shows them.

    \b
    Examples:
      remit up
      remit up --edges 4
      remit up --json                            (one line, when everything listens)
      REMIT_STATE_DIR=/srv/remit remit up
    """
    from remit.compose.up import foreground

    foreground(as_json=json, edges=edges)


def down(json: options.Json = False) -> None:
    """Stop the broker of this state, and wait until it has ended. Its runs end with it; leases go on to their end.

    \b
    Examples:
      remit down
      remit down --json
    """
    from remit.compose.stop import NOBODY
    from remit.compose.stop import down as told

    with waiting("the broker ends"):
        pid = told(os.environ)
    answer(json, {"stopped": pid}, NOBODY if pid is None else f"the broker has ended: process {pid}")


def stop(
    everything: Annotated[bool, option("--all", "Every task; `remit revoke TASK` ends one.")] = False,
    json: options.Json = False,
) -> None:
    """End every task, with the broker or without it, and say truthfully what is outstanding.

    The broker is asked first. One that does not answer in two seconds is killed with all its processes; then the state
    is taken, every task in it ended, and each lease revoked at its target.

    Exits with 1 when something is outstanding: say it again when that target is back, or start the broker, which tries
    for as long as it runs.

    \b
    Examples:
      remit stop --all
      remit stop --all --json
    """
    from remit.compose.stop import stop_all

    if not everything:
        raise typer.BadParameter("say `--all` to end every task; `remit revoke TASK` ends one")
    done = stop_all(os.environ, lambda line: print(safe(line), file=sys.stderr))
    rows = Table(("task", "state", "revoked", "outstanding"), [_stopped(task) for task in done.tasks])
    told = {"tasks": done.tasks, "killed": done.killed, "outstanding": done.outstanding}
    answer(json, told, rows if done.tasks else "no task is open, and nothing is left at a target")
    raise typer.Exit(int(done.outstanding))


def _stopped(task: dict[str, Any]) -> tuple[str, ...]:
    left = ", ".join(str(item["lease"] or item["kind"]) for item in task["outstanding"])
    late = [] if task["recorded"] else ["not recorded"]
    return str(task["task"]), str(task["state"]), str(task["revoked"]), ", ".join([*([left] if left else []), *late])


def status(json: options.Json = False) -> None:
    """Show how the broker is: its processes, what this kernel cannot hold them to, where it listens.

    `held by` says what confines a process; the supervisor and the authority read nothing that others send.

    \b
    Examples:
      remit status
      remit status --json
    """
    found = sdk.ask(sdk.admin.processes(), start=False)
    rows = Table(("process", "pid", "up since", "restarts", "held by"), map(_process, found["processes"]))
    listens = {name: url for name, url in found["listens"].items() if url is not None}
    alone = [] if found["supervised"] else ["all is in one process, which nobody starts again"]
    lacks = [f"this kernel: {line}" for line in found["lacks"]]
    counts = f"open tasks: {found['tasks']}; runs: {found['runs']}"
    answer(json, found, *alone, *([rows] if found["supervised"] else []), listens, counts, *lacks)


def _process(one: dict[str, Any]) -> tuple[str, ...]:
    pid = "-" if one["pid"] is None else str(one["pid"])
    return str(one["name"]), pid, str(one["since"]), str(one["restarts"]), ", ".join(one["walls"]) or "-"


def doctor(json: options.Json = False) -> None:
    """Look at all that a broker rests on, and say what to do about what is not as it should be.

    File modes, keys, policies, the TLS certificate, issuers and trust domains, namespaces, the clock, the log, the
    broker that is up and its databases. Issuers and trust domains are asked, each for a few seconds at most.

    Exits with 1 when something is wrong; a warning is what remit works with, and cannot promise everything under.

    \b
    Examples:
      remit doctor
      remit doctor --json
    """
    from remit.compose.doctor import examine

    found = examine(os.environ)
    bad = any(one.level == "wrong" for one in found)
    shown = [{name: value for name, value in asdict(one).items() if value} for one in found]
    helps = [f"{one.name}: {one.help}" for one in found if one.help and one.level != "good"]
    rows = Table(("level", "what", "finding"), [(one.level, one.name, one.text) for one in found])
    answer(json, {"findings": shown, "healthy": not bad}, rows, *helps)
    raise typer.Exit(int(bad))


def demo(json: options.Json = False) -> None:
    """Run one task on real servers: first with keys in the environment, then under remit.

    \b
    Examples:
      remit demo
      remit demo --json
    """
    root = Path(__file__).parents[3]
    if not (root / "examples" / "demo").is_dir():
        raise NotFoundError(
            "the demo is in a clone of remit's repository, not in its package", help="clone it: make demo"
        )
    sys.path.insert(0, str(root))
    from examples import demo as shown

    raise typer.Exit(shown.main(json))


keys = options.group(
    "keys", "The keys that the broker signs with: of tokens, audit checkpoints, events, its SPIFFE trust domain."
)

Ring = Annotated[str, argument("RING", "Which keys: token, audit, spiffe or events.")]


@keys.command("list")
def list_(json: options.Json = False) -> None:
    """List the keys that verify what the broker has signed, and which of them sign.

    \b
    Examples:
      remit keys list
      remit keys list --json
    """
    found = sdk.ask(sdk.admin.keys())
    rows = ((ring, key["kid"], key["alg"], _state(ring, key)) for ring, keys in found["rings"].items() for key in keys)
    answer(json, found, Table(("ring", "key", "algorithm", "state"), rows))


def _state(ring: str, key: dict[str, Any]) -> str:
    if key["signing"]:
        return "signs"
    if ring == "spiffe" and not key["until"]:  # published before it signs; of other rings: for good
        return "signs next"
    return f"verifies until {key['until']}" if key["until"] else "verifies"


@keys.command("rotate")
def rotate(ring: Ring, json: options.Json = False) -> None:
    """Make a new key sign; the one before it verifies until everything that it signed has ended.

    \b
    Examples:
      remit keys rotate token
      remit keys rotate audit --json
    """
    done = sdk.ask(sdk.admin.rotate(ring))
    answer(json, done, f"{done['signing']} signs from now on; the key before it still verifies what it has signed")


@keys.command("revoke", context_settings={"ignore_unknown_options": True})  # an id may begin with a hyphen
def revoke(
    ring: Ring,
    kid: Annotated[str, argument("KEY", "The id of a key, as `remit keys list` shows it.")],
    json: options.Json = False,
) -> None:
    """End everything that a key has signed, at once: for a key that somebody else may have. A new one signs.

    \b
    Examples:
      remit keys revoke token 0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I
    """
    done = sdk.ask(sdk.admin.revoke(ring, kid))
    answer(json, done, f"what {done['revoked']} has signed is worth nothing any more; {done['signing']} signs")
