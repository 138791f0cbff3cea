"""The optional dependency, in one place."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from importlib import resources
from types import ModuleType
from typing import TYPE_CHECKING

from remit.core.scope import TYPES
from remit.errors import UnavailableError
from remit.policies import model

if TYPE_CHECKING:
    from cedarpy import Schema


def cedar() -> ModuleType:
    """Return the module ``cedarpy``, or raise UnavailableError saying how to install it."""
    try:
        import cedarpy
    except ImportError as error:
        raise UnavailableError(
            "policies need Cedar, which is not installed", help="in a clone of remit: pip install '.[policy]'"
        ) from error
    return cedarpy


def schema_text(types: Collection[str] = TYPES) -> str:
    """Return the schema that every policy is validated against, as Cedar text, for the detail types known now."""
    return _text(frozenset(types))


def schema() -> Schema:
    """Return the schema, parsed once for the same detail types."""
    return _parsed(schema_text())


@cache
def _text(types: frozenset[str]) -> str:
    fixed = resources.files("remit.policies").joinpath("schema.cedarschema").read_text("utf-8")
    return f"{fixed}\n{model.declared(types)}"


@cache
def _parsed(text: str) -> Schema:
    parsed: Schema = cedar().Schema.from_str(text)
    return parsed
