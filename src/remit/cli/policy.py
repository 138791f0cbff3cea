"""Policies: check, test, explain, show, reload."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli import options
from remit.cli.connect import ask
from remit.cli.render import UNCOVERED, emit, lines, said, table, waiting

if TYPE_CHECKING:
    from remit.core.policy import Problem
    from remit.policies.cases import Result
    from remit.policies.sets import CedarPolicies

CASES = "*.test.toml"

app = options.group("Policies: what is allowed at most, decided when authority is made.")

Directory = Annotated[
    Path | None,
    typer.Argument(metavar="DIR", help="A directory of *.cedar files; without it the one that is configured."),
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
    where = _where(directory)
    found, problems = _loaded(where)
    wrong = (*problems, *_misread(where))
    warnings, unseen = _doubted(found)
    if json:
        emit(_checked(found, wrong) | _warned(warnings, unseen))
    else:
        for problem in wrong:
            said(str(problem))
        for warning in warnings:
            said(f"warning: {warning}")
        for note in unseen:
            said(f"note: {note}")
        if found:
            said(f"{_count(len(found.policies), 'policy is', 'policies are')} good: {found.version}")
    raise typer.Exit(int(bool(wrong)))


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _misread(directory: Path) -> Iterator[Problem]:
    """Yield what is wrong with the files of cases."""
    from remit.core.policy import Problem
    from remit.errors import RemitError
    from remit.policies.cases import read

    for path in sorted(directory.glob(CASES)):
        try:
            read(_text(path))
        except RemitError as error:
            yield Problem(path.name, 0, error.detail)


def _doubted(found: CedarPolicies | None) -> tuple[list[Problem], list[str]]:
    """Return what is named and does not exist, and what could not be looked up."""
    from remit.policies.doubts import doubts, named

    entities = list(named(_policies(found)))
    kinds = {"resource" if one.kind == "Resource" else "issuer" for one in entities}
    issuers = _issuers() if "issuer" in kinds else None
    resources = _resources() if "resource" in kinds else None
    unseen = []
    if "issuer" in kinds and issuers is None:
        unseen.append("issuers were not looked up: no [[humans]] are configured here")
    if "resource" in kinds and resources is None:
        unseen.append("resources were not looked up: no broker lists them here")
    return list(doubts(entities, issuers, resources)), unseen


def _issuers() -> set[str] | None:
    from remit.config.settings import load
    from remit.errors import InvalidRequestError

    try:
        return {one.issuer for one in load(os.environ).humans} or None
    except InvalidRequestError:  # the broker says what is wrong with it; these policies may be for another host
        return None


def _resources() -> set[str] | None:
    from remit.errors import RemitError
    from remit.sdk import verbs

    try:
        return {str(item["resource"]) for item in ask(verbs.resources())}
    except RemitError:
        return None


def _warned(warnings: Sequence[Problem], unseen: Sequence[str]) -> dict[str, object]:
    return {"warnings": _written(warnings), "notes": list(unseen)}


def _written(problems: Sequence[Problem]) -> list[dict[str, object]]:
    return [{"file": item.file, "line": item.line, "text": item.text} for item in problems]


def _checked(found: CedarPolicies | None, problems: Sequence[Problem]) -> dict[str, object]:
    named = [{"id": item.id, "effect": item.effect, "file": item.file, "line": item.line} for item in _policies(found)]
    return {
        "good": not problems,
        "version": found.version if found else None,
        "policies": named,
        "problems": _written(problems),
    }


def _policies(found: CedarPolicies | None) -> Sequence[Any]:
    return found.policies if found else ()


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
    from remit.errors import InvalidRequestError

    where = _where(directory)
    results = list(_tried(where, _good(where)))
    if not results:
        raise InvalidRequestError("there are no cases beside these policies", help=f"write them in {CASES} files")
    failed = sum(not result.passed for _, result in results)
    if json:
        emit({"cases": [_result(file, result) for file, result in results], "failed": failed})
    else:
        for file, result in results:
            _told(file, result)
        said(f"{len(results) - failed} of {_count(len(results), 'case', 'cases')} came out as they say")
    raise typer.Exit(int(bool(failed)))


def _tried(directory: Path, policies: CedarPolicies) -> Iterator[tuple[str, Result]]:
    from remit.errors import InvalidRequestError
    from remit.policies.cases import read, tried

    for path in sorted(directory.glob(CASES)):
        try:
            found = read(_text(path))
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{path.name}: {error.detail}", help=error.help) from error
        yield from ((path.name, tried(policies, case)) for case in found)


def _result(file: str, result: Result) -> dict[str, object]:
    return {
        "file": file,
        "case": result.case.name,
        "passed": result.passed,
        "allowed": result.decision.allowed,
        "by": list(result.by),
        "reasons": list(result.decision.reasons),
    }


def _told(file: str, result: Result) -> None:
    came = "allowed" if result.decision.allowed else "denied"
    said(f"{'ok    ' if result.passed else 'FAILED'}  {result.case.name}: {came} by {_by(result.by)}")
    if result.passed:
        return
    case = result.case
    expected = {None: "any decision", True: "allowed", False: "denied"}[case.allowed]
    said(f"        {file} says: {expected}{'' if case.reasons is None else f' by {_by(case.reasons)}'}")
    for reason in result.decision.reasons:
        said(f"        {reason}")


def _by(names: Sequence[str]) -> str:
    return ", ".join(names) or "no policy"


@app.command("explain")
def explain(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A file of questions, written as cases are for `policy test`.")
    ] = None,
    grant: Annotated[
        str | None, typer.Option("--grant", "-g", metavar="GRANT", help="A live grant: how it is decided now.")
    ] = None,
    entry: Annotated[
        int | None, typer.Option("--entry", metavar="SEQ", help="An audit entry: what was decided then, and by what.")
    ] = None,
    policies: Annotated[
        Path | None,
        typer.Option("--policies", metavar="DIR", help="For FILE: other policies than the configured ones."),
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
    from remit.sdk import admin

    if sum(item is not None for item in (file, grant, entry)) != 1:
        raise typer.BadParameter("say what is to be explained: FILE, --grant or --entry")
    if file is not None:
        answers = _answered(file, policies)
    else:
        answers = [_entry(entry) if entry is not None else ask(admin.explain(grant or ""))]
    if json:
        emit({"answers": answers})
        return
    for answer in answers:
        _tell(answer)


def _answered(file: Path, directory: Path | None) -> list[dict[str, Any]]:
    from remit.compose.policy import explained
    from remit.policies.cases import read

    found = _good(_where(directory))
    return [{"name": c.name, **explained(found, c.question, found(c.question))} for c in read(_text(file))]


def _entry(seq: int) -> dict[str, Any]:
    from remit.errors import NotFoundError
    from remit.sdk import verbs

    entries = ask(verbs.entries(seq, 1))
    if not entries:
        raise NotFoundError(f"there is no audit entry {seq}")
    event = entries[0]
    return {
        "name": f"entry {seq}: {event['event']}",
        "allowed": event["decision"] in {"allow", "done"},
        "reasons": [event["cause"]] if event["cause"] else [],
        "version": event.get("policy"),
        "code": event["code"],
        "details": [],
    }


def _tell(answer: Mapping[str, Any]) -> None:
    said(f"{answer['name']}:" if "name" in answer else answer["verb"])
    said(f"  {'allowed' if answer['allowed'] else 'denied'}, policies {answer['version'] or 'unknown'}")
    for reason in answer["reasons"]:
        said(f"  {reason}")
    for detail in answer["details"]:
        said(f"  {detail['type']} {detail['resource']}:")
        for step in detail["policies"]:
            said(f"    {step['policy']} ({step['place']}) {_came(step)}")
            for name, value in step["attributes"].items():
                said(f"      {name} = {_shown(value)}")


def _came(step: Mapping[str, Any]) -> str:
    return f"{step['outcome']}: {step['because']}" if step["because"] else str(step["outcome"])


def _shown(value: object) -> str:
    from remit.core.scope import json_text

    return "(not there)" if value is None else json_text(value)


@app.command("show")
def show(json: options.Json = False) -> None:
    """Show which policies the broker decides by, and what was wrong the last time they were to be replaced.

    \b
    Examples:
      remit policy show
      remit policy show --json
    """
    from remit.sdk import admin

    answer = ask(admin.policies())
    if json:
        emit(answer)
        return
    lines({"version": answer["version"], "directory": answer["directory"] or "none: the local owner alone may open"})
    if answer["policies"]:
        table(
            ("policy", "effect", "written in"),
            ((p["id"], p["effect"], f"{p['file']}:{p['line']}") for p in answer["policies"]),
        )
    for item in answer["failing"]:
        said(f"`{item['policy']}` could not be evaluated, and so denied, {item['times']} times; last: {item['why']}")
    _problems(answer)


@app.command("reload")
def reload(json: options.Json = False) -> None:
    """Have the broker read its policies anew; when this returns, what they do not allow has ended.

    Policies with anything wrong in them change nothing: the old ones stay, and this exits with 1.

    \b
    Examples:
      remit policy reload
      remit policy reload --json
    """
    from remit.sdk import admin

    with waiting("deciding on all live grants"):
        answer = ask(admin.reload())
    if json:
        emit(answer)
    elif answer["reloaded"]:
        ended = _count(answer["ended"], "grant or lease was", "grants or leases were")
        said(f"policies {answer['version']} hold; {ended} ended")
        if answer["state"] != "closed":
            said(f"{answer['state']}: outstanding: {UNCOVERED}")
    else:
        said(f"nothing was changed: policies {answer['version']} still hold")
        _problems(answer)
    raise typer.Exit(int(not answer["reloaded"]))


def _problems(answer: Mapping[str, Any]) -> None:
    from remit.core.policy import Problem

    for problem in answer["problems"]:
        said(str(Problem(**problem)))


# -- inside ---------------------------------------------------------------------------------------------------------


def _where(directory: Path | None) -> Path:
    from remit.config.settings import load

    found = directory or load(os.environ).policies
    if found is None:
        raise typer.BadParameter("no policies are configured: name a directory")
    return found


def _loaded(directory: Path) -> tuple[CedarPolicies | None, tuple[Problem, ...]]:
    from remit.compose.policy import load

    return load(directory)


def _good(directory: Path) -> CedarPolicies:
    from remit.errors import InvalidRequestError

    found, problems = _loaded(directory)
    if found is None:
        raise InvalidRequestError(f"these policies are not good: {problems[0]}", help="`remit policy check` names all")
    return found


def _text(file: Path) -> str:
    from remit.errors import InvalidRequestError

    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"`{file}` cannot be read as text") from error
