"""What a holder knows of its grant and its leases, whatever colour its client has."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NoReturn

import httpx

from remit.errors import GrantEndedError, InvalidRequestError, RemitError, ScopeError
from remit.sdk import verbs
from remit.sdk._wire import Json
from remit.sdk.auth import Auth, Steppable, flavour, signer_of
from remit.sdk.detail import Detail
from remit.sdk.place import GATEWAY, Place, plain


class GrantHandle:
    """A grant in the hands of its holder."""

    def __init__(self, place: Place, opened: verbs.TokenResponse) -> None:
        self.place, self.opened = place, opened
        self.report: verbs.Report | None = None  # what ending it achieved, once it has ended

    @property
    def id(self) -> str:
        """The id of the grant. It is no secret."""
        return self.opened.grant

    @property
    def task_id(self) -> str:
        """The id of the task."""
        return self.opened.task

    @property
    def details(self) -> Sequence[Detail]:
        """What is granted."""
        return self.opened.details

    @cached_property
    def signer(self) -> Steppable:
        """What signs requests under this grant."""
        return signer_of(self.opened, self.gateway)

    @property
    def gateway(self) -> str:
        """The gateway's base URL; in a run it names this grant, so that what forgets to has no more than it holds."""
        told = self.opened.bound_to.gateway if self.opened.bound_to else None
        base = (self.place.gateway or told or GATEWAY).rstrip("/")
        return f"{base}/@{self.id}" if self.place.in_run else base

    @cached_property
    def auth(self) -> httpx.Auth:
        """Auth for ``httpx``: every request is made under this grant."""
        return Auth(self.signer)

    @cached_property
    def auth2(self) -> Any:
        """Auth for ``httpx2``, which is imported here and nowhere else."""
        import importlib

        return flavour(importlib.import_module("httpx2"), self.signer)

    def url(self, resource: str) -> str:
        """Return the base URL of a resource, to which paths are appended as at the upstream."""
        if not any(detail.get("resource") == resource for detail in self.details):
            raise ScopeError(f"the grant holds nothing for `{resource}`")
        return f"{self.gateway}/{resource}"

    def environ(self) -> dict[str, str]:
        """Return this process's variables that name the gateway, for this grant: base URLs, REMIT_URL_*, REMIT_GRANT.

        InvalidRequestError outside a run, where a grant is proven and not named.
        """
        if not self.place.in_run:
            raise InvalidRequestError("outside a run no variable proves a grant", help="use `auth`, or `remit run`")
        known = re.compile(re.escape(plain(self.gateway)) + r"(?:/@[^/]*)?((?:/.*)?)")
        found = {name: known.fullmatch(value) for name, value in os.environ.items()}
        named = {name: f"{self.gateway}{match[1]}" for name, match in found.items() if match}
        return {**named, "REMIT_GATEWAY": self.gateway, "REMIT_GRANT": self.id}

    def binding(self) -> verbs.DPoPBinding | None:
        """Return what a child's token is to be bound to: outside a run every grant has a key of its own."""
        return self.opened.bound_to.anew() if self.opened.bound_to else None

    def __repr__(self) -> str:
        names = ", ".join(str(detail.get("resource")) for detail in self.details)
        return f"<{type(self).__name__} {self.id} ({names})>"


@contextmanager
def not_hiding(error: BaseException | None) -> Iterator[None]:
    """Let an ending fail without hiding ``error``; that it had ended already is no failure."""
    try:
        with suppress(GrantEndedError):
            yield
    except RemitError as failed:
        if error is None:
            raise
        error.add_note(f"and ending what was granted failed: {failed.detail}")


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential and the lease that ends it. Fields are attributes and items: ``cred.dsn``, ``cred["dsn"]``."""

    lease: str
    expires_at: datetime
    values: Mapping[str, str] = field(repr=False)

    def __getattr__(self, name: str) -> str:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(f"this credential has {', '.join(sorted(self.values))}, not `{name}`") from None

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        msg = "a credential is not serialisable"
        raise TypeError(msg)


def credential_of(answer: Json) -> Credential:
    """Read an issued lease."""
    values = {str(name): str(value) for name, value in answer["credential"].items()}
    return Credential(answer["lease"], instant(answer["expires_at"]), values)


def instant(text: str) -> datetime:
    """Read an RFC 3339 instant."""
    return datetime.fromisoformat(text).astimezone(UTC)


current_grant: ContextVar[GrantHandle | None] = ContextVar("remit_grant", default=None)
