"""The edges over one application, as a client meets them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from msgspec import structs

from remit.broker import Broker
from remit.broker.ends import UnrecordedEnd
from remit.compose.authority import until_stopped
from remit.compose.listeners import bind_tcp
from remit.compose.rounds import overlaps
from remit.config import settings
from remit.config.sections import AuditSection, ListenSection
from remit.errors import UnavailableError
from remit.sdk.place import answered
from tests.support.one_process import Edges, served
from tests.support.postgres_server import free_port

DETAIL = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any"}
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


def configured(tmp_path: Path) -> settings.Settings:
    found = settings.read(settings.places({"REMIT_STATE_DIR": str(tmp_path / "s")}), {})
    ports = (f"127.0.0.1:{free_port()}" for _ in range(2))
    return structs.replace(found, listen=ListenSection(*ports))


def serving(made: settings.Settings, body: Callable[[Edges, httpx.AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        async with served(made) as edges:
            transport = httpx.AsyncHTTPTransport(uds=str(made.places.control))
            async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
                await body(edges, client)

    asyncio.run(main())


async def opened(client: httpx.AsyncClient) -> dict[str, str]:
    put = await client.put(
        "/v1/resources/search",
        json={
            "kind": "http",
            "destination": "http://127.0.0.1:1",
            "bound": [DETAIL],
            "settings": {},
            "secret": "k-0123456789abcdef",
        },
    )
    assert put.is_success, put.text
    made = await client.post(
        "/oauth/token",
        data={
            "grant_type": EXCHANGE,
            "subject_token_type": "urn:remit:peer",
            "subject_token": "self",
            "purpose": "look",
            "ttl": "60",
            "authorization_details": json.dumps([DETAIL]),
        },
    )
    assert made.is_success, made.text
    found: dict[str, str] = made.json()
    return found


def test_the_operator_opens_and_closes_a_task_over_the_control_socket(tmp_path: Path) -> None:
    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        made = await opened(client)
        assert edges.busy()
        closed = await client.post(f"/v1/tasks/{made['task']}/close")
        assert closed.json()["state"] == "closed"
        assert not edges.busy()

    serving(configured(tmp_path), body)


def test_sockets_are_for_their_owner_alone_and_gone_afterwards(tmp_path: Path) -> None:
    made = configured(tmp_path)

    async def body(_: Edges, __: httpx.AsyncClient) -> None:
        assert made.places.control.stat().st_mode & 0o077 == 0

    serving(made, body)
    assert not made.places.control.exists()


def test_the_web_listener_asks_for_a_proof(tmp_path: Path) -> None:
    made = configured(tmp_path)

    async def body(_: Edges, client: httpx.AsyncClient) -> None:
        async with httpx.AsyncClient(base_url=made.issuer) as web:
            assert (await web.get("/.well-known/oauth-authorization-server")).json()["issuer"] == made.issuer
            assert (await web.get("/v1/tasks")).status_code == 401
            for of in (web, client):
                health = await of.get("/healthz")
                assert (health.status_code, health.json()) == (200, {"status": "ok"})
            assert (await web.get("/v1/tasks", headers={"host": "evil.test"})).status_code == 421

    serving(made, body)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    made = configured(tmp_path)
    assert made.api is not None
    with bind_tcp(made.api, "listen.api"), pytest.raises(UnavailableError) as caught:
        serving(made, lambda *_: asyncio.sleep(0))
    assert str(made.api[1]) in caught.value.detail
    assert "listen.api" in str(caught.value.help)


async def left() -> bool:
    return True


def test_an_idle_broker_stops_and_a_busy_one_does_not(tmp_path: Path) -> None:
    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        stop = asyncio.Event()
        await asyncio.wait_for(until_stopped(edges.busy, stop, 0.0, left), 5)
        await opened(client)
        waiting = asyncio.create_task(until_stopped(edges.busy, stop, 0.0, left))
        done, _ = await asyncio.wait({waiting}, timeout=1.2)
        assert not done
        stop.set()
        await asyncio.wait_for(waiting, 5)

    serving(configured(tmp_path), body)


def test_a_broker_that_somebody_has_found_does_not_end_before_it_has_answered(tmp_path: Path) -> None:
    made = configured(tmp_path)

    async def body(edges: Edges, _: httpx.AsyncClient) -> None:
        role, control = edges.authority, made.places.control
        reader, writer = await asyncio.open_unix_connection(str(control))
        assert not await role.left()
        assert not await role.left()  # it is not the coming that counts
        writer.write(b"GET /v1/tasks HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        assert answered(control) is not None  # found by name, as before
        assert not await role.left()
        assert await role.left()
        assert answered(control) is None

    serving(made, body)
    assert list(made.places.runtime.glob("control*")) == []


@pytest.mark.attack("REV-08")
def test_a_broker_is_not_idle_while_an_end_is_not_on_record_or_a_task_cannot_be_read(tmp_path: Path) -> None:
    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        task = (await opened(client))["task"]
        assert (await client.post(f"/v1/tasks/{task}/close")).json()["state"] == "closed"
        tasks = edges.application.broker._tasks
        assert not edges.busy()
        later = tasks.now() + timedelta(minutes=1)
        tasks._ends.waiting[task] = UnrecordedEnd(frozenset(), frozenset(), (), 1, later, visited=False)
        assert edges.busy()
        tasks._ends.waiting.pop(task, None)
        tasks._read_later("task_elsewhere")
        assert edges.busy()

    serving(configured(tmp_path), body)


@pytest.mark.attack("DOS-10")
def test_the_operator_is_served_before_what_there_is_was_decided_on_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long an agent made that take, its task can be looked at and ended meanwhile."""
    made = configured(tmp_path)
    tasks: list[str] = []
    seen: list[object] = []
    settle = Broker.settle

    async def first(edges: Edges, client: httpx.AsyncClient) -> None:
        del edges
        tasks.extend([(await opened(client))["task"] for _ in range(2)])

    async def watched(broker: Broker) -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(made.places.control))
        async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
            seen.append(len((await client.get("/v1/tasks")).json()["tasks"]))
            seen.append((await client.post(f"/v1/tasks/{tasks[0]}/close")).json()["state"])
            root = broker._tasks.task_of(next(iter(broker._tasks.task(tasks[1]).grants))).head.root
            refused = await client.post(f"/v1/tasks/{tasks[1]}/leases", json={"grant": root, "detail": DETAIL})
            seen.append((refused.status_code, refused.json()["code"]))
        await settle(broker)

    async def second(edges: Edges, client: httpx.AsyncClient) -> None:
        left = {one["task"]: one["closed"] for one in (await client.get("/v1/tasks")).json()["tasks"]}
        assert left == {tasks[0]: True, tasks[1]: False}
        edges.application.broker._tasks.check(edges.application.broker._tasks.task(tasks[1]).head.root)

    serving(made, first)
    monkeypatch.setattr(Broker, "settle", watched)
    serving(made, second)
    assert seen == [2, "closed", (503, "unavailable")]


def test_the_second_place_gets_a_checkpoint_at_the_end(tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir(mode=0o700)

    async def body(_: Edges, client: httpx.AsyncClient) -> None:
        await opened(client)

    serving(structs.replace(configured(tmp_path), audit=AuditSection(second)), body)
    assert (second / "checkpoint").read_text().splitlines()[0] == "remit.local/audit"


@pytest.mark.attack("REV-09")
def test_a_sweep_that_waits_for_a_target_does_not_keep_the_next_from_beginning() -> None:
    async def main() -> None:
        begun: list[int] = []

        async def sweep() -> None:
            begun.append(len(begun))
            if len(begun) == 1:
                await asyncio.Event().wait()
            if len(begun) == 2:
                raise UnavailableError
            if len(begun) > 3:
                done.set()

        done = asyncio.Event()
        ticking = asyncio.create_task(overlaps(0, sweep))
        await asyncio.wait_for(done.wait(), 10)
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        assert ticking.cancelled()

    asyncio.run(main())
