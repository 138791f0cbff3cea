"""Where a credential goes, what goes along, and where a placeholder may stand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from remit import catalog
from remit.core import scope
from remit.core.secret import Secret
from remit.errors import InvalidRequestError, PlaceholderError, UpstreamError
from remit.gateway import framing, target
from remit.gateway.downstream import Placeholders
from remit.gateway.target import HttpTarget, static
from remit.ports import Resource
from tests.gateway.rig import ALL, PLACEHOLDER, SECRET
from tests.support.upstream import CODERS

NO_FIELDS = framing.request_fields(b"Host: a")
OTHER = "sk-other-0123456789abcdef0123456789abcdef"


def shape(provider: str | None = None, **settings: object) -> HttpTarget:
    """Compile a resource."""
    resource = Resource("api", "http", "https://api.test:8443/base", scope.parse([ALL]), None, settings)
    return HttpTarget(resource, catalog.load()[provider] if provider is not None else None)


def check(*lines: str, how: HttpTarget | None = None, placeholders: dict[str, str] | None = None) -> None:
    """Look for placeholders in a header section."""
    block = "\r\n".join(["Host: a", *lines]).encode()
    given = Placeholders(placeholders or {"api": PLACEHOLDER, "other": OTHER})
    given.check_head(framing.request_fields(block), b"/api/x", how or shape())


def test_the_credential_is_written_once_where_the_resource_says() -> None:
    recipe = static(shape(inject={"header": "X-Api-Key", "format": "{}"}), Secret(SECRET))
    assert recipe.fixed == f"Host: api.test:8443\r\nX-Api-Key: {SECRET}\r\nAccept-Encoding: identity\r\n".encode()


def test_a_provider_says_where_its_key_goes() -> None:
    key = "sk-ant-0123456789"
    assert f"x-api-key: {key}\r\n".encode() in static(shape("anthropic"), Secret(key)).fixed


def test_a_resource_without_a_secret_gets_none() -> None:
    assert static(shape(), None).fixed == b"Host: api.test:8443\r\nAccept-Encoding: identity\r\n"


def test_a_credential_does_not_print_its_secret() -> None:
    assert SECRET not in repr(static(shape(), Secret(SECRET)))


@pytest.mark.parametrize("text", ["a\r\nX: y", "a\nb", "a\0", "caf\u00e9", "a "])
def test_a_secret_that_cannot_stand_in_a_header_is_not_written(text: str) -> None:
    with pytest.raises(UpstreamError):
        static(shape(), Secret(text))


@pytest.mark.parametrize(
    "settings",
    [
        {"inject": {"header": "X:Y"}},
        {"inject": {"header": "Host"}},
        {"inject": {"header": "Cookie"}},
        {"inject": {"format": "no place"}},
        {"inject": {"format": "{} {}"}},
        {"inject": {"format": "a\r\n{}"}},
        {"inject": {"other": 1}},
        {"inject": []},
        {"headers": "x"},
        {"headers": ["a b"]},
        {"body_on": "GET"},
        {"body_on": ["POST"]},
        {"body_on": [1]},
        {"reads_bodies": "yes"},
        {"reads_bodies": 1},
        {"max_body": 0},
        {"max_body": True},
        {"max_body": "1"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError):
        shape(None, **settings)


def test_only_listed_headers_go_along() -> None:
    block = b"\r\n".join(
        line.encode()
        for line in [
            "Host: a",
            "Accept: x/y",
            "X-Mine: 1",
            "X-Other: 2",
            "Cookie: c=d",
            "Authorization: Bearer mine",
            "X-Forwarded-For: 1.2.3.4",
            "Via: 1.1 x",
            "Content-Length: 0",
            "X-HTTP-Method-Override: DELETE",
            "User-Agent: ua",
            "Connection: user-agent",
        ]
    )
    how = shape(headers=["X-Mine", "Cookie", "Authorization", "Via"])
    told = b"cookie, user-agent, via, x-forwarded-for, x-http-method-override, x-other"
    assert how.forwarded(framing.request_fields(block), frozenset()) == (b"accept: x/y\r\nx-mine: 1\r\n", told)


def test_no_grant_lets_the_credentials_header_along() -> None:
    fields = framing.request_fields(b"Host: a\r\nAuthorization: mine\r\nCookie: c")
    for free in (False, True):
        named = frozenset({b"authorization", b"cookie", b"host"})
        assert shape().forwarded(fields, named, free=free) == (b"", b"cookie")


def test_a_clients_copy_of_the_credential_is_not_told_as_dropped_but_another_credential_is() -> None:
    how = shape(inject={"header": "X-Api-Key", "format": "{}"})
    fields = framing.request_fields(b"Host: a\r\nX-Api-Key: mine\r\nAuthorization: Bearer mine")
    assert how.forwarded(fields, frozenset(), free=True) == (b"", b"authorization")


def test_a_provider_is_trusted_to_read_bodies_at_its_own_hosts_alone() -> None:
    openai = catalog.load()["openai"]

    def how(url: str, **settings: object) -> bool:
        return HttpTarget(Resource("api", "http", url, scope.parse([ALL]), None, settings), openai).reads_bodies

    assert how("https://api.openai.com")
    assert not how("https://api.openai.com.test")
    assert not how("http://127.0.0.1:9")
    assert how("http://127.0.0.1:9", reads_bodies=True)
    assert not how("https://api.openai.com", reads_bodies=False)
    assert not shape().reads_bodies


def test_github_takes_a_body_on_delete() -> None:
    assert shape("github").body_on == {"DELETE"}
    assert shape("github", body_on=["GET"]).body_on == {"GET"}
    assert shape().body_on == frozenset()


def test_a_placeholder_may_stand_alone_in_the_credentials_header() -> None:
    check(f"Authorization: Bearer {PLACEHOLDER}")


def test_a_placeholder_may_stand_in_each_position_that_the_provider_accepts() -> None:
    check(f"Authorization: Bearer {PLACEHOLDER}", f"x-api-key: {PLACEHOLDER}", how=shape("anthropic"))


@pytest.mark.parametrize(
    "lines",
    [
        [f"X-Api-Key: {PLACEHOLDER}"],
        [f"Authorization: Basic {PLACEHOLDER}"],
        [f"Authorization: Bearer {PLACEHOLDER} x"],
        [f"Authorization: Bearer {PLACEHOLDER}{PLACEHOLDER}"],
        [f"Authorization: Bearer {PLACEHOLDER}", f"X: {PLACEHOLDER}"],
        [f"Authorization: Bearer {OTHER}"],
        [f"User-Agent: a {PLACEHOLDER} b"],
        [f"{PLACEHOLDER}: x"],
        *(
            [f"X: {CODERS[form](PLACEHOLDER).decode()}"]
            for form in CODERS
            if CODERS[form](PLACEHOLDER).decode("latin-1").isprintable()
        ),
    ],
)
def test_a_placeholder_anywhere_else_in_a_head_is_refused(lines: list[str]) -> None:
    with pytest.raises(PlaceholderError):
        check(*lines)


@pytest.mark.parametrize("form", CODERS)
def test_a_placeholder_in_a_target_is_refused(form: str) -> None:
    given = Placeholders({"api": PLACEHOLDER})
    with pytest.raises(PlaceholderError):
        given.check_head(NO_FIELDS, b"/api/x?q=" + CODERS[form](PLACEHOLDER), shape())


def test_a_placeholder_in_part_percent_encoded_is_refused() -> None:
    coded = "".join(f"%{ord(c):02X}" if i % 3 == 0 else c for i, c in enumerate(PLACEHOLDER))
    with pytest.raises(PlaceholderError):
        Placeholders({"api": PLACEHOLDER}).check_head(NO_FIELDS, f"/api/x?q={coded}".encode(), shape())


@pytest.mark.parametrize(
    ("destination", "settings"),
    [
        ("http://api.test", {}),
        ("https://api.test@evil.test", {}),
        ("https://api.test", {"inject": {"header": "Host"}}),
        ("https://api.test", {"provider": "nobody"}),
        ("https://api.test", {"provider": 1}),
    ],
)
def test_a_resource_that_could_never_be_used_is_refused_when_it_is_added(
    destination: str, settings: dict[str, object]
) -> None:
    with pytest.raises(InvalidRequestError):
        target.check(Resource("api", "http", destination, scope.parse([ALL]), None, settings), None)


@pytest.mark.parametrize("host", ["ollama.internal:11434", "10.0.0.5", "[fd00::5]:80"])
@pytest.mark.parametrize("settings", [{}, {"private": True}])
def test_plain_http_beyond_this_machine_is_refused_with_a_way_out(host: str, settings: dict[str, object]) -> None:
    there = Resource("llm", "http", f"http://{host}/base", scope.parse([ALL]), None, settings)
    with pytest.raises(InvalidRequestError, match="a network in clear, a private one too") as refused:
        target.check(there, None)
    assert refused.value.help is not None
    assert f"TLS in front of `{target.read_destination(f'https://{host}').host}`" in refused.value.help
    target.check(replace(there, destination="http://127.0.0.1:11434"), None)


def test_a_resource_of_a_known_provider_or_of_none_is_accepted() -> None:
    for settings in ({}, {"provider": "openai"}, {"inject": {"format": "Token {}"}}):
        target.check(Resource("api", "http", "https://api.test", scope.parse([ALL]), None, settings), None)


def test_a_setting_that_does_not_exist_is_refused_by_name() -> None:
    resource = Resource("api", "http", "https://api.test", scope.parse([ALL]), None, {"max-body": 10})
    with pytest.raises(InvalidRequestError, match="`max-body` is not a setting"):
        target.check(resource, None)


@pytest.mark.parametrize("short", ["x", "fifteen-letters", "-" * 99, "twelve------0123456789"[:16]])
def test_a_short_secret_is_neither_stored_nor_used(short: str) -> None:
    resource = shape().resource
    with pytest.raises(InvalidRequestError, match="16 characters or more, 12 of them letters or digits"):
        target.check(resource, Secret(short))
    with pytest.raises(UpstreamError, match="too short to be kept out of answers") as refused:
        static(shape(), Secret(short))
    assert "`remit secret set api`" in str(refused.value.help)
    target.check(resource, Secret(f"{short}abcdefghijkl+++++"))
    target.check(resource, None)
