"""A connection's steps, and the setting that says who its provider is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from remit.core.connection import (
    AuthorizationServer,
    OAuthSetting,
    ProviderClient,
    ProviderConnection,
    ProviderTokens,
    nonce,
    setting,
    typed_code,
)
from remit.core.legible import TYPED
from remit.core.orders import digest
from remit.core.secret import Secret
from remit.errors import InvalidRequestError

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
AUTHORIZE, TOKEN = "https://login.example/authorize", "https://login.example/token"
ENDPOINTS = {
    "authorization_endpoint": AUTHORIZE,
    "token_endpoint": TOKEN,
}
FIRST, SECOND, REFRESH = (Secret(f"{name}-token-0123456789") for name in ("first", "second", "refresh"))
EMPTY = ProviderConnection(
    id="con_1",
    human="https://issuer.example#alice",
    resource="github",
    destination="https://api.example",
    provider=AuthorizationServer("https://login.example", AUTHORIZE, TOKEN),
    client=ProviderClient("remit"),
    audience="",
    access_token=None,
    refresh_token=None,
    made_at=NOW,
)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_a_resource_without_the_setting_has_none() -> None:
    assert setting({"provider": "generic"}) is None


def test_an_empty_setting_leaves_all_to_the_resource() -> None:
    assert setting({"oauth": {}}) == OAuthSetting()


def test_a_setting_is_read_whole() -> None:
    given = {
        "issuer": "https://login.example",
        "client_id": "remit",
        "scopes": ["repo", "read:org"],
        "resource": "https://api.example/mcp",
        "revoke_with_task": True,
        "lower": {"search": ["repo"]},
        **ENDPOINTS,
    }
    assert setting({"oauth": given}) == OAuthSetting(
        "https://login.example",
        "remit",
        ("repo", "read:org"),
        "https://api.example/mcp",
        True,
        ENDPOINTS,
        {"search": ("repo",)},
    )
    assert setting({"oauth": {"resource": ""}}) == OAuthSetting(resource="")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("https://login.example", "is a table of"),
        ({"issuers": "https://login.example"}, "is a table of"),
        ({"client_id": "remit"}, "needed with it"),
        (ENDPOINTS, "publishes none"),
        ({**ENDPOINTS, "issuer": "https://login.example"}, "publishes none"),
        (
            {"issuer": "https://login.example", "client_id": "x", "token_endpoint": "https://login.example/t"},
            "publishes none",
        ),
        ({"token_endpoint": "nowhere"}, "oauth.token_endpoint"),
        ({"issuer": "nowhere"}, "oauth.issuer"),
        ({"scopes": ["two words"]}, "oauth.scopes"),
        ({"resource": "nowhere"}, "oauth.resource"),
        ({"revoke_with_task": "yes"}, "oauth.revoke_with_task"),
        ({"lower": ["read"]}, "oauth.lower"),
        ({"lower": {"search": ["read"]}}, "that `oauth.scopes` has not"),
        ({"scopes": ["read"], "lower": {"search": []}}, "a scope or more"),
        ({"scopes": ["read"], "lower": {"": ["read"]}}, "oauth.lower"),
    ],
)
def test_a_setting_that_could_not_work_is_refused_with_the_reason(given: object, why: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        setting({"oauth": given})
    assert why in f"{refused.value.detail} {refused.value.help}"


def test_what_lives_long_is_renewed_a_minute_ahead_and_what_lives_shortly_after_three_quarters() -> None:
    long, short = (EMPTY.given(ProviderTokens(FIRST, REFRESH, life, "repo"), NOW) for life in (3_600, 20))
    assert (long.expires_at, long.renew_at, long.scope) == (after(3_600), after(3_540), "repo")
    assert (short.expires_at, short.renew_at) == (after(20), after(15))
    assert long.lent(after(3_539)) == (FIRST, after(3_540))
    assert long.lent(after(3_540)) is None


def test_a_token_that_says_no_end_is_lent_until_it_is_over() -> None:
    made = EMPTY.given(ProviderTokens(FIRST), NOW)
    assert (made.expires_at, made.lent(after(10**8))) == (None, (FIRST, None))


def test_a_token_is_known_by_its_digest() -> None:
    made = EMPTY.given(ProviderTokens(FIRST), NOW)
    assert made.is_token(digest(FIRST.reveal()))
    assert not made.is_token(digest(SECOND.reveal()))
    assert not made.is_token("")
    assert not EMPTY.is_token(digest(""))


def test_a_task_has_a_token_for_what_it_needs_and_no_more_where_that_can_be() -> None:
    made = EMPTY.given(ProviderTokens(FIRST, REFRESH, 600, "read write"), NOW)
    assert made.lower(frozenset({"read"})) == "read"
    assert made.lower(frozenset({"read", "delete"})) == "read"
    assert made.lower(frozenset({"read", "write"})) == made.lower(None) == ""
    assert made.lower(frozenset({"delete"})) == "delete"  # it may be had by another name: the provider says
    assert made.widest().lower(frozenset({"read"})) == ""
    assert replace(made, refresh_token=None).lower(frozenset({"read"})) == ""


def test_a_narrow_token_stands_beside_the_one_for_all_and_the_oldest_makes_way() -> None:
    made = EMPTY.given(ProviderTokens(FIRST, REFRESH, 600, "read write"), NOW)
    narrow = made.begun().given(ProviderTokens(SECOND, None, 600, "read"), NOW, "read")
    assert (narrow.lent(NOW), narrow.lent(NOW, "read")) == ((FIRST, after(540)), (SECOND, after(540)))
    assert (narrow.refresh_token, narrow.refreshing, narrow.scope, narrow.narrows) == (
        REFRESH,
        False,
        "read write",
        True,
    )
    assert narrow.lent(after(540), "read") is None
    assert narrow.lent(NOW, "write") is None
    assert (narrow.is_token(digest(SECOND.reveal()), "read"), narrow.is_token(digest(FIRST.reveal()), "read")) == (
        True,
        False,
    )
    many = narrow
    for number in range(8):
        many = many.given(ProviderTokens(SECOND), NOW, f"s{number}")
    assert [one.scope for one in many.narrow] == [f"s{number}" for number in range(7, -1, -1)]
    again = many.given(ProviderTokens(FIRST), NOW, "s3")
    assert ([one.scope for one in again.narrow].count("s3"), again.lent(NOW, "s3")) == (1, (FIRST, None))
    assert again.ended("x", NOW, keep=True).narrow == again.wiped().narrow == ()


def test_a_provider_that_gives_more_than_was_asked_for_gives_no_narrow_tokens() -> None:
    made = EMPTY.given(ProviderTokens(FIRST, REFRESH, 600, "read write"), NOW)
    wide = made.given(ProviderTokens(SECOND, None, 600, "read write"), NOW, "read")
    assert (wide.narrows, wide.narrow, wide.lent(NOW)) == (False, (), (SECOND, after(540)))


def test_a_refresh_is_on_record_before_it_goes_out_and_keeps_what_the_provider_does_not_replace() -> None:
    made = EMPTY.given(ProviderTokens(FIRST, REFRESH, 60, "repo"), NOW)
    out = made.begun()
    assert (out.refreshing, out.rev, out.access_token) == (True, made.rev + 1, FIRST)
    back = out.given(ProviderTokens(SECOND, None, 60), after(50))
    assert (back.access_token, back.refresh_token, back.scope) == (SECOND, REFRESH, "repo")
    assert (back.refreshing, back.rev) == (False, out.rev + 1)


def test_nothing_is_lent_of_a_connection_that_is_over_and_its_tokens_go_once_they_are_revoked() -> None:
    made = EMPTY.given(ProviderTokens(FIRST, REFRESH, 600), NOW).marked()
    assert made.used
    over = made.ended("disconnected", after(1), keep=True)
    assert (over.lent(after(1)), over.over, over.over_at, over.refresh_token) == (
        None,
        "disconnected",
        after(1),
        REFRESH,
    )
    gone = over.wiped()
    assert (gone.access_token, gone.refresh_token, gone.rev) == (None, None, over.rev + 1)
    assert made.ended("refused", after(1), keep=False) == replace(gone, over="refused", rev=over.rev)


def test_a_code_is_typed_in_letters_that_are_not_mistaken_and_is_another_for_another_draw() -> None:
    codes = {typed_code(str(number)) for number in range(64)}
    assert len(codes) == 64
    assert all(len(code) == 8 and set(code) <= set(TYPED) for code in codes)


def test_a_login_for_connecting_to_one_resource_is_for_no_other_and_no_other_state() -> None:
    assert len({nonce("github", "a"), nonce("gitlab", "a"), nonce("github", "b")}) == 3
