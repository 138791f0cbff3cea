"""A set of policies: read and validated as a whole, or refused with every problem there is; then asked.

- Its files are read so that nobody but their owner and root could have written them.
- Cedar's parser says what is wrong, never where. A policy ends at a semicolon outside of strings and comments, whatever
  is inside of it; so each is read alone, and what is said of it belongs to its lines.
- Deviating from Cedar, a policy that cannot be evaluated denies the whole decision: a ``forbid`` that was skipped
  because it failed would be an open door.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remit.core.grant import Subject
from remit.core.orders import json_text
from remit.core.policy import LOCAL, Decision, Problem, Question
from remit.policies import model

if TYPE_CHECKING:
    from cedarpy import AuthzResult, Entities, PolicySet

SUFFIX = ".cedar"
MAX_FILES = 1_000
MAX_ALL = 131_072  # bytes: what a decision takes grows with them
REMEMBERED = 4_096  # verdicts, and combinations of principal, claims and resources whose entities stay parsed

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|;', re.DOTALL)
_BLANK = re.compile(r"(?:\s|//[^\n]*)*")
_QUOTED = re.compile(r"`([^`\n]+)`")
_WORD = re.compile(r"\w+")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ABOUT = re.compile(r"^(?:Policy parse error: |for policy `[^`]*`, )")
_ACTION = re.compile(r' for Action::"[a-z]+"')  # the same is said for each action
_NAMED = re.compile(r'\b(Group|Human|Resource)\s*::\s*"((?:\\.|[^"\\])*)"|"(?:\\.|[^"\\])*"|//[^\n]*', re.DOTALL)
_FAILED = re.compile(r"error while evaluating policy `([^`]+)`: (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Written:
    """Where a policy stands, and what it is. ``node`` is its syntax tree (``cedarpy.pst.Template``)."""

    id: str
    file: str
    line: int
    text: str
    effect: str  # permit | forbid
    node: Any


@dataclass(frozen=True, slots=True)
class PolicyVerdict:
    """What a set says of one detail. ``by`` are the policies that decided; ``failed`` maps those that failed to why."""

    allowed: bool
    by: tuple[str, ...]
    failed: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Failing:
    """How often a policy could not be evaluated, and why the last time."""

    times: int
    why: str


class CedarPolicies:
    """Decides by policies that were found to be good. Nothing is allowed that no policy permits; a forbid wins."""

    def __init__(
        self, texts: Mapping[str, str], policies: Sequence[Written], parsed: PolicySet, names: Mapping[str, str]
    ) -> None:
        """Hold parsed handles of what is in ``texts``; ``names`` maps Cedar's own numbering to ids of ``policies``."""
        self.texts, self.version, self.policies = dict(texts), version_of(texts), tuple(policies)
        self.failing: dict[str, Failing] = {}  # the policies that could not be evaluated when they were asked
        self._parsed, self._names = parsed, names
        self._cedar, self._schema = model.cedar(), model.schema()
        text = "\n".join(texts.values())
        # All words of the policies; None where an escape may spell others, as an attribute's name in a string.
        self._words = None if "\\" in text else frozenset(_WORD.findall(text))
        self._remembered: dict[bytes, PolicyVerdict] = {}  # by digests of questions: a verdict depends on nothing else

    def __call__(self, question: Question) -> Decision:
        """Decide on every detail; all must be allowed."""
        verdicts = self.verdicts(question)
        failed = {name: why for verdict in verdicts for name, why in verdict.failed.items()}
        if failed:
            for name, why in failed.items():
                before = self.failing.get(name)
                self.failing[name] = Failing(1 if before is None else before.times + 1, why)
            reasons = [f"`{name}` could not be evaluated: {why}" for name, why in failed.items()]
            return Decision(allowed=False, reasons=tuple(reasons), version=self.version)
        pairs = list(zip(question.scope, verdicts, strict=True))
        denied = tuple(detail for detail, verdict in pairs if not verdict.allowed)
        told = [pair for pair in pairs if not denied or not pair[1].allowed]
        reasons = [reason for detail, verdict in told for reason in _reasons(question, detail.resource, verdict)]
        return Decision(not denied, tuple(dict.fromkeys(reasons)), denied, self.version)

    def verdicts(self, question: Question) -> list[PolicyVerdict]:
        """Return what is said of each detail, in order. What was asked before is remembered."""
        asked = model.requests(question)
        digests = self._digests(question, asked)
        told = {digest: self._remembered[digest] for digest in digests if digest in self._remembered}
        fresh = {digest: one for digest, one in zip(digests, asked, strict=True) if digest not in told}
        try:
            entities = self.entities(question)
            answers = self._cedar.is_authorized_batch([*fresh.values()], self._parsed, entities, self._schema)
        except (ValueError, TypeError) as error:  # text that is no text: nothing is decided, so nothing is allowed
            return [PolicyVerdict(allowed=False, by=(), failed={"the question": str(error)})] * len(asked)
        told |= zip(fresh, map(self._verdict, answers), strict=True)
        self._remembered |= {digest: told[digest] for digest in fresh}
        while len(self._remembered) > REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        return [told[digest] for digest in digests]

    def _digests(self, question: Question, asked: Sequence[model.Json]) -> list[bytes]:
        """Name what these policies can see of each request: many grants differ in what no policy here mentions."""
        common = {name: value for name, value in asked[0]["context"].items() if name != "detail"}
        if self._words is not None:
            common = {name: value for name, value in common.items() if name in self._words}
        entities = model.entities(question.subject, dict(question.binding.claims), model.named(question))
        about = json_text([question.verb, entities, common])
        own = (json_text([one["resource"], one["context"]["detail"]]) for one in asked)
        return [sha256(f"{about}{text}".encode()).digest() for text in own]

    def entities(self, question: Question) -> Entities:
        """Return the parsed entities that a question names."""
        return _entities(question.subject, question.binding.claims, model.named(question))

    def _verdict(self, answer: AuthzResult) -> PolicyVerdict:
        failed = {}
        for text in answer.diagnostics.errors:
            found = _FAILED.fullmatch(text)
            name, why = found.groups() if found else ("the question", text)
            failed[self._names.get(name, name)] = why
        by = tuple(sorted(self._names[name] for name in answer.diagnostics.reasons))
        return PolicyVerdict(answer.allowed and not failed, by, failed)


