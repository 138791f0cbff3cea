"""Tasks, grants and leases: open, show, explain, delegate, issue, renew, revoke, close, and the tree of them all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli import ids, options, sdk
from remit.cli.approval import request_parts
from remit.cli.login import AsOwner, session_token
from remit.cli.options import argument, option
from remit.cli.render import answer, console, detail_line, detail_lines, ended, granted, left, pause, safe, waiting
from remit.errors import DeniedError, NotFoundError

if TYPE_CHECKING:
    from rich.tree import Tree

    from remit.sdk._wire import Flow

Part = str | tuple[str, str]  # of a line: text, or text with its style
WORKLOAD = "workload"  # the acr of a subject that is no human


@dataclass(frozen=True, slots=True)
class TaskOptions(options.GrantOptions):
    """The options of a grant request that opens a task."""

    ttl: options.Ttl = "15m"


@options.expanded
def open_(
    purpose: Annotated[str, argument("PURPOSE", "What the task is for, in a sentence. It goes into the audit log.")],
    *,
    request: TaskOptions,
    as_owner: AsOwner = False,
    json: options.Json = False,
) -> None:
    """Open a task, and print its root grant. It is the task of whoever is logged in, else of this state's owner.

    \b
    Examples:
      remit open "draft the CFO summary" -r search -r warehouse:tables=sales.revenue --ttl 15m
      remit open "triage" -r github:actions=GET --depth 1 --fan-out 3 --json
    """
    opened = sdk.ask(sdk.verbs.open_task(purpose, request.details, request.bounds, id_token=session_token(as_owner)))
    granted(opened, json, *detail_lines(opened.details), f"use it: remit run --grant {opened.grant} -- COMMAND")


def show(
    node: Annotated[str, argument("ID", "A task, grant, lease or approval.", callback=ids.of(*ids.NOUNS))],
    json: options.Json = False,
) -> None:
    """Show a task, a grant, a lease or an approval, with everything that is known of it.

    \b
    Examples:
      remit show task_4pqRz0mZkq1uJb0f8w2c5A
      remit show grt_7VYx1bD0Qe2mNf3sK9h6Lw --json
    """
    if node.startswith("apr_"):
        document = sdk.ask(sdk.asking.approval(node))
        answer(json, document, *request_parts(document))
        return
    task = sdk.ask(sdk.verbs.find(node))
    nodes = [task, *task["grants"], *task["leases"]]
    found = next(item for item in nodes if node == (item.get("lease") or item.get("grant") or item["task"]))
    plain = {name: value for name, value in found.items() if not isinstance(value, list | dict)}
    about = {"posture": _posture(found)} if "posture" in found else {}
    answer(json, found, {**plain, **about, "task": task["task"], "subject": task["subject"]["sub"]}, *_held(found))


def _held(node: Mapping[str, Any]) -> Iterator[str]:
    yield from detail_lines(node.get("authorization_details", []))
    for grant in node.get("grants", []):
        until = f"until {grant['expires_at']}{', revoked' if grant['revoked'] else ''}"
        yield f"  grant {grant['grant']}  {grant['label'] or '-'}  {until}  {_posture(grant)}"
    for lease in node.get("leases", []):
        what = f"{lease['kind']} / {lease['resource']}"
        yield f"  lease {lease['lease']}  {what}  {lease['state']}, until {lease['expires_at']}"


def _posture(grant: Mapping[str, Any]) -> str:
    posture = grant["posture"]
    return f"isolation {posture['isolation']}, custody {posture['custody']}, at rest {posture['at_rest']}"


def explain(
    grant: options.GrantId,
    what: Annotated[
        list[str],
        argument(
            "METHOD /RESOURCE/PATH | NAME[:FIELD=VALUE,…]",
            "A request as it is made to the gateway, or a detail for which a credential is to be issued.",
        ),
    ],
    body: Annotated[str | None, option("--body JSON", "The request's JSON body; to an MCP server the message.")] = None,
    json: options.Json = False,
) -> None:
    """Explain why a request would be allowed or refused, and what would be enough. Nothing is done.

    \b
    Examples:
      remit explain -g grt_7VYx1bD0Qe2mNf3sK9h6Lw GET '/search/v1/search?q=revenue'
      remit explain -g grt_7VYx1bD0Qe2mNf3sK9h6Lw warehouse:tables=sales.salaries
    """
    from remit.compose.explain import Request, explained
    from remit.gateway.fronts.path import read_target

    kinds = options.kinds()  # whose details the grant has
    asked: Request | str | options.Detail
    match what:
        case [method, target] if target.startswith("/"):
            asked = Request(method, target, body)
        case [detail]:
            asked = options.loaded(detail) if detail.startswith("{") else options.wish(detail)
        case _:
            raise typer.BadParameter("write `METHOD /RESOURCE/PATH`, or one detail")
    task, resource = sdk.ask(sdk.verbs.find(grant)), None
    if isinstance(asked, Request):
        with suppress(DeniedError, NotFoundError):  # only the operator may look at it
            resource = sdk.ask(sdk.verbs.resource(read_target(asked.target.encode()).resource))
    found = explained(task, grant, asked, datetime.now(UTC), resource, kinds)
    document = {name: value for name, value in asdict(found).items() if value is not None}
    parts = ["allowed" if found.allowed else "refused", *(f"  {reason}" for reason in found.reasons)]
    parts += [] if found.by is None else [f"  by: {detail_line(found.by)}"]
    parts += [f"  {fact}" for fact in found.rests_on]
    parts += [] if found.enough is None else [f"  enough: {detail_line(found.enough)}"]
    answer(json, document, *parts)
    raise typer.Exit(0 if found.allowed else 1)


@options.expanded
def delegate(
    grant: options.GrantId,
    label: options.Label = "",
    *,
    request: options.GrantOptions,
    approval: Annotated[
        str | None,
        option(
            "--approval APPROVAL",
            "Make exactly what a human approved, in place of all else.",
            callback=ids.of("approval"),
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Delegate a grant to a sub-agent, no wider than the grant it comes from, or as a human approved.

    \b
    Examples:
      remit delegate research -g grt_7VYx1bD0Qe2mNf3sK9h6Lw -r search:paths=/v1/search
      remit delegate -r search --ttl 5m           (in a run: from the run's own grant)
      remit delegate -g grt_7VYx1bD0Qe2mNf3sK9h6Lw --approval apr_2b6mTn9pQ4rVx0cZ
    """
    if approval is not None:
        document = sdk.ask(sdk.asking.approval(approval))
        if document["request"].get("parent") != grant:
            raise typer.BadParameter(f"this was not asked for under {grant}")
        child = sdk.ask(sdk.asking.taken(approval, grant))
    else:
        details = request.details
        known = sdk.verbs.details_of(sdk.ask(sdk.verbs.find(grant)), grant)
        child = sdk.ask(sdk.verbs.delegate(grant, known, details, request.bounds, label))
    granted(child, json, *detail_lines(child.details))


