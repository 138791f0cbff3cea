from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from remit.jose import public_key
from remit.keys.signers import FileSigner
from remit.oauth import wellknown
from remit.oauth.token_endpoint import JWT_BEARER
from remit.oauth.wellknown import ID_JAG
from tests.broker.world import SEARCH, World
from tests.oauth import consent_driver
from tests.oauth.plane import Agent, Plane, ed25519_agent, play
from tests.web import fake_identity
from tests.web.fake_identity import PLANNER, FakeIdentity, assertion_of

SERVER = "/.well-known/oauth-authorization-server"
RESOURCE = "/.well-known/oauth-protected-resource"
GATEWAY = "http://127.0.0.1:8471"
KNOWN_GRANTS = {
    "authorization_code",
    "client_credentials",
    "implicit",
    "password",
    "refresh_token",
    "urn:ietf:params:oauth:grant-type:device_code",
    "urn:ietf:params:oauth:grant-type:jwt-bearer",
    "urn:ietf:params:oauth:grant-type:saml2-bearer",
    "urn:ietf:params:oauth:grant-type:token-exchange",
    "urn:openid:params:grant-type:ciba",
}
KNOWN_PATHS = {
    "authorization_endpoint": "/oauth/authorize",
    "backchannel_authentication_endpoint": "/oauth/bc-authorize",
    "device_authorization_endpoint": "/oauth/device_authorization",
    "introspection_endpoint": "/oauth/introspect",
    "jwks_uri": "/oauth/jwks",
    "pushed_authorization_request_endpoint": "/oauth/par",
    "revocation_endpoint": "/oauth/revoke",
    "status_list_aggregation_endpoint": "/oauth/status",
    "token_endpoint": "/oauth/token",
}
READ = {"authorization_endpoint", "jwks_uri", "status_list_aggregation_endpoint"}

Scene = Callable[[Plane], Awaitable[None]]


def bare(path: Path, scene: Scene) -> None:
    play(path, scene)


def with_workloads(path: Path, scene: Scene) -> None:
    found = fake_identity.world()
    play(path, scene, found, FakeIdentity(found).identity(), GATEWAY)


def with_humans(path: Path, scene: Scene) -> None:
    found = World()
    play(path, scene, found, consent_driver.identity(consent_driver.Issuer(found)))


KINDS = pytest.mark.parametrize("served", [bare, with_workloads, with_humans])
Served = Callable[[Path, Scene], None]


async def told(plane: Plane) -> dict[str, Any]:
    return dict((await plane.web.get(SERVER)).json())


async def there(plane: Plane, method: str, path: str) -> bool:
    """Whether a route answers on TCP: without a caller, what is not there is as unauthenticated as what is closed."""
    answer = await plane.web.request(method, path)
    assert answer.status_code not in {405, 500}
    if answer.status_code == 401:
        answer = await plane.control.request(method, path)
    return "not-found" not in answer.text


@KINDS
def test_every_endpoint_that_is_named_answers_and_no_other_is_there(tmp_path: Path, served: Served) -> None:
    async def scene(plane: Plane) -> None:
        document = await told(plane)
        named = {name for name in document if name.endswith(("_endpoint", "_uri"))}
        assert named <= KNOWN_PATHS.keys()
        for name, path in KNOWN_PATHS.items():
            method = "GET" if name in READ else "POST"
            assert await there(plane, method, path) is (name in named), name
            assert name not in named or document[name] == plane.base + path

    served(tmp_path, scene)


@KINDS
def test_every_grant_type_that_is_named_is_taken_and_no_other(tmp_path: Path, served: Served) -> None:
    async def scene(plane: Plane) -> None:
        named = set((await told(plane))["grant_types_supported"])
        assert named <= KNOWN_GRANTS
        for grant_type in KNOWN_GRANTS:
            answer = await plane.web.post("/oauth/token", data={"grant_type": grant_type})
            assert answer.status_code in {400, 401}
            assert (answer.json()["error"] == "unsupported_grant_type") is (grant_type not in named), grant_type

    served(tmp_path, scene)


