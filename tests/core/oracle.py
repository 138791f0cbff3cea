"""The oracle that the gateway's compiled rules are compared with: whether a detail permits a use."""

from __future__ import annotations

from remit.core.orders import args_permit
from remit.core.paths import path_le
from remit.core.scope import Access, Detail, Scope


def permits(detail: Detail, access: Access) -> bool:
    """Whether ``detail`` permits one use."""
    if (detail.type, detail.resource) != (access.type, access.resource) or access.action not in detail.texts("actions"):
        return False
    if detail.type == "http":
        in_path = any(path_le(access.path, wide) for wide in detail.texts("paths"))
        return in_path and args_permit(detail.get("args"), access.args)
    tools = detail.get("tools")
    named = dict(tools) if detail.type == "mcp" and isinstance(tools, tuple) else {}
    return access.tool in named and args_permit(named[access.tool], access.args)


def permitting(scope: Scope, access: Access) -> int | None:
    """Return the index of the first detail of ``scope`` that permits ``access``, or None."""
    return next((index for index, detail in enumerate(scope) if permits(detail, access)), None)
