from __future__ import annotations

import asyncio
import base64
import json
import logging
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from remit.errors import UnauthenticatedError, UnavailableError
from remit.identity.workloads import bundles
from remit.identity.workloads.bundles import LIFE, MAX_KEYS, RETRY, SpiffeBundle, TrustBundles, parse
from tests.identity.spire import NOW, Domain, Held, Times, jwk_of, key

DOMAIN = Domain("prod.example")
OTHER = Domain("other.example")
X5C = [base64.b64encode(DOMAIN.authority.certificate.public_bytes(Encoding.DER)).decode()]


def authorities(made: TrustBundles) -> tuple[bytes, ...]:
    """Return the certificates of all authorities that are good now."""
    return tuple(der for bundle in made.current().values() for der in bundle.authorities)


def kids(bundle: SpiffeBundle) -> tuple[str | None, ...]:
    return tuple(one.kid for one in bundle.jwt.keys)


# -- what a bundle holds ----------------------------------------------------------------------------------------------


def test_keys_are_told_apart_by_what_they_sign() -> None:
    found = parse(DOMAIN.name, DOMAIN.bundle())
    assert found.authorities == (DOMAIN.authority.certificate.public_bytes(Encoding.DER),)
    assert kids(found) == ("jwt-1",)
    assert [one.kid for one in found.wit.keys] == ["wit-1"]
    assert (found.hint, found.sequence) == (timedelta(seconds=300), 1)


@pytest.mark.parametrize(
    "jwk",
    [
        "text",
        {**jwk_of(key()), "kid": "a"},  # no use
        jwk_of(key(), use="sig", kid="a"),
        jwk_of(key(), use="jwt-svid"),  # no kid: JWT-SVID §6.2
        {"use": "jwt-svid", "kid": "a", "kty": "oct", "k": "c2VjcmV0"},
        {"use": "jwt-svid", "kid": "a", "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"use": "x509-svid"},
        {"use": "x509-svid", "x5c": []},
        {"use": "x509-svid", "x5c": ["AAAA"]},
        {"use": "x509-svid", "x5c": ["not base64!"]},
        {"use": ["jwt-svid"], "kid": "a"},
        {"use": "jwt-svid", "x5c": X5C},
        {"x5c": X5C},
    ],
)
def test_what_is_not_a_key_of_a_known_use_is_passed_over(jwk: object) -> None:
    found = parse(DOMAIN.name, json.dumps({"keys": [jwk]}).encode())
    assert found == SpiffeBundle(DOMAIN.name)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": [], "keys": []}',
        b"-----BEGIN CERTIFICATE-----",
        b'{"keys": [' + b",".join([b"{}"] * (MAX_KEYS + 1)) + b"]}",
        b'{"keys": []' + b" " * bundles.MAX_BUNDLE + b"}",
    ],
)
def test_what_is_not_a_jwk_set_is_no_bundle(raw: bytes) -> None:
    with pytest.raises(UnavailableError):
        parse(DOMAIN.name, raw)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [(60, 60), (1, 5), (86_400, 3_600), (0, None), (-5, None), (True, None), ("60", None), (1.5, None)],
)
def test_a_hint_is_followed_within_bounds(hint: object, expected: int | None) -> None:
    found = parse(DOMAIN.name, DOMAIN.bundle(spiffe_refresh_hint=hint)).hint
    assert found == (None if expected is None else timedelta(seconds=expected))


# -- keeping them fresh -----------------------------------------------------------------------------------------------


def test_the_same_key_id_in_two_trust_domains_is_two_keys() -> None:
    async def scene() -> None:
        made = TrustBundles({one.name: Held(one.bundle()) for one in (DOMAIN, OTHER)}, Times())
        ours, theirs = await made.of(DOMAIN.name), await made.of(OTHER.name)
        assert kids(ours) == kids(theirs) == ("jwt-1",)
        assert ours.jwt.keys[0].thumbprint != theirs.jwt.keys[0].thumbprint
        assert set(ours.authorities).isdisjoint(theirs.authorities)

    asyncio.run(scene())


def test_a_trust_domain_that_is_not_configured_is_unknown() -> None:
    with pytest.raises(UnauthenticatedError):
        asyncio.run(TrustBundles({DOMAIN.name: Held(DOMAIN.bundle())}, Times()).of("prod.example.evil"))


def test_a_bundle_is_looked_at_again_when_it_says_so() -> None:
    async def scene() -> None:
        source, clock = Held(DOMAIN.bundle(spiffe_refresh_hint=60)), Times()
        made = TrustBundles({DOMAIN.name: source}, clock)
        for passed, looks in ((0, 1), (59, 1), (1, 2), (59, 2), (1, 3)):
            clock.pass_(seconds=passed)
            await made.of(DOMAIN.name)
            assert source.looks == looks

    asyncio.run(scene())


def test_without_a_hint_its_source_says_when() -> None:
    async def scene() -> None:
        source, clock = Held(DOMAIN.bundle(spiffe_refresh_hint=None)), Times()
        made = TrustBundles({DOMAIN.name: source}, clock)
        for passed, looks in ((0, 1), (29, 1), (1, 2)):
            clock.pass_(seconds=passed)
            await made.of(DOMAIN.name)
            assert source.looks == looks

    asyncio.run(scene())


