"""Questions written down in TOML, with what is expected of them: tests of policies, and what-if questions."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from remit.core import fields
from remit.core import scope as scopes
from remit.core.grant import Posture, Subject
from remit.core.policy import Decision, Problem, Question
from remit.core.request import MAX_DEPTH, MAX_FAN_OUT, MAX_LIFE, Binding, Bounds, read_bounds
from remit.errors import InvalidRequestError, RemitError
from remit.policies.sets import CedarPolicies

FILES = "*.test.toml"

_SUBJECT = {"sub": str, "acr": str, "amr": list, "groups": list, "auth_time": int}
_POSTURE = {"isolation": str, "custody": str, "at_rest": str}
_RANGES = {
    "level": MAX_DEPTH,
    "depth": MAX_DEPTH,
    "fan_out": MAX_FAN_OUT,
    "ttl": int(MAX_LIFE.total_seconds()),  # of a task that was renewed
    "auth_time": 253_402_300_799,  # the last second that a calendar has
}
_CHOICES = {
    "expect": ("allow", "deny"),
    "verb": ("open", "delegate", "issue", "renew"),
    "isolation": ("namespace", "host-net", "unsandboxed", "none"),
    "custody": ("channel", "holder", "bearer"),
    "at_rest": ("kek-file", "none"),
}
_KNOWN: Mapping[str, type] = {
    **{field.name: type(field.default) for field in fields_of(Bounds) if isinstance(field.default, int)},
    **dict.fromkeys(("agent", "expect", "name", "purpose", "verb"), str),
    **dict.fromkeys(("approval", "attested"), bool),
    **dict.fromkeys(("level", "ttl"), int),
    **dict.fromkeys(("claims", "posture", "subject"), dict),
    **dict.fromkeys(("details", "reasons"), list),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A question, and what is expected of it: allowed or not, and by which policies; None: that is not asked."""

    name: str
    question: Question
    allowed: bool | None = None
    reasons: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a case of a file. ``by`` are the ids of the policies that decided."""

    file: str
    case: Case
    decision: Decision
    by: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether all that was expected came true."""
        as_expected = self.case.allowed in {None, self.decision.allowed}
        return as_expected and (self.case.reasons is None or set(self.case.reasons) == set(self.by))


def tried(policies: CedarPolicies, case: Case, file: str = "") -> Result:
    """Put a case to the policies."""
    verdicts, decision = policies.verdicts(case.question), policies(case.question)
    told = [verdict for verdict in verdicts if decision.allowed or not verdict.allowed]
    by = [name for verdict in told for name in verdict.failed or verdict.by]
    return Result(file, case, decision, tuple(dict.fromkeys(by)))


def results(policies: CedarPolicies, directory: Path) -> Iterator[Result]:
    """Put the cases beside policies to them, or raise InvalidRequestError naming the file that cannot be read."""
    for path in sorted(directory.glob(FILES)):
        try:
            cases = read_file(path)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{path.name}: {error.detail}", help=error.help) from error
        yield from (tried(policies, case, path.name) for case in cases)


def misread(directory: Path) -> Iterator[Problem]:
    """Yield what is wrong with the files of cases in a directory."""
    for path in sorted(directory.glob(FILES)):
        try:
            read_file(path)
        except RemitError as error:
            yield Problem(path.name, 0, error.detail)


def read_file(path: Path) -> tuple[Case, ...]:
    """Read the cases of a file, or raise InvalidRequestError."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"`{path}` cannot be read as text") from error
    return read(text)


def read(text: str) -> tuple[Case, ...]:
    """Read the ``[[case]]`` tables of a file, or raise InvalidRequestError naming the case and the field."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequestError(f"this is not TOML: {error}") from error
    cases = raw.get("case")
    if raw.keys() != {"case"} or not isinstance(cases, list) or not all(isinstance(item, dict) for item in cases):
        raise InvalidRequestError("cases are written as `[[case]]` tables, and nothing else is in the file")
    return tuple(_case(number, item) for number, item in enumerate(cases, 1))


def _case(number: int, raw: Mapping[str, Any]) -> Case:
    name, expect, reasons = str(raw.get("name", f"case {number}")), raw.get("expect"), raw.get("reasons")
    try:
        _check(raw, _KNOWN)
        return Case(
            name,
            question(raw),
            None if expect is None else expect == "allow",
            None if reasons is None else fields.texts("reasons", reasons),
        )
    except RemitError as error:
        raise InvalidRequestError(f"`{name}`: {error.detail}", help=error.help) from error


def question(raw: Mapping[str, Any]) -> Question:
    """Read one question; what is not said is as it is for a grant of which nothing is said."""
    subject, posture = raw.get("subject", {}), raw.get("posture", {})
    _check(subject, _SUBJECT)
    _check(posture, _POSTURE)
    if "details" not in raw or "sub" not in subject:
        raise InvalidRequestError("`details` and `subject.sub` are needed")
    claims = [(key, fields.text("claims", value)) for key, value in raw.get("claims", {}).items()]
    at = subject.get("auth_time")
    return Question(
        subject=Subject(
            subject["sub"],
            subject.get("acr", ""),
            None if at is None else datetime.fromtimestamp(at, UTC),
            fields.texts("amr", subject.get("amr", [])),
            fields.texts("groups", subject.get("groups", [])),
        ),
        purpose=raw.get("purpose", ""),
        scope=scopes.parse(raw["details"]),
        verb=raw.get("verb", "open"),
        agent=raw.get("agent", ""),
        binding=Binding(identity=raw.get("agent", "") if raw.get("attested") else None, claims=tuple(sorted(claims))),
        bounds=read_bounds(raw),
        level=raw.get("level", 0),
        posture=Posture(**posture),
        approval="asked" if raw.get("approval") else None,
    )


def _check(raw: Mapping[str, Any], known: Mapping[str, type]) -> None:
    for key, value in raw.items():
        if key not in known:
            raise InvalidRequestError(f"`{key}` is not known here", help=f"known: {', '.join(sorted(known))}")
        kind = type(value)
        if kind is not known[key]:  # exactly: true is no number here
            raise InvalidRequestError(f"`{key}` has the wrong type")
        least, most = int(key == "ttl"), _RANGES.get(key)
        if most is not None and not least <= value <= most:
            raise InvalidRequestError(f"`{key}` must be from {least} to {most}")
        if key in _CHOICES and value not in _CHOICES[key]:
            raise InvalidRequestError(f"`{key}` must be one of {', '.join(_CHOICES[key])}")