def issue(
    grant: options.GrantId,
    resource: Annotated[str, argument("NAME[:FIELD=VALUE,…]", "A resource of the grant, narrowed by fields.")] = "",
    grant_detail: Annotated[str | None, option("--grant-detail -d JSON", "A whole detail instead.")] = None,
    key: Annotated[
        str | None, option("--key KEY", "Idempotency key: asking again revokes the earlier lease first.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Issue a credential under a grant, and print it. It is shown once and not stored.

    \b
    Examples:
      remit issue -g grt_7VYx1bD0Qe2mNf3sK9h6Lw warehouse:tables=sales.revenue
      psql "$(remit issue warehouse --json | jq -r .credential.dsn)"
    """
    [wish] = options.wishes([resource] if resource else None, [grant_detail] if grant_detail else None)
    task = sdk.ask(sdk.verbs.find(grant))
    issued = sdk.ask(sdk.verbs.issue(task["task"], grant, wish, sdk.verbs.details_of(task, grant), key))
    answer(json, issued, {"lease": issued["lease"], "expires_at": issued["expires_at"], **issued["credential"]})


def _renewable(text: str) -> str | None:
    return ids.of("task" if text.startswith(ids.NOUNS["task"]) else "lease")(text)


def renew(
    node: Annotated[str, argument("ID", "A lease, or a task by `task_` and how its id goes on.", callback=_renewable)],
    ttl: Annotated[str, option("--ttl TIME", "From now on: 90s, 15m, 8h.", callback=options.duration)],
    as_owner: AsOwner = False,
    json: options.Json = False,
) -> None:
    """Renew a lease in place, to the end of its grant at most; or a task, for whom it was opened for, by up to 8h.

    A task rests on the login that renews it, and ends 30 days after it was opened at the latest.

    \b
    Examples:
      remit renew lse_0aJ9cE4dT1vXr8kPq5bS7g --ttl 10m
      remit renew task_4pqRz0mZkq1uJb0f8w2c5A --ttl 8h
    """
    if node.startswith(ids.NOUNS["task"]):
        renewed = sdk.ask(sdk.verbs.renew_task(node, ttl, session_token(as_owner)))
        answer(json, renewed, renewed)
        return
    renewed = sdk.ask(sdk.verbs.renew(node, ttl))
    sooner = ["it ends with its grant, and cannot be renewed beyond it"] if renewed.get("ends_with_grant") else []
    answer(json, renewed, {"lease": node, "expires_at": renewed["expires_at"]}, *sooner)


def revoke(
    node: Annotated[
        str,
        argument("ID", "A grant, a lease or a task, or how its id begins.", callback=ids.of("task", "grant", "lease")),
    ],
    json: options.Json = False,
) -> None:
    """Revoke a grant with everything below it, a lease, or a whole task; say truthfully what is outstanding.

    \b
    Examples:
      remit revoke grt_7VYx1bD0Qe2mNf3sK9h6Lw
      remit revoke lse_0aJ9cE4dT1vXr8kPq5bS7g --json
      remit revoke 7VY                           (where no other id begins so)
    """
    with waiting("revoking"):
        report = sdk.ask(sdk.verbs.end(node))
    ended(report, json)


def close(
    task: Annotated[str, argument("TASK", "The task.", callback=ids.of("task"))], json: options.Json = False
) -> None:
    """Close a task: every grant and lease in it ends.

    \b
    Examples:
      remit close task_4pqRz0mZkq1uJb0f8w2c5A
    """
    with waiting("closing the task"):
        report = sdk.ask(sdk.verbs.close(task))
    ended(report, json)


def tree(
    task: Annotated[
        str | None, argument("[TASK]", "One task; else all that are open.", callback=ids.of("task"))
    ] = None,
    ended: Annotated[bool, option("--all -a", "Tasks that are closed, too.")] = False,
    watch: Annotated[bool, option("--watch -w", "Keep it on the screen, drawn anew.")] = False,
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
    elif node["parent"] is None and node.get("client"):
        parts.append(f"  for the client {safe(node['client'])}")
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
