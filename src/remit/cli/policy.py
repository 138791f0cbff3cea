"""Policies: check, test, explain, show, reload."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli import options, sdk
from remit.cli.options import argument, option
from remit.cli.render import UNCOVERED, Table, answer, waiting
from remit.core.orders import json_text
from remit.core.policy import Problem
from remit.errors import InvalidRequestError, NotFoundError, RemitError

if TYPE_CHECKING:
    from remit.policies.cases import Result
    from remit.policies.sets import CedarPolicies

app = options.group("policy", "Policies: what is allowed at most, decided when authority is made.")

Directory = Annotated[
    Path | None, argument("DIR", "A directory of *.cedar files; without it the one that is configured.")
]


@app.command("check")
def check(directory: Directory = None, json: options.Json = False) -> None:
    """Read and validate policies as the broker would, and name everything that is wrong; no broker is needed.

    Its *.test.toml files are read too, but not put to the policies: `remit policy test` does. Exits with 1 when
    something is wrong. Groups and humans of no issuer and resources that do not exist are warned of, as far as they
    can be looked up: issuers in the configuration, resources at the broker.

    \b
    Examples:
      remit policy check examples/policies
      remit policy check --json
    """
    from remit.policies.cases import misread

    where, found, problems = _loaded(directory)
    wrong = [*problems, *misread(where)]
    warnings, unseen = _doubted(found)
    policies = found.policies if found else ()
    document = {
        "good": not wrong,
        "version": found.version if found else None,
        "policies": [{"id": one.id, "effect": one.effect, "file": one.file, "line": one.line} for one in policies],
        "problems": [asdict(one) for one in wrong],
        "warnings": [asdict(one) for one in warnings],
        "notes": unseen,
    }
    parts = [*map(str, wrong), *(f"warning: {one}" for one in warnings), *(f"note: {note}" for note in unseen)]
    if found:
        parts.append(f"{_count(len(policies), 'policy is', 'policies are')} good: {found.version}")
    answer(json, document, *parts)
    raise typer.Exit(int(bool(wrong)))


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _doubted(found: CedarPolicies | None) -> tuple[list[Problem], list[str]]:
    """Return what is named and does not exist, and what could not be looked up."""
    from remit.policies.sets import doubts, named

    entities = list(named(found.policies if found else ()))
    unseen, issuers, resources = [], None, None
    if any(one.kind != "Resource" for one in entities):
        with suppress(InvalidRequestError):  # the broker says what is wrong with it; these may be for another host
            issuers = {one.issuer for one in options.settings().humans} or None
        if issuers is None:
            unseen.append("issuers were not looked up: no [[humans]] are configured here")
    if any(one.kind == "Resource" for one in entities):
        try:
            resources = {str(item["resource"]) for item in sdk.ask(sdk.verbs.resources())}
        except RemitError:
            unseen.append("resources were not looked up: no broker lists them here")
    return list(doubts(entities, issuers, resources)), unseen


@app.command("test")
def cases(directory: Directory = None, json: options.Json = False) -> None:
    """Put the questions of *.test.toml files to the policies beside them, and compare what is decided and by which.

    Resource bounds and what a parent grant holds are not looked at: it is the policies that are tested. Exits with 1
    when a case comes out otherwise than it says, and when there are no cases.

    \b
    Examples:
      remit policy test examples/policies
      remit policy test --json
    """
    from remit.policies.cases import FILES, results

    where, policies = _good(directory)
    found = list(results(policies, where))
    if not found:
        raise InvalidRequestError("there are no cases beside these policies", help=f"write them in {FILES} files")
    failed = sum(not result.passed for result in found)
    passed = f"{len(found) - failed} of {_count(len(found), 'case', 'cases')} came out as they say"
    shown = [
        {
            "file": one.file,
            "case": one.case.name,
            "passed": one.passed,
            "allowed": one.decision.allowed,
            "by": list(one.by),
            "reasons": list(one.decision.reasons),
        }
        for one in found
    ]
    parts = (part for result in found for part in _result_parts(result))
    answer(json, {"cases": shown, "failed": failed}, *parts, passed)
    raise typer.Exit(int(bool(failed)))


def _result_parts(result: Result) -> Iterator[str]:
    case, words = result.case, {None: "any decision", True: "allowed", False: "denied"}
    by = ", ".join(result.by) or "no policy"
    yield f"{'ok    ' if result.passed else 'FAILED'}  {case.name}: {words[result.decision.allowed]} by {by}"
    if not result.passed:
        expected = "" if case.reasons is None else f" by {', '.join(case.reasons) or 'no policy'}"
        yield f"        {result.file} says: {words[case.allowed]}{expected}"
        yield from (f"        {reason}" for reason in result.decision.reasons)


@app.command("explain")
def explain(
    file: Annotated[
        Path | None, argument("FILE", "A file of questions, written as cases are for `policy test`.")
    ] = None,
    grant: Annotated[str | None, option("--grant -g GRANT", "A live grant: how it is decided now.")] = None,
    entry: Annotated[int | None, option("--entry SEQ", "An audit entry: what was decided then, and by what.")] = None,
    policies: Annotated[
        Path | None, option("--policies DIR", "For FILE: other policies than the configured ones.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Explain why something is or was allowed or denied: each policy, what it came to, and what it looked at.

    \b
    Examples:
      remit policy explain -g grt_7VYx1bD0Qe2mNf3sK9h6Lw
      remit policy explain --entry 4711
      remit policy explain question.toml --policies examples/policies
    """
    if sum(item is not None for item in (file, grant, entry)) != 1:
        raise typer.BadParameter("say what is to be explained: FILE, --grant or --entry")
    answers: list[Mapping[str, Any]]
    if file is not None:
        from remit.compose.policy import explained
        from remit.policies.cases import read_file

        _, found = _good(policies)
        answers = [{"name": c.name, **explained(found, c.question, found(c.question))} for c in read_file(file)]
    elif entry is not None:
        answers = [_decided(sdk.ask(sdk.verbs.entries(entry, 1)), entry)]
    else:
        answers = [sdk.ask(sdk.admin.explain(grant or ""))]
    answer(json, {"answers": answers}, *(part for one in answers for part in _decision_parts(one)))


