"""Write ``attenuation.json``: what a child may ask for under a parent, for any implementation of the algebra.

Run from the repository's root: ``python tests/vectors/make_attenuation.py``. A test holds the file to what this writes.

``result`` is ``valid`` when the child is within the parent, ``invalid`` when it is refused; then ``error`` is the code
of the refusal. ``flags`` name the rule a case is about.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from remit.core import scope
from remit.errors import UnknownDetailError

FILE = Path(__file__).parent / "attenuation.json"
HTTP: dict[str, object] = {
    "type": "http",
    "resource": "search",
    "actions": ["GET", "POST"],
    "paths": ["/v1/*", "/v2/**"],
}
SQL: dict[str, object] = {
    "type": "postgres",
    "resource": "warehouse",
    "actions": ["select"],
    "tables": ["sales.revenue", "sales.orders"],
    "columns": {"sales.revenue": ["quarter", "amount"]},
}
MCP: dict[str, object] = {
    "type": "calls",
    "resource": "github",
    "actions": ["tools/call"],
    "tools": {"create_issue": {"repo": "acme/app", "labels": "any"}, "search": "any"},
}
Case = tuple[str, str, Mapping[str, object], Mapping[str, object]]  # flag, comment, what differs in parent and child


def _http() -> list[Case]:
    args = {"query.q": "any", "query.limit": {"at_most": 20}, "header.x-account": "acme"}
    narrow = {"query.limit": {"at_most": 5}, "header.x-account": "acme"}
    return [
        ("same", "the same detail", {}, {}),
        ("subset", "one action of two", {}, {"actions": ["GET"]}),
        ("subset", "an action more", {}, {"actions": ["GET", "PUT"]}),
        ("path", "a literal under a star", {}, {"paths": ["/v1/a"]}),
        ("path", "a star is one segment", {}, {"paths": ["/v1/a/b"]}),
        ("path", "a star is not empty", {}, {"paths": ["/v1/"]}),
        ("path", "a star does not match nothing", {}, {"paths": ["/v1"]}),
        ("path", "the rest may be empty", {}, {"paths": ["/v2"]}),
        ("path", "the rest may be a slash", {}, {"paths": ["/v2/"]}),
        ("path", "the rest may be deep", {}, {"paths": ["/v2/a/*/b/**"]}),
        ("path", "the rest is wider than a star", {}, {"paths": ["/v1/**"]}),
        ("path", "everything", {}, {"paths": ["/**"]}),
        ("path", "case matters", {}, {"paths": ["/V2/a"]}),
        ("path", "no prefix of a segment", {}, {"paths": ["/v22/a"]}),
        ("path-syntax", "dot segments", {}, {"paths": ["/v2/../v3"]}),
        ("path-syntax", "encoded dot segments", {}, {"paths": ["/v2/%2E%2E/v3"]}),
        ("path-syntax", "an encoded slash", {}, {"paths": ["/v2/a%2Fb"]}),
        ("path-syntax", "an encoded letter", {}, {"paths": ["/v2/%61"]}),
        ("path-syntax", "lower-case hex", {}, {"paths": ["/v2/%c3%a9"]}),
        ("path-syntax", "an empty segment", {}, {"paths": ["/v2//a"]}),
        ("path-syntax", "a star inside a segment", {}, {"paths": ["/v2/a*"]}),
        ("path-syntax", "an expression", {}, {"paths": ["/v2/.+?"]}),
        ("resource", "another resource", {}, {"resource": "other"}),
        ("ttl", "less time", {"ttl": 60}, {"ttl": 59}),
        ("ttl", "more time", {"ttl": 60}, {"ttl": 61}),
        ("ttl", "absent is wider", {"ttl": 60}, {"ttl": None}),
        ("ttl", "a bound where there was none", {}, {"ttl": 60}),
        ("ttl", "zero", {"ttl": 60}, {"ttl": 0}),
        ("ttl", "true is no number", {"ttl": 60}, {"ttl": True}),
        ("ttl", "text is no number", {"ttl": 60}, {"ttl": "60"}),
        ("ttl", "a fraction", {"ttl": 60}, {"ttl": 1.5}),
        ("uses", "more uses", {"uses": 3}, {"uses": 4}),
        ("args", "narrower arguments", {"args": args}, {"args": narrow}),
        ("args", "what is required may not be dropped", {"args": args}, {"args": {"query.limit": {"at_most": 5}}}),
        ("args", "what is not named may not be added", {"args": args}, {"args": {**narrow, "query.x": "any"}}),
        ("args", "any is the top", {"args": "any"}, {"args": args}),
        ("args", "the top is wider than every map", {"args": args}, {"args": "any"}),
        ("args", "no arguments are fewer than any", {"args": "any"}, {}),
        ("args", "arguments where there were none", {}, {"args": {"query.q": "any"}}),
        ("args", "a value under a bound", {"args": args}, {"args": {**narrow, "query.limit": "7"}}),
        ("args", "a value below zero", {"args": args}, {"args": {**narrow, "query.limit": "-1"}}),
        ("args", "a value in another spelling", {"args": args}, {"args": {**narrow, "query.limit": "07"}}),
        ("args", "a number where the wire has text", {"args": args}, {"args": {**narrow, "query.limit": 7}}),
        ("args", "another account", {"args": args}, {"args": {**narrow, "header.x-account": "evil"}}),
        ("args", "a header in upper case", {"args": "any"}, {"args": {"header.X-Account": "acme"}}),
        ("args", "inside what is named", {"args": "any"}, {"args": {"body.a": "any", "body.a.b": 1}}),
        ("args", "one and true differ", {"args": {"body.n": 1}}, {"args": {"body.n": True}}),
        ("args", "one and its text differ", {"args": {"body.n": 1}}, {"args": {"body.n": "1"}}),
        ("unknown", "an unknown field", {}, {"regex": ".*"}),
        ("unknown", "an unknown type", {}, {"type": "smtp"}),
    ]


def _others() -> list[tuple[dict[str, object], Case]]:
    tools = {"create_issue": {"repo": "acme/app"}}
    sql: list[Case] = [
        ("subset", "one table of two", {}, {"tables": ["sales.orders"], "columns": None}),
        ("columns", "one column of two", {}, {"columns": {"sales.revenue": ["amount"]}}),
        ("columns", "a column more", {}, {"columns": {"sales.revenue": ["amount", "bonus"]}}),
        ("columns", "a table whole whose columns were named", {}, {"columns": None}),
        ("columns", "columns of a table that is not listed", {}, {"columns": {"hr.staff": ["name"]}}),
        ("subset", "a table more", {}, {"tables": ["sales.revenue", "hr.staff"]}),
        ("subset", "a write", {}, {"actions": ["select", "delete"]}),
    ]
    mcp: list[Case] = [
        ("tools", "one tool, without its free argument", {}, {"tools": tools}),
        ("tools", "another repository", {}, {"tools": {"create_issue": {"repo": "acme/pay"}}}),
        ("tools", "a tool more", {}, {"tools": {**tools, "delete_repo": {}}}),
        ("tools", "arguments of a tool set free", {}, {"tools": {"create_issue": "any"}}),
        ("tools", "the required argument dropped", {}, {"tools": {"create_issue": {}}}),
    ]
    return [*((SQL, case) for case in sql), *((MCP, case) for case in mcp)]


def _test(number: int, base: Mapping[str, object], case: Case) -> dict[str, object]:
    flag, comment, above, below = case
    parent = {**base, **above}
    child = {key: value for key, value in {**parent, **below}.items() if value is not None}
    error = _error(parent, child)
    result = "valid" if error is None else "invalid"
    return {
        "tcId": number,
        "comment": comment,
        "flags": [flag],
        "parent": parent,
        "child": child,
        "result": result,
        "error": error,
    }


def _error(parent: object, child: object) -> str | None:
    try:
        [narrow] = scope.parse([child])
    except UnknownDetailError as error:
        return error.code
    return None if scope.cover(narrow, scope.parse([parent])) is not None else "attenuation"


def text() -> str:
    """Return the file's text."""
    cases = [*((HTTP, case) for case in _http()), *_others()]
    tests = [_test(number, base, case) for number, (base, case) in enumerate(cases, 1)]
    return json.dumps({"algorithm": "attenuation", "numberOfTests": len(tests), "tests": tests}, indent=1) + "\n"


def main() -> int:
    """Write the file."""
    FILE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
