"""The tree: the human or workload at its root, then tasks, grants and leases, with what is left of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli import options, sdk
from remit.cli.render import answer, console, detail_line, left, pause, safe

if TYPE_CHECKING:
    from rich.tree import Tree

    from remit.sdk._wire import Flow

Part = str | tuple[str, str]  # of a line: text, or text with its style
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
        answer(json, {"tasks": sdk.ask(_gather(task, ended))})
    elif not watch:
        console().print(drawn(sdk.ask(_gather(task, ended)), datetime.now(UTC)))
    else:
        from rich.live import Live

        with Live(console=console(), auto_refresh=False) as live:
            while True:
                live.update(drawn(sdk.ask(_gather(task, ended)), datetime.now(UTC)), refresh=True)
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
    from rich.text import Text
    from rich.tree import Tree

    roots: dict[str, Tree] = {}
    for task in tasks:
        subject = str(task["subject"]["sub"])
        if subject not in roots:
            kind = "workload" if task["subject"].get("acr") == WORKLOAD else "human"
            roots[subject] = Tree(Text.assemble((f"{kind} ", "dim"), (safe(subject), "bold")))
        title = Text.assemble((safe(task["purpose"]), "bold"), f"  {task['task']}  ", *_state(task, task, now))
        # Grants and what is below them, without recursion: a tree may be as deep as a grant allows.
        waiting = [(roots[subject].add(title), task["root"])]
        while waiting:
            parent, grant = waiting.pop()
            node = next(item for item in task["grants"] if item["grant"] == grant)
            branch = parent.add(Text.assemble(*_grant(node, task, now)))
            for lease in task["leases"]:
                if lease["grant"] == grant:
                    branch.add(Text.assemble(*_lease(lease, now)))
            below = [item["grant"] for item in task["grants"] if item["parent"] == grant]
            waiting += [(branch, child) for child in reversed(below)]
    if len(roots) == 1:
        return next(iter(roots.values()))
    top = Tree("tasks" if roots else "no task is open")
    top.children.extend(roots.values())
    return top


def _grant(node: Mapping[str, Any], task: Mapping[str, Any], now: datetime) -> list[Part]:
    name = safe(node.get("label") or ("agent" if node["parent"] is None else "sub-agent"))
    parts: list[Part] = [(name, "cyan"), f"  {node['grant']}  ", *_state(node, task, now)]
    if node.get("attested"):
        parts.append((f"  attested {safe(node['agent'])}", "green"))
    isolation = str(node.get("posture", {}).get("isolation", "none"))
    if isolation != "namespace":
        parts.append((f"  {'no isolation' if isolation == 'none' else safe(isolation)}", "yellow"))
    if not node.get("exercise", True):
        parts.append((f"  not to be used itself ({node.get('unusable') or 'advisory'})", "yellow"))
    version = node.get("policy")
    if version and not version.startswith("local-"):  # of policies that somebody wrote down
        parts.append((f"  policies {safe(version)}", "dim"))
    if node.get("approval"):
        parts.append((f"  approved {safe(node['approval'])}", "cyan"))
    for index, detail in enumerate(node["authorization_details"]):
        used = f" ({node['used'][index]} used)" if "uses" in detail else ""
        above = " (not of its parent: approved)" if index in node.get("approved", ()) else ""
        parts.append((f"\n{safe(detail_line(detail))}{used}{above}", "dim"))
    return parts


def _lease(lease: Mapping[str, Any], now: datetime) -> list[Part]:
    state = lease["state"] + (", stuck" if lease["stuck"] else "") + (", to clean up" if lease["residue"] else "")
    about = f"{safe(lease['kind'])} / {safe(lease['resource'])}  {lease['lease']}  "
    if lease["state"] != "active":
        return [("lease ", "magenta"), about, (state, "yellow")]
    return [("lease ", "magenta"), about, (state, "green"), f"  {left(lease['expires_at'], now)}"]


def _state(node: Mapping[str, Any], task: Mapping[str, Any], now: datetime) -> list[Part]:
    """Return the state of a task or of a grant of it, and how long it lives."""
    if task["closed"]:
        return [("closed", "red")]
    if node.get("revoked"):
        return [("revoked", "red")]
    if datetime.fromisoformat(node["expires_at"]) <= now:
        return [("expired", "yellow")]
    return [("live", "green"), f"  {left(node['expires_at'], now)}"]
