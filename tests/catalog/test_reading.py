"""The reader of the table of providers refuses what it does not know."""

from __future__ import annotations

import pytest

from remit.catalog import Base, Operation, Part, Position, read
from remit.errors import InvalidRequestError, RemitError

LEAST = """
[acme]
title = "Acme"
header = "X-Acme-Key"
format = "{}"
shape = "acme_<hex:32>"
"""


def test_the_least_of_a_provider_is_where_its_key_goes_and_what_it_looks_like() -> None:
    acme = read(LEAST)["acme"]
    assert (acme.name, acme.title, acme.header, acme.format) == ("acme", "Acme", "X-Acme-Key", "{}")
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
    rotate = "https://acme.com/keys"
    """
    acme = read(LEAST + more)["acme"]
    assert acme.accepts == (Position("Authorization", "Bearer {}"),)
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
