"""The providers that ship, and what is made of them."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import FrozenInstanceError
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit import catalog
from remit.catalog import ALPHABETS, Provider
from remit.core.secret import Secret
from remit.errors import InvalidRequestError
from remit.gateway import target
from remit.gateway.patterns import weak
from remit.ports import Resource

PROVIDERS = catalog.load()
RANDOM = st.binary(min_size=16, max_size=64)
KEYS = {
    "openai": r"sk-proj-[A-Za-z0-9_-]{74}T3BlbkFJ[A-Za-z0-9_-]{74}",
    "anthropic": r"sk-ant-api03-[A-Za-z0-9_-]{93}AA",
    "gemini": r"AIza[A-Za-z0-9_-]{35}",
    "github": r"ghp_[A-Za-z0-9]{36}",
    "slack": r"xoxb-[0-9]{12}-[0-9]{13}-[A-Za-z0-9]{24}",
    "generic": r"sk-[A-Za-z0-9]{48}",
}


def test_there_are_many_providers_and_each_has_one_name() -> None:
    files = Path(catalog.__file__).with_name("providers").glob("*.toml")
    assert sum(len(tomllib.loads(file.read_text("utf-8"))) for file in files) == len(PROVIDERS) > 100


def test_the_catalog_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        PROVIDERS["evil"] = PROVIDERS["generic"]  # type: ignore[index]  # that is what must not be possible
    with pytest.raises(FrozenInstanceError):
        PROVIDERS["openai"].title = "X-Evil"  # type: ignore[misc]  # as above


@pytest.mark.parametrize("name", KEYS)
@given(random_bytes=RANDOM)
def test_a_placeholder_looks_like_a_key_of_its_provider(name: str, random_bytes: bytes) -> None:
    assert re.fullmatch(KEYS[name], catalog.placeholder(PROVIDERS[name], random_bytes))


@given(RANDOM)
def test_the_same_bytes_give_the_same_placeholder(random_bytes: bytes) -> None:
    made = [catalog.placeholder(PROVIDERS["github"], random_bytes) for _ in range(2)]
    assert made[0] == made[1]


@given(st.sets(RANDOM, min_size=2, max_size=4))
def test_other_bytes_give_another_placeholder(several: set[bytes]) -> None:
    assert len({catalog.placeholder(PROVIDERS["gemini"], random_bytes) for random_bytes in several}) == len(several)


def test_two_providers_share_no_characters_for_the_same_bytes() -> None:
    github, generic = (catalog.placeholder(PROVIDERS[name], b"\0" * 32) for name in ("github", "generic"))
    assert github[4:14] != generic[3:13]


def test_every_character_of_the_alphabet_is_drawn() -> None:
    drawn = "".join(catalog.placeholder(PROVIDERS["openai"], bytes([i]) * 16)[8:82] for i in range(40))
    assert set(drawn) == set(ALPHABETS["base64url"])


def test_too_few_random_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="16 random bytes"):
        catalog.placeholder(PROVIDERS["openai"], b"\0" * 15)


ENVIRONMENTS = {
    "openai": {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://gw/r/v1"},
    "anthropic": {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": "http://gw/r"},
    "gemini": {"GEMINI_API_KEY": "k", "GOOGLE_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": "http://gw/r"},
    "github": {
        "GITHUB_TOKEN": "k",
        "GH_TOKEN": "k",
        "GITHUB_PERSONAL_ACCESS_TOKEN": "k",
        "GITHUB_API_URL": "http://gw/r",
    },
    "slack": {"SLACK_BOT_TOKEN": "k", "SLACK_TOKEN": "k", "SLACK_MCP_XOXB_TOKEN": "k"},
    "generic": {},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_clients_find_the_placeholder_and_the_gateway_where_they_look(name: str) -> None:
    assert catalog.environment(PROVIDERS[name], "http://gw/r", "k") == ENVIRONMENTS[name]


POSITIONS = {
    "openai": [("Authorization", "Bearer {}")],
    "anthropic": [("x-api-key", "{}"), ("Authorization", "Bearer {}")],
    "gemini": [("x-goog-api-key", "{}"), ("Authorization", "Bearer {}"), ("key", "{}")],
    "github": [("Authorization", "Bearer {}"), ("Authorization", "token {}")],
    "slack": [("Authorization", "Bearer {}"), ("token", "{}")],
    "generic": [("Authorization", "Bearer {}")],
}


@pytest.mark.parametrize("name", POSITIONS)
def test_the_key_goes_into_the_header_of_its_provider(name: str) -> None:
    provider = PROVIDERS[name]
    assert [(place.name, place.format) for place in (provider.key, *provider.accepts)] == POSITIONS[name]


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
def test_a_provider_does_not_let_its_key_header_or_an_account_through_as_an_ordinary_header(provider: Provider) -> None:
    keys = {place.name.lower() for place in (provider.key, *provider.accepts)}
    assert keys & {*provider.headers, *provider.arguments} == set()
    assert set(provider.headers) & set(provider.arguments) == set()
    assert {*provider.headers} & {"cookie", "host", "authorization", "proxy-authorization"} == set()


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
def test_every_provider_makes_a_resource_and_a_placeholder_with_one_spelling(provider: Provider) -> None:
    url = provider.destination or "https://customer.example"
    settings = {"provider": provider.name, "user": "me@acme.example"}
    made = catalog.placeholder(provider, b"0123456789abcdef")
    target.check(Resource("api", "http", url, (), None, settings), Secret(made))
    assert quote(made) == made
    assert json.dumps(made) == f'"{made}"'
    assert not made.startswith("eyJ")  # what looks like a token is taken for one of remit's
    assert not weak(made.encode())


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
def test_the_positions_of_a_provider_are_apart_and_none_is_a_header_that_never_goes_along(provider: Provider) -> None:
    places = (provider.key, *provider.accepts)
    assert len(set(places)) == len(places)
    headers = {place.name.lower().encode() for place in places if place.in_header}
    assert headers & target.NEVER == set()
    assert {name.encode() for name in (*provider.headers, *provider.arguments)} & target.NEVER == set()
    assert provider.key.place != "body"


# Both are read by one client, which is configured for one of the two.
TWICE = {"JIRA_URL"}


def test_no_two_providers_have_the_same_variable() -> None:
    named = [
        name for one in PROVIDERS.values() for name in (*one.variables, *([one.base.variable] if one.base else ()))
    ]
    assert {name for name in named if named.count(name) > 1} == TWICE


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
def test_a_check_makes_nothing_and_sends_what_may_go_along(provider: Provider) -> None:
    if provider.check is None:
        return
    path = provider.check.path.partition("?")[0]
    minting = provider.name == "docker-hub"  # which has nothing else, and whose token is thrown away
    assert catalog.named(provider, "GET", path, ["/**"]) is not minting
    names = {name.encode() for name, _ in provider.check.headers}
    assert names <= target.ALWAYS | {name.encode() for name in provider.headers}


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
def test_what_mints_is_permitted_by_its_own_name_alone(provider: Provider) -> None:
    for operation in (*provider.mints, *provider.batches):
        method, path = operation.method.replace("*", "POST"), operation.path.replace("*", "x1")
        assert not catalog.named(provider, method, path, ["/**"])
        assert catalog.named(provider, method, path, [path])
    assert len(set(provider.mints)) == len(provider.mints)


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
def test_the_destination_is_one_of_the_hosts(provider: Provider) -> None:
    assert provider.destination is None or provider.destination.removeprefix("https://") in provider.hosts


GITHUB = PROVIDERS["github"]
MINTING = [
    ("POST", "/user/keys", ["/user/keys"], True),
    ("POST", "/user/keys", ["/user/*"], False),
    ("POST", "/user/keys", ["/**"], False),
    ("POST", "/user/keys", [], False),
    ("POST", "/user/keys", ["/user/*", "/user/keys"], True),
    ("GET", "/user/keys", ["/user/*"], True),
    ("POST", "/repos/acme/app/keys", ["/repos/acme/app/keys"], True),
    ("POST", "/repos/acme/app/keys", ["/repos/acme/*/keys"], True),
    ("POST", "/repos/acme/app/keys", ["/repos/acme/app/*"], False),
    ("POST", "/repos/acme/app/keys", ["/repos/other/app/keys"], False),
    ("POST", "/repos/acme/app/issues", ["/repos/**"], True),
]


@pytest.mark.parametrize(("method", "path", "patterns", "permitted"), MINTING)
def test_what_makes_standing_credentials_is_permitted_by_name_only(
    method: str,
    path: str,
    patterns: list[str],
    permitted: bool,  # noqa: FBT001 - a case
) -> None:
    assert catalog.named(GITHUB, method, path, patterns) == permitted


SPELLINGS = [
    "/user/keys/",
    "/user/keys;a",
    "/user;x=1/keys",
    "/user//keys",
    "//user/keys",
    "/User/KEYS",
    "/user/%6Beys",
    "/user/keys%20",
    "/user/keys.",
    "/user/key%EF%BD%93",
    "/user/k%C3%A9ys",
    "/user/keys%EF%B8%8F",
    "/user/ke%CD%8Fys",
    "/./user/./keys",
    "/%20/user/keys",
]


@pytest.mark.attack("DST-09")
@pytest.mark.parametrize("path", SPELLINGS)
def test_what_makes_standing_credentials_is_the_same_in_every_spelling(path: str) -> None:
    for patterns in (["/user/*"], ["/user/**"], ["/**"], ["/*/*", "/*/*/*"], ["/user/keys"]):
        assert not catalog.named(GITHUB, "POST", path, patterns)
    assert catalog.named(GITHUB, "POST", path, [path])
    assert catalog.named(GITHUB, "GET", path, ["/**"])


CARRIERS = [
    "/batch",
    "/$batch",
    "/v1/batch",
    "/v1/$batch",
    "/v1.0/me/$batch",
    "/v1/Batch/",
    "/v1/%24batch",
    "/batch/drive/v3",
    "/a/b/c/d/e/f/g/h/batch",
    "/_bulk",
    "/v1/_BULK;x",
    "/v1/_mget/",
    "/v1/%5Fmsearch",
]


@pytest.mark.attack("DST-10")
@pytest.mark.parametrize("provider", [None, GITHUB, PROVIDERS["generic"]])
@pytest.mark.parametrize("path", CARRIERS)
def test_what_carries_other_requests_is_permitted_by_name_only(path: str, provider: Provider | None) -> None:
    for patterns in (["/**"], ["/v1/**"], ["/*"], ["/v1/*"], ["/v1.0/me/*"]):
        assert not catalog.named(provider, "POST", path, patterns)
        assert catalog.named(provider, "GET", path, patterns)
    assert catalog.named(provider, "POST", path, ["/**", path])


@pytest.mark.parametrize(
    "path", ["/v1/batches", "/v1/batch/jobs", "/v1/a:batchGet", "/v1/mybatch", "/v1/search", "/v1/bulk"]
)
def test_what_only_sounds_like_it_is_permitted_by_a_wildcard(path: str) -> None:
    assert catalog.named(None, "POST", path, ["/v1/**"])


@pytest.mark.attack("DST-10")
@pytest.mark.parametrize(
    ("provider", "path"),
    [("openai", "/v1/batches"), ("anthropic", "/v1/messages/batches"), ("gemini", "/v1beta/openai/batches")],
)
def test_batches_of_a_provider_are_permitted_by_name_only(provider: str, path: str) -> None:
    known = PROVIDERS[provider]
    for spelled in (path, f"{path}/", f"{path};x=1", path.upper(), path.replace("/batches", "//b%61tches")):
        assert not catalog.named(known, "POST", spelled, ["/**"])
    assert catalog.named(known, "POST", path, [path])
    assert catalog.named(known, "GET", path, ["/**"])  # to list them
    assert catalog.named(known, "POST", f"{path}/b_1/cancel", ["/**"])


def test_an_operation_of_every_method_is_one_whatever_the_method() -> None:
    slack = PROVIDERS["slack"]
    assert not catalog.named(slack, "GET", "/api/rtm.connect", ["/api/*"])
    assert not catalog.named(slack, "POST", "/api/rtm.connect", ["/api/*"])


def test_a_provider_is_found_by_its_name_alone() -> None:
    assert catalog.provider_of("slack") is PROVIDERS["slack"]
    for name, near in (
        ("Slack", "slack"),
        ("githb", "github"),
        ("", "generic"),
        (7, "generic"),
        (["slack"], "slack"),
    ):
        with pytest.raises(InvalidRequestError, match="names none of the catalog") as refused:
            catalog.provider_of(name)
        assert near in (refused.value.help or "")


@pytest.mark.attack("DST-09")
@pytest.mark.parametrize("letter", ["%C4%B1", "%C4%B0", "%C3%AD", "I", "%EF%BD%89"])
def test_letters_that_some_reader_takes_for_an_i_are_one(letter: str) -> None:
    assert not catalog.named(None, "POST", "/b%CC%81atch", ["/**"])
    assert not catalog.named(catalog.load()["openai"], "POST", f"/v1/organization/adm{letter}n_api_keys", ["/v1/**"])