def _decided(page: Sequence[Mapping[str, Any]], seq: int) -> Mapping[str, Any]:
    """Return what an audit entry says of its decision."""
    if not page:
        raise NotFoundError(f"there is no audit entry {seq}")
    [event] = page
    return {
        "name": f"entry {seq}: {event['event']}",
        "allowed": event["decision"] in {"allow", "done"},
        "reasons": [event["cause"]] if event["cause"] else [],
        "version": event.get("policy"),
        "code": event["code"],
        "details": [],
    }


def _decision_parts(answer: Mapping[str, Any]) -> Iterator[str]:
    yield f"{answer['name']}:" if "name" in answer else answer["verb"]
    yield f"  {'allowed' if answer['allowed'] else 'denied'}, policies {answer['version'] or 'unknown'}"
    yield from (f"  {reason}" for reason in answer["reasons"])
    for detail in answer["details"]:
        yield f"  {detail['type']} {detail['resource']}:"
        for step in detail["policies"]:
            came = f"{step['outcome']}: {step['because']}" if step["because"] else str(step["outcome"])
            yield f"    {step['policy']} ({step['place']}) {came}"
            for name, value in step["attributes"].items():
                yield f"      {name} = {'(not there)' if value is None else json_text(value)}"


@app.command("show")
def show(
    schema: Annotated[bool, option("--schema", "Print the Cedar schema instead; no broker is needed.")] = False,
    json: options.Json = False,
) -> None:
    """Show which policies the broker decides by, and what was wrong the last time they were to be replaced.

    \b
    Examples:
      remit policy show
      remit policy show --json
      remit policy show --schema
    """
    if schema:
        from remit.policies.model import schema_text

        text = schema_text(options.kinds())
        answer(json, {"schema": text}, *text.splitlines())
        return
    found = sdk.ask(sdk.admin.policies())
    parts: list[str | Mapping[str, object] | Table] = [
        {"version": found["version"], "directory": found["directory"] or "none: the local owner alone may open"}
    ]
    if found["policies"]:
        rows = [(one["id"], one["effect"], f"{one['file']}:{one['line']}") for one in found["policies"]]
        parts.append(Table(("policy", "effect", "written in"), rows))
    for one in found["failing"]:
        times = f"{one['times']} times; last: {one['why']}"
        parts.append(f"`{one['policy']}` could not be evaluated, and so denied, {times}")
    answer(json, found, *parts, *_problems(found))


@app.command("reload")
def reload(json: options.Json = False) -> None:
    """Have the broker read its policies anew; when this returns, what they do not allow has ended.

    Policies with anything wrong in them change nothing: the old ones stay, and this exits with 1.

    \b
    Examples:
      remit policy reload
      remit policy reload --json
    """
    with waiting("deciding on all live grants"):
        done = sdk.ask(sdk.admin.reload())
    if done["reloaded"]:
        ended = _count(done["ended"], "grant or lease was", "grants or leases were")
        parts = [f"policies {done['version']} hold; {ended} ended"]
        parts += [] if done["state"] == "closed" else [f"{done['state']}: outstanding: {UNCOVERED}"]
    else:
        parts = [f"nothing was changed: policies {done['version']} still hold", *_problems(done)]
    answer(json, done, *parts)
    raise typer.Exit(int(not done["reloaded"]))


def _problems(answer: Mapping[str, Any]) -> Iterator[str]:
    return (str(Problem(**problem)) for problem in answer["problems"])


def _loaded(directory: Path | None) -> tuple[Path, CedarPolicies | None, tuple[Problem, ...]]:
    """Return where policies are, which there are, and what is wrong with them."""
    from remit.compose.policy import load

    where = directory or options.settings().policies
    if where is None:
        raise typer.BadParameter("no policies are configured: name a directory")
    options.kinds()  # whose details policies and cases are about
    return where, *load(where)


def _good(directory: Path | None) -> tuple[Path, CedarPolicies]:
    where, found, problems = _loaded(directory)
    if found is None:
        raise InvalidRequestError(f"these policies are not good: {problems[0]}", help="`remit policy check` names all")
    return where, found
