"""A provider in memory that rotates its refresh tokens, and can be told to misbehave."""

# ruff: noqa: ARG002 - it does less than its protocol tells it

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from msgspec import structs

from remit.broker import Broker
from remit.broker.connections import Providers
from remit.core.connection import AuthorizationServer, ProviderClient, ProviderTokens
from remit.core.secret import Secret
from remit.errors import GrantTokenError, UnsupportedScopeError
from remit.ports import Resource
from remit.ports.connections import ConnectionView, ProviderPort
from tests.broker.world import OPERATOR, SEARCH, World, details

ISSUER = "https://auth.search.test"
OAUTH = {"issuer": ISSUER, "client_id": "remit-1"}
HERE = "https://remit.test"


@dataclass
class Issuing(ProviderPort):
    """Takes each refresh token once; one that is shown again ends its whole family (RFC 9700 §4.14.2)."""

    good: set[str] = field(default_factory=set)
    spent: set[str] = field(default_factory=set)
    revoked: list[str] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    clients: list[ProviderClient] = field(default_factory=list)
    discovered: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    registered: list[str] = field(default_factory=list)
    lifetime: int | None = 600
    refreshes: bool = True
    narrows: bool | None = True  # whether a narrower token can be had; None: it is refused
    says: str | None = None  # the scope of a token for all
    provider: AuthorizationServer = field(
        default_factory=lambda: AuthorizationServer(
            ISSUER, f"{ISSUER}/authorize", f"{ISSUER}/token", f"{ISSUER}/revoke"
        )
    )
    before: Callable[[], Awaitable[None]] | None = None  # of what a request does
    after: Callable[[], Awaitable[None]] | None = None  # once it is done, and before the answer is there
    said: bool = False  # whether a resource was last asked by a message of MCP
    ids: itertools.count[int] = field(default_factory=itertools.count)

    async def discover_provider(
        self, destination: str, issuer: str | None, near: tuple[str, ...], *, messages: bool = False
    ) -> AuthorizationServer:
        self.discovered.append((destination, near))
        self.said = messages
        return structs.replace(self.provider, issuer=issuer or self.provider.issuer, near=near)

    async def obtain_tokens(
        self, provider: AuthorizationServer, client: ProviderClient, form: Secret
    ) -> ProviderTokens:
        asked = {name: part.decode() for name, part in form.parts().items()}
        if self.before is not None:
            await self.before()
        self.asked.append(asked)
        self.clients.append(client)
        old = asked.get("refresh_token")
        if old is not None and old not in self.good:
            if old in self.spent:
                self.good.clear()
            raise GrantTokenError("the provider does not take the code or the refresh token")
        if "scope" in asked and self.narrows is None:
            raise UnsupportedScopeError
        self.good.discard(old or "")
        self.spent |= {old or ""}
        number = next(self.ids)
        fresh = f"refresh-token-number-{number}"
        self.good.add(fresh)
        if self.after is not None:
            await self.after()
        access, scope = Secret(f"access-token-number-{number}"), asked.get("scope")
        given = Secret(fresh) if self.refreshes else None
        told = self.says if scope is None else scope if self.narrows else "read write"
        return ProviderTokens(access, given, self.lifetime, told)

    async def revoke_token(self, provider: AuthorizationServer, client: ProviderClient, token: Secret) -> None:
        if self.before is not None:
            await self.before()
        self.revoked.append(token.reveal())
        self.good.clear()

    async def register_client(self, provider: AuthorizationServer, name: str, redirect_uri: str) -> ProviderClient:
        self.registered.append(redirect_uri)
        return ProviderClient(f"registered-{len(self.registered)}")


def reached(issuing: Issuing) -> Providers:
    """Return how a broker reaches a provider."""
    draws = itertools.count()
    return Providers(issuing, HERE, lambda: f"drawn-{next(draws)}")


@dataclass
class Connected(World):
    """A world with a provider."""

    issuing: Issuing = field(default_factory=Issuing)

    def broker(self, **more: Any) -> Broker:
        return super().broker(**{"providers": reached(self.issuing), **more})

    async def connected(self, **oauth: object) -> Broker:
        """Return a broker with a resource that humans connect, and the operator's connection to it."""
        broker = await self.served()
        await broker.put_resource(OPERATOR, search({**OAUTH, **oauth}))
        await connect(broker)
        return broker

    async def served(self) -> Broker:
        """Return a broker on what is stored."""
        broker = self.broker()
        await broker.start()
        return broker


def search(oauth: object = OAUTH, destination: str = "https://search.test") -> Resource:
    bound = details({key: value for key, value in SEARCH.items() if key != "uses"})
    return Resource("search", "http", destination, bound, None, {"oauth": oauth})


async def connect(broker: Broker, name: str = "search", **answer: str) -> ConnectionView:
    """Have the operator go to the provider, and come back with a code."""
    begun = await broker.begin_connection(OPERATOR, name)
    back = await broker.answer_connection(name, {"state": begun.state, "code": "c", **answer}, "")
    return await broker.type_connection_code(OPERATOR, name, back.begun, back.code)


def query(url: str) -> dict[str, str]:
    """Return the parameters of an authorization request."""
    return {name: value for name, (value,) in parse_qs(urlsplit(url).query).items()}
