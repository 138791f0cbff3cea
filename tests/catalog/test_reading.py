"""The reader of the table of providers refuses what it does not know."""

from __future__ import annotations

import pytest

from remit.catalog import Base, Operation, Part, Probe, read
from remit.catalog.positions import Position
from remit.errors import InvalidRequestError, RemitError

LEAST = """
[acme]
title = "Acme"
key = { header = "X-Acme-Key", format = "{}" }
shape = "acme_<hex:32>"
"""


def test_the_least_of_a_provider_is_where_its_key_goes_and_what_it_looks_like() -> None:
    acme = read(LEAST)["acme"]
    assert (acme.name, acme.title, acme.key) == ("acme", "Acme", Position("header", "X-Acme-Key"))
    assert acme.shape == (Part(text="acme_"), Part(alphabet="0123456789abcdef", count=32))
    assert (acme.destination, acme.hosts, acme.variables, acme.base, acme.mints) == (None, (), (), None, ())


def test_everything_that_may_be_said_is_read() -> None:
    more = """
    destination = "https://api.acme.com"
    hosts = ["api.acme.com"]
    accepts = [{ header = "Authorization", format = "Bearer {}" }]
    variables = ["ACME_KEY"]
    base = { variable = "ACME_URL", value = "{}/v2" }
    arguments = ["acme-account"]
    headers = ["acme-version"]
    mints = ["POST /keys/*"]
    batches = ["POST /jobs"]
    check = { path = "/v1/me?limit=1", headers = { acme-version = "2" } }
    rotate = "https://acme.com/keys"
    """
    acme = read(LEAST + more)["acme"]
    assert acme.accepts == (Position("header", "Authorization", "Bearer {}"),)
    assert acme.check == Probe("/v1/me?limit=1", (("acme-version", "2"),))
    assert acme.base == Base("ACME_URL", "{}/v2")
    assert acme.mints == (Operation("POST", "/keys/*"),)
    assert acme.batches == (Operation("POST", "/jobs"),)
    assert (acme.destination, acme.rotate) == ("https://api.acme.com", "https://acme.com/keys")
    assert (acme.hosts, acme.variables) == (("api.acme.com",), ("ACME_KEY",))
    assert (acme.arguments, acme.headers) == (("acme-account",), ("acme-version",))


WRONG = {
    "no TOML": "[acme",
    "a name in upper case": LEAST.replace("[acme]", "[Acme]"),
    "no table": "acme = 1",
    "an unknown key": LEAST + 'regex = ".*"',
    "a missing key": LEAST.replace('title = "Acme"', ""),
    "an empty title": LEAST.replace('"Acme"', '""'),
    "a title with a line end": LEAST.replace('"Acme"', '"A\\n"'),
    "a header with a space": LEAST.replace("X-Acme-Key", "X Acme"),
    "a header with a line end": LEAST.replace("X-Acme-Key", "X-Acme\\r\\nHost"),
    "a format without a place": LEAST.replace('"{}"', '"key"'),
    "a format with two places": LEAST.replace('"{}"', '"{}{}"'),
    "a shape that is guessed": LEAST.replace("<hex:32>", "<hex:31>"),
    "a shape of an unknown alphabet": LEAST.replace("<hex:32>", "<runes:32>"),
    "a shape that is half written": LEAST.replace("<hex:32>", "<hex:32><hex:>"),
    "a shape with a space": LEAST.replace("acme_", "acme "),
    "plain http": LEAST + 'destination = "http://api.acme.com"',
    "a destination with a user": LEAST + 'destination = "https://me@api.acme.com"',
    "a destination with a query": LEAST + 'destination = "https://api.acme.com/?a"',
    "a destination that is an address": LEAST + 'destination = "https://127.0.0.1"',
    "hosts that are no list": LEAST + 'hosts = "api.acme.com"',
    "a host with a wildcard": LEAST + 'hosts = ["*.acme.com"]',
    "a host twice": LEAST + 'hosts = ["a.acme.com", "a.acme.com"]',
    "a variable in lower case": LEAST + 'variables = ["acme_key"]',
    "a base without its value": LEAST + 'base = { variable = "ACME_URL" }',
    "a base that is elsewhere": LEAST + 'base = { variable = "ACME_URL", value = "https://evil.com/{}" }',
    "a position with more": LEAST + 'accepts = [{ header = "A", format = "{}", query = "key" }]',
    "a position with two places": LEAST + 'accepts = [{ basic = "{}:", query = "key" }]',
    "a position of nothing": LEAST + "accepts = [{}]",
    "a query with a format": LEAST + 'accepts = [{ query = "key", format = "{}" }]',
    "a Basic without a password": LEAST + 'accepts = [{ basic = "{}" }]',
    "a Basic without a place": LEAST + 'accepts = [{ basic = "a:b" }]',
    "a parameter with a blank": LEAST + 'accepts = [{ query = "a key" }]',
    "a field by expression": LEAST + 'accepts = [{ body = "a[*].key" }]',
    "a check without a path": LEAST + "check = {}",
    "a check elsewhere": LEAST + 'check = { path = "https://evil.com/" }',
    "a check with a blank": LEAST + 'check = { path = "/v1 /me" }',
    "a check with a method": LEAST + 'check = { path = "/me", method = "POST" }',
    "a check with headers that are text": LEAST + 'check = { path = "/me", headers = "a" }',
    "a position that is text": LEAST + 'accepts = ["Authorization"]',
    "an argument in upper case": LEAST + 'arguments = ["Acme-Account"]',
    "an operation without a method": LEAST + 'mints = ["/keys"]',
    "an operation without a path": LEAST + 'mints = ["POST"]',
    "an operation in upper case": LEAST + 'mints = ["POST /Keys"]',
    "an operation that ends in a slash": LEAST + 'mints = ["POST /keys/"]',
    "an operation with parameters": LEAST + 'mints = ["POST /keys;v=1"]',
    "an operation by expression": LEAST + 'mints = ["POST /keys/.*?"]',
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG.keys())
def test_what_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(RemitError) as caught:
        read(text)
    assert caught.value.status == 400


def test_a_refusal_names_the_provider_and_the_key() -> None:
    with pytest.raises(InvalidRequestError, match="`acme`: unknown: `regex`"):
        read(LEAST + 'regex = ".*"')
    with pytest.raises(InvalidRequestError, match=r"`acme\.hosts` must be a list"):
        read(LEAST + "hosts = 1")


def test_a_provider_that_is_known_is_replaced_by_one_that_says_so_and_no_other() -> None:
    with pytest.raises(InvalidRequestError, match="`acme` is a provider that there is already"):
        read(LEAST, {"acme"})
    with pytest.raises(InvalidRequestError, match="`acme` replaces no provider that there is"):
        read(LEAST + "replaces = true", {"other"})
    with pytest.raises(InvalidRequestError, match=r"`acme\.replaces` must be true or false"):
        read(LEAST + "replaces = 1", {"acme"})
    assert read(LEAST + "replaces = true", {"acme"})["acme"].title == "Acme"
