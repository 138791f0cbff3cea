from __future__ import annotations

from pathlib import Path

import pytest

from remit.config.sections import TlsSection
from remit.config.settings import places
from remit.config.settings import read as read_settings
from remit.errors import InvalidRequestError

GOOD: dict[str, object] = {
    "listen": "0.0.0.0:8443",
    "certificate": "/etc/remit/tls.pem",
    "key": "/etc/remit/tls.key",
    "names": ["remit.example"],
}


def read(section: object) -> TlsSection | None:
    return read_settings(places({"REMIT_STATE_DIR": "/nowhere"}), {} if section is None else {"tls": section}).tls


def test_no_section_is_no_listener() -> None:
    assert read(None) is None


def test_a_listener_has_an_address_files_and_names() -> None:
    found = read(GOOD)
    assert found is not None
    assert found.listen == ("0.0.0.0", 8443)  # noqa: S104 - a setting that was read; nothing listens
    assert (found.certificate, found.key) == (Path("/etc/remit/tls.pem"), Path("/etc/remit/tls.key"))


@pytest.mark.parametrize(
    ("listen", "names", "url", "hosts"),
    [
        ("10.0.0.1:8443", ["remit.example"], "https://remit.example:8443", {"remit.example:8443"}),
        ("10.0.0.1:443", ["remit.example"], "https://remit.example", {"remit.example", "remit.example:443"}),
        ("[::1]:8443", ["::1"], "https://[::1]:8443", {"[::1]:8443"}),
        ("10.0.0.1:8443", ["b.example", "a.example"], "https://b.example:8443", {"a.example:8443", "b.example:8443"}),
        ("10.0.0.1:8443", ["10.0.0.1"], "https://10.0.0.1:8443", {"10.0.0.1:8443"}),
    ],
)
def test_the_first_name_is_the_issuers(listen: str, names: list[str], url: str, hosts: set[str]) -> None:
    found = read({**GOOD, "listen": listen, "names": names})
    assert found is not None
    assert found.url == url
    assert found.hosts == hosts


@pytest.mark.parametrize(
    "wrong",
    [
        {"listen": None},
        {"listen": 8443},
        {"listen": "8443"},
        {"listen": ":8443"},
        {"listen": "remit.example:8443"},
        {"listen": "10.0.0.1"},
        {"listen": "10.0.0.1:0"},
        {"listen": "10.0.0.1:65536"},
        {"listen": "10.0.0.1:https"},
        {"certificate": None},
        {"certificate": "tls.pem"},
        {"key": "~/tls.key"},
        {"key": 7},
        {"names": None},
        {"names": []},
        {"names": "remit.example"},
        {"names": ["Remit.example"]},
        {"names": ["remit.example:8443"]},
        {"names": ["https://remit.example"]},
        {"names": ["*.example"]},
        {"names": ["-a.example"]},
        {"names": ["a..example"]},
        {"names": ["remit.example\n"]},
        {"names": ["0:0:0:0:0:0:0:1"]},
        {"names": ["a" * 254]},
        {"client_ca": "/etc/ca.pem"},
    ],
)
def test_whatever_is_wrong_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError, match=next(iter(wrong))):
        read({**GOOD, **wrong})


def test_it_is_one_section() -> None:
    with pytest.raises(InvalidRequestError, match="section"):
        read([GOOD])
