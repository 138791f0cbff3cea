"""The client library: a grant in a task, as a context manager. It imports nothing of the server."""

from __future__ import annotations

from remit.sdk.aio import AsyncApproval, AsyncClient, AsyncGrant, AsyncLease, AsyncTask, acurrent, atask
from remit.sdk.client import Approval, Client, Grant, Lease, Task, current, task
from remit.sdk.detail import detail
from remit.sdk.grant import Credential
from remit.sdk.place import Place
from remit.sdk.verbs import Bounds, Report

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
    "Report",
    "Task",
    "acurrent",
    "atask",
    "current",
    "detail",
    "task",
]
