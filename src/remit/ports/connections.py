"""Connections of humans to the providers of upstreams: what is lent of them, and how they are made and ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from remit.core.connection import AuthorizationServer, ProviderClient, ProviderTokens
from remit.core.principal import Human, Operator
from remit.core.secret import Secret


class BegunConnection(Struct, frozen=True):
    """Where to send a human's browser, by which ``state`` the answer is known, and what it is about."""

    url: str
    state: str
    issuer: str = ""
    destination: str = ""  # that the provider's tokens are sent to
    scope: str = ""


class ReturnedConnection(Struct, frozen=True):
    """What a browser came back for, and nobody has confirmed: nothing is kept of it yet."""

    human: str  # whose connection it becomes
    resource: str
    begun: str  # the digest of its state
    issuer: str
    destination: str
    scope: str
    code: str = ""  # for a human to type where they began it; empty: they began it in the browser that came back


class UsingTask(Struct, frozen=True):
    """An open task that may use a connection."""

    id: str
    purpose: str


class ConnectionView(Struct, frozen=True):
    """A connection as its human and the operator may see it; ``over`` says why it is over, if it is.

    ``used_at``: None: not since the broker was started. ``tasks`` are the newest of ``open_tasks``.
    """

    human: str
    resource: str
    issuer: str
    scope: str
    made_at: datetime
    unsure: bool  # a refresh was cut off; whether its token still counts is seen when it is next needed
    over: str
    used_at: datetime | None = None
    tasks: tuple[UsingTask, ...] = ()
    open_tasks: int = 0


class ConnectionPort(Protocol):
    """Who may connect is who a task was opened for: a human by their own login, or the operator."""

    async def begin_connection(self, by: Operator | Human, name: str, browser: str = "") -> BegunConnection:
        """Begin to connect somebody to the provider of a resource; ``browser``: what the one that ends it has to show.

        A human has to have logged in for this alone: their token's nonce says so (``core.connection.nonce``).
        """

    async def answer_connection(self, name: str, answer: Mapping[str, str], browser: str) -> ReturnedConnection:
        """Take what a browser came back with from a provider (RFC 6749 §4.1.2, RFC 9207), and wait for a yes to it."""

    async def confirm_connection(self, name: str, begun: str, browser: str) -> ConnectionView:
        """Redeem what came back, and make the connection: its human has said yes to it in ``browser``."""

    async def type_connection_code(self, by: Operator, name: str, begun: str, code: str) -> ConnectionView:
        """As `confirm_connection`, for what was begun at the control socket: by the code on the page that came last."""

    async def connections(self, by: Operator | Human) -> Sequence[ConnectionView]:
        """Return the connections that somebody may see: the operator everybody's, a human who logged in for it theirs.

        A human's login is as for `begin_connection`, and for no resource; so it is for `end_connection`.
        """

    async def end_connection(self, by: Operator | Human, name: str, human: str | None = None) -> ConnectionView:
        """End one's own connection, or as the operator another's; the provider is told, if it takes that."""


class ProviderPort(Protocol):
    """Authorization servers of upstreams, asked in the process that reaches targets. Nothing is tried again.

    UnavailableError: there was no answer, and nobody knows what came of it. EngineRefusedError: the provider said no.
    """

    async def discover_provider(
        self, destination: str, issuer: str | None, near: tuple[str, ...], *, messages: bool = False
    ) -> AuthorizationServer:
        """Return what an issuer, or that of a resource (RFC 9728), publishes about itself (RFC 8414).

        A resource is asked first what it says to whoever has no token: where it publishes that, and which scopes it
        needs (RFC 9728 §5.1); with ``messages`` by a message of MCP.
        ``near`` are the hosts that may be in a network of one's own, now and later; no other is reached there.
        """

    async def obtain_tokens(
        self, provider: AuthorizationServer, client: ProviderClient, form: Secret
    ) -> ProviderTokens:
        """Redeem a code or a refresh token; GrantTokenError where the provider does not take it (``invalid_grant``).

        UnsupportedScopeError where it gives none for the ``scope`` that was asked for.
        """

    async def revoke_token(self, provider: AuthorizationServer, client: ProviderClient, token: Secret) -> None:
        """Have a token and its grant revoked (RFC 7009); success for one that is not known any more."""

    async def register_client(self, provider: AuthorizationServer, name: str, redirect_uri: str) -> ProviderClient:
        """Register (RFC 7591)."""