def test_what_is_not_configured_is_not_named(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        document = await told(plane)
        assert document["grant_types_supported"] == ["urn:ietf:params:oauth:grant-type:token-exchange"]
        assert [name for name, value in document.items() if value == []] == []  # RFC 8414 §3.2
        assert "response_types_supported" not in document
        assert "authorization_grant_profiles_supported" not in document
        assert document["token_endpoint_auth_methods_supported"] == ["none"]
        assert document["tls_client_certificate_bound_access_tokens"] is False
        assert "mtls_endpoint_aliases" not in document
        assert not any(name.startswith(("code_", "authorization_response", "client_id_metadata")) for name in document)

    bare(tmp_path, scene)


@pytest.mark.parametrize("named", [True, False])
def test_identity_assertions_are_named_where_they_can_succeed(tmp_path: Path, *, named: bool) -> None:
    async def scene(plane: Plane) -> None:
        document = await told(plane)
        assert (JWT_BEARER in document["grant_types_supported"]) is named
        assert document.get("authorization_grant_profiles_supported") == ([ID_JAG] if named else None)

    found = fake_identity.world()
    play(tmp_path, scene, found, replace(FakeIdentity(found).identity(), id_jag=named))


def test_a_way_to_authenticate_that_is_named_works(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        methods = (await told(plane))["token_endpoint_auth_methods_supported"]
        assert methods == ["none", "spiffe_jwt", "spiffe_x509"]
        aliases = (await told(plane))["mtls_endpoint_aliases"]  # RFC 8705 §5: the listener is the same
        assert aliases["token_endpoint"] == plane.endpoint
        assert "authorization_endpoint" not in aliases
        agent = Agent()
        form = {
            "grant_type": "client_credentials",
            "purpose": "tidy up",
            "ttl": "60",
            "authorization_details": json.dumps([SEARCH]),
        }
        answer = await plane.exchange(agent, form)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        answer = await plane.exchange(agent, {**form, **assertion_of(PLANNER)})
        assert answer.status_code == 200, answer.text

    with_workloads(tmp_path, scene)


def test_a_way_to_authenticate_that_is_not_named_does_not_work(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", **assertion_of(PLANNER)}
        answer = await plane.web.post("/oauth/token", data=form)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        answer = await plane.web.post("/oauth/token", data=form, headers={"authorization": "Basic YTpi"})
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")

    bare(tmp_path, scene)


def test_with_humans_the_browser_flow_is_named_as_it_is(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        document = await told(plane)
        assert document["response_types_supported"] == ["code"]
        assert document["code_challenge_methods_supported"] == ["S256"]
        assert document["authorization_response_iss_parameter_supported"] is True
        assert document["client_id_metadata_document_supported"] is False
        assert "authorization_code" in document["grant_types_supported"]

    with_humans(tmp_path, scene)


class EdDSA(FileSigner):
    """An Ed25519 key by its older name (RFC 8037)."""

    def __init__(self, key: ed25519.Ed25519PrivateKey) -> None:
        super().__init__(key)
        self.alg = "EdDSA"


@KINDS
def test_the_algorithms_and_types_that_are_named_are_taken(tmp_path: Path, served: Served) -> None:
    async def scene(plane: Plane) -> None:
        document = await told(plane)
        old_name = Agent(EdDSA(ed25519.Ed25519PrivateKey.generate()))
        agents = {agent.signer.alg: agent for agent in (Agent(), ed25519_agent(), old_name)}
        assert sorted(document["dpop_signing_alg_values_supported"]) == sorted(agents)
        for agent in agents.values():
            await plane.opened(agent)
            assert (await plane.call(agent, "GET", "/v1/self")).status_code == 200

    served(tmp_path, scene)


@KINDS
def test_the_keys_that_are_named_verify_what_is_signed(tmp_path: Path, served: Served) -> None:
    async def scene(plane: Plane) -> None:
        document = await told(plane)
        keys = (await plane.web.get(urlsplit(document["jwks_uri"]).path)).json()["keys"]
        assert [public_key(key).thumbprint for key in keys] == [plane.signer.kid]
        lists = (await plane.web.get(urlsplit(document["status_list_aggregation_endpoint"]).path)).json()
        for uri in lists["status_lists"]:
            answer = await plane.web.get(urlsplit(uri).path)
            assert answer.headers["content-type"] == wellknown.MEDIA

    served(tmp_path, scene)


@KINDS
def test_the_resource_names_the_server_that_names_it(tmp_path: Path, served: Served) -> None:
    async def scene(plane: Plane) -> None:
        resource, server = (await plane.web.get(RESOURCE)).json(), await told(plane)
        assert resource["authorization_servers"] == [server["issuer"]]
        assert resource["resource"] == plane.base
        assert resource["jwks_uri"] == server["jwks_uri"]
        assert resource["dpop_bound_access_tokens_required"] is not server["tls_client_certificate_bound_access_tokens"]

    served(tmp_path, scene)


@KINDS
def test_the_documents_can_be_read_without_saying_who_one_is(tmp_path: Path, served: Served) -> None:
    async def scene(plane: Plane) -> None:
        for path in (SERVER, RESOURCE):
            answer = await plane.web.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
            assert (await plane.web.post(path)).status_code == 401

    served(tmp_path, scene)


@pytest.mark.parametrize("path", [SERVER, RESOURCE, "/oauth/jwks"])
def test_a_query_that_nobody_knows_does_not_break_discovery(tmp_path: Path, path: str) -> None:
    async def scene(plane: Plane) -> None:
        assert (await plane.web.get(path, params={"v": "1"})).json() == (await plane.web.get(path)).json()

    bare(tmp_path, scene)


def test_a_refused_call_says_where_the_resource_is_described(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agent = Agent()
        await plane.opened(agent)
        dpop, bearer = {"authorization": f"DPoP {agent.token}"}, {"authorization": "Bearer x"}
        for headers, first in (({}, "DPoP algs="), (dpop, "DPoP error="), (bearer, 'Bearer error="invalid_token"')):
            answer = await plane.web.get("/v1/self", headers=headers)
            assert answer.status_code == 401
            challenge = answer.headers["www-authenticate"]
            assert challenge.startswith(first)
            (where,) = re.findall(r'resource_metadata="([^"]+)"', challenge)
            assert (await plane.web.get(where)).json()["resource"] == f"{plane.base}/v1/self"  # RFC 9728 §3.3

    bare(tmp_path, scene)
