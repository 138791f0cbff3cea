"""Hypothesis strategies for details, what lies below and above them, and accesses near them.

Drawn relative to a detail, never independently: independent draws almost never compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from remit.core.orders import json_text
from remit.core.scope import Access, Detail, parse_detail

Raw = dict[str, Any]

SEGMENTS = ("a", "b", "v1", "x%2Ay")
METHODS = ("GET", "POST", "DELETE")
WIRE_KEYS = ("query.q", "query.limit", "header.x-account")
BODY_KEYS = ("body.a", "body.a.b", "body.items", "body.items[0].id", "body.n")
TOOLS = ("create_issue", "search", "close")
TABLES = ("sales.revenue", "sales.orders", "hr.staff")
WORDS = ("read", "write", "https://a.example/eu", "order")
FREE = ("datatypes", "locations", "privileges")
KINDS = ("http", "postgres", "calls", "spiffe", "egress", "mcp", "elsewhere")
MESSAGES = ("tools/call", "resources/read", "prompts/get", "elicitation/create")
COLUMNS = ("quarter", "amount", "name")
AUDIENCES = ("https://ledger.example", "spiffe://prod.example/api", "api://x")
LABELS = ("a", "b", "x-1")
PATH_VALUES = ("/a", "/a/b", "/b/a", "/a/b/v1", "/")


# -- paths ----------------------------------------------------------------------------------------------------------


@st.composite
def patterns(draw: st.DrawFn) -> str:
    """Draw a path pattern over a small alphabet."""
    segments = draw(st.lists(st.sampled_from([*SEGMENTS, "*"]), max_size=3))
    last = draw(st.sampled_from([*SEGMENTS, "*", "**", ""]))
    return "/" + "/".join([*segments, last])


@st.composite
def paths_in(draw: st.DrawFn, pattern: str) -> str:
    """Draw a literal path that a pattern matches."""
    segments = [draw(st.sampled_from([*SEGMENTS, "z"])) if s == "*" else s for s in pattern[1:].split("/")]
    if segments[-1] == "**":
        segments[-1:] = draw(st.lists(st.sampled_from([*SEGMENTS, "z"]), max_size=2))
    return "/" + "/".join(segments)


@st.composite
def below_path(draw: st.DrawFn, pattern: str) -> str:
    """Draw a pattern that is part of another."""
    segments = pattern[1:].split("/")
    narrow = [draw(st.sampled_from(["*", *SEGMENTS])) if s == "*" else s for s in segments]
    if narrow[-1] == "**":
        narrow[-1:] = draw(st.sampled_from([["**"], ["a"], ["*", "**"], ["b", "a"], [""]]))
    return "/" + "/".join(narrow)


# -- hosts ----------------------------------------------------------------------------------------------------------


@st.composite
def hosts(draw: st.DrawFn, least: int = 1) -> str:
    """Draw a host over a small alphabet."""
    return ".".join([*draw(st.lists(st.sampled_from(LABELS), min_size=least, max_size=4)), "example"])


@st.composite
def host_patterns(draw: st.DrawFn) -> str:
    """Draw a host, or all that is below one."""
    return draw(st.sampled_from(["", "*."])) + draw(hosts())


@st.composite
def below_host(draw: st.DrawFn, pattern: str) -> str:
    """Draw a pattern that is part of another."""
    labels = draw(st.lists(st.sampled_from(LABELS), max_size=2))
    if not pattern.startswith("*.") or (not labels and draw(st.booleans())):
        return pattern
    return ".".join([*(draw(st.sampled_from([["*"], []])) if labels else ["a"]), *labels, pattern[2:]])


# -- arguments ------------------------------------------------------------------------------------------------------


def constraints(key: str) -> st.SearchStrategy[object]:
    """Draw the constraint of one argument."""
    wire = key.startswith(("query.", "header."))
    scalars: st.SearchStrategy[object] = st.sampled_from(["x", "y", "/a/b", "any", "7"])
    if not wire:
        scalars = scalars | st.sampled_from([1, 7, True, False, None])
    return st.one_of(
        st.just("any"),
        scalars.map(lambda value: {"exact": value}),
        st.lists(scalars, min_size=1, max_size=3).map(lambda values: {"one_of": values}),
        st.integers(0, 9).map(lambda bound: {"at_most": bound}),
        patterns().map(lambda path: {"path": path}),
    )


@st.composite
def arguments(draw: st.DrawFn, keys: tuple[str, ...]) -> object:
    """Draw a map of constraints, or the top."""
    if draw(st.integers(0, 5)) == 0:
        return "any"
    chosen: list[str] = []
    for key in draw(st.lists(st.sampled_from(keys), max_size=4, unique=True)):
        if not any(key.startswith((f"{k}.", f"{k}[")) or k.startswith((f"{key}.", f"{key}[")) for k in chosen):
            chosen.append(key)
    return {key: draw(constraints(key)) for key in chosen}


@st.composite
def below_constraint(draw: st.DrawFn, key: str, constraint: object) -> object:
    """Draw a constraint that is part of another."""
    if constraint == "any":
        return draw(constraints(key))
    assert isinstance(constraint, Mapping)
    [(kind, bound)] = constraint.items()
    match kind:
        case "one_of":
            return {"one_of": draw(st.lists(st.sampled_from(bound), min_size=1))}
        case "exact":
            return draw(st.sampled_from([constraint, {"one_of": [bound]}]))
        case "at_most":
            number = draw(st.integers(0, bound))
            exact = str(number) if key.startswith(("query.", "header.")) else number
            return draw(st.sampled_from([{"at_most": number}, {"exact": exact}]))
        case "path":
            return draw(
                st.one_of(below_path(bound).map(lambda p: {"path": p}), paths_in(bound).map(lambda p: {"exact": p}))
            )
    return constraint


@st.composite
def below_arguments(draw: st.DrawFn, keys: tuple[str, ...], args: object) -> object:
    """Draw arguments that are part of others."""
    if args == "any":
        return draw(arguments(keys))
    assert isinstance(args, Mapping)
    kept = {key: c for key, c in args.items() if c != "any" or draw(st.booleans())}
    return {key: draw(below_constraint(key, constraint)) for key, constraint in kept.items()}


VALUES: tuple[object, ...] = ("x", "y", "/a/b", "/a", "any", "7", "10", "-1", 1, 7, 10, -1, True, None, {}, [])


@st.composite
def arguments_near(draw: st.DrawFn, keys: tuple[str, ...], args: object) -> dict[str, str]:
    """Draw arguments of an access that meet constraints, or nearly do."""
    named = args if isinstance(args, Mapping) else {}
    drawn = {key: draw(_value_near(key, constraint)) for key, constraint in named.items()}
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        if draw(st.booleans()):
            drawn[draw(st.sampled_from([*keys, "query.extra", "body.a.deep"]))] = draw(st.sampled_from(VALUES))
        elif drawn:
            drawn.pop(draw(st.sampled_from(sorted(drawn))))
    return {key: json_text(value) for key, value in drawn.items()}


@st.composite
def _value_near(draw: st.DrawFn, key: str, constraint: object) -> object:
    if constraint == "any" or draw(st.integers(0, 7)) == 0:
        return draw(st.sampled_from(VALUES))
    if not isinstance(constraint, Mapping):
        return constraint
    [(kind, bound)] = constraint.items()
    match kind:
        case "exact":
            return bound
        case "one_of":
            return draw(st.sampled_from(bound))
        case "at_most":
            number = draw(st.integers(-1, bound + 1))
            return str(number) if key.startswith(("query.", "header.")) else number
        case "path":
            return draw(paths_in(bound))
    return bound


# -- details --------------------------------------------------------------------------------------------------------


def _some(names: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), min_size=1, max_size=len(names), unique=True)


@st.composite
def details(draw: st.DrawFn, kinds: tuple[str, ...] = KINDS) -> Raw:
    """Draw a detail in wire form."""
    kind = draw(st.sampled_from(kinds))
    raw: Raw = {"type": kind, "resource": draw(st.sampled_from(["one", "two"]))}
    match kind:
        case "http":
            raw |= {"actions": draw(_some(METHODS)), "paths": draw(st.lists(patterns(), min_size=1, max_size=3))}
            raw["args"] = draw(arguments((*WIRE_KEYS, *BODY_KEYS)))
        case "postgres":
            raw |= {"actions": draw(_some(("select", "insert"))), "tables": draw(_some(TABLES))}
            if draw(st.booleans()):
                raw["columns"] = {t: draw(_some(COLUMNS)) for t in draw(_some(tuple(raw["tables"])))}
        case "calls":
            keys = ("repo", "query", "query.limit", "n")
            raw |= {"actions": ["tools/call"], "tools": {t: draw(arguments(keys)) for t in draw(_some(TOOLS))}}
        case "mcp":
            raw |= {"actions": draw(_some(MESSAGES)), "tools": draw(_tools())}
            raw |= draw(st.sampled_from([{}, {"prompts": "any"}, {"prompts": {"greet": {"name": "any"}}}]))
            raw |= draw(st.sampled_from([{}, {"resources": draw(st.lists(uri_patterns(), max_size=3))}]))
        case "spiffe":
            raw |= {"actions": draw(_some(("x509", "jwt"))), "ttl": draw(st.integers(1, 20))}
            raw |= draw(st.sampled_from([{}, {"audiences": draw(_some(AUDIENCES))}]))
        case "egress":
            raw |= draw(st.sampled_from([{}, {"actions": ["connect"]}]))
            raw["hosts"] = draw(st.lists(host_patterns(), min_size=1, max_size=3))
        case "elsewhere":
            named = draw(st.lists(st.sampled_from(FREE), unique=True))
            raw |= {name: draw(_some(WORDS)) for name in ("actions", *named)}
    limited = {"postgres": ("ttl",), "spiffe": ("ttl",), "egress": (), "elsewhere": ()}
    return raw | draw(_limits(limited.get(kind, ("ttl", "uses"))))


def _tools() -> st.SearchStrategy[object]:
    some = st.dictionaries(st.sampled_from(TOOLS), arguments(("repo", "n")), max_size=3)
    return st.one_of(st.just("any"), some)


def uri_patterns() -> st.SearchStrategy[str]:
    """Draw patterns of URIs."""
    below_a_place = patterns().map(lambda path: f"repo://acme{path}")
    without_one = patterns().map(lambda path: f"file://{path}")
    return st.one_of(st.just("**"), below_a_place, without_one)


@st.composite
def below_uri(draw: st.DrawFn, pattern: str) -> str:
    """Draw a pattern of URIs that is part of another."""
    if pattern == "**":
        return draw(uri_patterns())
    scheme, mark, rest = pattern.partition("://")
    place, _, path = rest.partition("/")
    return f"{scheme}{mark}{place}{draw(below_path(f'/{path}'))}"


@st.composite
def _limits(draw: st.DrawFn, names: tuple[str, ...]) -> Raw:
    return {name: draw(st.integers(1, 20)) for name in names if draw(st.booleans())}


@st.composite
def below(draw: st.DrawFn, raw: Raw) -> Raw:
    """Draw a detail that is part of another, in wire form."""
    actions = tuple(raw.get("actions", ["connect"]))
    child: Raw = {"type": raw["type"], "resource": raw["resource"], "actions": draw(_some(actions))}
    match raw["type"]:
        case "http":
            child["paths"] = [draw(below_path(p)) for p in draw(st.lists(st.sampled_from(raw["paths"]), min_size=1))]
            child["args"] = draw(below_arguments((*WIRE_KEYS, *BODY_KEYS), raw["args"]))
        case "postgres":
            child["tables"] = draw(_some(tuple(raw["tables"])))
            columns = {t: draw(_some(tuple(c))) for t, c in raw.get("columns", {}).items() if t in child["tables"]}
            child |= {"columns": columns} if columns else {}
        case "calls":
            tools = draw(_some(tuple(raw["tools"])))
            child["tools"] = {t: draw(below_arguments(("repo", "n"), raw["tools"][t])) for t in tools}
        case "mcp":
            listed = dict.fromkeys(TOOLS, "any") if raw["tools"] == "any" else raw["tools"]
            tools = draw(_some(tuple(listed))) if listed else []
            child["tools"] = {t: draw(below_arguments(("repo", "n"), listed[t])) for t in tools}
            child["prompts"] = raw.get("prompts", {})
            held = raw.get("resources") and draw(st.lists(st.sampled_from(raw["resources"]), max_size=2))
            child["resources"] = [draw(below_uri(uri)) for uri in held or ()]
        case "spiffe":
            audiences = raw.get("audiences", [])
            child["audiences"] = draw(_some(tuple(audiences))) if audiences and draw(st.booleans()) else []
        case "egress":
            child["hosts"] = [draw(below_host(p)) for p in draw(st.lists(st.sampled_from(raw["hosts"]), min_size=1))]
        case "elsewhere":
            child |= {name: draw(_some(tuple(raw[name]))) for name in FREE if name in raw}
    for limit in ("ttl", "uses"):
        if limit in raw:
            child[limit] = draw(st.integers(1, raw[limit]))
    return child


@st.composite
def above_or_beside(draw: st.DrawFn, raw: Raw) -> tuple[str, Raw]:
    """Draw a detail that is wider than another in one field; return the field too."""
    wider: dict[str, Raw] = {"resource": {"resource": "three"}}
    more = {
        "http": "PUT",
        "postgres": "delete",
        "calls": "tools/list",
        "spiffe": "x509",
        "mcp": "roots/list",
        "elsewhere": "drop",
    }.get(raw["type"])
    if more is not None and more not in raw["actions"]:
        wider["actions"] = {"actions": [*raw["actions"], more]}
    for limit in {"ttl", "uses"} & raw.keys():
        wider |= {f"{limit} + 1": {limit: raw[limit] + 1}, f"no {limit}": {limit: None}}
    match raw["type"]:
        case "http":
            _widen_http(raw, wider)
        case "postgres":
            _widen_postgres(raw, wider)
        case "calls":
            wider["tools"] = {"tools": {**raw["tools"], "delete_repo": {}}}
        case "mcp":
            _widen_mcp(raw, wider)
        case "spiffe":
            wider["audiences"] = {"audiences": [*raw.get("audiences", []), "https://other.example"]}
        case "egress":
            wider["a host more"] = {"hosts": [*raw["hosts"], "other.test"]}
            wider["all below"] = {"hosts": [*raw["hosts"], "*.a.test"]}
        case "elsewhere":
            wider |= {name: {name: [*raw[name], "other"]} for name in FREE if name in raw}
            wider |= {f"no {name}": {name: None} for name in FREE if name in raw}
    name = draw(st.sampled_from(sorted(wider)))
    return name, {key: value for key, value in {**raw, **wider[name]}.items() if value is not None}


def _widen_postgres(raw: Raw, wider: dict[str, Raw]) -> None:
    wider["tables"] = {"tables": [*raw["tables"], "other.table"]}
    for table, columns in raw.get("columns", {}).items():
        wider["columns"] = {"columns": {**raw["columns"], table: [*columns, "secret"]}}
        wider["no columns"] = {"columns": None}


def _widen_mcp(raw: Raw, wider: dict[str, Raw]) -> None:
    wider |= {"prompts": {"prompts": "any"}} if raw.get("prompts") != "any" else {}
    wider |= {"tools": {"tools": "any"}} if raw["tools"] != "any" else {}
    wider |= {"resources": {"resources": ["**"]}} if "**" not in raw.get("resources", []) else {}


def _widen_http(raw: Raw, wider: dict[str, Raw]) -> None:
    if "/**" not in raw["paths"]:
        wider["paths"] = {"paths": [*raw["paths"], "/**"]}
    if raw["args"] == "any":
        return
    wider["args any"] = {"args": "any"}
    wider["an argument more"] = {"args": {**raw["args"], "query.other": "any"}}
    for key, constraint in raw["args"].items():
        if constraint != "any":
            wider["an argument set free"] = {"args": {**raw["args"], key: "any"}}
            wider["an argument less"] = {"args": {k: c for k, c in raw["args"].items() if k != key}}


@st.composite
def accesses(draw: st.DrawFn, raw: Raw) -> Access:
    """Draw an access that a detail permits, or nearly."""
    action = draw(st.sampled_from([*raw.get("actions", ["connect"]), "GET", "tools/call"]))
    if raw["type"] in {"calls", "mcp"}:
        listed = {"close": "any"} if raw["tools"] == "any" else raw["tools"]
        tool = draw(st.sampled_from([*listed, "search"]))
        args = draw(arguments_near(("repo", "n"), listed.get(tool, {})))
        return Access(raw["resource"], action, path=tool, args=args)
    patterns_here = raw.get("paths", ["/"])
    path = draw(paths_in(draw(st.sampled_from([*patterns_here, *patterns_here, "/**", "/*"]))))
    args = draw(arguments_near((*WIRE_KEYS, *BODY_KEYS), raw.get("args", {})))
    return Access(raw["resource"], action, path=path, args=args)


def read(raw: Raw) -> Detail:
    """Read a drawn detail."""
    return parse_detail(raw)
