"""Signals between real parties: an identity provider that logs out, a transmitter, a receiver; and what it ends."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from tests.live.deployment import Deployment, Peer, deployed, peer
from tests.live.fleet import Key, claims_of, until
from tests.live.idp import Browser

pytestmark = pytest.mark.live

REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
MEDIA = "application/secevent+jwt"


def play(directory: Path, scene: Callable[[Deployment], Awaitable[None]], *signals: Mapping[str, object]) -> None:
    """Run a scene."""

    async def main() -> None:
        async with deployed(directory, *signals) as found:
            await scene(found)

    asyncio.run(main())


def shown(directory: Path, token: str) -> str:
    """Write a token to a file that only we can read; return its path."""
    path = directory / f"token-{secrets.token_hex(4)}"
    path.touch(0o600)
    path.write_text(token + "\n")
    return str(path)


class Transmitter:
    """A transmitter that is not the identity provider: it signs with a key set of its own, served over HTTP."""

    def __init__(self, there: Peer) -> None:
        self.there = there
        self.key = ECKey.generate_key("P-256", {"kid": "t-1", "use": "sig", "alg": "ES256"})
        there.documents["/jwks"] = {"keys": [self.key.as_dict(private=False)]}
        there.documents["/.well-known/ssf-configuration"] = {
            "spec_version": "1_0",
            "issuer": there.url,
            "jwks_uri": f"{there.url}/jwks",
            "delivery_methods_supported": ["urn:ietf:rfc:8935", "urn:ietf:rfc:8936"],
        }

    def event(self, about: str, sub: str, sid: str | None = None, kind: str = REVOKED, **changes: object) -> str:
        """Return a security event token about a human of the issuer ``about``, or one session of theirs."""
        user = {"format": "iss_sub", "iss": about, "sub": sub}
        session = {"session": {"format": "opaque", "id": sid}} if sid is not None else {}
        claims: dict[str, Any] = {
            "iss": self.there.url,
            "aud": "https://remit.test",
            "iat": int(time.time()),
            "jti": secrets.token_urlsafe(12),
            "sub_id": {"format": "complex", "user": user, **session} if session else user,
            "events": {kind: {"event_timestamp": int(time.time())}},
            **changes,
        }
        return jwt.encode({"alg": "ES256", "typ": "secevent+jwt", "kid": "t-1"}, claims, self.key)


# -- OIDC Back-Channel Logout -----------------------------------------------------------------------------------------


def test_a_logout_at_the_identity_provider_ends_the_tasks_of_that_session(tmp_path: Path) -> None:
    async def scene(found: Deployment) -> None:
        browser = Browser(found.provider.issuer)
        first = await found.tokens("alice", browser)
        second = await found.tokens("alice", browser)  # the same session, another token
        elsewhere, bob = await found.tokens("alice"), await found.tokens("bob")
        sid = claims_of(first["id_token"])["sid"]
        assert claims_of(second["id_token"])["sid"] == sid != claims_of(elsewhere["id_token"])["sid"]
        ended = await found.working(first["id_token"])
        live = [await found.working(one["id_token"]) for one in (elsewhere, bob)]
        assert all([await found.works(one) for one in (ended, *live)])
        await asyncio.to_thread(found.provider.send_logout, "alice", sid)  # the provider wants a 200, or it fails
        assert not await found.works(ended)
        assert all([await found.works(one) for one in live])
        refused = await found.ask_to_open(second["id_token"], Key())
        assert (refused.status_code, refused.json()["code"]) == (400, "grant-token")
        assert "ended this login" in refused.json()["error_description"]
        names = [(one["event"], one["decision"], one["cause"]) for one in await found.entries()]
        assert ("signal.take", "done", "logout") in names
        assert ("task.close", "done", "logout") in names

    play(tmp_path, scene)


def test_an_ended_session_is_not_revived_by_its_refresh_token(tmp_path: Path) -> None:
    async def scene(found: Deployment) -> None:
        first = await found.tokens("alice")
        await asyncio.to_thread(found.provider.send_logout, "alice", claims_of(first["id_token"])["sid"])
        renewed = await asyncio.to_thread(
            lambda: found.provider.token(grant_type="refresh_token", refresh_token=first["refresh_token"])
        )
        assert (await found.ask_to_open(renewed["id_token"], Key())).status_code == 400
        again = await found.tokens("alice")
        assert await found.works(await found.working(again["id_token"]))

    play(tmp_path, scene)


# -- SSF, pushed and polled -------------------------------------------------------------------------------------------


def test_a_pushed_event_ends_all_tasks_of_a_human_and_nobody_elses(tmp_path: Path) -> None:
    async def scene(found: Deployment) -> None:
        alice = [await found.working((await found.tokens("alice"))["id_token"]) for _ in range(2)]
        early = await found.tokens("alice")
        bob = await found.working((await found.tokens("bob"))["id_token"])
        event = found.provider.event("remit", {REVOKED: {}}, sub_id=_human(found, "alice"))
        answer = await _push(found, event)
        assert (answer.status_code, answer.content) == (202, b"")
        assert not any([await found.works(one) for one in alice])
        assert await found.works(bob)
        assert (await found.ask_to_open(early["id_token"], Key())).status_code == 400
        assert (await _push(found, event)).status_code == 202  # delivered again
        for wrong in (
            found.provider.event("somebody-else", {REVOKED: {}}, sub_id=_human(found, "bob")),
            found.provider.event("remit", {REVOKED: {}}, sub_id=_human(found, "bob"), iss="https://other.test"),
            event[:-8] + "AAAAAAAA",
        ):
            refused = await _push(found, wrong)
            assert (refused.status_code, set(refused.json())) == (400, {"err", "description"})
        assert await found.works(bob)

    play(tmp_path, scene)


def test_another_transmitter_speaks_of_an_issuers_humans_where_it_is_configured(tmp_path: Path) -> None:
    with peer() as there:
        transmitter = Transmitter(there)

        async def scene(found: Deployment) -> None:
            tokens = await found.tokens("alice")
            work, other = await found.working(tokens["id_token"]), await found.tokens("alice")
            sid, about = claims_of(tokens["id_token"])["sid"], found.provider.issuer
            live = await found.working(other["id_token"])
            assert (await _push(found, transmitter.event(about, "alice", sid))).status_code == 202
            assert not await found.works(work)
            assert await found.works(live)
            for wrong in (
                transmitter.event("https://other.test", "alice"),
                transmitter.event(about, "alice", aud="https://other.test"),
            ):
                assert (await _push(found, wrong)).status_code == 400
            assert await found.works(live)

        row = {"issuer": there.url, "about": "{issuer}", "audience": "https://remit.test"}
        play(tmp_path, scene, row)


def test_events_are_polled_and_acknowledged_once_they_are_durable(tmp_path: Path) -> None:
    with peer() as there:
        transmitter = Transmitter(there)

        async def scene(found: Deployment) -> None:
            about = found.provider.issuer
            alice = await found.working((await found.tokens("alice"))["id_token"])
            bob = await found.working((await found.tokens("bob"))["id_token"])
            verification = "https://schemas.openid.net/secevent/ssf/event-type/verification"
            there.waiting |= {
                "good": transmitter.event(about, "alice"),
                "verify": transmitter.event(about, "alice", kind=verification),
                "bad": transmitter.event(about, "bob", aud="https://other.test"),
                "none": "not.a.token",
            }

            async def drained() -> bool:
                await found.entries()
                return not there.waiting

            await until(drained)
            assert not await found.works(alice)
            assert await found.works(bob)
            assert there.refused["bad"] == {"err": "invalid_audience", "description": _said(there, "bad")}
            assert set(there.refused) == {"bad", "none"}
            taken = [one for one in await found.entries() if one["event"] == "signal.take"]
            assert sorted(one["decision"] for one in taken) == ["deny", "deny", "done"]

        row = {
            "issuer": there.url,
            "about": "{issuer}",
            "audience": "https://remit.test",
            "poll": f"{there.url}/poll",
            "token_file": shown(tmp_path, there.token),
        }
        play(tmp_path, scene, row)


# -- what we tell -----------------------------------------------------------------------------------------------------


def test_a_receiver_is_told_of_ended_tasks_and_can_verify_it(tmp_path: Path) -> None:
    with peer() as there:
        there.failures = 1

        async def scene(found: Deployment) -> None:
            browser = Browser(found.provider.issuer)
            tokens = [await found.tokens("alice", browser) for _ in range(2)]
            works = [await found.working(one["id_token"]) for one in tokens]
            sid = claims_of(tokens[0]["id_token"])["sid"]
            await asyncio.to_thread(found.provider.send_logout, "alice", sid)

            async def told() -> bool:
                await found.entries()
                return len(there.got) >= 2

            await until(told)
            events = [await _verified(found, text, "https://siem.test") for text in there.got]
            assert {one["sub_id"]["session"]["id"] for one in events} == {work.task for work in works}
            user = {"format": "iss_sub", "iss": found.provider.issuer, "sub": "alice"}
            for one in events:
                assert one["sub_id"] == {"format": "complex", "user": user, "session": one["sub_id"]["session"]}
                assert set(one) == {"iss", "aud", "iat", "jti", "txn", "sub_id", "events"}
                assert one["events"][REVOKED]["event_timestamp"] == one["iat"]
            assert len({one["txn"] for one in events}) == 1
            assert len({one["jti"] for one in events}) == 2
            assert "CFO summary" not in json.dumps(events)

        row = {
            "receiver": "siem",
            "audience": "https://siem.test",
            "push": f"{there.url}/events",
            "token_file": shown(tmp_path, there.token),
        }
        play(tmp_path, scene, row)


def test_a_receiver_polls_and_what_it_acknowledges_is_not_told_again(tmp_path: Path) -> None:
    token = secrets.token_urlsafe(24)

    async def scene(found: Deployment) -> None:
        assert await _polled(found, token) == {"sets": {}, "moreAvailable": False}  # it is known from now on
        works = [await found.working((await found.tokens("alice"))["id_token"]) for _ in range(2)]
        for work in works:
            assert (await found.control.post(f"/v1/tasks/{work.task}/close")).is_success
        first = await _polled(found, token, maxEvents=1)
        assert first["moreAvailable"] is True
        ((jti, text),) = first["sets"].items()
        event = await _verified(found, text, "https://soc.test")
        assert (event["jti"], event["sub_id"]["session"]["id"]) == (jti, works[0].task)
        assert await _polled(found, token, maxEvents=1) == first
        rest = await _polled(found, token, ack=[jti])
        ((other, text),) = rest["sets"].items()
        assert (await _verified(found, text, "https://soc.test"))["txn"] != event["txn"]
        done = await _polled(found, token, setErrs={other: {"err": "invalid_request", "description": "no"}})
        assert done == {"sets": {}, "moreAvailable": False}
        for wrong in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"DPoP {token}"}):
            answer = await found.web.post("/v1/signals/streams/soc", json={}, headers=wrong)
            assert (answer.status_code, answer.headers["www-authenticate"][:6]) == (401, "Bearer")
        for path in ("/v1/signals/streams/nobody", "/v1/signals/streams/siem"):
            answer = await found.web.post(path, json={}, headers={"authorization": f"Bearer {token}"})
            assert answer.status_code == 401

    play(tmp_path, scene, {"receiver": "soc", "audience": "https://soc.test", "token_file": shown(tmp_path, token)})


def test_what_was_not_acknowledged_before_a_restart_is_told_after_it(tmp_path: Path) -> None:
    token = secrets.token_urlsafe(24)
    row = {"receiver": "soc", "audience": "https://soc.test", "token_file": shown(tmp_path, token)}

    async def scene() -> None:
        async with deployed(tmp_path, row) as found:
            await _polled(found, token)
            work = await found.working((await found.tokens("alice"))["id_token"])
            await found.control.post(f"/v1/tasks/{work.task}/close")
            before = await _polled(found, token)
        async with deployed(tmp_path, row, again=True) as found:  # the state is the same; nothing else is
            after = await _polled(found, token)
            assert list(after["sets"]) == list(before["sets"])

    asyncio.run(scene())


def test_no_token_of_anybody_is_in_the_state_or_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="remit")
    soc = secrets.token_urlsafe(24)
    with peer() as there:
        transmitter = Transmitter(there)
        seen = [there.token, soc]

        async def scene(found: Deployment) -> None:
            await _polled(found, soc)
            tokens = await found.tokens("alice")
            work = await found.working(tokens["id_token"])
            events = {
                "good": transmitter.event(found.provider.issuer, "alice"),
                "bad": transmitter.event(found.provider.issuer, "bob", aud="https://other.test"),
            }
            pushed = transmitter.event("https://other.test", "alice")
            assert (await _push(found, pushed)).status_code == 400
            await found.web.post("/v1/signals/logout", data={"logout_token": pushed})
            there.waiting |= events

            async def drained() -> bool:
                await found.entries()
                return not there.waiting

            await until(drained)
            assert not await found.works(work)
            told = (await _polled(found, soc))["sets"].values()
            secret = [tokens["id_token"], tokens["refresh_token"], work.key.token, pushed, *events.values(), *told]
            seen.extend(text.rpartition(".")[2] for text in secret)
            assert len(seen) == 9
            assert not [text for text in seen if text in json.dumps(await found.entries())]

        rows: list[dict[str, object]] = [
            {
                "issuer": there.url,
                "about": "{issuer}",
                "audience": "https://remit.test",
                "poll": f"{there.url}/poll",
                "token_file": shown(tmp_path, there.token),
            },
            {"receiver": "soc", "audience": "https://soc.test", "token_file": shown(tmp_path, soc)},
        ]
        play(tmp_path, scene, *rows)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
    assert b"signal.take" in kept
    assert [text for text in seen if text.encode() in kept or text in caplog.text] == []


def test_without_receivers_there_is_no_transmitter_to_discover(tmp_path: Path) -> None:
    async def scene(found: Deployment) -> None:
        assert (await found.web.get("/.well-known/ssf-configuration")).status_code == 401
        assert (await found.web.get("/v1/signals/jwks")).status_code == 401

    play(tmp_path, scene)


# -- inside -----------------------------------------------------------------------------------------------------------


def _human(found: Deployment, sub: str) -> dict[str, str]:
    return {"format": "iss_sub", "iss": found.provider.issuer, "sub": sub}


def _said(there: Peer, jti: str) -> object:
    why = there.refused[jti]
    assert isinstance(why, dict)
    return why["description"]


async def _push(found: Deployment, token: str) -> httpx.Response:
    return await found.web.post("/v1/signals/events", content=token, headers={"content-type": MEDIA})


async def _polled(found: Deployment, token: str, **asked: object) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {token}"}
    answer = await found.web.post("/v1/signals/streams/soc", json={"returnImmediately": True, **asked}, headers=headers)
    assert answer.is_success, answer.text
    return dict(answer.json())


async def _verified(found: Deployment, text: str, audience: str) -> dict[str, Any]:
    """Verify an event of ours with nothing but discovery and somebody else's JOSE library."""
    metadata = (await found.web.get("/.well-known/ssf-configuration")).json()
    assert metadata["issuer"] == found.issuer
    keys = KeySet.import_key_set((await found.web.get(metadata["jwks_uri"])).json())
    read = jwt.decode(text, keys, algorithms=["RS256"])
    assert read.header["typ"] == "secevent+jwt"
    assert (read.claims["iss"], read.claims["aud"]) == (metadata["issuer"], audience)
    return read.claims
