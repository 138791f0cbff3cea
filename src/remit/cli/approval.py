"""Approvals: an agent asks for more than its grant; a human looks at the exact request, and approves or denies it.

A decision is the human's: the owner of the state decides at the control socket, anybody else on the page of the
request, by a login that the broker begins for it. Inside a run neither is there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from remit.cli import ids, options, sdk
from remit.cli.login import AsOwner, visit
from remit.cli.options import argument, option
from remit.cli.render import Table, answer, detail_line, granted, said, waiting
from remit.core.legible import rows, written
from remit.errors import ConflictError, DeniedError, LapsedError, UnavailableError

LOCAL = "unix://"  # how the owner of a state is called
LIFE = 600  # seconds; nothing that is asked waits for longer

Id = Annotated[str, argument("APPROVAL", "What was asked, as `remit approvals` lists it.", callback=ids.of("approval"))]
Digest = Annotated[str | None, option("--digest DIGEST", "The request that was seen, where nobody can confirm.")]


@options.expanded
def ask(
    grant: options.GrantId,
    label: options.Label = "",
    *,
    request: options.GrantOptions,
    wait: Annotated[
        str | None, option("--wait TIME", "Wait for the decision, and delegate then.", callback=options.duration)
    ] = None,
    json: options.Json = False,
) -> None:
    """Ask the task's human for a sub-agent's grant that exceeds the one it comes from.

    A human approves it outside of runs. Then it is made once: by --wait here, or by `remit delegate --approval`.

    \b
    Examples:
      remit ask refunds -g grt_7VYx1bD0Qe2mNf3sK9h6Lw -d '{"type": "http", "resource": "pay", …}' --ttl 5m
      remit ask -r search:paths=/v1/all --wait 10m        (in a run: for a child of the run's own grant)
    """
    details = request.details
    known = sdk.verbs.details_of(sdk.ask(sdk.verbs.find(grant)), grant)
    asked = sdk.ask(sdk.asking.ask_for(grant, known, details, request.bounds, label))
    if wait is None:
        answer(json, asked.document, *request_parts(asked.document))
        return
    with waiting(f"waiting for {asked.document['approver']} to decide on {asked.id}"):
        child = sdk.ask(sdk.asking.granted(asked, options.seconds(wait)))
    granted(child, json, approval=asked.id)


def approvals(
    every: Annotated[bool, option("--all -a", "Those that are over, too.")] = False, json: options.Json = False
) -> None:
    """List what waits for a human's decision.

    \b
    Examples:
      remit approvals
      remit approvals --all --json
    """
    found = [item for item in sdk.ask(sdk.asking.approvals()) if every or item["state"] == "pending"]
    columns = ("approval", "state", "for", "purpose", "exceeds", "who decides", "until")
    none = "nothing was asked" if every else "nothing waits for a decision"
    listed = []
    for item in found:
        purpose = item["task"]["purpose"] if "task" in item else item["request"].get("purpose", "")  # of a task to be
        beyond = [detail_line(detail) for detail in item.get("offending", ())]
        beyond += [name for name in item.get("exceeds", ()) if name != "authorization_details"]
        asked = item["approval"], item["state"], item["verb"]
        listed.append((*asked, purpose, "; ".join(beyond), _who(item), item["expires_at"]))
    answer(json, {"approvals": found}, Table(columns, listed) if found else none)


def approve(approval: Id, digest: Digest = None, as_owner: AsOwner = False, json: options.Json = False) -> None:
    """Approve of exactly what was asked, once. What the owner of the state decides on is shown first, and confirmed.

    Where a human of an issuer decides, the page of the request is opened: it shows the request, has them log in for it
    alone, and takes the decision. This waits until they have made it.

    \b
    Examples:
      remit approve apr_2b6mTn9pQ4rVx0cZ
      remit approve apr_2b6mTn9pQ4rVx0cZ --digest 8kQ0yq8m3sVZr1n0T2vXw4b6c8d0e2f4g6h8i0j2k4l
    """
    _decide(approval, "approve", digest, as_owner, json)


def deny(approval: Id, digest: Digest = None, as_owner: AsOwner = False, json: options.Json = False) -> None:
    """Deny what was asked. The like of it is not asked again soon.

    \b
    Examples:
      remit deny apr_2b6mTn9pQ4rVx0cZ
    """
    _decide(approval, "deny", digest, as_owner, json)


def _decide(approval: str, verdict: str, digest: str | None, as_owner: bool, as_json: bool) -> None:
    item = sdk.ask(sdk.asking.approval(approval))
    owners = str(item["approver"]).startswith(LOCAL)
    _check(item, owners, digest, as_owner)
    if not owners:
        done = _at_its_page(item, verdict)
    else:
        if digest is None:  # what is shown is confirmed by a person alone
            if not sys.stdin.isatty():
                raise typer.BadParameter("nobody can confirm here: say which request was seen, with --digest")
            answer(False, item, *request_parts(item))
            if not typer.confirm(f"{verdict} this?"):
                said("nothing was decided")
                raise typer.Exit(1)
        done = sdk.ask(sdk.asking.decide(approval, verdict, digest or item["digest"]))
    document = {name: done[name] for name in ("approval", "state", "digest")}
    answer(as_json, document, f"{done['state']}: {done['approval']}")


def _check(item: Mapping[str, Any], owners: bool, digest: str | None, as_owner: bool) -> None:
    """Raise, before anybody logs in for it, what the broker would say to this decision."""
    look = f"`remit show {item['approval']}`"
    if "digest" not in item and (digest is None or not owners):
        raise DeniedError("no agent decides on what agents ask for", help="a human does, outside of runs")
    if item["state"] == "lapsed":
        raise LapsedError(help="have it asked for again")
    if item["state"] != "pending":
        raise ConflictError("this was decided before", help=f"{look} says how")
    if digest not in {None, item.get("digest", digest)}:
        raise ConflictError("this is not the request that was shown", help=f"{look} shows the request and its digest")
    if as_owner and not owners:
        raise DeniedError(f"`{item['approver']}` decides on this, not the owner", help="leave out --as-owner")


def _at_its_page(item: Mapping[str, Any], verdict: str) -> Mapping[str, Any]:
    """Open the page where the human decides, and wait until they have: a login that begins here decides nothing."""
    issuer = str(item["approver"]).partition("#")[0]
    if issuer not in sdk.ask(sdk.verbs.identity()).get("deciding", ()):
        from remit.compose.probe import CONFIDENTIAL

        raise UnavailableError(f"nobody can log in at `{issuer}` to decide", help=CONFIDENTIAL)
    visit(item["verification_uri"], verdict)
    with waiting(f"waiting for {item['approver']} to decide on {item['approval']}"):
        done = sdk.ask(sdk.asking.decided(item["approval"], LIFE))
    if done["state"] in {"pending", "lapsed"}:
        raise LapsedError(help="have it asked for again")
    if (done["state"] == "denied") != (verdict == "deny"):
        raise ConflictError(f"they decided otherwise: {done['state']}")
    return done


def request_parts(item: Mapping[str, Any]) -> Iterator[str | Mapping[str, object]]:
    """Yield what people read of the exact request: every member that it has."""
    request = {name: value for name, value in item["request"].items() if name != "authorization_details"}
    above = " > ".join(str(node["label"] or node["agent"]) for node in item.get("lineage", ()))
    yield {
        "approval": item["approval"],
        "state": item["state"],
        "for": item["verb"],
        "task": f"{item['task']['task']} ({item['task']['purpose']})" if "task" in item else None,
        "asked by": above or item["asker"],
        "exceeds": ", ".join(item.get("exceeds", ())) or None,
        "decides": _who(item),
        "until": item["expires_at"],
        **({"digest": item["digest"]} if "digest" in item else {}),
        **request,
    }
    beyond = item.get("offending", ())
    for detail in sorted(item["request"]["authorization_details"], key=lambda detail: detail not in beyond):
        yield f"  {'beyond: ' if detail in beyond else ''}{detail['type']} {detail['resource']}"
        for name, key, value in rows(detail):  # whole, so that no two look the same
            yield f"    {name} {f'{key} ' if key else ''}{written(value)}"
    if item["state"] == "pending":
        yield f"a human decides, outside of runs: remit approve {item['approval']}"


def _who(item: Mapping[str, Any]) -> str:
    strongly = f" ({' or '.join(item['acr'])})" if item["acr"] else ""
    return f"{item['approver']}{strongly}"