def _reasons(question: Question, resource: str, verdict: PolicyVerdict) -> list[str]:
    if not verdict.allowed and not verdict.by:
        return [f"no policy permits to {question.verb} `{resource}`"]
    effect = "permits" if verdict.allowed else "forbids"
    return [f"`{name}` {effect} `{resource}`" for name in verdict.by]


@lru_cache(maxsize=REMEMBERED)
def _entities(subject: Subject, claims: tuple[tuple[str, str], ...], named: tuple[tuple[str, str], ...]) -> Entities:
    text = json.dumps(model.entities(subject, dict(claims), named))
    found: Entities = model.cedar().Entities.from_json_str(text, model.schema())
    return found


def read_directory(directory: Path) -> tuple[Mapping[str, str], tuple[Problem, ...]]:
    """Return the ``*.cedar`` files of a directory (name -> text), or what is wrong with them.

    Sub-directories are not looked into; a link is followed only inside the directory.
    """
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    try:
        root = directory.resolve(strict=True)
        wrong = _writable(root.stat(), "the directory") if root.is_dir() else "this is not a directory"
        found = sorted(path for path in root.iterdir() if path.name.endswith(SUFFIX)) if not wrong else []
    except OSError as error:
        return {}, (Problem("", 0, f"`{directory}` cannot be read: {error.strerror}"),)
    if wrong or len(found) > MAX_FILES:
        return {}, (Problem("", 0, wrong or f"there are more than {MAX_FILES} files"),)
    for path in found:
        text = _text(root, path)
        if isinstance(text, Problem):
            problems.append(text)
        else:
            texts[path.name] = text
    if sum(map(len, texts.values())) > MAX_ALL:
        problems.append(Problem("", 0, f"the files have more than {MAX_ALL} bytes together"))
    return texts, tuple(problems)


