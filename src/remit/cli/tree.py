"""The tree: the human or workload at its root, then tasks, grants and leases, with what is left of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli import options
from remit.cli.connect import ask
from remit.cli.render import console, detail_line, emit, left, pause, safe, utc_now

if TYPE_CHECKING:
    from rich.tree import Tree

    from remit.sdk._wire import Flow

WORKLOAD = "workload"  # the acr of a subject that is no human
STATES = {"live": "green", "revoked": "red", "expired": "yellow", "closed": "red"}


def tree(
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="One task; else all that are open.")] = None,
    ended: Annotated[bool, typer.Option("--all", "-a", help="Tasks that are closed, too.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep it on the screen, drawn anew.")] = False,
    json: options.Json = False,
) -> None:
    """Draw the tasks with their grants and leases, the human or workload at the root.

    \b
    Examples:
      remit tree
      remit tree --watch
      remit tree task_4pqRz0mZkq1uJb0f8w2c5A --json
    """
    if json:
        emit({"tasks": ask(_gather(task, ended))})
        return
    if watch:
        _watch(task, ended)
        return
    console().print(drawn(ask(_gather(task, ended)), utc_now()))


def _gather(task: str | None, ended: bool) -> Flow[list[dict[str, Any]]]:
    from remit.sdk import verbs

    if task is not None:
        return [(yield from verbs.task(task))]
    shown = [item["task"] for item in (yield from verbs.tasks()) if ended or not item["closed"]]
    found = []
    for task_id in shown:
        found.append((yield from verbs.task(task_id)))  # noqa: PERF401 - a flow cannot yield in a comprehension
    return found


def _watch(task: str | None, ended: bool) -> None:
    from rich.live import Live

    with Live(console=console(), auto_refresh=False) as live:
        while True:
            live.update(drawn(ask(_gather(task, ended)), utc_now()), refresh=True)
            pause()


def drawn(tasks: Sequence[Mapping[str, Any]], now: datetime) -> Tree:
    """Return the tree of tasks by the humans who opened them, or workloads that did so for themselves."""
    from rich.tree import Tree

    subjects = dict.fromkeys(str(task["subject"]["sub"]) for task in tasks)
    roots = [
        _opener(subject, [task for task in tasks if task["subject"]["sub"] == subject], now) for subject in subjects
    ]
    if len(roots) == 1:
        return roots[0]
    top = Tree("no task is open" if not roots else "tasks")
    top.children.extend(roots)
    return top


def _opener(subject: str, tasks: Sequence[Mapping[str, Any]], now: datetime) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    kind = "workload" if tasks[0]["subject"].get("acr") == WORKLOAD else "human"
    root = Tree(Text.assemble((f"{kind} ", "dim"), (safe(subject), "bold")))
    for task in tasks:
        state = "closed" if task["closed"] else _state(task, now)
        label = Text.assemble((safe(task["purpose"]), "bold"), f"  {task['task']}  ", *_marks(state, task, now))
        branch = root.add(label)
        _grants(branch, task, task["root"], now, state)
    return root


def _grants(above: Tree, task: Mapping[str, Any], grant: str, now: datetime, over: str) -> None:
    """Hang a grant and what is below it, without recursion: a tree may be as deep as a grant allows."""
    waiting = [(above, grant)]
    while waiting:
        parent, grant_id = waiting.pop()
        node = next(item for item in task["grants"] if item["grant"] == grant_id)
        branch = parent.add(_grant_text(node, now, over))
        for lease in task["leases"]:
            if lease["grant"] == grant_id:
                branch.add(_lease_text(lease, now))
        below = [item["grant"] for item in task["grants"] if item["parent"] == grant_id]
        waiting += [(branch, child) for child in reversed(below)]


def _grant_text(node: Mapping[str, Any], now: datetime, over: str) -> Any:
    from rich.text import Text

    state = "closed" if over == "closed" else _state(node, now)
    name = safe(node.get("label") or ("agent" if node["parent"] is None else "sub-agent"))
    text = Text.assemble((name, "cyan"), f"  {node['grant']}  ", *_marks(state, node, now))
    if node.get("attested"):
        text.append(f"  attested {safe(node['agent'])}", style="green")
    for mark in weaknesses(node):
        text.append(f"  {mark}", style="yellow")
    text.append("".join(f"  {safe(version)}" for version in policies(node)), style="dim")
    if node.get("approval"):
        text.append(f"  approved {safe(node['approval'])}", style="cyan")
    for index, detail in enumerate(node["authorization_details"]):
        used = f" ({node['used'][index]} used)" if "uses" in detail else ""
        above = " (not of its parent: approved)" if index in node.get("approved", ()) else ""
        text.append(f"\n{safe(detail_line(detail))}{used}{above}", style="dim")
    return text


def weaknesses(node: Mapping[str, Any]) -> list[str]:
    """Return what the surroundings of a grant's holder do not promise."""
    isolation = str(node.get("posture", {}).get("isolation", "none"))
    marks = [] if isolation == "namespace" else ["no isolation" if isolation == "none" else safe(isolation)]
    if node.get("exercise", True):
        return marks
    return [*marks, f"not to be used itself ({node.get('unusable') or 'advisory'})"]


def policies(node: Mapping[str, Any]) -> list[str]:
    """Return the version of the policies that a grant was allowed by, where any are written down."""
    version = node.get("policy")
    return [f"policies {version}"] if version and not version.startswith("local-") else []


def _lease_text(lease: Mapping[str, Any], now: datetime) -> Any:
    from rich.text import Text

    state = lease["state"] + (", stuck" if lease["stuck"] else "") + (", to clean up" if lease["residue"] else "")
    active = lease["state"] == "active"
    text = Text.assemble(("lease ", "magenta"), safe(f"{lease['kind']} / {lease['resource']}"), f"  {lease['lease']}  ")
    text.append(state, style="green" if active else "yellow")
    return text.append(f"  {left(lease['expires_at'], now)}" if active else "")


def _state(node: Mapping[str, Any], now: datetime) -> str:
    if node.get("revoked"):
        return "revoked"
    return "expired" if datetime.fromisoformat(node["expires_at"]) <= now else "live"


def _marks(state: str, node: Mapping[str, Any], now: datetime) -> list[tuple[str, str] | str]:
    marks: list[tuple[str, str] | str] = [(state, STATES[state])]
    return [*marks, f"  {left(node['expires_at'], now)}"] if state == "live" else marks
