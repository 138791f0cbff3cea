"""What others run, asked as the broker asks; and whom a certificate is for."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec as curves
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from remit.compose import probe
from remit.compose.probe import ProbeResult
from remit.config import settings
from remit.config.sections import TlsSection
from remit.config.settings import Settings
from remit.config.values import Address
from remit.errors import InvalidRequestError, UnavailableError
from remit.identity.documents import PublishedDocuments
from tests.identity.issuing import URL, Clock, Site, ec, public

HUMAN = {"issuer": URL, "client_id": "remit"}


def configured(**parts: object) -> Settings:
    return settings.read(settings.places({"REMIT_STATE_DIR": "/nowhere"}), parts)


def probed(site: Site, **parts: object) -> Sequence[ProbeResult]:
    return asyncio.run(probe.issuers(configured(**parts), Clock(), site))


# -- issuers ----------------------------------------------------------------------------------------------------------


def test_an_issuer_that_answers_is_reached_once_for_all_that_names_it() -> None:
    site = Site()
    workload = {"issuer": URL, "audience": "pods", "match": {"sub": "a"}}
    assert probed(site, humans=[HUMAN], workloads=[workload], signals=[{"issuer": URL}]) == [
        ProbeResult(URL, mute=True)
    ]
    assert len(site.asked) == 2  # its document, and its keys


def test_an_issuer_of_which_no_client_has_a_secret_is_mute(tmp_path: Path) -> None:
    """Its humans cannot decide; an issuer of workloads alone has none."""
    (tmp_path / "secret").write_text("s")
    (tmp_path / "secret").chmod(0o600)
    web = {**HUMAN, "client_id": "web", "client_secret_file": str(tmp_path / "secret")}
    assert probed(Site(), humans=[HUMAN, web]) == [ProbeResult(URL)]
    assert probed(Site(), workloads=[{"issuer": URL, "audience": "pods", "match": {"sub": "a"}}]) == [ProbeResult(URL)]


def test_an_issuer_that_does_not_answer_says_why() -> None:
    (found,) = probed(Site(down=True), humans=[HUMAN])
    assert found.failure == (
        f"the issuer `{URL}` cannot be asked for its keys: `{URL}/.well-known/openid-configuration` cannot be fetched"
    )


def test_an_issuer_that_takes_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PATIENCE", 0.01)

    class Slow(Site):
        async def __call__(self, url: str) -> bytes:
            del url
            return await asyncio.Future()

    (found,) = probed(Slow(), humans=[HUMAN])
    assert found.failure == "there is no answer within 0.01 seconds"


@pytest.mark.parametrize(
    ("supported", "never"),
    [(["1", "2"], ("phr", "phrh")), (["1", "phr"], ()), (None, ()), ("phr", ()), ([], ("phr", "phrh"))],
)
def test_acr_values_that_an_issuer_does_not_issue_are_found(supported: object, never: tuple[str, ...]) -> None:
    site = Site(said={"acr_values_supported": supported})
    assert probed(site, humans=[{**HUMAN, "acr": ["phr", "phrh"]}]) == [ProbeResult(URL, never=never, mute=True)]
    assert probed(site, humans=[HUMAN]) == [ProbeResult(URL, mute=True)]  # any login decides


def test_a_configuration_that_is_wrong_is_not_asked_about() -> None:
    with pytest.raises(InvalidRequestError):
        probed(Site(), humans=[{"issuer": URL}])


# -- trust domains ----------------------------------------------------------------------------------------------------


def test_a_bundle_is_read_and_one_that_is_missing_or_empty_says_so(tmp_path: Path) -> None:
    (tmp_path / "good").write_text(json.dumps({"keys": [public(ec(), use="jwt-svid")]}))
    (tmp_path / "empty").write_text('{"keys": []}')
    domains = [
        {"name": f"{name}.test", "bundle_file": str(tmp_path / name), "allow": [f"spiffe://{name}.test/*"]}
        for name in ("good", "empty", "missing")
    ]
    good, empty, missing = asyncio.run(probe.bundles(configured(trust_domains=domains), PublishedDocuments({})))
    assert good == ProbeResult("good.test")
    assert empty.failure == "the bundle of `empty.test` has no key that signs anything"
    assert missing.failure is not None
    assert missing.failure.startswith("the bundle file `missing` cannot be read: ")


def test_each_of_them_has_a_line_that_says_whether_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "good").write_text(json.dumps({"keys": [public(ec(), use="jwt-svid")]}))
    domain = {"name": "good.test", "bundle_file": str(tmp_path / "good"), "allow": ["spiffe://good.test/*"]}
    made = configured(humans=[HUMAN], trust_domains=[domain])
    issuer, bundle = asyncio.run(probe.lines(made, Clock(), PublishedDocuments({}, Site(down=True))))
    assert issuer.startswith(f"issuer {URL}: not yet, and nobody of it is let in before: the issuer `{URL}` cannot be ")
    assert bundle == "trust domain good.test: loaded"
    assert asyncio.run(probe.lines(made, Clock(), PublishedDocuments({}, Site())))[0] == f"issuer {URL}: loaded"


# -- the certificate --------------------------------------------------------------------------------------------------

NOW = datetime.now(UTC)
KEY = curves.generate_private_key(curves.SECP256R1())


def certificate(
    *names: str, days: float = 30, begun: float = 1, key: curves.EllipticCurvePrivateKey = KEY
) -> x509.Certificate:
    """Return a certificate for host names and addresses; without any it names nobody."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "remit.test")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=begun))
        .not_valid_after(NOW + timedelta(days=days))
    )
    if names:
        made = made.add_extension(x509.SubjectAlternativeName([_named(each) for each in names]), critical=False)
    return made.sign(key, SHA256())


def _named(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def written(folder: Path, made: x509.Certificate, key: curves.EllipticCurvePrivateKey = KEY, *names: str) -> TlsSection:
    """Return a listener with a certificate and a key in files."""
    pem, private = folder / "tls.pem", folder / "tls.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.touch(0o600)
    none = serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none))
    return TlsSection(Address(("127.0.0.1", 8443)), pem, private, names or ("remit.test",))


@pytest.mark.parametrize(
    ("held", "names", "missing"),
    [
        (("remit.test",), ("remit.test",), ()),
        (("REMIT.test", "10.0.0.1", "::1"), ("remit.test", "10.0.0.1", "::1"), ()),
        (("*.test",), ("remit.test", "a.remit.test", "test"), ("a.remit.test", "test")),
        (("other.test",), ("remit.test", "other.test"), ("remit.test",)),
        ((), ("remit.test",), ("remit.test",)),  # a common name counts for nobody
        (("10.0.0.2",), ("10.0.0.1",), ("10.0.0.1",)),
    ],
)
def test_a_certificate_is_for_the_names_in_it(
    held: tuple[str, ...], names: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    assert probe.unnamed(certificate(*held), names) == missing


def test_the_first_certificate_of_the_file_is_shown_and_what_is_none_is_said(tmp_path: Path) -> None:
    made = certificate("remit.test")
    found = written(tmp_path, made)
    assert probe.leaf(found) == made
    found.certificate.write_text("nonsense")
    with pytest.raises(UnavailableError):
        probe.leaf(found)
