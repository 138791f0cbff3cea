"""The authority that a run's clients trust: worth something in that run alone, and there for its hosts alone."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from remit.gateway.server import Channel
from remit.ports.runs import ReachedHost, RunReach
from remit.run.certificate import reach
from tests.attacks.ways import HOSTS, Proxies, proxies
from tests.gateway.rig import ALL, PLACEHOLDER, SECRET, play

KEY = f"Authorization: Bearer {PLACEHOLDER}"
OTHERS = ["evil.test", "api.test.evil.test", "test", "xapi.test"]


async def serving(proxy: Proxies, reached: RunReach) -> int:
    """Serve TLS in the name of the hosts of ``reached``; return the port."""
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    await proxy.r.gateway.proxy(sock, Channel(proxy.r.grant.id, {"api": PLACEHOLDER}), reached, by_name=True)
    return int(sock.getsockname()[1])


@pytest.mark.attack("LAU-16")
@pytest.mark.parametrize("host", OTHERS)
def test_who_has_the_key_of_a_runs_authority_speaks_for_no_other_host(host: str) -> None:
    async def scene() -> None:
        async with proxies() as proxy:
            mine = proxy.reached
            stolen = RunReach({**HOSTS, host: ReachedHost("api")}, mine.certificate, mine.key)
            port = await serving(proxy, stolen)
            wire = await proxy.r.wire(port)
            with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree"):
                await wire.writer.start_tls(proxy.trust(), server_hostname=host)
            assert proxy.nothing_went_out()

    play(scene)


@pytest.mark.attack("LAU-16")
def test_an_authority_says_which_hosts_it_is_for_and_that_no_authority_stands_below_it() -> None:
    now = datetime.now(UTC)
    made = x509.load_pem_x509_certificate(reach("run_1", HOSTS, now, now + timedelta(hours=1), {}).certificate.encode())
    constraints = made.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert constraints.value.permitted_subtrees is not None
    names = {one.value for one in constraints.value.permitted_subtrees if isinstance(one, x509.DNSName)}
    assert names == set(HOSTS)
    basic = made.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    assert {str(one.value) for one in constraints.value.excluded_subtrees or ()} == {"0.0.0.0/0", "::/0"}
    assert made.not_valid_after_utc <= now + timedelta(hours=2)  # one hour for clocks


@pytest.mark.attack("LAU-16")
@pytest.mark.parametrize("host", sorted(HOSTS))
def test_a_client_of_one_run_believes_no_authority_of_another(host: str) -> None:
    async def scene() -> None:
        async with proxies() as proxy:
            now = datetime.now(UTC)
            another = reach("run_2", HOSTS, now, now + timedelta(hours=1), {})
            port = await serving(proxy, another)
            wire = await proxy.r.wire(port)
            with pytest.raises(ssl.SSLCertVerificationError):
                await wire.writer.start_tls(proxy.trust(), server_hostname=host)

    play(scene)


@pytest.mark.attack("LAU-16")
@pytest.mark.attack("LAU-07")
def test_a_placeholder_of_another_run_is_worth_nothing_at_a_proxy() -> None:
    theirs = f"Authorization: Bearer {PLACEHOLDER[:-1]}0"

    async def scene() -> None:
        async with proxies(ALL) as proxy:
            assert (await proxy.ask("connect", "api.test", "/bytes/3", theirs)).status == 200
            [seen] = proxy.r.upstream.seen  # what is no placeholder of this run's is dropped, and its own key put in
            assert seen.headers["authorization"] == f"Bearer {SECRET}"
            assert theirs.encode() not in seen.raw

    play(scene)
