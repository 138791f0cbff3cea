"""How long the way of a request is, and how many places know one idea. A cap may go down, not up."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.house import hops
from tests.house.hops import SOURCE, Trace

DELEGATE_HOPS = 16
GATEWAY_HOPS = 25
FILES_THAT_NAME_A_BOUND = 8
# Documented names of the client library: docs/decisions/0014-the-client-library-uses-the-nouns-of-the-core.md
CLASSES_TWICE = frozenset({"Approval", "Bounds", "Grant", "Lease", "Report", "Task"})
CIRCLES = 0
# Lines of source, by package: docs/decisions/0018-a-budget-of-lines-for-each-package.md
BUDGET = {
    "broker": 5_020,  # whoever begins a connection is asked again by 120 of it, pins are 130, narrow tokens 40; what a
    # human sees of their own 60
    "core": 3_610,  # whom a token may be for, what client it is of, whether that proves itself: 100; narrow tokens 70
    "ports": 1_760,  # who uses a connection is 15 of it
    "jose": 1_020,  # what an upstream says of how to get in is 35 of it
    "catalog": 650,
    "errors.py": 276,  # a name of RFC 7009 is 6 of it
    "__init__.py": 55,
    "link": 2_110,
    "process": 1_750,
    "stores": 1_300,
    "keys": 800,
    "identity": 1_800,
    "policies": 900,
    # messages of MCP are 3,380 of it, 820 of those for commands, 110 for pages, 130 for tasks, 210 for pins, 1,020 for
    # one endpoint of many servers, and what one of those may not take from the others is 110
    "gateway": 10_510,
    "run": 3_975,  # what a command says and hears is passed on by 185 of it, and 165 start servers, those granted alone
    "web": 1_490,
    "control": 795,  # how servers describe themselves is 70 of it
    "console": 825,  # a connection is confirmed on a page of its own; one's own are seen and ended on another
    "kinds": 3_190,  # SDS for Envoys is 230 of it; what is granted at a service elsewhere 45
    "oauth": 2_060,  # what registers itself is 150 of it
    "sessions": 900,
    "config": 2_470,  # what a file may say of how remit itself is started is 45 of it
    "compose": 3_795,
    "cli": 4_100,  # what is held is shown and accepted by 110 of it
    "sdk": 2_195,
    "integrations": 1_060,
    "testing": 1_000,
}


def test_a_delegate_takes_few_hops_and_the_architecture_lists_them(tmp_path: Path) -> None:
    _check(hops.of_a_delegate(tmp_path), DELEGATE_HOPS, hops.DELEGATE)


def test_a_request_through_the_gateway_takes_few_hops_and_the_architecture_lists_them(tmp_path: Path) -> None:
    _check(hops.of_a_request_through_the_gateway(tmp_path), GATEWAY_HOPS, hops.REQUEST)


def _check(trace: Trace, most: int, title: str) -> None:
    way = [str(hop) for hop in trace.hops]
    listed = hops.written(hops.PAGE.read_text(encoding="utf-8"), title)
    assert len(way) <= most, "\n".join(["it grew by:", *sorted(set(way) - set(listed))])
    assert sorted(way) == sorted(listed), "say `python -m tests.house.hops`, and look at what changed"


def _modules() -> dict[str, ast.Module]:
    found = sorted(SOURCE.rglob("*.py"))
    return {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in found}


def test_a_class_name_stands_once() -> None:
    places = defaultdict(list)
    for name, tree in _modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name)
    twice = {name: files for name, files in places.items() if len(files) > 1}
    assert twice.keys() == CLASSES_TWICE, twice
    assert all(any(file.startswith("sdk/") for file in files) for files in twice.values()), twice


def test_few_files_name_a_bound_of_a_grant() -> None:
    naming = [p.relative_to(SOURCE).as_posix() for p in sorted(SOURCE.rglob("*")) if p.is_file() and _names(p)]
    assert len(naming) <= FILES_THAT_NAME_A_BOUND, naming


def _names(path: Path) -> bool:
    return path.suffix != ".pyc" and re.search(rb"\bunattested\b", path.read_bytes()) is not None


def test_the_source_stays_small() -> None:
    sizes: dict[str, int] = defaultdict(int)
    for path in SOURCE.rglob("*.py"):
        package = path.relative_to(SOURCE).parts[0]
        sizes[package] += len(path.read_text(encoding="utf-8").splitlines())
    assert {name: size for name, size in sizes.items() if size > BUDGET.get(name, 0)} == {}


def _imports(name: str, tree: ast.Module, known: set[str]) -> set[str]:
    """Return the modules of remit that one imports, also for its types alone or late."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {module for module in found if module in known and module != name}


def _circles() -> list[set[str]]:
    modules = {f"remit.{name[:-3]}".replace("/", ".").removesuffix(".__init__"): t for name, t in _modules().items()}
    # A package and a module in it are no circle: the package's own file is left out.
    known = {name for name in modules if not any(other.startswith(f"{name}.") for other in modules)}
    reached = {name: _imports(name, modules[name], known) for name in known}
    while True:
        further = {name: set().union(there, *(reached[other] for other in there)) for name, there in reached.items()}
        if further == reached:
            break
        reached = further
    return [{other for other in there if name in reached[other]} for name, there in reached.items() if name in there]


def test_no_files_import_each_other_in_a_circle() -> None:
    circles = {frozenset(circle) for circle in _circles()}
    assert len(circles) <= CIRCLES, circles


@pytest.mark.parametrize("row", hops.tables(hops.PAGE.read_text(encoding="utf-8")), ids=lambda row: row[0])
def test_what_decides_stands_where_the_architecture_says(row: tuple[str, list[tuple[str, str]]]) -> None:
    for file, function in row[1]:
        text = (SOURCE / file).read_text(encoding="utf-8")
        assert not function or re.search(rf"def {function}\(", text), (file, function)
