from __future__ import annotations

import pytest

from remit.core.fields import check_endpoint, check_issuer, check_url, is_loopback
from remit.errors import InvalidRequestError


@pytest.mark.parametrize(
    "url",
    [
        "https://a.test",
        "https://a.test:8443/b?c=d",
        "http://localhost:80/",
        "http://127.0.0.1",
        "http://127.9.9.9:1/x",
        "http://[::1]:1",
    ],
)
def test_what_may_be_fetched(url: str) -> None:
    assert check_url(url, "it") == url


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "a.test",
        "//a.test",
        "http://a.test",
        "http://127.0.0.1.evil.test",
        "http://localhost.evil.test",
        "http://0.0.0.0",
        "http://127.1",
        "ftp://a.test",
        "file:///etc/passwd",
        "https://",
        "https:///a",
        "https://user@a.test",
        "https://user:pw@a.test",
        "https://a.test#f",
        "https://a.test\\@b.test",
        "https://a.test/a b",
        "https://a.test/\n",
        "https://ä.test",
        "https://a.test:99999",
        "https://[::1",
        "https://a.test/" + "x" * 2_048,
    ],
)
def test_what_may_not_be_fetched(url: object) -> None:
    with pytest.raises(InvalidRequestError, match="it "):
        check_url(url, "it")


def test_names_that_only_look_like_this_host_do_not_mean_it() -> None:
    assert [is_loopback(name) for name in ("localhost", "127.0.0.1", "::1")] == [True] * 3
    assert not any(is_loopback(name) for name in ("localhost.", "127.0.0.1.x", "::ffff:1.2.3.4", "10.0.0.1", ""))


@pytest.mark.parametrize(
    "url", ["http://login.test", "https://login.test?a=b", "https://login.test#a", "login.test", 7]
)
def test_an_issuer_is_an_https_url_without_query_and_fragment(url: object) -> None:
    with pytest.raises(InvalidRequestError, match="the issuer"):
        check_issuer(url, "the issuer")


def test_an_issuer_is_kept_as_it_was_written() -> None:
    assert check_issuer("https://login.test/a/", "the issuer") == "https://login.test/a/"


def test_an_endpoint_of_an_issuer_by_https_is_https() -> None:
    near, far = "http://127.0.0.1:8080", "https://issuer.test"
    for url, issuer in ((f"{far}/token?tenant=a", far), (f"{near}/token", near), (f"{far}/token", near)):
        assert check_endpoint(url, "`token_endpoint`", issuer) == url
    with pytest.raises(InvalidRequestError, match="`token_endpoint` must be https, as the issuer is"):
        check_endpoint(f"{near}/token", "`token_endpoint`", far)