def test_a_key_that_is_gone_from_the_source_is_gone_at_the_next_look() -> None:
    async def scene() -> None:
        source, clock = Held(DOMAIN.bundle(spiffe_refresh_hint=60)), Times()
        made = TrustBundles({DOMAIN.name: source}, clock)
        assert kids(await made.of(DOMAIN.name)) == ("jwt-1",)
        source.raw = json.dumps({"keys": [jwk_of(key(), use="jwt-svid", kid="jwt-2")], "spiffe_sequence": 2}).encode()
        clock.pass_(seconds=60)
        found = await made.of(DOMAIN.name)
        assert kids(found) == ("jwt-2",)
        assert not found.authorities

    asyncio.run(scene())


def test_a_key_that_is_not_there_yet_is_looked_for_but_not_at_every_call() -> None:
    async def scene() -> None:
        source, clock = Held(DOMAIN.bundle()), Times()
        made = TrustBundles({DOMAIN.name: source}, clock)
        await made.of(DOMAIN.name)
        for passed, looks in ((0, 1), (1, 1), (RETRY.total_seconds() - 1, 2), (0, 2), (RETRY.total_seconds(), 3)):
            clock.pass_(seconds=passed)
            await made.again(DOMAIN.name)
            assert source.looks == looks

    asyncio.run(scene())


class Slow(Held):
    """A source that says when it is asked, and answers when it is let."""

    asked: asyncio.Event
    gate: asyncio.Event

    async def fetch(self, domain: str) -> SpiffeBundle:
        self.asked.set()
        await self.gate.wait()
        return await super().fetch(domain)


def test_many_who_ask_at_once_make_one_look() -> None:
    async def scene() -> None:
        source = Slow(DOMAIN.bundle())
        source.asked, source.gate = asyncio.Event(), asyncio.Event()
        made = TrustBundles({DOMAIN.name: source}, Times())
        asking = asyncio.gather(*(made.of(DOMAIN.name) for _ in range(20)))
        await asyncio.wait_for(source.asked.wait(), 5)
        source.gate.set()
        assert {kids(found) for found in await asking} == {("jwt-1",)}
        source.out = True
        await asyncio.gather(*(made.again(DOMAIN.name) for _ in range(20)))
        assert source.looks == 1

    asyncio.run(scene())


def test_nobody_waits_for_a_look_while_the_last_bundle_is_good() -> None:
    async def scene() -> None:
        source, clock = Slow(DOMAIN.bundle(spiffe_refresh_hint=60)), Times()
        source.asked, source.gate = asyncio.Event(), asyncio.Event()
        source.gate.set()
        made = TrustBundles({DOMAIN.name: source}, clock)
        await made.of(DOMAIN.name)
        clock.pass_(seconds=60)
        source.gate.clear()
        source.asked.clear()
        look = asyncio.create_task(made.refresh())
        await asyncio.wait_for(source.asked.wait(), 5)
        assert kids(await asyncio.wait_for(made.of(DOMAIN.name), 5)) == ("jwt-1",)
        source.gate.set()
        await look

    asyncio.run(scene())


# -- outage -----------------------------------------------------------------------------------------------------------


