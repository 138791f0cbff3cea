"""Which addresses are of the public Internet. More of them in tests/identity/test_documents.py."""

from __future__ import annotations

import pytest

from remit.core.addresses import is_address, is_public


@pytest.mark.parametrize("text", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "2001:4860:4860::8888"])
def test_an_address_of_the_internet_is_public(text: str) -> None:
    assert is_public(text)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "198.18.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
        "ff02::1",
        "fe80::1%eth0",
        "2606:4700::1%eth0",
    ],
)
def test_one_that_is_not_or_stands_for_another_is_none(text: str) -> None:
    assert not is_public(text)


def test_a_host_is_an_address_or_a_name() -> None:
    assert [is_address(host) for host in ("127.0.0.1", "::1", "localhost", "1.2.3", "api.test", "")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