def _text(root: Path, path: Path) -> str | Problem:
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(root):
            return Problem(path.name, 0, "this is a link out of the directory")
        with os.fdopen(os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            wrong = _writable(found, "the file") if stat.S_ISREG(found.st_mode) else "this is not a regular file"
            raw = b"" if wrong else file.read(MAX_ALL + 1)
        if len(raw) > MAX_ALL:
            wrong = f"the file has more than {MAX_ALL} bytes"
        return Problem(path.name, 0, wrong) if wrong else raw.decode("utf-8")
    except UnicodeDecodeError:
        return Problem(path.name, 0, "this is not UTF-8 text")
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        return Problem(path.name, 0, f"it cannot be read: {getattr(error, 'strerror', None) or 'links in a circle'}")


def _writable(found: os.stat_result, what: str) -> str:
    """Say what is wrong with the owner or the mode, or nothing. Who is in a group can change; root's counts as root."""
    if found.st_uid not in {0, os.geteuid()}:
        return f"{what} belongs to somebody else"
    if found.st_mode & stat.S_IWOTH:
        return f"{what} can be written by everybody: chmod go-w"
    by_group = found.st_mode & stat.S_IWGRP and found.st_gid != 0
    return f"{what} can be written by its group: chmod g-w" if by_group else ""


def version_of(texts: Mapping[str, str]) -> str:
    """Return the name of a set: a short digest over the schema and all files."""
    hashed = sha256(model.schema_text().encode())
    for name in sorted(texts):
        for part in (name, texts[name]):
            raw = part.encode()
            hashed.update(len(raw).to_bytes(8, "big") + raw)
    return f"cedar-{hashed.hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy as it was written. ``line`` is where it starts, from 1; ``whole`` unless its end is missing."""

    text: str
    line: int
    whole: bool = True

    def line_of(self, message: str) -> int:
        """Return the line that an error is about: where what it quotes stands, if that is in one place."""
        for quoted in _QUOTED.findall(message):
            alone = re.compile(rf"(?<![\w\"]){re.escape(quoted)}(?![\w\"])")
            found = [n for n, line in enumerate(self.text.splitlines()) if alone.search(line.split("//", 1)[0])]
            if len(found) == 1:
                return self.line + found[0]
        return self.line


def cut(text: str) -> Iterator[Statement]:
    """Yield the policies of a text in order; what follows the last semicolon comes as one that is not whole."""
    ends = [token.end() for token in _TOKEN.finditer(text) if token.group() == ";"]
    for number, (start, end) in enumerate(pairwise([0, *ends, len(text)])):
        blank = _BLANK.match(text, start)
        begin = blank.end() if blank else start
        if begin < end:
            yield Statement(text[begin:end], text.count("\n", 0, begin) + 1, whole=number < len(ends))


def read(texts: Mapping[str, str]) -> tuple[CedarPolicies | None, tuple[Problem, ...]]:
    """Read a set from its files (name -> Cedar text): the set, or else all that is wrong with it."""
    found: list[Written] = []
    problems: list[Problem] = []
    for name in sorted(texts):
        for statement in cut(texts[name]):
            problems += [Problem(name, statement.line_of(text), text) for text in _take(found, name, statement)]
    if not found and not problems:
        problems.append(Problem("", 0, "there is no policy here; to deny everything, write a forbid"))
    if problems:
        return None, tuple(problems)
    parsed = model.cedar().PolicySet.from_str("\n".join(item.text for item in found))
    nodes = parsed.to_pst().static_policies
    names = {number: node.annotations["id"] for number, node in nodes.items()}
    return CedarPolicies(texts, found, parsed, names), ()


def _take(found: list[Written], file: str, statement: Statement) -> list[str]:
    """Add a policy to those that were found before it, and return what is wrong with it."""
    if not statement.whole:
        return ["the policy has no end: a `;` is missing, or a string is not closed"]
    try:
        parsed = model.cedar().PolicySet.from_str(statement.text).to_pst()
    except ValueError as error:
        return [_plain(error)]
    if parsed.templates or len(parsed.static_policies) != 1:
        return ["this is not one policy: templates are not used here, write principal and resource out"]
    [node] = parsed.static_policies.values()
    name = node.annotations.get("id", "")
    if not _ID.fullmatch(name):
        return ['the policy needs a name: @id("what-it-does"), of letters, digits, `.`, `_` and `-`']
    twin = next((item for item in found if item.id == name), None)
    if twin is not None:
        return [f"the name `{name}` is taken by {twin.file}:{twin.line}"]
    errors = model.cedar().validate_policies(statement.text, model.schema()).errors
    found.append(Written(name, file, statement.line, statement.text, str(node.effect), node))
    return sorted({_ACTION.sub("", _plain(item.error)) for item in errors})  # Cedar's own order is any


def _plain(error: object) -> str:
    return _ABOUT.sub("", " ".join(str(error).split()))


@dataclass(frozen=True, slots=True)
class Named:
    """An entity that a policy names, and where."""

    kind: str
    id: str
    file: str
    line: int

    def __str__(self) -> str:
        """Return it as policies write it."""
        return f'{self.kind}::"{self.id}"'


def named(policies: Sequence[Written]) -> Iterator[Named]:
    """Yield the groups, humans and resources that policies name, in order; not those in strings and comments."""
    for policy in policies:
        for found in _NAMED.finditer(policy.text):
            if found[1]:
                line = policy.line + policy.text.count("\n", 0, found.start())
                yield Named(found[1], found[2], policy.file, line)


def doubts(
    entities: Sequence[Named], issuers: Collection[str] | None, resources: Collection[str] | None
) -> Iterator[Problem]:
    """Yield what is named and does not exist. ``issuers`` and ``resources`` are those there are; None: not known.

    Cedar takes any id, and one that is misspelt makes a permit that never applies, or, worse, a forbid.
    """
    for one in entities:
        issuer, hash_, _ = one.id.partition("#")
        text = ""
        if one.kind == "Resource":
            if resources is not None and one.id not in resources:
                text = f"there is no resource for `{one}`"
        elif not hash_:
            text = f"`{one}` is nobody: an id is the issuer, `#`, and its name there"
        elif issuers is not None and issuer not in issuers and not issuer.startswith(LOCAL):
            text = f"`{one}` is nobody: `{issuer}` is no issuer of `[[humans]]`"
        if text:
            yield Problem(one.file, one.line, text)
