"""Nothing knows a kind of resource but its own folder and the composition root."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from remit.compose.kinds import BUILT_IN
from tests.house.hops import SOURCE

# Where a kind's name is another word of the field too: file -> the name, and what it is there.
OTHER_WORDS: Mapping[str, tuple[str, str]] = {
    "cli/project.py": ("egress", "the key of a project's file"),
    "config/project.py": ("egress", "the key of a project's file"),
    "cli/broker.py": ("spiffe", "the key ring of the broker's trust domain"),
    "cli/mcp.py": ("mcp", "the name of the command"),
    "run/servers.py": ("mcp", "the name of the command"),
    "cli/mcp_install.py": ("mcp", "the name of the command"),
    "config/mcp_clients.py": ("mcp", "the key under which a client lists its servers"),
    "core/fields.py": ("http", "the URI scheme"),
    "core/scope.py": ("mcp", "the name of the gateway's endpoint of all such servers"),
    "integrations/claude_agent_sdk.py": ("mcp", "the first part of the names of such a server's tools"),
    "identity/fetch.py": ("http", "the URI scheme"),
    "identity/workloads/bundles.py": ("spiffe", "the package of that name"),
    "jose/proof.py": ("http", "the URI scheme"),
    "keys/authority.py": ("spiffe", "the purpose that its sealed files are named by"),
    "oauth/clients.py": ("http", "the URI scheme"),
    "web/wire.py": ("http", "the URI scheme"),
    "sdk/grant.py": ("http", "the URI scheme"),
    "sdk/login.py": ("http", "the URI scheme"),
    "web/authentication.py": ("http", "the URI scheme"),
}


def _outside() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if not name.startswith(("compose/", "kinds/")):
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def _named(tree: ast.Module) -> set[str]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def _imported(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_no_string_outside_is_the_name_of_a_kind() -> None:
    naming = {name: _named(tree) & BUILT_IN.keys() for name, tree in _outside()}
    allowed = {name: {word} for name, (word, _) in OTHER_WORDS.items()}  # no more than is needed
    assert {name: names for name, names in naming.items() if names} == allowed


def test_nothing_outside_imports_a_kind() -> None:
    kinds = tuple(f"remit.kinds.{name}" for name in BUILT_IN)
    importing = {name: [module for module in _imported(tree) if module.startswith(kinds)] for name, tree in _outside()}
    assert {name: modules for name, modules in importing.items() if modules} == {}


@pytest.mark.parametrize("kind", BUILT_IN)
def test_no_kind_knows_another(kind: str) -> None:
    others = tuple(f"remit.kinds.{name}" for name in BUILT_IN if name != kind)
    for path in sorted((SOURCE / "kinds" / kind).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [module for module in _imported(tree) if module.startswith(others)], path
        assert _named(tree) & BUILT_IN.keys() <= {kind, "http"}, path


@pytest.mark.parametrize("kind", BUILT_IN)
def test_a_kinds_own_module_imports_no_driver_engine_or_gateway(kind: str) -> None:
    path: Path = SOURCE / "kinds" / kind / "__init__.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_the_top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = set().union(*(_imported(node) for node in at_the_top))
    pure = ("remit.core", "remit.catalog", "remit.ports", "remit.errors", "remit")
    foreign = {module for module in modules if module.startswith("remit") and not module.startswith(pure[:-1])}
    assert foreign <= {"remit", "remit.catalog"}
