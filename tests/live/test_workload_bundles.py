"""Bundles from an endpoint and from a SPIFFE agent, changing under a running broker."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from remit.identity.workloads.bundles import ApiSource
from tests.identity.spire import Domain
from tests.identity.workload_api import Agent
from tests.identity.workloads.test_sources import endpoint
from tests.live.fleet import Fleet, Key, fresh, opening, run, running, until

pytestmark = pytest.mark.live


async def status(fleet: Fleet, domain: Domain) -> int:
    """Return what a workload of a trust domain as it is now is answered."""
    fleet.domain = domain
    form = opening(grant_type="client_credentials", **fleet.assertion())
    return (await fleet.ask(await fleet.plain(), Key(), **form)).status_code


async def certified(fleet: Fleet, domain: Domain) -> int:
    """Return what a workload with a certificate is answered; 0: its handshake fails."""
    client = await fleet.client(domain.svid())
    form = opening(grant_type="client_credentials", client_id=domain.id())
    try:
        return (await fleet.ask(client, None, **form)).status_code
    except httpx.TransportError:
        return 0
    finally:
        await client.aclose()


async def rotates(fleet: Fleet, old: Domain, new: Domain) -> None:
    """Wait until the new keys count, and see that the old ones do not, in tokens and in handshakes."""

    async def arrived() -> bool:
        return await status(fleet, new) == await certified(fleet, new) == 200

    await until(arrived)
    assert await status(fleet, old) == 401
    assert await certified(fleet, old) == 0


@pytest.mark.parametrize("profile", ["https_web", "https_spiffe"])
def test_an_endpoint_says_how_often_it_is_to_be_asked_and_what_it_says_counts(tmp_path: Path, profile: str) -> None:
    old, new = fresh(), fresh()
    first = tmp_path / "first.json"
    first.write_bytes(old.bundle())
    shown, vouching = {
        "https_web": (None, {"ca_file": str(tmp_path / "ca.pem")}),
        "https_spiffe": (old.svid("/server"), {"endpoint_id": old.id("/server"), "bootstrap_file": str(first)}),
    }[profile]

    async def scene() -> None:
        with endpoint(tmp_path, certificate=shown) as there:
            there.body = old.bundle(spiffe_refresh_hint=1)  # five seconds are the least
            row = {"name": old.name, "allow": [old.id("/**")], "bundle_url": there.url, **vouching}
            async with running(tmp_path, old, trust_domains=[row]) as fleet:
                assert await status(fleet, old) == await certified(fleet, old) == 200
                asked = there.asked
                assert await status(fleet, old) == 200
                assert there.asked == asked  # not at every request
                there.body = new.bundle(spiffe_sequence=2, spiffe_refresh_hint=1)
                await rotates(fleet, old, new)

    run(scene())


def test_an_agent_whose_keys_change_is_believed_in_the_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ApiSource, "every", timedelta(seconds=1))
    old, new = fresh(), fresh()

    async def scene() -> None:
        path = tmp_path / "agent.sock"
        first = Agent(path, (old,))
        row = {"name": old.name, "allow": [old.id("/**")], "workload_api": first.url}
        with first:
            async with running(tmp_path, old, trust_domains=[row]) as fleet:
                assert await status(fleet, old) == await certified(fleet, old) == 200
                await asyncio.to_thread(first.stop)
                assert await status(fleet, old) == 200  # an agent that restarts is no outage
                with Agent(path, (new,)):
                    await rotates(fleet, old, new)

    run(scene())
