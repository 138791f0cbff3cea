"""What a detail permits, written out: what the gateway compiles is held against it."""

from __future__ import annotations

from remit.core.orders import ANY, args_permit
from remit.core.paths import path_le
from remit.core.scope import Access, Detail, Scope


def permits(detail: Detail, access: Access) -> bool:
    """Whether ``detail`` permits one use; of a detail with tools, ``path`` is the name of the tool."""
    if detail.resource != access.resource or access.action not in detail.texts("actions"):
        return False
    tools = detail.get("tools")
    if tools == ANY:
        return True
    if isinstance(tools, tuple):
        named = dict(tools)
        return access.path in named and args_permit(named[access.path], access.args)
    in_path = any(path_le(access.path, wide) for wide in detail.texts("paths"))
    return in_path and args_permit(detail.get("args"), access.args)


def permitting(scope: Scope, access: Access) -> int | None:
    """Return the index of the first detail of ``scope`` that permits ``access``, or None."""
    return next((index for index, detail in enumerate(scope) if permits(detail, access)), None)
