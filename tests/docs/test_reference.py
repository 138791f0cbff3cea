"""The reference is complete: what the code has, a page names."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from msgspec import inspect
from msgspec.structs import fields

from remit import catalog, errors
from remit.compose.kinds import BUILT_IN
from remit.cli.app import app
from remit.config.project import FoundProject, ProjectFile
from remit.config.sections import Configuration
from remit.core import scope
from remit.gateway import target

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "remit"


def _page(name: str) -> str:
    return (DOCS / "reference" / name).read_text(encoding="utf-8")


def _errors(kind: type[errors.RemitError]) -> Iterator[type[errors.RemitError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _errors(child)


@pytest.mark.parametrize("kind", list(_errors(errors.RemitError)), ids=lambda kind: kind.code)
def test_every_error_is_on_the_page_as_it_is(kind: type[errors.RemitError]) -> None:
    row = f"| `{kind.code}` | {kind.status} | `{kind.oauth}` | `{kind.__name__}` | {kind().detail} |"
    assert row in _page("errors.md")


def _commands() -> Iterator[tuple[str, object]]:
    waiting: list[tuple[str, object]] = [("remit", typer.main.get_command(app))]
    while waiting:
        name, command = waiting.pop()
        inner = getattr(command, "commands", None)
        if inner:
            waiting += [(f"{name} {sub}", child) for sub, child in inner.items()]
        else:
            yield name, command


COMMANDS = dict(sorted(_commands()))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_each_of_its_options_is_on_the_page(name: str) -> None:
    found = re.search(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", _page("cli.md"), re.MULTILINE | re.DOTALL)
    assert found is not None
    options = [o for p in COMMANDS[name].params for o in (*p.opts, *p.secondary_opts)]  # type: ignore[attr-defined]  # click
    assert [o for o in options if o.startswith("--") and o != "--help" and f"`{o}`" not in found.group(1)] == []


def _settings() -> Iterator[str]:
    for field in fields(Configuration):
        kind = inspect.type_info(field.type)
        if isinstance(kind, inspect.UnionType):
            kind = kind.types[0]
        if isinstance(kind, inspect.VarTupleType):
            kind = kind.item_type
        if isinstance(kind, inspect.DictType) and isinstance(kind.value_type, inspect.StructType):
            kind = kind.value_type
        names = kind.cls.__struct_fields__ if isinstance(kind, inspect.StructType) else ("<name>",)
        yield from (f"{field.name}.{name}" for name in names)


def test_every_setting_is_on_the_page_and_nothing_else() -> None:
    rows = re.findall(r"^\| `([a-z_]+\.[a-z_<>]+)` \|", _page("configuration.md"), re.MULTILINE)
    assert set(rows) == set(_settings())


def test_every_setting_of_a_project_is_on_its_page_and_in_an_example_that_is_one() -> None:
    path = DOCS / "how-to" / "write-a-project-file.md"
    page = path.read_text(encoding="utf-8")
    [example] = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    read = FoundProject(path, example, None).read()
    names = [one.encode_name for one in fields(ProjectFile)]
    assert [name for name in names if not getattr(read, name)] == []
    assert [name for name in names if f"`{name}`" not in page and f"`[{name}]`" not in page] == []


def test_every_field_of_every_detail_type_is_on_the_page() -> None:
    page = _page("details.md")
    for kind in BUILT_IN:
        found = re.search(rf"^## {kind}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
        assert found is not None, kind
        assert [name for name in scope.TYPES[kind] if f"| `{name}` |" not in found.group(1)] == []


def _said_events() -> set[str]:
    pattern = re.compile(r'"((?:task|grant|lease|resource|secret)\.(?!toml)[a-z]+)"')
    return {name for path in SOURCE.rglob("*.py") for name in pattern.findall(path.read_text(encoding="utf-8"))}


def test_every_audit_event_is_on_the_page() -> None:
    assert [name for name in sorted(_said_events()) if f"| `{name}` |" not in _page("audit.md")] == []


def test_every_route_is_on_the_page() -> None:
    text = (SOURCE / "compose" / "app.py").read_text(encoding="utf-8")
    routes = re.findall(r'Route\("([A-Z]+)", "([^"]+)"', text)
    assert routes
    assert [r for r in routes if f"| {r[0]} | `{r[1]}` |" not in _page("http-api.md")] == []


def test_every_provider_and_every_key_of_the_catalog_is_on_the_page() -> None:
    tables = [tomllib.loads(file.read_text("utf-8")) for file in (SOURCE / "catalog" / "providers").iterdir()]
    rows = {name: row for table in tables for name, row in table.items()}
    page = _page("catalog.md")
    known = catalog.shipped()
    for name in rows:
        variables = ", ".join(f"`{one}`" for one in known[name].variables)
        base = known[name].base
        cells = (f"`{name}`", known[name].title, f"`{known[name].key.shown()}`", variables)
        assert f"| {' | '.join(cells)} | {f'`{base.variable}`' if base else ''} |\n" in page
    keys = {key for row in rows.values() for key in row}
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []


def test_every_setting_of_an_http_resource_is_on_the_page() -> None:
    assert [name for name in sorted(target.SETTINGS) if f"| `{name}` |" not in _page("details.md")] == []


def test_every_header_that_always_goes_along_is_on_the_page() -> None:
    page = _page("details.md").lower()
    assert [name for name in sorted(target.ALWAYS) if f"`{name.decode()}`" not in page] == []
