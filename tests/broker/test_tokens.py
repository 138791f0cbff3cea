"""Tokens are minted for live grants alone, by what the broker knows of them, and known again when they come back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from remit import jose
from remit.broker import Broker
from remit.broker import tokens as broker_tokens
from remit.broker.pending import PendingMemory
from remit.compose.bound_grants import BoundGrants
from remit.core.audience import Audiences, Service
from remit.core.task import Grant
from remit.errors import GrantEndedError, RemitError, ReplayError, TargetError, TokenError, WrongKeyError
from remit.jose import status
from remit.jose import token as tokens
from remit.jose.keys import by_kid
from remit.jose.proof import Nonces, Proof
from remit.jose.token import TokenSpec
from remit.keys.signers import FileSigner
from remit.ports import Resource
from remit.ports.broker import Notice
from remit.ports.tokens import TokenPort
from tests.broker.world import OPERATOR, SEARCH, World, child, details, holder
from tests.grant_requests import changed
from tests.oauth.plane import jws
from tests.support import status_reader
from tests.support.link import edge_of
from tests.support.signing import Ring

ISSUER, GATEWAY, KEY = "https://remit.test", "https://gateway.test", "k" * 43
ORDERS = {"type": "elsewhere", "resource": "orders", "actions": ["read", "write"]}
SHOP = {"type": "elsewhere", "resource": "shop", "actions": ["buy"]}
SERVICES = {
    "orders": Service("orders", "https://orders.test", "orders-api"),
    "shop": Service("shop", "https://shop.test", "shop-api", rsa=True),
}
KNOWN = Audiences(ISSUER, GATEWAY, SERVICES)
RSA_KEYS = [FileSigner(rsa.generate_private_key(65_537, 2_048)) for _ in range(2)]


@dataclass
class Mint:
    """A broker that mints."""

    world: World
    broker: Broker
    root: Grant
    ring: Ring = field(default_factory=Ring)
    by_rsa: Ring | None = field(default_factory=lambda: Ring(RSA_KEYS[0]))
    tokens: BoundGrants = field(init=False)

    def __post_init__(self) -> None:
        """Start anew, as after a restart: with the same keys, and no memory."""
        pending = PendingMemory(lambda: self.world.now)
        clock = lambda: self.world.now  # noqa: E731 - short
        self.tokens = BoundGrants(
            *(self.broker, self.ring, pending, ISSUER, clock, lambda prefix: f"{prefix}_1", b"n" * 32),
            known=KNOWN,
            by_rsa=self.by_rsa,
        )

    @property
    def there(self) -> TokenPort:
        """What an edge has of it."""
        return edge_of(self.tokens)

    async def minted(self, **more: Any) -> str:
        return (await self.there.mint(self.root.id, TokenSpec(**more))).token or ""

    def proof(self, jti: str = "proof-001", jkt: str = KEY) -> Proof:
        return Proof(jkt, jti, int(self.world.now.timestamp()))

    def forged(self, text: str, by: FileSigner | None = None, /, **changes: object) -> str:
        """Return a token with other claims that a key of ours signed."""
        claims, signer = {**claims_in(text), **changes}, by or self.ring.signer
        return jws({"typ": tokens.TYPE, "alg": signer.alg, "kid": signer.kid}, claims, signer.sign)


def claims_in(text: str) -> dict[str, Any]:
    return dict(jose.document(jose.read(text, frozenset({"typ", "alg", "kid"})).payload, TokenError))


def scene(body: Callable[[Mint], Awaitable[None]], jkt: str | None = KEY) -> None:
    async def main() -> None:
        world = World()
        broker = await world.ready()
        await body(Mint(world, broker, await world.opened(broker, SEARCH, depth=1, fan_out=2, jkt=jkt)))

    asyncio.run(main())


def test_a_token_says_what_the_broker_knows_of_the_grant() -> None:
    async def body(mint: Mint) -> None:
        told = await mint.there.mint(mint.root.id, TokenSpec(GATEWAY, "p" * 43))
        keys = by_kid(await mint.there.token_keys())
        claims = tokens.read(told.token or "", keys, ISSUER, mint.world.now)
        assert (claims.grant, claims.jkt, claims.audience, claims.par_hash) == (mint.root.id, KEY, GATEWAY, "p" * 43)
        assert claims.expires_at - claims.issued_at == told.expires_in == 600
        assert claims.all["authorization_details"]

    scene(body)


@pytest.mark.parametrize("audience", ["https://bank.test", ""])
def test_no_token_is_minted_for_anybody_else(audience: str) -> None:
    async def body(mint: Mint) -> None:
        with pytest.raises(TargetError):
            await mint.there.mint(mint.root.id, TokenSpec(audience))

    scene(body)


def test_a_token_for_a_service_tells_of_what_is_granted_there_alone() -> None:
    async def body(mint: Mint) -> None:
        root = await _with_orders(mint)
        told = await mint.there.mint(root.id, TokenSpec("https://orders.test"))
        claims = claims_in(told.token or "")
        assert claims["aud"] == "https://orders.test"
        assert claims["authorization_details"] == json.loads(told.details) == [ORDERS]
        both = await mint.there.mint(root.id, TokenSpec())
        assert [one["resource"] for one in json.loads(both.details)] == ["search", "orders", "shop"]

    scene(body)


def test_no_token_for_a_service_is_minted_where_its_resource_is_another_or_its_grant_has_none_of_it() -> None:
    async def body(mint: Mint) -> None:
        with pytest.raises(TargetError):  # of `search` alone
            await mint.there.mint(mint.root.id, TokenSpec("https://orders.test"))
        root = await _with_orders(mint, "elsewhere:https://else.test")
        with pytest.raises(TargetError, match="another resource"):
            await mint.there.mint(root.id, TokenSpec("https://orders.test"))
        there = Resource("orders", "elsewhere", "elsewhere:https://orders.test", details(ORDERS), None, {})
        await mint.broker.put_resource(OPERATOR, there)
        text = (await mint.there.mint(root.id, TokenSpec("https://orders.test"))).token or ""
        assert (await mint.there.present(text)).grant == root.id
        await mint.broker.put_resource(OPERATOR, replace(there, destination="elsewhere:https://else.test"))
        for _ in range(2):  # known by its digest, and by its signature
            with pytest.raises(TargetError, match="another resource"):
                await mint.there.present(text)
            assert (await mint.there.token_grant(text)).id == root.id
            mint.__post_init__()
        await mint.broker.delete_resource(OPERATOR, "orders")
        with pytest.raises(RemitError):
            await mint.there.mint(root.id, TokenSpec("https://orders.test"))

    scene(body)


async def _with_orders(mint: Mint, destination: str = "elsewhere:https://orders.test") -> Grant:
    """Return a grant that has something at the service, beside something at the gateway."""
    await mint.broker.put_resource(OPERATOR, Resource("orders", "elsewhere", destination, details(ORDERS), None, {}))
    shop = Resource("shop", "elsewhere", "elsewhere:https://shop.test", details(SHOP), None, {})
    await mint.broker.put_resource(OPERATOR, shop)
    return await mint.world.opened(mint.broker, SEARCH, ORDERS, SHOP, jkt=KEY)


def test_a_service_that_says_so_gets_rs256_and_nobody_else_does() -> None:
    async def body(mint: Mint) -> None:
        root = await _with_orders(mint)
        ring = mint.by_rsa
        assert ring is not None
        for whom in (None, ISSUER, GATEWAY, f"{GATEWAY}/search", "https://orders.test"):
            told = await mint.there.mint(root.id, TokenSpec(whom))
            assert _header(told.token or "") == {"typ": "at+jwt", "alg": "ES256", "kid": mint.ring.signer.kid}
        text = (await mint.there.mint(root.id, TokenSpec("https://shop.test"))).token or ""
        assert _header(text) == {"typ": "at+jwt", "alg": "RS256", "kid": ring.signer.kid}
        assert [jwk["alg"] for jwk in await mint.there.token_keys()] == ["ES256", "RS256"]
        mint.__post_init__()  # what it minted it has forgotten
        assert (await mint.there.present(text)).grant == root.id
        ring.signer = RSA_KEYS[1]
        mint.tokens.keys_changed()
        with pytest.raises(TokenError, match="not signed by a key"):
            await mint.there.present(text)

    scene(body)


@pytest.mark.parametrize("whom", [ISSUER, GATEWAY, f"{GATEWAY}/search", "https://orders.test", "https://else.test"])
def test_the_key_of_rs256_makes_no_token_for_anybody_else(whom: str) -> None:
    async def body(mint: Mint) -> None:
        root = await _with_orders(mint)
        text = (await mint.there.mint(root.id, TokenSpec("https://shop.test"))).token or ""
        for act in (mint.there.present, mint.there.token_grant):
            with pytest.raises(TokenError, match="signs nothing for its audience"):
                await act(mint.forged(text, RSA_KEYS[0], aud=whom))
        with pytest.raises(TokenError, match="signs nothing"):
            await mint.there.refuse_token(mint.forged(text, RSA_KEYS[0], aud=whom), TokenError())

    scene(body)


def test_a_client_is_known_by_the_key_that_it_registered_under() -> None:
    async def body(mint: Mint) -> None:
        first = await mint.there.client_mac("said")
        assert first == await mint.there.client_mac("said")
        assert first != await mint.there.client_mac("said ")
        mint.__post_init__()  # each broker has a key of its own
        assert first != await mint.there.client_mac("said")

    scene(body)


def test_without_its_key_there_is_no_rs256() -> None:
    async def body(mint: Mint) -> None:
        root, mint.by_rsa = await _with_orders(mint), None
        mint.__post_init__()
        with pytest.raises(TargetError, match="no key"):
            await mint.there.mint(root.id, TokenSpec("https://shop.test"))
        assert [jwk["alg"] for jwk in await mint.there.token_keys()] == ["ES256"]

    scene(body)


def _header(text: str) -> dict[str, Any]:
    return dict(jose.read(text, frozenset({"typ", "alg", "kid"})).header)


def test_no_token_is_minted_for_a_grant_that_has_ended() -> None:
    async def body(mint: Mint) -> None:
        await mint.broker.revoke(OPERATOR, mint.root.id)
        with pytest.raises(GrantEndedError):
            await mint.there.mint(mint.root.id, TokenSpec())

    scene(body)


def test_no_token_is_minted_for_a_grant_that_is_bound_to_nothing() -> None:
    async def body(mint: Mint) -> None:
        with pytest.raises(TokenError, match="not bound"):
            await mint.there.mint(mint.root.id, TokenSpec())

    scene(body, jkt=None)


@pytest.mark.parametrize("restarted", [False, True], ids=["minted by it", "after a restart"])
def test_a_token_names_its_holder_until_its_grant_or_its_time_is_over(*, restarted: bool) -> None:
    async def body(mint: Mint) -> None:
        text = await mint.minted()
        if restarted:
            mint.__post_init__()
        assert await mint.there.present(text) == holder(mint.broker, mint.root)
        mint.world.now += timedelta(seconds=599)
        assert await mint.there.present(text) == holder(mint.broker, mint.root)
        mint.world.now += timedelta(seconds=1)
        with pytest.raises(TokenError, match="expired"):
            await mint.there.present(text)
        mint.world.now -= timedelta(seconds=60)
        await mint.broker.revoke(OPERATOR, mint.root.id)
        with pytest.raises(GrantEndedError):
            await mint.there.present(text)
        assert (await mint.there.token_grant(text)).id == mint.root.id  # whoever found it may end it once more

    scene(body)


def test_claims_that_the_state_does_not_bear_out_are_worth_nothing() -> None:
    async def body(mint: Mint) -> None:
        text, other = await mint.minted(), await mint.world.opened(mint.broker, SEARCH, jkt="o" * 43)
        about: Any = jose.document(jose.read(text, frozenset({"typ", "alg", "kid"})).payload, TokenError)["task"]
        wrong: list[dict[str, object]] = [{"task": {**about, "grant": name}} for name in ("grt_none", other.id)]
        wrong += [{"task": {**about, "id": "task_none"}}, {"cnf": {"jkt": "o" * 43}}]
        for changes in wrong:
            with pytest.raises(TokenError):
                await mint.there.present(mint.forged(text, **changes))
        assert (await mint.there.present(mint.forged(text))).grant == mint.root.id
        forged, mint.ring = mint.forged(text, jti="tok_2"), Ring()
        mint.tokens._keys = mint.ring
        mint.tokens.keys_changed()
        with pytest.raises(TokenError, match="not signed by a key"):
            await mint.there.present(forged)

    scene(body)


def test_a_proof_is_by_the_key_of_the_grant_and_counts_once() -> None:
    async def body(mint: Mint) -> None:
        text = await mint.minted()
        with pytest.raises(WrongKeyError):
            await mint.there.present(text, mint.proof(jkt="o" * 43))
        assert (await mint.there.present(text, mint.proof())).grant == mint.root.id
        with pytest.raises(ReplayError):
            await mint.there.present(text, mint.proof())

    scene(body)


def test_a_proof_for_a_grant_that_has_ended_is_not_burnt() -> None:
    async def body(mint: Mint) -> None:
        text = await mint.minted()
        await mint.broker.revoke(OPERATOR, mint.root.id)
        for _ in range(2):
            with pytest.raises(GrantEndedError):
                await mint.there.present(text, mint.proof())

    scene(body)


@pytest.mark.parametrize("restarted", [False, True], ids=["minted by it", "after a restart"])
def test_a_refusal_of_a_token_is_on_record_under_its_grant(*, restarted: bool) -> None:
    async def body(mint: Mint) -> None:
        text = await mint.minted()
        if restarted:
            mint.__post_init__()
        await mint.there.refuse_token(text, WrongKeyError())
        mint.world.now += timedelta(seconds=601)
        await mint.there.refuse_token(text, TokenError("its time is not told"))
        told = [event for event in await mint.world.events() if event.event == "resource.use"]
        assert [(event.grant, event.code, event.request) for event in told] == [
            (mint.root.id, "wrong-key", "tok_1"),
            (mint.root.id, "expired", "tok_1"),
        ]
        with pytest.raises(TokenError):
            await mint.there.refuse_token("no.token.ofours", WrongKeyError())

    scene(body)


def test_what_a_revoked_key_signed_is_worth_nothing_at_once_and_edges_are_told() -> None:
    async def body(mint: Mint) -> None:
        text, told = await mint.minted(), edge_of(mint.broker).notices()
        mint.ring.signer = Ring().signer
        mint.tokens.keys_changed()
        with pytest.raises(TokenError):
            await mint.there.present(text)
        assert await anext(told) == Notice(token_keys=await mint.there.token_keys())
        assert (await mint.there.present(await mint.minted())).grant == mint.root.id

    scene(body)


def test_the_tokens_that_are_known_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_tokens, "MAX_KNOWN", 2)

    async def body(mint: Mint) -> None:
        made = [await mint.minted(par_hash=f"{number:043}") for number in range(4)]
        assert len(mint.tokens._known) == 2
        for text in made:
            assert (await mint.there.present(text)).grant == mint.root.id
        assert len(mint.tokens._known) == 2

    scene(body)


def test_a_status_list_is_made_once_a_second_and_anew_when_a_grant_ends() -> None:
    async def body(mint: Mint) -> None:
        first = await mint.there.status_list()
        assert await mint.there.status_list() is not None
        assert mint.root.status is not None
        assert await mint.tokens.status_list() is await mint.tokens.status_list()
        assert _state(first, mint.root.status) == status.VALID
        await mint.broker.revoke(OPERATOR, mint.root.id)
        assert _state(await mint.there.status_list(), mint.root.status) == status.INVALID
        made = await mint.there.status_list()
        mint.world.now += timedelta(seconds=1)
        assert await mint.there.status_list() != made

    scene(body)


def _state(text: str, place: int) -> int:
    listed: Any = jose.document(jose.read(text, frozenset({"typ", "alg", "kid"})).payload, TokenError)["status_list"]
    return status_reader.status(status_reader.decompress(listed["lst"]), 1, place)


def test_a_token_of_a_grant_that_is_bound_to_a_certificate_ends_with_it_at_the_latest() -> None:
    async def body(mint: Mint) -> None:
        wanted = changed(child(SEARCH), {"x5t": "x" * 43, "depth": 0})
        bound = await mint.broker.delegate(holder(mint.broker, mint.root), mint.root.id, wanted)
        with pytest.raises(TokenError, match="bound to a certificate"):
            await mint.there.mint(bound.id, TokenSpec())
        until = mint.world.now + timedelta(seconds=60)
        assert (await mint.there.mint(bound.id, TokenSpec(until=until))).expires_in == 60

    scene(body)


def test_edges_make_nonces_by_the_key_that_the_broker_was_given() -> None:
    async def body(mint: Mint) -> None:
        assert await mint.there.nonces() == Nonces(b"n" * 32)

    scene(body)


def test_edges_are_told_of_a_key_for_nonces_that_turns_and_take_those_of_the_one_before() -> None:
    async def body(mint: Mint) -> None:
        told = edge_of(mint.broker).notices()
        mint.tokens.turn_nonces(b"o" * 32)
        mint.tokens.turn_nonces(b"p" * 32)
        assert (await anext(told)).nonces == Nonces(b"p" * 32, b"o" * 32) == await mint.there.nonces()

    scene(body)


async def _borne(mint: Mint) -> str:
    """Have the resource take bearers, and mint a token of a grant that is held by it alone."""
    taking = replace(await mint.broker.resource("search"), settings={"bearer": True})
    await mint.broker.put_resource(OPERATOR, taking)
    mint.root = await mint.world.opened(mint.broker, SEARCH, bearer="search")
    return await mint.minted()


def test_a_bearers_token_counts_while_the_broker_that_made_it_runs_and_none_is_made_of_the_signing_key_alone() -> None:
    async def body(mint: Mint) -> None:
        text = await _borne(mint)
        assert (await mint.there.present(text)).grant == mint.root.id
        mint.tokens.keys_changed()  # which forgets what was minted
        assert (await mint.there.present(text)).grant == mint.root.id
        later = int((mint.world.now + timedelta(days=365)).timestamp())
        for changes in ({"exp": later}, {"jti": "tok_1" + "a" * 22}, {"aud": GATEWAY, "exp": later}):
            with pytest.raises(TokenError):
                await mint.there.present(mint.forged(text, **changes))
        mint.__post_init__()
        with pytest.raises(TokenError, match="not made since this broker started"):
            await mint.there.present(text)

    scene(body)
