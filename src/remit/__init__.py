"""remit: credentials for the task at hand.

The names below are the client library; they are imported when first used, so that ``import remit`` costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # what `typing` calls it takes as long to load as all that a command needs before it can end
if TYPE_CHECKING:
    from remit.errors import RemitError
    from remit.sdk import *

__all__ = [
    "Approval",
    "AsyncApproval",
    "AsyncClient",
    "AsyncGrant",
    "AsyncLease",
    "AsyncTask",
    "Bounds",
    "Client",
    "Credential",
    "Grant",
    "Lease",
    "Place",
    "RemitError",
    "Report",
    "Task",
    "acurrent",
    "atask",
    "current",
    "detail",
    "task",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module `remit` has no attribute `{name}`")
    import importlib

    value: object = getattr(importlib.import_module("remit.errors" if name == "RemitError" else "remit.sdk"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
