"""kill -9 of the broker at every step of a refresh, at a provider that rotates its tokens and looks for reuse."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from remit.broker import Broker
from remit.broker.connections import SPENT
from remit.core import audit, scope
from remit.errors import ConnectError
from remit.ports import Resource
from tests.live.crash_driver import OPERATOR
from tests.live.fleet import until
from tests.live.idp import Provider
from tests.live.refresh_driver import DETAIL, HERE, LATER, broker, lent

pytestmark = pytest.mark.live
KILLED = -9
STEPS = {  # of a refresh -> whether its token is lost when the broker dies there
    1: False,  # before it is on record that one goes out
    2: False,  # after that
    3: False,  # before it goes out
    4: True,  # once the provider has answered
    5: True,  # before the answer is on record
    6: False,  # after that
}
AT = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    client = {
        "client_id": "remit-tracker",
        "token_endpoint_auth_method": "none",
        "redirect_uris": [f"{HERE}/oauth/connected/tracker"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "application_type": "native",
    }
    made = Provider([client], {"alice": ()}, {AT: "issues:read issues:write"})
    made.start()
    try:
        yield made
    finally:
        made.stop()


async def connect(made: Broker, provider: Provider) -> None:
    begun = await made.begin_connection(OPERATOR, "tracker")
    there = await asyncio.to_thread(provider.login, begun.url)
    answer = dict(parse_qsl(urlsplit(there).query))
    back = await made.answer_connection("tracker", answer, "")
    await made.type_connection_code(OPERATOR, "tracker", back.begun, back.code)


async def prepare(state: Path, provider: Provider) -> None:
    made, _ = broker(state)
    await made.start()
    oauth = {"issuer": provider.issuer, "client_id": "remit-tracker", "scopes": ["issues:read"]}
    await made.put_resource(OPERATOR, Resource("tracker", "http", AT, scope.parse([DETAIL]), None, {"oauth": oauth}))
    await connect(made, provider)
    await made.stop()


def died(state: Path, step: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.live.refresh_driver", str(state), str(step)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def recovered(state: Path, provider: Provider, *, lost: bool) -> None:
    """Start again on what was left; a token that was lost is found to be, said, and its human gets another."""
    made, _ = broker(state, LATER)
    await made.start()
    if lost:
        with pytest.raises(ConnectError, match="cut off"):
            await lent(made)
        (view,) = await made.connections(OPERATOR)
        assert view.over == SPENT
        entries = [audit.read(entry) for entry in await made._tasks.store.entries(0, 1_000)]
        assert [event.cause for event in entries if event.event == "connection.end"] == [SPENT]
        await connect(made, provider)
    token = await lent(made)
    found = await asyncio.to_thread(provider.token_info, token)
    assert (found["active"], found["scope"]) == (True, "issues:read")
    (view,) = await made.connections(OPERATOR)
    assert (view.over, view.unsure) == ("", False)
    await made.stop()


@pytest.mark.parametrize("step", [0, *STEPS])
def test_wherever_the_broker_dies_the_token_is_there_or_its_loss_is_seen_and_mended(
    tmp_path: Path, provider: Provider, step: int
) -> None:
    state = tmp_path / "state"
    asyncio.run(prepare(state, provider))
    end = died(state, step)
    if step:
        assert end.returncode == KILLED, end.stderr
    else:
        assert (end.returncode, end.stdout) == (0, f"{len(STEPS)}\n"), end.stderr
    asyncio.run(recovered(state, provider, lost=STEPS.get(step, False)))


def test_a_task_that_reads_has_a_token_that_reads(tmp_path: Path, provider: Provider) -> None:
    async def body() -> None:
        made, _ = broker(tmp_path / "state")
        await made.start()
        lower = {"find": ["issues:read"], "file": ["issues:read", "issues:write"]}
        oauth = {"issuer": provider.issuer, "client_id": "remit-tracker", "lower": lower}
        oauth["scopes"] = ["issues:read", "issues:write"]
        reads: dict[str, object] = {
            "type": "mcp",
            "resource": "tracker",
            "actions": ["tools/call"],
            "tools": {"find": "any"},
        }
        writes = {**reads, "tools": {"find": "any", "file": "any"}}
        there = Resource("tracker", "mcp", f"mcp+{AT}", scope.parse([writes]), None, {"oauth": oauth})
        await made.put_resource(OPERATOR, there)
        await connect(made, provider)
        found = [await asyncio.to_thread(provider.token_info, await lent(made, each)) for each in (writes, reads)]
        assert [each["scope"] for each in found] == ["issues:read issues:write", "issues:read"]
        assert [each["active"] for each in found] == [True, True]
        first = await asyncio.to_thread(provider.token_info, await lent(made, writes))
        assert (first["active"], first["scope"]) == (True, "issues:read issues:write")
        await made.stop()

    asyncio.run(body())


def test_where_the_resource_says_so_the_provider_takes_a_token_no_more_once_the_task_has_ended(
    tmp_path: Path, provider: Provider
) -> None:
    async def body() -> None:
        made, _ = broker(tmp_path / "state")
        await made.start()
        oauth = {"issuer": provider.issuer, "client_id": "remit-tracker", "revoke_with_task": True}
        oauth["scopes"] = ["issues:read"]
        there = Resource("tracker", "http", AT, scope.parse([DETAIL]), None, {"oauth": oauth})
        await made.put_resource(OPERATOR, there)
        await connect(made, provider)
        token = await lent(made)
        assert (await asyncio.to_thread(provider.token_info, token))["active"]
        (task,) = made._tasks
        await made.close(OPERATOR, task.head.id)

        async def revoked() -> bool:
            await made.sweep()  # it ends the connection, and has the provider told
            return not (await asyncio.to_thread(provider.token_info, token))["active"]

        await until(revoked)
        (view,) = await made.connections(OPERATOR)
        assert view.over == "ended with the task that it was used in"
        await made.stop()

    asyncio.run(body())
