from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from remit.core.principal import Workload
from remit.errors import AudienceError, RemitError, UnauthenticatedError, UnavailableError
from remit.identity.issuers import FRESH, KEEP, RETRY
from remit.identity.keyed_clients import ClientKeys, KeyedClients
from tests.identity.issuing import Clock, ec, public, signed

ISSUER = "https://remit.test"


class Published:
    """The keys of a client, where it publishes them."""

    def __init__(self) -> None:
        self.clock, self.keys, self.asked, self.down = Clock(), [public(ec())], 0, False

    async def read(self) -> bytes:
        self.asked += 1
        if self.down:
            raise UnavailableError("away")
        return json.dumps({"keys": self.keys}).encode()

    def clients(self) -> KeyedClients:
        return KeyedClients({"app": ClientKeys("app", self.read, self.clock)}, {ISSUER}, self.clock)

    def assertion(self, kid: str = "e-1", **changes: object) -> str:
        claims = {"iss": "app", "sub": "app", "aud": ISSUER, "jti": "one-of-many", "exp": self.clock.at(seconds=60)}
        return signed({**claims, **changes}, ec(kid))


def test_a_client_is_who_signed_by_its_key_and_the_assertion_counts_once() -> None:
    site = Published()
    found = asyncio.run(site.clients().assertion(site.assertion()))
    assert (found.id, found.method, found.claims) == ("app", "private_key_jwt", {})
    assert found.digest is not None
    assert found.until == found.expires_at + timedelta(seconds=60)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"iss": "b", "sub": "b"}, UnauthenticatedError),
        ({"iss": "https://ci.test"}, UnauthenticatedError),
        ({"aud": "https://other.test"}, AudienceError),
    ],
)
def test_of_nobody_else_is_anything_believed(changes: dict[str, str], error: type[RemitError]) -> None:
    site = Published()
    with pytest.raises(error):
        asyncio.run(site.clients().assertion(site.assertion(**changes)))


def test_what_another_key_signed_is_refused() -> None:
    site = Published()
    forged = site.assertion("e-1").rsplit(".", 1)[0] + "." + site.assertion("e-2").rsplit(".", 1)[1]
    with pytest.raises(UnauthenticatedError):
        asyncio.run(site.clients().assertion(forged))


def test_keys_are_kept_looked_for_anew_where_one_is_missing_and_not_too_often() -> None:
    async def main() -> None:
        site = Published()
        clients = site.clients()
        for _ in range(3):
            await clients.assertion(site.assertion())
        assert site.asked == 1
        site.keys = [public(ec("e-2"))]
        for _ in range(3):
            with pytest.raises(UnauthenticatedError):
                await clients.assertion(site.assertion("e-2"))
        assert site.asked == 1
        site.clock.now += RETRY
        assert (await clients.assertion(site.assertion("e-2"))).id == "app"
        with pytest.raises(UnauthenticatedError):
            await clients.assertion(site.assertion())
        assert site.asked == 2
        site.down = True
        site.clock.now += FRESH
        assert (await clients.assertion(site.assertion("e-2"))).id == "app"
        site.clock.now += KEEP
        with pytest.raises(UnavailableError):
            await clients.assertion(site.assertion("e-2"))

    asyncio.run(main())


def test_the_word_of_a_platform_is_for_others_to_verify() -> None:
    async def others(token: str) -> Workload:
        return Workload(f"https://ci.test#{len(token)}", "oidc", Clock().now)

    site = Published()
    clients = KeyedClients({}, {ISSUER}, site.clock, others)
    assert asyncio.run(clients.assertion(site.assertion(iss="https://ci.test"))).method == "oidc"
    with pytest.raises(UnauthenticatedError):
        asyncio.run(clients.assertion(site.assertion()))
