"""What receivers are told, and what they may ask."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from remit.core.audit import Event
from remit.core.principal import Holder
from remit.errors import NotFoundError
from remit.ports.events import EventPort
from remit.sessions.transmitter import (
    MAX_EVENTS,
    SESSION_REVOKED,
    EndedTask,
    EventSigner,
    EventStream,
    StreamReceiver,
    Transmitter,
    jti_of,
    subject_id,
    txn,
)
from tests.broker.world import OPERATOR
from tests.oauth.plane import Plane, play
from tests.support.link import edge_of
from tests.support.signing import Ring

AT = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
EVENT = Event("task.close", AT, "done", task="task_1", lineage=("grt_1",), subject="https://idp.test#alice")
SIEM, SOC = (
    StreamReceiver("siem", "https://siem.test"),
    StreamReceiver("soc", "https://soc.test", lambda: "Bearer t0ken"),
)


SHOWN = {"authorization": "Bearer t0ken"}


async def told_by(plane: Plane, *streams: StreamReceiver) -> httpx.AsyncClient:
    """Serve what receivers may ask; return a client of one that is on the same machine."""
    events = EventStream(plane.broker.sessions)
    signer = edge_of(EventSigner(events, plane.verifier.issuer, Ring(), streams))
    transmitter = Transmitter(signer, plane.verifier.issuer, streams)
    for stream in streams:
        await events.pending(stream.name, 1)
    deps = replace(plane.deps, streams=transmitter.routes())
    return await replace(plane, deps=deps).channel(Holder("task_0", "grt_0"))


# -- what an event says -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "entity"),
    [
        ({"cause": "1 grants"}, "user"),
        ({"cause": "expired"}, "system"),
        ({"cause": "logout", "request": "digest"}, "admin"),
        ({"cause": "a policy: `no-secrets` forbids it", "policy": "sha256:1"}, "policy"),
    ],
)
def test_an_event_says_who_ended_what_in_fixed_words(tmp_path: Path, changes: dict[str, Any], entity: str) -> None:
    async def played(plane: Plane) -> None:
        ring = Ring()
        told = EventSigner(EventStream(plane.broker.sessions), plane.verifier.issuer, ring, [SIEM])
        text = told.security_event_token(EndedTask(7, replace(EVENT, **changes)), SIEM)
        read = jwt.decode(
            text, KeySet.import_key_set({"keys": [dict(jwk) for jwk in ring.public_jwks()]}), algorithms=["ES256"]
        )
        body = read.claims["events"][SESSION_REVOKED]
        assert (body["initiating_entity"], body["event_timestamp"]) == (entity, int(AT.timestamp()))
        assert "no-secrets" not in json.dumps(read.claims)
        assert "exp" not in read.claims
        assert "sub" not in read.claims

    play(tmp_path, played)


def test_the_same_end_has_the_same_name_for_one_receiver_and_another_for_another() -> None:
    ended = EndedTask(7, EVENT)
    assert jti_of(ended, SIEM) == jti_of(EndedTask(7, replace(EVENT, cause="x")), SIEM)
    assert len({jti_of(ended, SIEM), jti_of(ended, SOC), jti_of(EndedTask(8, EVENT), SIEM)}) == 3


def test_events_of_one_cascade_share_their_transaction_and_no_others_do() -> None:
    one, other = replace(EVENT, request="a"), replace(EVENT, task="task_2", request="a")
    assert txn(EndedTask(1, one)) == txn(EndedTask(2, other))
    policy = replace(EVENT, policy="a")
    assert txn(EndedTask(1, policy)) == txn(EndedTask(2, policy))
    assert (
        len({txn(EndedTask(1, one)), txn(EndedTask(1, policy)), txn(EndedTask(1, EVENT)), txn(EndedTask(2, EVENT))})
        == 4
    )


@pytest.mark.parametrize(
    ("name", "user"),
    [
        ("https://idp.test#alice", {"format": "iss_sub", "iss": "https://idp.test", "sub": "alice"}),
        ("unix://host#1000", {"format": "iss_sub", "iss": "unix://host", "sub": "1000"}),
        ("https://idp.test#a#b", {"format": "iss_sub", "iss": "https://idp.test", "sub": "a#b"}),
        ("spiffe://prod.example/agent", None),
        ("https://idp.test#" + "a" * 300, None),
        ("https://idp.test#", None),
        (None, None),
    ],
)
def test_the_subject_is_the_human_and_the_task(name: str | None, user: object) -> None:
    said = subject_id(replace(EVENT, subject=name))
    assert said["format"] == "complex"
    assert said["session"] == {"format": "opaque", "id": "task_1"}
    assert said.get("user") == user


# -- what is discovered and polled ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("streams", "ways", "schemes"),
    [
        ((SIEM,), ["urn:ietf:rfc:8935"], None),
        ((SOC,), ["urn:ietf:rfc:8936"], [{"spec_urn": "urn:ietf:rfc:6750"}]),
        ((SIEM, SOC), ["urn:ietf:rfc:8935", "urn:ietf:rfc:8936"], [{"spec_urn": "urn:ietf:rfc:6750"}]),
    ],
)
def test_the_metadata_says_what_works(
    tmp_path: Path, streams: tuple[StreamReceiver, ...], ways: list[str], schemes: object
) -> None:
    async def played(plane: Plane) -> None:
        said = (await (await told_by(plane, *streams)).get("/.well-known/ssf-configuration")).json()
        assert said["delivery_methods_supported"] == ways
        assert said.get("authorization_schemes") == schemes
        assert said["jwks_uri"] == f"{plane.verifier.issuer}/v1/signals/jwks"

    play(tmp_path, played)


async def ended(plane: Plane) -> str:
    """Open and close a task; return its id."""
    task = str((await plane.opened())["task"])
    await plane.broker.close(OPERATOR, task)
    return task


async def polled(client: httpx.AsyncClient, **asked: object) -> dict[str, Any]:
    """Poll as the receiver."""
    answer = await client.post("/v1/signals/streams/soc", json=asked, headers=SHOWN)
    assert answer.is_success, answer.text
    return dict(answer.json())


def test_a_receiver_gets_what_it_asks_for_until_it_acknowledges(tmp_path: Path) -> None:
    async def played(plane: Plane) -> None:
        client = await told_by(plane, SOC)
        tasks = [await ended(plane) for _ in range(3)]
        assert await polled(client, maxEvents=0) == {"sets": {}, "moreAvailable": True}
        first = await polled(client, maxEvents=2)
        assert (len(first["sets"]), first["moreAvailable"]) == (2, True)
        names = list(first["sets"])
        rest = await polled(client, ack=[names[0], "unknown"], setErrs={names[1]: {"err": "x", "description": "y"}})
        assert (len(rest["sets"]), rest["moreAvailable"]) == (1, False)
        assert await polled(client, ack=list(rest["sets"])) == {"sets": {}, "moreAvailable": False}
        log = [one for one in await plane.world.events() if one.event == "signal.tell"]
        assert [one.task for one in log] == tasks

    play(tmp_path, played)


def test_nobody_that_is_not_configured_has_events(tmp_path: Path) -> None:
    async def played(plane: Plane) -> None:
        signer: EventPort = edge_of(
            EventSigner(EventStream(plane.broker.sessions), "https://remit.test", Ring(), [SOC])
        )
        assert await signer.pending_events(SOC.name, 1) == []
        task = await ended(plane)
        [event] = await signer.pending_events(SOC.name, 1)
        assert event.text.count(".") == 2
        for call in (signer.pending_events("other", 1), signer.acknowledge_events("other", [event.jti])):
            with pytest.raises(NotFoundError):
                await call
        await signer.acknowledge_events(SOC.name, ["unknown", event.jti])
        assert await signer.pending_events(SOC.name, 1) == []
        assert [one.task for one in await plane.world.events() if one.event == "signal.tell"] == [task]

    play(tmp_path, played)


def test_many_ends_come_in_answers_of_a_bounded_size(tmp_path: Path) -> None:
    async def played(plane: Plane) -> None:
        client = await told_by(plane, SOC)
        for _ in range(MAX_EVENTS + 1):
            await ended(plane)
        found = await polled(client, maxEvents=10**6, whatever=1)  # RFC 8936 §2.2: not understood, so ignored
        assert (len(found["sets"]), found["moreAvailable"]) == (MAX_EVENTS - 1, True)
        rest = await polled(client, ack=list(found["sets"]))
        assert (len(rest["sets"]), rest["moreAvailable"]) == (2, False)

    play(tmp_path, played)


@pytest.mark.parametrize(
    "asked",
    [
        {"maxEvents": -1},
        {"maxEvents": True},
        {"maxEvents": "3"},
        {"ack": "a"},
        {"ack": [7]},
        {"setErrs": []},
        {"setErrs": {"a": "no"}},
    ],
)
def test_a_poll_that_is_not_one_is_refused_and_acknowledges_nothing(tmp_path: Path, asked: dict[str, object]) -> None:
    async def played(plane: Plane) -> None:
        client = await told_by(plane, SOC)
        await ended(plane)
        answer = await client.post("/v1/signals/streams/soc", json=asked, headers=SHOWN)
        assert answer.status_code == 400
        assert len((await polled(client))["sets"]) == 1

    play(tmp_path, played)


@pytest.mark.parametrize("shown", [None, "Bearer wrong", "bearer t0ken", "t0ken", "DPoP t0ken", "Bearer t0ken\xe9"])
@pytest.mark.parametrize("name", ["soc", "siem", "nobody"])
def test_only_the_receiver_itself_may_poll(tmp_path: Path, shown: str | None, name: str) -> None:
    async def played(plane: Plane) -> None:
        client = await told_by(plane, SIEM, SOC)
        headers = {} if shown is None else {b"authorization": shown.encode("latin-1")}
        answer = await client.post(f"/v1/signals/streams/{name}", json={}, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
        answer = await client.post("/v1/signals/streams/siem", json={}, headers=SHOWN)
        assert answer.status_code == 401  # it is pushed to, whoever asks

    play(tmp_path, played)
