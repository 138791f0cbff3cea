"""Clients that nobody here wrote, as they are published, at a broker that believes a real identity provider."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import ssl
import threading
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from authlib.common.errors import AuthlibBaseError

from remit.config import settings
from remit.core.secret import Secret
from remit.ports import Resource
from tests.broker.world import details, search
from tests.identity.issuing import ec, public
from tests.live import idp
from tests.live.fleet import ACCESS_TOKEN, EXCHANGE, SEARCH, Key, claims_of
from tests.live.idp import NODE, PEERS, TWO_FACTORS, Provider
from tests.support.one_process import Edges, served
from tests.support.postgres_server import free_port

pytestmark = pytest.mark.live

POLICY = """
@id("humans-search") permit (principal, action, resource == Resource::"search");
@id("humans-have-names") permit (principal, action, resource == Resource::"mesh");
@id("humans-tools") permit (principal, action, resource == Resource::"tools");
@id("humans-forge") permit (principal, action, resource == Resource::"forge");
"""
MESH = {"type": "spiffe", "resource": "mesh", "actions": ["jwt"], "audiences": ["https://ledger.test"]}
APP, REDIRECT = "app", "http://127.0.0.1/cb"
CALLBACK = "http://127.0.0.1/callback"  # of another client
KEYED, OWN = "backend", ec("backend-1")  # a client with a key of its own
ASKED = {"purpose": "find what was sold in May", "authorization_details": json.dumps([SEARCH]), "ttl": "900"}
PATIENCE = 60  # seconds for one flow
LIBRARIES = ["oauth4webapi", "openid-client"]

Answer = dict[str, Any]


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """Serve a real identity provider."""
    with idp.served() as found:
        yield found


class _Form(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        if tag == "input":
            self.fields[told["name"]] = told.get("value", "")


class Human:
    """Somebody at a browser: reads the broker's pages, and logs in at the issuer."""

    def __init__(
        self,
        provider: Provider,
        login: str = "alice",
        acr: str = idp.PASSWORD,
        *,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self.pages: list[str] = []
        self.decision = "approve"
        self._browser = provider.browser(login, acr)
        self._http = httpx.Client(verify=verify, trust_env=False)

    def close(self) -> None:
        """Leave."""
        self._http.close()

    def visit(self, url: str) -> str:
        """Decide on what a page of the broker asks; return where the browser ends, or the text of the last page."""
        return self._decide(self._http.get(url))

    def enter(self, url: str, code: str) -> str:
        """Type a code into the form at ``url``, and decide."""
        self._http.get(url).raise_for_status()
        return self._decide(self._http.post(url, data={"user_code": code}))

    def again(self, acr: str) -> None:
        """Log in from now on by ``acr``."""
        self._browser.acr = acr

    def _decide(self, page: httpx.Response) -> str:
        self.pages.append(page.text)
        if page.is_redirect:  # the client is told no before anybody is asked
            return page.headers["location"]
        assert page.is_success, page.text
        form = {**_Form(page.text).fields, "decision": self.decision}
        sent = self._http.post(page.url.join("/oauth/consent"), data=form)
        self.pages.append(sent.text)
        leads = re.search(r'content="0;url=([^"]+)"', sent.text)
        assert leads is not None, sent.text
        login = unescape(leads[1])
        if not login.startswith(self._browser.issuer):
            return login
        back = self._browser.visit(login, leave=True)
        assert back.is_redirect, back.text
        last = self._http.get(back.headers["location"])
        self.pages.append(last.text)
        form = {**_Form(last.text).fields, "decision": self.decision}
        return self._ended(self._http.post(page.url.join("/oauth/consent"), data=form) if "csrf" in form else last)

    def _ended(self, last: httpx.Response) -> str:
        """Return where the browser goes on from the last page; only such a page has the code in it."""
        leads = re.search(r'content="0;url=([^"]+)"', last.text)
        if leads is not None:
            return unescape(leads[1])
        self.pages.append(last.text)
        return last.text


@dataclass
class Stage:
    """A running broker, and the human at its pages."""

    edges: Edges
    provider: Provider
    human: Human
    directory: Path

    @property
    def issuer(self) -> str:
        """The broker's issuer."""
        return self.edges.application.settings.issuer

    async def flow(self, library: str, flow: str, **more: object) -> Answer:
        """Have a library go through a flow; return what it says at the end."""
        told = {"flow": flow, "issuer": self.issuer, "client": APP, "redirect": "http://127.0.0.1:8123/cb"}
        told |= {"asked": ASKED, "resource": f"{self.issuer}/v1/self", **more}  # type: ignore[dict-item] # JSON
        process = await asyncio.create_subprocess_exec(
            str(NODE), f"{library}.mjs", cwd=PEERS, env={"NODE_NO_WARNINGS": "1"},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._conversed(process, told)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _conversed(self, process: asyncio.subprocess.Process, told: Mapping[str, object]) -> Answer:
        assert process.stdin is not None
        assert process.stdout is not None
        answer: Mapping[str, object] = told
        while True:
            process.stdin.write(json.dumps(answer).encode() + b"\n")
            said: Answer = json.loads(await process.stdout.readline())
            if "done" in said or "failed" in said:
                return said
            back = await asyncio.to_thread(self._act, said)
            answer = {"back": back}

    def _act(self, said: Mapping[str, str]) -> str:
        if "enter" in said:
            return self.human.enter(said["enter"], said["code"])
        return self.human.visit(said.get("visit") or said["open"])


@asynccontextmanager
async def stage(
    directory: Path, provider: Provider, scopes: Mapping[str, object] | None = None, **more: object
) -> AsyncIterator[Stage]:
    """Run a broker that believes ``provider``; ``more`` is said of it in ``[[humans]]``."""
    policies, secret = directory / "policies", directory / "secret"
    policies.mkdir(mode=0o700)
    (policies / "all.cedar").write_text(POLICY)
    secret.touch(0o600)
    secret.write_text(idp.SECRET)
    known = {"issuer": provider.issuer, "groups_claim": "groups", **more}
    raw: dict[str, object] = {
        "listen": {"api": f"127.0.0.1:{free_port()}", "gateway": f"127.0.0.1:{free_port()}"},
        "humans": [
            {**known, "client_id": "remit"},
            {**known, "client_id": "remit-web", "client_secret_file": str(secret)},
        ],
        "workloads": [{"issuer": provider.issuer, "audience": "https://remit.test", "match": {"sub": "job-1"}}],
        "policy": {"directory": str(policies)},
        "scopes": dict(scopes or {}),
        "client_documents": {"hosts": ["127.0.0.1"], "private": True},
        "client_registration": {},
        "clients": [
            {"id": APP, "name": "Research App", "redirect_uris": [REDIRECT, CALLBACK]},
            {"id": KEYED, "name": "Back End", "redirect_uris": [REDIRECT], "jwks": {"keys": [public(OWN)]}},
        ],
    }
    made = settings.read(settings.places({"REMIT_STATE_DIR": str(directory / "state")}), raw)
    async with served(made) as edges:
        await edges.application.broker.put_resource(
            edges.application.operator, search(), Secret("sk-canary-0123456789")
        )
        mesh = Resource("mesh", "spiffe", "spiffe://remit.local", details(MESH), None, {})
        await edges.application.broker.put_resource(edges.application.operator, mesh, None)
        human = Human(provider)
        try:
            yield Stage(edges, provider, human, directory)
        finally:
            human.close()


def platform_token(provider: Provider) -> str:
    """Return what a workload authenticates with."""
    now = int(time.time())
    claims = {"iss": provider.issuer, "sub": "job-1", "aud": "https://remit.test", "iat": now, "exp": now + 300}
    return provider.sign(claims, typ="JWT")


def play(directory: Path, provider: Provider, scene: Callable[[Stage], Awaitable[None]], **more: object) -> None:
    """Run a scene."""

    async def main() -> None:
        async with stage(directory, provider, None, **more) as found:
            await scene(found)

    asyncio.run(main())


# -- oauth4webapi and openid-client -----------------------------------------------------------------------------------


@pytest.mark.parametrize("push", [False, True])
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_goes_through_the_code_flow(tmp_path: Path, provider: Provider, library: str, *, push: bool) -> None:
    """Discovery, code with PKCE, pushed or not, DPoP with nonces, ``iss``, refresh, introspection, revocation."""

    async def scene(found: Stage) -> None:
        said = await found.flow(library, "code", push=push)
        assert "done" in said, said
        done = said["done"]
        assert done["tokens"]["token_type"] == "dpop"  # as both libraries write it
        assert done["tokens"]["authorization_details"] == [SEARCH]
        claims = claims_of(done["again"]["access_token"])
        assert claims["sub"] == f"{provider.issuer}#alice"
        assert done["again"]["refresh_token"] != done["tokens"]["refresh_token"]
        assert (done["active"]["active"], done["active"]["sub"]) == (True, claims["sub"])
        assert (done["before"], done["after"]) == (200, 401)

    play(tmp_path, provider, scene)


def test_the_secret_by_which_humans_are_logged_in_is_on_no_page(tmp_path: Path, provider: Provider) -> None:
    async def scene(found: Stage) -> None:
        said = await found.flow("oauth4webapi", "code")
        assert claims_of(said["done"]["tokens"]["access_token"])["sub"] == f"{provider.issuer}#alice"
        assert idp.SECRET not in "".join(found.human.pages)

    play(tmp_path, provider, scene)


@pytest.mark.slow
def test_what_a_human_refuses_the_library_is_told(tmp_path: Path, provider: Provider) -> None:
    async def scene(found: Stage) -> None:
        found.human.decision = "deny"
        said = await found.flow("oauth4webapi", "code")
        assert (said["failed"].partition(":")[0], said["error"]) == (
            "OAUTH_AUTHORIZATION_RESPONSE_ERROR",
            "access_denied",
        )
        device = await found.flow("openid-client", "device")
        assert device["error"] == "access_denied"

    play(tmp_path, provider, scene)


def test_a_refresh_token_that_is_used_after_its_answer_was_ends_the_task(tmp_path: Path, provider: Provider) -> None:
    async def scene(found: Stage) -> None:
        said = await found.flow("oauth4webapi", "stolen")
        assert said == {"done": {"refused": "invalid_grant", "after": 401}}

    play(tmp_path, provider, scene)


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_asks_from_a_device(tmp_path: Path, provider: Provider, library: str) -> None:
    async def scene(found: Stage) -> None:
        said = await found.flow(library, "device")
        assert "done" in said, said
        assert claims_of(said["done"]["tokens"]["access_token"])["sub"] == f"{provider.issuer}#alice"
        assert said["done"]["tokens"]["refresh_token"]

    play(tmp_path, provider, scene)


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_asks_one_human_from_afar(tmp_path: Path, provider: Provider, library: str) -> None:
    async def scene(found: Stage) -> None:
        asked = {**ASKED, "scope": "openid", "login_hint": "alice"}
        token = await asyncio.to_thread(platform_token, provider)
        said = await found.flow(library, "backchannel", client="job-1", token=token, asked=asked)
        assert "done" in said, said
        assert claims_of(said["done"]["tokens"]["access_token"])["sub"] == f"{provider.issuer}#alice"

    play(tmp_path, provider, scene)


@contextmanager
def published(name: str, **more: object) -> Iterator[str]:
    """Serve the document of a client until the block ends; yield its URL, which is the client's id."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            document = {"client_id": url, "client_name": name, "redirect_uris": [REDIRECT, CALLBACK]}
            raw = json.dumps({**document, "token_endpoint_auth_method": "none", **more}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_address[1]}/client.json"
    thread = threading.Thread(target=lambda: server.serve_forever(0.05))
    thread.start()
    try:
        yield url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_client_that_nobody_named_is_known_by_its_document(tmp_path: Path, provider: Provider, library: str) -> None:
    async def scene(found: Stage) -> None:
        with published("Stranger") as url:
            said = await found.flow(library, "code", client=url, push=True)
        assert "done" in said, said
        assert said["done"]["after"] == 401
        assert "calls itself “Stranger” asks for access" in found.human.pages[0]
        assert f"all that is known is that {urlsplit(url).netloc} publishes it" in found.human.pages[0]

    play(tmp_path, provider, scene)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_authenticates_by_its_own_key_at_every_endpoint(
    tmp_path: Path, provider: Provider, library: str
) -> None:
    """``private_key_jwt``: pushed request, code, refresh and revocation, each by an assertion of its own."""

    async def scene(found: Stage) -> None:
        said = await found.flow(library, "code", client=KEYED, push=True, key=OWN.as_dict(private=True))
        assert "done" in said, said
        claims = claims_of(said["done"]["again"]["access_token"])
        assert (claims["client_id"], claims["task"]["attested"]) == (KEYED, True)
        assert (said["done"]["before"], said["done"]["after"]) == (200, 401)
        assert "calls itself" not in found.human.pages[0]
        without = await found.flow(library, "code", client=KEYED, push=True)
        assert without["failed"].startswith("OAUTH_WWW_AUTHENTICATE_CHALLENGE")

    play(tmp_path, provider, scene)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_client_authenticates_by_the_key_that_its_document_has(
    tmp_path: Path, provider: Provider, library: str
) -> None:
    async def scene(found: Stage) -> None:
        keyed = {"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [public(OWN)]}}
        with published("Stranger", **keyed) as url:
            said = await found.flow(library, "code", client=url, push=True, key=OWN.as_dict(private=True))
            assert "done" in said, said
            assert claims_of(said["done"]["again"]["access_token"])["task"]["attested"] is False
            without = await found.flow(library, "code", client=url, push=True)
            assert without["failed"].startswith("OAUTH_WWW_AUTHENTICATE_CHALLENGE")

    play(tmp_path, provider, scene)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_workload_acts_for_itself_by_the_token_of_its_platform(
    tmp_path: Path, provider: Provider, library: str
) -> None:
    async def scene(found: Stage) -> None:
        token = await asyncio.to_thread(platform_token, provider)
        said = await found.flow(library, "credentials", client="job-1", token=token)
        assert "done" in said, said
        done = said["done"]
        assert claims_of(done["again"]["access_token"])["client_id"] == f"{provider.issuer}#job-1"
        assert done["active"]["active"] is True
        assert "refresh_token" not in done["tokens"]

    play(tmp_path, provider, scene)


def test_a_library_takes_a_lease_as_the_guide_has_it(tmp_path: Path, provider: Provider) -> None:
    async def scene(found: Stage) -> None:
        said = await found.flow("openid-client", "lease", asked={**ASKED, "authorization_details": json.dumps([MESH])})
        assert "done" in said, said
        assert said["done"]["credential"]["jwt"], said["done"].keys()

    play(tmp_path, provider, scene)


# -- authlib ----------------------------------------------------------------------------------------------------------


class Authlib:
    """authlib's client, with proofs in the headers that it sends for its callers: it makes none itself."""

    def __init__(self, issuer: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # authlib would rather have a fork of httpx
            from authlib.integrations.httpx_client import OAuth2Client
        self.key = Key()
        self.client = OAuth2Client(
            APP,
            token_endpoint_auth_method="none",
            revocation_endpoint_auth_method="none",
            redirect_uri="http://127.0.0.1:8124/cb",
            code_challenge_method="S256",
            trust_env=False,
        )
        told = self.client.request("GET", f"{issuer}/.well-known/oauth-authorization-server", withhold_token=True)
        self.nonce, self.server = told.headers["dpop-nonce"], told.json()

    def headers(self, key: Key | None = None) -> dict[str, str]:
        """Return the headers of a token request."""
        proof = (key or self.key).proof("POST", self.server["token_endpoint"], self.nonce)
        return {"accept": "application/json", "content-type": "application/x-www-form-urlencoded", "dpop": proof}

    def fetch(self, **form: str) -> Answer:
        """Call the token endpoint."""
        return dict(self.client.fetch_token(self.server["token_endpoint"], headers=self.headers(), **form))

    def post(self, endpoint: str, **form: str) -> Answer:
        """Call an endpoint at which there is no token yet."""
        answer = self.client.request(
            "POST", self.server[endpoint], data={**form, "client_id": APP}, withhold_token=True
        )
        return dict(answer.json())

    def close(self) -> None:
        """Let go of the connection."""
        self.client.close()


def test_authlib_goes_through_code_refresh_exchange_and_revocation(tmp_path: Path, provider: Provider) -> None:
    def whole(found: Stage) -> None:
        with closing(Authlib(found.issuer)) as app:
            verifier = secrets.token_urlsafe(48)
            url, state = app.client.create_authorization_url(
                app.server["authorization_endpoint"], code_verifier=verifier, depth="1", fan_out="1", **ASKED
            )
            back = found.human.visit(url)
            assert dict(parse_qsl(urlsplit(back).query))["iss"] == found.issuer
            first = app.fetch(authorization_response=back, state=state, code_verifier=verifier)
            refresh = app.client.refresh_token(
                app.server["token_endpoint"], refresh_token=first["refresh_token"], headers=app.headers()
            )
            child = Key()
            proof = child.proof("POST", app.server["token_endpoint"], app.nonce, refresh["access_token"])
            exchanged = app.client.fetch_token(
                app.server["token_endpoint"],
                grant_type=EXCHANGE,
                headers=app.headers(),
                subject_token=refresh["access_token"],
                subject_token_type=ACCESS_TOKEN,
                authorization_details=ASKED["authorization_details"],
                req_cnf=json.dumps({"jwk": child.jwk}),
                req_cnf_proof=proof,
            )
            claims = claims_of(exchanged["access_token"])
            assert (claims["sub"], claims["del_depth"]) == (f"{provider.issuer}#alice", 1)
            gone = app.client.revoke_token(app.server["revocation_endpoint"], token=refresh["refresh_token"])
            assert gone.json()["state"] == "closed"

    async def scene(found: Stage) -> None:
        await asyncio.to_thread(whole, found)

    play(tmp_path, provider, scene)


def test_authlib_authenticates_by_its_own_key(tmp_path: Path, provider: Provider) -> None:
    def whole(found: Stage) -> None:
        from authlib.oauth2.rfc7523 import PrivateKeyJWT

        with closing(Authlib(found.issuer)) as app:
            app.client.client_id, app.client.client_secret = KEYED, OWN
            app.client.token_endpoint_auth_method = app.client.revocation_endpoint_auth_method = "private_key_jwt"
            app.client.register_client_auth_method(PrivateKeyJWT(app.server["token_endpoint"], alg="ES256"))
            verifier = secrets.token_urlsafe(48)
            url, state = app.client.create_authorization_url(
                app.server["authorization_endpoint"], code_verifier=verifier, **ASKED
            )
            back = found.human.visit(url)
            told = app.fetch(authorization_response=back, state=state, code_verifier=verifier)
            assert claims_of(told["access_token"])["sub"] == f"{provider.issuer}#alice"
            gone = app.client.revoke_token(app.server["revocation_endpoint"], token=told["refresh_token"])
            assert gone.json()["state"] == "closed"

    async def scene(found: Stage) -> None:
        await asyncio.to_thread(whole, found)

    play(tmp_path, provider, scene)


def test_authlib_polls_for_a_device_code(tmp_path: Path, provider: Provider) -> None:
    def whole(found: Stage) -> None:
        with closing(Authlib(found.issuer)) as app:
            codes = app.post("device_authorization_endpoint", **ASKED)
            found.human.enter(codes["verification_uri"], codes["user_code"])
            kind = "urn:ietf:params:oauth:grant-type:device_code"
            told = app.fetch(grant_type=kind, device_code=codes["device_code"])
            assert claims_of(told["access_token"])["sub"] == f"{provider.issuer}#alice"

    async def scene(found: Stage) -> None:
        await asyncio.to_thread(whole, found)

    play(tmp_path, provider, scene)


# -- how strongly -----------------------------------------------------------------------------------------------------


def test_who_logs_in_too_weakly_is_told_so_and_does_it_again(tmp_path: Path, provider: Provider) -> None:
    """At a real issuer, where Alice is logged in already: the page leads to a login that is strong enough."""

    def whole(found: Stage) -> None:
        with closing(Authlib(found.issuer)) as app:
            asked = app.post("device_authorization_endpoint", **ASKED)
            weak = found.human.enter(asked["verification_uri"], asked["user_code"])
            assert f"Log in again with {TWO_FACTORS}." in weak
            path = urlsplit(asked["verification_uri"]).path
            assert f'<a class="go" href="{path}">Log in again</a>' in weak
            found.human.again(TWO_FACTORS)
            assert "Approved" in found.human.enter(asked["verification_uri"], asked["user_code"])
            told = app.fetch(
                grant_type="urn:ietf:params:oauth:grant-type:device_code", device_code=asked["device_code"]
            )
            assert claims_of(told["access_token"])["acr"] == TWO_FACTORS

    async def scene(found: Stage) -> None:
        await asyncio.to_thread(whole, found)

    play(tmp_path, provider, scene, acr=[TWO_FACTORS])


# -- what is never shown ----------------------------------------------------------------------------------------------


def test_no_secret_of_a_flow_is_in_a_log_a_page_or_the_audit(
    tmp_path: Path, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")

    def whole(found: Stage) -> list[str]:
        with closing(Authlib(found.issuer)) as app:
            verifier = secrets.token_urlsafe(48)
            url, state = app.client.create_authorization_url(
                app.server["authorization_endpoint"], code_verifier=verifier, **ASKED
            )
            back = found.human.visit(url)
            code = dict(parse_qsl(urlsplit(back).query))["code"]
            first = app.fetch(authorization_response=back, state=state, code_verifier=verifier)
            with pytest.raises(AuthlibBaseError) as refused:
                app.fetch(authorization_response=back, state=state, code_verifier=verifier)
            found.human.pages.append(str(refused.value))
            codes = app.post("device_authorization_endpoint", **ASKED)
            found.human.enter(codes["verification_uri"], codes["user_code"])
            second = app.fetch(
                grant_type="urn:ietf:params:oauth:grant-type:device_code", device_code=codes["device_code"]
            )
            tokens = [told[name] for told in (first, second) for name in ("access_token", "refresh_token")]
            return [verifier, code, codes["device_code"], *tokens]

    async def scene(found: Stage) -> None:
        canaries = await asyncio.to_thread(whole, found)
        ours = [record.getMessage() for record in caplog.records if record.name.startswith(("remit", "uvicorn"))]
        kept = [path.read_bytes() for path in (found.directory / "state").rglob("*") if path.is_file()]
        entries = await found.edges.application.broker.entries(0, 1_000)
        shown = "\n".join([*ours, *found.human.pages, *(str(entry) for entry in entries)])
        for canary in canaries:
            assert canary not in shown
            assert not any(canary.encode() in data for data in kept)

    play(tmp_path, provider, scene)
