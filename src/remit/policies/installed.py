"""The optional dependency, in one place."""

from __future__ import annotations

from functools import cache
from importlib import resources
from types import ModuleType
from typing import TYPE_CHECKING

from remit.errors import UnavailableError

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


@cache
def schema_text() -> str:
    """Return the schema that every policy is validated against, as Cedar text."""
    return resources.files("remit.policies").joinpath("schema.cedarschema").read_text("utf-8")


@cache
def schema() -> Schema:
    """Return the schema, parsed once."""
    parsed: Schema = cedar().Schema.from_str(schema_text())
    return parsed
