"""The tree: the human or workload at its root, then tasks, grants and leases, with what is left of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli import options, sdk
from remit.cli.connect import ask
from remit.cli.render import answer, console, detail_line, left, pause, safe

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from remit.sdk._wire import Flow

WORKLOAD = "workload"  # the acr of a subject that is no human


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
        answer(json, {"tasks": ask(_gather(task, ended))})
    elif not watch:
        console().print(drawn(ask(_gather(task, ended)), datetime.now(UTC)))
    else:
        from rich.live import Live

        with Live(console=console(), auto_refresh=False) as live:
            while True:
                live.update(drawn(ask(_gather(task, ended)), datetime.now(UTC)), refresh=True)
                pause()


def _gather(task: str | None, ended: bool) -> Flow[list[dict[str, Any]]]:
    if task is not None:
        return [(yield from sdk.verbs.task(task))]
    found = []
    for item in (yield from sdk.verbs.tasks()):
        if ended or not item["closed"]:
            found.append((yield from sdk.verbs.task(item["task"])))  # noqa: PERF401 - a flow cannot yield in a comprehension
    return found


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
        title = Text.assemble((safe(task["purpose"]), "bold"), f"  {task['task']}  ", *_marks(task, task, now))
        # Grants and what is below them, without recursion: a tree may be as deep as a grant allows.
        waiting = [(root.add(title), task["root"])]
        while waiting:
            parent, grant_id = waiting.pop()
            node = next(item for item in task["grants"] if item["grant"] == grant_id)
            branch = parent.add(_grant_text(node, task, now))
            for lease in task["leases"]:
                if lease["grant"] == grant_id:
                    branch.add(_lease_text(lease, now))
            below = [item["grant"] for item in task["grants"] if item["parent"] == grant_id]
            waiting += [(branch, child) for child in reversed(below)]
    return root


def _grant_text(node: Mapping[str, Any], task: Mapping[str, Any], now: datetime) -> Text:
    from rich.text import Text

    name = safe(node.get("label") or ("agent" if node["parent"] is None else "sub-agent"))
    text = Text.assemble((name, "cyan"), f"  {node['grant']}  ", *_marks(node, task, now))
    if node.get("attested"):
        text.append(f"  attested {safe(node['agent'])}", style="green")
    for mark in _weaknesses(node):
        text.append(f"  {mark}", style="yellow")
    version = node.get("policy")
    if version and not version.startswith("local-"):  # of policies that somebody wrote down
        text.append(f"  policies {safe(version)}", style="dim")
    if node.get("approval"):
        text.append(f"  approved {safe(node['approval'])}", style="cyan")
    for index, detail in enumerate(node["authorization_details"]):
        used = f" ({node['used'][index]} used)" if "uses" in detail else ""
        above = " (not of its parent: approved)" if index in node.get("approved", ()) else ""
        text.append(f"\n{safe(detail_line(detail))}{used}{above}", style="dim")
    return text


def _weaknesses(node: Mapping[str, Any]) -> list[str]:
    """Return what the surroundings of a grant's holder do not promise."""
    isolation = str(node.get("posture", {}).get("isolation", "none"))
    marks = [] if isolation == "namespace" else ["no isolation" if isolation == "none" else safe(isolation)]
    if node.get("exercise", True):
        return marks
    return [*marks, f"not to be used itself ({node.get('unusable') or 'advisory'})"]


def _lease_text(lease: Mapping[str, Any], now: datetime) -> Text:
    from rich.text import Text

    state = lease["state"] + (", stuck" if lease["stuck"] else "") + (", to clean up" if lease["residue"] else "")
    active = lease["state"] == "active"
    text = Text.assemble(("lease ", "magenta"), safe(f"{lease['kind']} / {lease['resource']}"), f"  {lease['lease']}  ")
    text.append(state, style="green" if active else "yellow")
    return text.append(f"  {left(lease['expires_at'], now)}" if active else "")


def _marks(node: Mapping[str, Any], task: Mapping[str, Any], now: datetime) -> list[tuple[str, str] | str]:
    """Return the state of a task or of a grant of it, and how long it lives."""
    if task["closed"]:
        return [("closed", "red")]
    if node.get("revoked"):
        return [("revoked", "red")]
    if datetime.fromisoformat(node["expires_at"]) <= now:
        return [("expired", "yellow")]
    return [("live", "green"), f"  {left(node['expires_at'], now)}"]
