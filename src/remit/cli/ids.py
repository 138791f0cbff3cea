"""Short ids: how a task, grant, lease or approval begins stands for it, where that names just one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from remit.cli import sdk
from remit.errors import InvalidRequestError, NotFoundError

if TYPE_CHECKING:
    from remit.sdk._wire import Flow

NOUNS = {"task": "task_", "grant": "grt_", "lease": "lse_", "approval": "apr_"}
LEAST = 2  # characters after the noun: nothing, of a variable that is empty, names nothing
SHOWN = 10  # candidates
_WHOLE = re.compile(r"[a-z]+_[A-Za-z0-9_-]{22}")


def of(*nouns: str) -> Callable[[str | None], str | None]:
    """Return what reads an id, or how one begins, of these nouns."""
    return lambda text: text if text is None or _WHOLE.fullmatch(text) else whole(text, nouns)


def whole(text: str, nouns: tuple[str, ...]) -> str:
    """Return the only id that begins like ``text``, or the text itself; InvalidRequestError where several do."""
    starts = tuple(f"{NOUNS[noun]}{text}" for noun in nouns)
    if text.startswith(tuple(NOUNS.values())):
        starts = (text,)
    if len(starts[0].partition("_")[2]) < LEAST or os.environ.get("REMIT_GRANT"):
        return text
    known = sdk.ask(_known(nouns))
    found = [text] if text in known else [one for one in known if one.startswith(starts)]
    if len(found) > 1:
        told = [f"{one} ({known[one]})" for one in found[:SHOWN]]
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise InvalidRequestError(f"{len(found)} ids begin with `{text}`", help=f"{', '.join(told)}{more}")
    if not found and nouns == ("grant",) and starts != (text,):  # of others their commands say so
        raise NotFoundError(f"there is no `{text}`, or you may not know of it", help="see `remit tree`")
    return found[0] if found else text


def _known(nouns: tuple[str, ...]) -> Flow[dict[str, str]]:
    """Return all ids that we may list, with what tells one from another."""
    found: dict[str, str] = {}
    if "approval" in nouns:
        found |= {item["approval"]: item["verb"] for item in (yield from sdk.asking.approvals())}
    if set(nouns) == {"approval"}:
        return found
    for head in (yield from sdk.verbs.tasks()):
        if "task" in nouns:
            found[head["task"]] = head["purpose"]
        if {"grant", "lease"} & set(nouns):
            task = yield from sdk.verbs.task(head["task"])
            for noun, told in (("grant", "label"), ("lease", "resource")):
                if noun in nouns:
                    found |= {node[noun]: node[told] or "-" for node in task[f"{noun}s"]}
    return found
