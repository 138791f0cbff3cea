"""What verifies SVIDs of the broker's own trust domain, as anybody may fetch it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from remit.compose.app import build
from remit.identity.workloads.bundles import parse
from remit.keys.authority import FileAuthority
from remit.keys.file import FileSealer
from remit.ports.broker import Notice
from remit.ports.identity import PublishedTrust
from remit.ports.trust import Trust
from remit.web.authentication import SocketAuth
from remit.web.listen import serve
from tests.broker.world import OPERATOR
from tests.oauth.plane import Plane, _unix, play

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
PATHS = ["/.well-known/spiffe-bundle", "/.well-known/openid-configuration", "/oauth/federation/jwks"]


def shown(folder: Path, body: Callable[[FileAuthority, httpx.AsyncClient, Plane], Awaitable[None]]) -> None:
    """Serve the documents of an authority."""

    async def scene(made: Plane) -> None:
        authority = FileAuthority(folder / "keys", FileSealer(b"k" * 32), "remit.test", lambda: NOW)
        trust = Trust(PublishedTrust(authority.public, {}))
        authority.on_change(lambda: trust.noticed(Notice(trust=PublishedTrust(authority.public, {}))))
        app = build(replace(made.deps, trust=trust))
        made.listeners.append(await serve(app, _unix(folder / "own.sock"), SocketAuth(OPERATOR)))
        await body(authority, made._client(folder / "own.sock"), made)

    play(folder, scene)


def test_the_bundle_is_what_another_broker_reads(tmp_path: Path) -> None:
    async def body(authority: FileAuthority, client: httpx.AsyncClient, _: Plane) -> None:
        answer = await client.get("/.well-known/spiffe-bundle")
        assert answer.headers["content-type"] == "application/json"
        found = parse("remit.test", answer.content)
        assert found.authorities == tuple(authority.certificates())
        assert [key.kid for key in found.jwt.keys] == [jwk["kid"] for jwk in authority.public.jwks]
        assert found.hint is not None
        assert (found.sequence, found.hint.total_seconds()) == (1, 300)
        authority.rotate()
        again = parse("remit.test", (await client.get("/.well-known/spiffe-bundle")).content)
        assert again.sequence == 2
        assert set(again.authorities) > set(found.authorities)

    shown(tmp_path, body)


def test_the_bundle_holds_public_keys_alone(tmp_path: Path) -> None:
    async def body(_: FileAuthority, client: httpx.AsyncClient, __: Plane) -> None:
        for path in PATHS[::2]:
            keys: list[Mapping[str, object]] = (await client.get(path)).json()["keys"]
            assert keys
            assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & {name for key in keys for name in key}

    shown(tmp_path, body)


def test_an_oidc_relying_party_finds_the_keys_of_svids_and_none_of_tokens(tmp_path: Path) -> None:
    async def body(authority: FileAuthority, client: httpx.AsyncClient, made: Plane) -> None:
        known = (await client.get("/.well-known/openid-configuration")).json()
        assert known["issuer"] == made.base
        assert known["jwks_uri"] == f"{made.base}/oauth/federation/jwks"
        assert all(value for value in known.values())  # RFC 8414 §3.2: what has no elements is left out
        assert known["id_token_signing_alg_values_supported"] == ["RS256"]
        keys = (await client.get("/oauth/federation/jwks")).json()["keys"]
        assert [(key["kid"], key["use"], key["alg"]) for key in keys] == [
            (jwk["kid"], "sig", "RS256") for jwk in authority.public.jwks
        ]
        assert not {key["kid"] for key in keys} & {
            key["kid"] for key in (await client.get("/oauth/jwks")).json()["keys"]
        }

    shown(tmp_path, body)


@pytest.mark.parametrize("path", PATHS)
def test_without_an_authority_there_is_nothing(tmp_path: Path, path: str) -> None:
    async def scene(made: Plane) -> None:
        assert (await made.control.get(path)).status_code == 404

    play(tmp_path, scene)
