"""Which clients are known, whose documents count, and which redirect URI is one of theirs."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.core.principal import Workload
from remit.errors import InvalidRequestError, LimitError, RemitError, UnauthenticatedError, UnavailableError
from remit.oauth import clients
from remit.oauth.clients import KEPT, MAX_KEPT, OAuthClient, Registry, asking
from remit.ports.identity import Registered
from remit.web.wire import check_login_page

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
URL = "https://app.test/client.json"
DOCUMENT = {"client_id": URL, "client_name": "App", "redirect_uris": ["https://app.test/cb"]}


class Web:
    """The documents that are out there, and how often each was fetched."""

    def __init__(self, **more: object) -> None:
        self.now = NOW
        self.fetched: list[str] = []
        self.raw = json.dumps({**DOCUMENT, **more}).encode()
        self.error: RemitError | None = None

    async def fetch(self, url: str) -> bytes:
        self.fetched.append(url)
        if self.error is not None:
            raise self.error
        return self.raw.replace(URL.encode(), url.encode())

    def registry(self) -> Registry:
        return Registry((), self.fetch, lambda: self.now)

    def get(self, url: str = URL) -> Registered:
        return asyncio.run(self.registry().get(url))


# -- who --------------------------------------------------------------------------------------------------------------


def test_a_client_of_the_configuration_is_known_by_its_id_alone() -> None:
    known = Registered("app", "App", ())
    found = Registry([known])
    assert asyncio.run(found.get("app")) == known
    assert not found.documents
    for other in ("APP", "", "app ", URL):
        with pytest.raises(UnauthenticatedError):
            asyncio.run(found.get(other))


def test_a_document_is_fetched_once_and_again_when_it_is_old() -> None:
    async def main() -> None:
        web = Web()
        found = web.registry()
        assert found.documents
        for _ in range(3):
            client = await found.get(URL)
            assert (client.name, client.redirect_uris, client.vouched) == ("App", ("https://app.test/cb",), "app.test")
        assert web.fetched == [URL]
        web.now += KEPT
        await found.get(URL)
        assert web.fetched == [URL, URL]

    asyncio.run(main())


def test_a_failure_is_not_kept() -> None:
    async def main() -> None:
        web = Web()
        found = web.registry()
        web.error = UnavailableError("away")
        with pytest.raises(UnauthenticatedError, match="away"):
            await found.get(URL)
        web.error = None
        assert (await found.get(URL)).name == "App"

    asyncio.run(main())


def test_that_too_many_ask_at_once_says_nothing_of_the_client() -> None:
    async def main() -> None:
        web = Web()
        web.error = LimitError("too many clients at once", retry_after=5)
        with pytest.raises(LimitError):
            await web.registry().get(URL)

    asyncio.run(main())


@pytest.mark.attack("OAU-11")
def test_so_many_documents_are_kept_and_those_of_one_host_keep_no_other_client_out() -> None:
    async def main() -> None:
        web = Web()
        found = web.registry()
        for number in range(MAX_KEPT + 20):
            await found.get(f"https://app.test/{number}")
        assert len(found._read) == MAX_KEPT
        assert (await found.get("https://more.test/client.json")).vouched == "more.test"

    asyncio.run(main())


@pytest.mark.parametrize(
    "url",
    [
        "https://app.test",
        "https://app.test/",
        "https://app.test/a/../b",
        "https://app.test/./b",
        "https://app.test/a#b",
        "https://user@app.test/a",
        "https://user:pw@app.test/a",
        "https:///a",
        "https://app.test:port/a",
        "https://app.test/a b",
        "https://app.test/\u00e9",
        "https://app.test/" + "a" * 2_048,
    ],
)
def test_what_cannot_be_the_id_of_a_client_is_not_fetched(url: str) -> None:
    web = Web()
    with pytest.raises(RemitError):
        web.get(url)
    assert web.fetched == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"client_id": "https://evil.test/client.json"},
        {"client_id": None},
        {"redirect_uris": []},
        {"redirect_uris": "https://app.test/cb"},
        {"redirect_uris": ["https://app.test/cb"] * 21},
        {"redirect_uris": ["javascript:alert(1)"]},
        {"client_name": ""},
        {"client_name": "a" * 101},
        {"client_name": "a\u202eb"},
        {"client_name": 7},
        {"client_secret": "s"},
        {"token_endpoint_auth_method": "client_secret_basic"},
    ],
)
def test_a_document_that_is_not_one_to_go_by_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UnauthenticatedError, match="document"):
        Web(**wrong).get()


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"client_id":1,"client_id":2}', b"\xff"])
def test_what_is_no_document_is_refused(raw: bytes) -> None:
    web = Web()
    web.raw = raw
    with pytest.raises(UnauthenticatedError, match="document"):
        web.get()


def test_only_what_an_operator_set_up_is_named_without_asking_its_host() -> None:
    async def main() -> None:
        web = Web()
        found = web.registry()
        await found.get(URL)
        for no_client in (URL, "spiffe://corp.test/a", "https://ci.test#job", "tv", ""):
            assert found.named(no_client) is None
        assert Registry([Registered("app", "App", ())]).named("app") == Registered("app", "App", ())

    asyncio.run(main())


@pytest.mark.attack("OAU-09")
def test_who_proves_nothing_merely_calls_itself_so() -> None:
    assert Registered("app", "App", ()).called == "A program that calls itself “App”"
    assert Registered("app", "App", (), proven=True).called == "App"


def test_who_asks_without_a_browser_is_known_or_proves_itself() -> None:
    async def main() -> None:
        found = Registry([Registered("app", "App", ()), Registered("spiffe://td/app", "App", ())])
        proven = Workload("spiffe://td/agent", "jwt-svid", NOW)
        assert (await asking(found, OAuthClient("app"))).name == "App"
        assert (await asking(found, OAuthClient(proven.id, proven))).name == proven.id
        for nobody in (
            OAuthClient(),
            OAuthClient("other"),
            OAuthClient("spiffe://td/agent"),
            OAuthClient("spiffe://td/app"),
        ):
            with pytest.raises(RemitError):
                await asking(found, nobody)

    asyncio.run(main())


# -- redirect URIs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "https://app.test/cb",
        "https://app.test:8443/cb?x=1",
        "http://127.0.0.1/cb",
        "http://[::1]/cb",
        "http://localhost:9000/cb",
        "com.example.app:/cb",
    ],
)
def test_a_redirect_uri_that_may_be_registered(uri: str) -> None:
    assert clients.check_redirect(uri) == uri


@pytest.mark.parametrize(
    "uri",
    [
        None,
        "",
        "/cb",
        "http://app.test/cb",
        "https:///cb",
        "https://app.test/cb#f",
        "https://u@app.test/cb",
        "javascript:alert(1)",
        "data:text/html,x",
        "myapp:/cb",
        "com.example.app://host/cb",
        "https://app.test/a b",
        "https://app.test:x/",
        "https://app.test/\\x",
    ],
)
def test_a_redirect_uri_that_may_not(uri: object) -> None:
    with pytest.raises(InvalidRequestError):
        clients.check_redirect(uri)


@given(st.integers(0, 70_000))
def test_the_port_of_a_loopback_literal_is_free(port: int) -> None:
    client = Registered("app", "App", ("http://127.0.0.1/cb", "http://[::1]:5/cb?x=1"))
    assert clients.is_registered(client, f"http://127.0.0.1:{port}/cb") == (0 < port <= 65_535)
    assert clients.is_registered(client, f"http://[::1]:{port}/cb?x=1") == (0 < port <= 65_535)


def test_the_port_of_localhost_counts_where_one_is_registered() -> None:
    app = Registered("app", "App", ("http://localhost/any", "http://localhost:5/one", "https://localhost/tls"))
    for uri, taken in {"5/any": True, "6/any": True, "0/any": False, "5/one": True, "6/one": False}.items():
        assert clients.is_registered(app, f"http://localhost:{uri}") is taken
    assert not clients.is_registered(app, "https://localhost:5/tls")
    assert not clients.is_registered(app, "http://127.0.0.1:5/any")


OWN = ("http://127.0.0.1/cb", "http://[::1]:5/cb?x=1", "https://app.test/cb", "http://localhost/any")


@given(st.sampled_from(OWN), st.integers(0, 25), st.integers(0, 3), st.text("a0:/@.%#?\\[]&=\t\u00e9", max_size=4))
def test_whatever_is_bent_only_a_port_may_differ(own: str, place: int, drop: int, more: str) -> None:
    uri = own[:place] + more + own[place + drop :]
    if clients.is_registered(Registered("app", "App", OWN), uri):
        given, known = urlsplit(uri), [urlsplit(one) for one in OWN]
        same = [one for one in known if (given.scheme, given.path, given.query) == (one.scheme, one.path, one.query)]
        assert given.hostname in {one.hostname for one in same}
        assert "@" not in uri
        assert "#" not in uri
        assert given.scheme == "http" or uri in OWN


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://idp.test/auth?x=1", True),
        ("http://127.0.0.1:9/auth", True),
        ("http://localhost:9/auth", True),
        ("http://idp.test/auth", False),
        ("javascript:alert(1)", False),
        ("file:///etc/passwd", False),
        ("--help", False),
        ("https://", False),
        ("https://u@idp.test/", False),
        ("https://idp.test/$(id)|x", False),
        ("https://idp.test/\nx", False),
        ("data:text/html,x", False),
    ],
)
def test_a_browser_is_sent_to_login_pages_alone(url: str, good: bool) -> None:  # noqa: FBT001 - a table of cases
    if good:
        assert check_login_page(url) == url
    else:
        with pytest.raises(InvalidRequestError):
            check_login_page(url)
