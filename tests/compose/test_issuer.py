from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from remit.compose import kinds, wiring
from remit.compose.authority import AuthorityRole
from remit.config import settings
from remit.core import scope
from remit.errors import InvalidRequestError
from remit.keys.authority import FileAuthority
from remit.keys.file import FileSealer
from remit.ports import Resource
from remit.ports.kind import EngineContext
from tests.support.one_process import Edges

SEALER = FileSealer(b"k" * 32)
MESH = {"type": "spiffe", "resource": "mesh", "actions": ["x509"]}


def now() -> datetime:
    return datetime(2026, 11, 25, 12, tzinfo=UTC)


def configured(tmp_path: Path, **raw: object) -> settings.Settings:
    (tmp_path / "s").mkdir(mode=0o700, exist_ok=True)
    return settings.read(settings.places({"REMIT_STATE_DIR": str(tmp_path / "s")}), raw)


def test_the_authority_is_that_of_the_configured_trust_domain(tmp_path: Path) -> None:
    app = wiring.build(configured(tmp_path, identity={"trust_domain": "agents.test"}))
    assert app.authority.trust_domain == "agents.test"
    asyncio.run(app.broker.stop())


@pytest.mark.parametrize(
    "name", ["agents.test/path", "Agents.test", "a b", "spiffe://agents.test", "agents.test:443", "é"]
)
def test_what_is_no_name_of_a_trust_domain_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequestError):
        configured(tmp_path, identity={"trust_domain": name})


def test_nobody_else_is_the_authority_of_the_brokers_own_trust_domain(tmp_path: Path) -> None:
    other = {"name": "agents.test", "bundle_file": "/x", "allow": ["spiffe://agents.test/**"]}
    with pytest.raises(InvalidRequestError) as caught:
        configured(tmp_path, identity={"trust_domain": "agents.test"}, trust_domains=[other])
    assert "identity.trust_domain" in str(caught.value.help)


ROWS: dict[str, dict[str, object]] = {"humans": {"client_id": "remit"}, "workloads": {"match": {"sub": "job"}}}


@pytest.mark.parametrize("part", ["humans", "workloads"])
@pytest.mark.parametrize("issuer_", ["http://127.0.0.1:8470", "http://127.0.0.1:8470/"])
def test_the_broker_believes_no_svid_of_its_own_as_the_token_of_an_issuer(
    tmp_path: Path, part: str, issuer_: str
) -> None:
    with pytest.raises(InvalidRequestError, match="itself"):
        configured(tmp_path, **{part: [ROWS[part] | {"issuer": issuer_}]})


def test_a_resource_of_another_trust_domain_is_refused(tmp_path: Path) -> None:
    made = configured(tmp_path)
    domain = FileAuthority(made.places.state / "keys", SEALER, made.identity.trust_domain, now)
    lent = EngineContext(now, bytes, "https://broker.test", domain)
    check = kinds.BUILT_IN["spiffe"].check
    check(Resource("mesh", "spiffe", "spiffe://remit.local", scope.parse([MESH]), None, {}), None, lent)
    with pytest.raises(InvalidRequestError):
        check(Resource("mesh", "spiffe", "spiffe://other.test", scope.parse([MESH]), None, {}), None, lent)


def test_without_the_extra_runs_have_no_workload_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        app = wiring.build(configured(tmp_path))
        assert "workload" in Edges(AuthorityRole(app)).edge.sockets
        monkeypatch.setitem(sys.modules, "spiffe", None)  # as if it were not installed
        assert Edges(AuthorityRole(app)).edge.sockets == {}
        await app.broker.stop()

    asyncio.run(scene())
