"""The demo's screen: both columns, the tree with the human at its root, the revocations, the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from examples.demo.columns import Column
from examples.demo.guarded import Guarded


def show(console: Console, baseline: Column, guarded: Guarded) -> None:
    """Draw everything."""
    console.print(_attempts(baseline, guarded))
    console.print(_counts(baseline, guarded))
    console.print(_tree(guarded.task))
    for role, took in guarded.revoke_ms.items():
        last, state = guarded.last_accepted_ms[role], guarded.revoke_state[role]
        when = f"{last} ms after it began" if last > 0 else f"{-last} ms before it began"
        console.print(f"revoke {role}: {state} after {took} ms; the last accepted call came {when}")
    verified = "verified" if guarded.audit.get("verified") else "NOT VERIFIED"
    console.print(f"audit: {guarded.audit.get('entries', 0)} entries, {verified}, root {guarded.audit.get('root', '')}")
    console.print(_verdict(guarded))


def _attempts(baseline: Column, guarded: Guarded) -> Table:
    table = Table(title="What the injected instruction asked for, and whether it worked", title_justify="left")
    table.add_column("attempted")
    table.add_column("keys in the environment")
    table.add_column("under remit")
    for name, worked in baseline.by_attempt.items():
        table.add_row(name, _worked(worked), _worked(guarded.by_attempt.get(name)))
    return table


def _worked(worked: bool | None) -> Text:  # noqa: FBT001 - a cell
    if worked is None:
        return Text("not reached", style="yellow")
    return Text("worked", style="red") if worked else Text("in vain", style="green")


def _counts(baseline: Column, guarded: Guarded) -> Table:
    table = Table(title="What the thief got, counted by looking", title_justify="left")
    table.add_column("")
    table.add_column("keys in the environment", justify="right")
    table.add_column("under remit", justify="right")
    rows = {
        "standing secrets that came out, in any listed encoding": "secrets_leaked",
        "bytes that reached the thief's server": "bytes_at_thief",
        "replays by another process that were accepted": "replays_accepted",
        "calls accepted after the revoke had answered": "accepted_after_revoke",
    }
    for title, name in rows.items():
        table.add_row(title, f"{getattr(baseline, name):,}", f"{getattr(guarded, name):,}")
    table.add_row("roles left in PostgreSQL", "-", str(guarded.orphan_roles))
    table.add_row("sessions left in PostgreSQL", "-", str(guarded.live_sessions))
    table.add_row("the job itself was done", _yes(baseline.job_done), _yes(guarded.job_done))
    return table


def _yes(done: bool) -> str:  # noqa: FBT001 - a cell
    return "yes" if done else "no"


def _tree(task: Mapping[str, Any]) -> Tree:
    subject = task.get("subject", {})
    human = Tree(f"{subject.get('sub', '?')} ({subject.get('acr', '?')})")
    node = human.add(f"{task.get('task', '?')}: {task.get('purpose', '?')}")
    drawn: dict[str | None, Tree] = {}
    for grant in task.get("grants", []):
        parent = drawn.get(grant["parent"], node)
        resources = ", ".join(dict.fromkeys(detail["resource"] for detail in grant["authorization_details"]))
        state = " [revoked]" if grant["revoked"] else ""
        name = grant["label"] or "orchestrator"
        drawn[grant["grant"]] = parent.add(Text(f"{grant['grant']} {name}: {resources}{state}"))
    return human


def _verdict(guarded: Guarded) -> Text:
    if held(guarded):
        return Text("Nothing leaked, nothing outlived its revocation, and the job was done.", style="bold green")
    return Text("Something did not hold: look at the counts above.", style="bold red")


def held(guarded: Guarded) -> bool:
    """Whether everything that remit promises here held."""
    bad = guarded.secrets_leaked + guarded.replays_accepted + guarded.accepted_after_revoke + guarded.bytes_at_thief
    left = guarded.orphan_roles + guarded.live_sessions
    reached = guarded.attempts > 0 and not guarded.attempts_worked and len(guarded.revoke_ms) > 0
    return not bad and not left and reached and guarded.job_done and bool(guarded.audit.get("verified"))