def test_the_last_bundle_serves_through_an_outage_for_a_bounded_time(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        source, clock = Held(DOMAIN.bundle(spiffe_refresh_hint=60)), Times()
        made = TrustBundles({DOMAIN.name: source}, clock)
        await made.of(DOMAIN.name)
        source.out = True
        clock.at = NOW + LIFE - timedelta(seconds=1)
        assert kids(await made.of(DOMAIN.name)) == ("jwt-1",)
        assert authorities(made)
        clock.at = NOW + LIFE
        with pytest.raises(UnavailableError, match="out of reach"):
            await made.of(DOMAIN.name)
        with pytest.raises(UnavailableError):
            await made.again(DOMAIN.name)
        assert authorities(made) == ()

    with caplog.at_level(logging.WARNING, "remit.identity"):
        asyncio.run(scene())
    assert "trust bundle of prod.example: the source is out" in caplog.text


def test_a_source_that_comes_back_is_believed_again() -> None:
    async def scene() -> None:
        source, clock = Held(DOMAIN.bundle(), out=True), Times()
        made = TrustBundles({DOMAIN.name: source}, clock)
        with pytest.raises(UnavailableError):
            await made.of(DOMAIN.name)
        source.out = False
        clock.at = NOW + RETRY - timedelta(seconds=1)
        with pytest.raises(UnavailableError):
            await made.of(DOMAIN.name)
        clock.at = NOW + RETRY
        assert kids(await made.of(DOMAIN.name)) == ("jwt-1",)

    asyncio.run(scene())


class Broken(Held):
    """A source that fails in a way that nobody foresaw."""

    broken: bool = True

    async def fetch(self, domain: str) -> SpiffeBundle:
        if self.broken:
            raise RuntimeError(domain)
        return await super().fetch(domain)


def test_a_look_that_failed_unforeseen_is_not_the_last() -> None:
    async def scene() -> None:
        source, clock = Broken(DOMAIN.bundle()), Times()
        made = TrustBundles({DOMAIN.name: source}, clock)
        with pytest.raises(RuntimeError):
            await made.of(DOMAIN.name)
        source.broken = False
        clock.pass_(seconds=RETRY.total_seconds())
        assert kids(await made.of(DOMAIN.name)) == ("jwt-1",)

    asyncio.run(scene())


def test_an_outage_of_one_trust_domain_is_none_of_another() -> None:
    async def scene() -> None:
        made = TrustBundles({DOMAIN.name: Held(b"", out=True), OTHER.name: Held(OTHER.bundle())}, Times())
        await made.refresh()
        assert kids(await made.of(OTHER.name)) == ("jwt-1",)
        with pytest.raises(UnavailableError):
            await made.of(DOMAIN.name)

    asyncio.run(scene())


@pytest.mark.parametrize(("held", "now"), [(5, 4), (5, -1), (5, None), (0, "6")])
def test_an_earlier_edition_does_not_replace_a_later_one(held: int, now: object) -> None:
    async def scene() -> None:
        source, clock = Held(DOMAIN.bundle(spiffe_sequence=held)), Times()
        made = TrustBundles({DOMAIN.name: source}, clock)
        first = await made.of(DOMAIN.name)
        source.raw = OTHER.bundle(spiffe_sequence=now)
        clock.pass_(minutes=5)
        assert await made.of(DOMAIN.name) == first
        clock.at = NOW + LIFE
        with pytest.raises(UnavailableError):
            await made.of(DOMAIN.name)

    asyncio.run(scene())


@pytest.mark.parametrize(("held", "now"), [(5, 5), (5, 6), (None, None), (None, 3)])
def test_an_edition_that_is_not_earlier_replaces_the_one_before(held: object, now: object) -> None:
    async def scene() -> None:
        source, clock = Held(DOMAIN.bundle(spiffe_sequence=held)), Times()
        made = TrustBundles({DOMAIN.name: source}, clock)
        first = await made.of(DOMAIN.name)
        source.raw = OTHER.bundle(spiffe_sequence=now)
        clock.pass_(minutes=5)
        assert await made.of(DOMAIN.name) != first

    asyncio.run(scene())


def test_all_authorities_there_are_filter_handshakes() -> None:
    async def scene() -> None:
        made = TrustBundles({one.name: Held(one.bundle()) for one in (DOMAIN, OTHER)}, Times())
        assert authorities(made) == ()
        await made.refresh()
        wanted = {one.authority.certificate.public_bytes(Encoding.DER) for one in (DOMAIN, OTHER)}
        assert set(authorities(made)) == wanted

    asyncio.run(scene())


# -- handing them on --------------------------------------------------------------------------------------------------


def test_what_is_handed_on_is_good_now_and_each_apart() -> None:
    async def scene() -> None:
        out, clock = Held(OTHER.bundle()), Times()
        made = TrustBundles({DOMAIN.name: Held(DOMAIN.bundle()), OTHER.name: out}, clock)
        assert made.current() == {}
        await made.refresh()
        assert {name: each.authorities for name, each in made.current().items()} == {
            one.name: (one.authority.certificate.public_bytes(Encoding.DER),) for one in (DOMAIN, OTHER)
        }
        assert [jwk["kid"] for jwk in made.current()[DOMAIN.name].jwks] == ["jwt-1"]
        out.out = True
        clock.pass_(minutes=59)
        await made.refresh()
        clock.pass_(minutes=1)
        assert list(made.current()) == [DOMAIN.name]

    asyncio.run(scene())


def test_a_private_or_weak_key_is_not_handed_on() -> None:
    private = {**jwk_of(key(), use="jwt-svid", kid="a"), "d": "AA"}
    good = jwk_of(key(), use="jwt-svid", kid="b")
    found = parse("prod.example", json.dumps({"keys": [private, {**good, "alg": "HS256", "kid": "c"}, good]}).encode())
    assert found.jwks == (good,)


def test_who_watches_is_told_of_changes_alone() -> None:
    async def scene() -> None:
        source, clock, told = Held(DOMAIN.bundle()), Times(), []
        made = TrustBundles({DOMAIN.name: source}, clock)
        made.on_change(lambda: told.append(clock.at))
        await made.refresh()
        clock.pass_(minutes=5)
        await made.refresh()
        assert told == [NOW]
        source.raw = DOMAIN.bundle(spiffe_sequence=2)
        clock.pass_(minutes=5)
        await made.refresh()
        assert len(told) == 1  # the keys are those that there were
        source.raw = OTHER.bundle(spiffe_sequence=3)
        clock.pass_(minutes=5)
        await made.refresh()
        assert len(told) == 2
        source.out = True
        clock.pass_(minutes=59)
        await made.refresh()
        assert len(told) == 2
        clock.pass_(minutes=1)
        await made.refresh()
        assert (len(told), made.current()) == (3, {})

    asyncio.run(scene())
