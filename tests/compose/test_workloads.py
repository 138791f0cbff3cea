from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import structs

from remit.compose import identities
from remit.config import settings
from remit.config.settings import Settings
from remit.core.principal import JWT_SPIFFE, Workload
from remit.errors import DeniedError, InvalidRequestError, RemitError, UnauthenticatedError, UnavailableError
from remit.identity.documents import PublishedDocuments
from remit.identity.workloads.bundles import ApiSource, FileSource, SpiffeSource, TrustBundles, WebSource
from remit.link import roles
from remit.web.tls import ServerTLS
from tests.identity.spire import Authority, Domain, Held, Times, server

BROKER = "http://127.0.0.1:8470"
ENDPOINT: dict[str, object] = {
    "bundle_file": None,
    "bundle_url": "https://spire.prod.example:8443",
    "endpoint_id": "spiffe://prod.example/spire/server",
    "bootstrap_file": "/etc/remit/first.json",
}
ROW: dict[str, object] = {
    "name": "prod.example",
    "bundle_file": "/etc/remit/prod.json",
    "allow": ["spiffe://prod.example/ns/agents/*"],
}


def made(*rows: object, **more: object) -> Settings:
    where = settings.places({"REMIT_STATE_DIR": "/nowhere"})
    return settings.read(where, {"trust_domains": list(rows), **more})


def row(name: str, pattern: str) -> dict[str, object]:
    return {"name": name, "bundle_file": "/etc/remit/bundle.json", "allow": [f"spiffe://{name}{pattern}"]}


def test_no_trust_domain_lets_nobody_in() -> None:
    assert identities.bundles(made(), Times(), PublishedDocuments({})) is None
    assert identities.attested(made(), None, Times(), {}) is None


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ({"bundle_file": "/etc/remit/prod.json"}, FileSource),
        ({"bundle_url": "https://spire.prod.example/bundle"}, WebSource),
        ({"bundle_url": "https://127.0.0.1:8443/", "ca_file": "/etc/remit/ca.pem"}, WebSource),
        (
            {
                "bundle_url": "https://spire.prod.example:8443",
                "endpoint_id": "spiffe://prod.example/spire/server",
                "bootstrap_file": "/etc/remit/first.json",
            },
            SpiffeSource,
        ),
        ({"workload_api": "unix:///run/spire/agent.sock"}, ApiSource),
        ({"workload_api": "tcp://127.0.0.1:8082"}, ApiSource),
    ],
)
def test_a_bundle_comes_from_where_the_configuration_says(where: dict[str, object], kind: type) -> None:
    (found,) = made({"name": "prod.example", "allow": ROW["allow"], **where}).trust_domains
    assert isinstance(identities.source(found), kind)
    assert (found.name, found.allow) == ("prod.example", ("spiffe://prod.example/ns/agents/*",))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"name": "spiffe://prod.example"}, "name"),
        ({"name": "Prod.example"}, "name"),
        ({"name": "prod.example/ns"}, "name"),
        ({"name": "prod.example:8443"}, "name"),
        ({"bundle_file": "prod.json"}, "bundle_file"),
        ({"bundle_file": 7}, "bundle_file"),
        ({"bundle_url": "https://a.example/"}, "exactly one"),
        ({"ca_file": "/etc/ca.pem"}, "ca_file"),
        ({"endpoint_id": "spiffe://prod.example/spire/server"}, "go together"),
        ({"bootstrap_file": "/etc/first.json"}, "go together"),
        ({"endpoint_id": "spiffe://prod.example/a", "bootstrap_file": "/etc/first.json"}, "with `bundle_url`"),
        ({**ENDPOINT, "ca_file": "/etc/ca.pem"}, "ca_file"),
        ({**ENDPOINT, "endpoint_id": "spiffe://other.example/a"}, "endpoint_id"),
        ({**ENDPOINT, "endpoint_id": "https://prod.example/a"}, "SPIFFE ID"),
        ({"allow": None}, "allow"),
        ({"allow": []}, "allow"),
        ({"allow": "spiffe://prod.example/**"}, "allow"),
        ({"allow": ["*"]}, "allow"),
        ({"allow": ["spiffe://prod.example"]}, "allow"),
        ({"allow": ["spiffe://other.example/**"]}, "allow"),
        ({"allow": ["spiffe://prod.example.evil/**"]}, "allow"),
        ({"allow": ["spiffe://*/ns"]}, "allow"),
        ({"allow": ["spiffe://prod.example/a*"]}, "pattern"),
        ({"allow": ["spiffe://prod.example/**/a"]}, "pattern"),
        ({"allow": ["spiffe://prod.example/a/"]}, "pattern"),
        ({"allow": [7]}, "allow"),
        ({"allow": ["spiffe://prod.example/a"] * 33}, "allow"),
        ({"secret": "x"}, "secret"),
    ],
)
def test_whatever_is_wrong_is_named(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        made({**ROW, **wrong})


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"bundle_url": "http://spire.prod.example/"},
        {"bundle_url": "http://127.0.0.1/"},
        {"bundle_url": "https://user:secret@a.example/"},
        {"bundle_url": "https://a.example/#x"},
        {"bundle_url": 7},
        {"bundle_url": "https://a.example/", "ca_file": "ca.pem"},
        {"workload_api": "/run/spire/agent.sock"},
        {"workload_api": "unix://agent.sock"},
        {"workload_api": "https://a.example/"},
    ],
)
def test_a_source_that_is_none_is_refused(where: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError):
        made({"name": "prod.example", "allow": ROW["allow"], **where})


def test_a_trust_domain_is_configured_once_and_is_not_the_brokers_own() -> None:
    with pytest.raises(InvalidRequestError, match="twice"):
        made(ROW, ROW)
    with pytest.raises(InvalidRequestError, match="the broker itself"):
        made(ROW, identity={"trust_domain": "prod.example"})
    for bad in ("prod.example", [ROW], None):
        with pytest.raises(InvalidRequestError, match="tables"):
            made(bad)


def test_each_trust_domain_is_believed_in_its_own_names_alone() -> None:
    one, two = Domain("one.example"), Domain("two.example")
    held = {domain.name: Held(domain.bundle()) for domain in (one, two)}
    configured = made(*(row(domain.name, "/ns/agents/*") for domain in (one, two)))
    found = identities.attested(configured, TrustBundles(held, Times()), Times(), {})
    assert found is not None

    async def scene() -> None:
        for domain in (one, two):
            assert (await found.assertion(domain.jwt(BROKER), JWT_SPIFFE)).id == domain.id()
            assert (await found.certified(domain.svid().ders)).id == domain.id()
        for shown in (
            found.assertion(one.jwt(BROKER, sub=two.id()), JWT_SPIFFE),
            found.certified(one.authority.svid(two.id()).ders),
            found.assertion(one.jwt(BROKER, sub=one.id("/ns/others/a")), JWT_SPIFFE),
            found.assertion(one.jwt(BROKER), "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ):
            with pytest.raises(RemitError) as caught:
                await shown
            assert isinstance(caught.value, UnauthenticatedError)

    asyncio.run(scene())


def test_platforms_are_believed_with_and_without_trust_domains() -> None:
    async def platform(token: str) -> Workload:
        return Workload(token, "oidc", Times()())

    async def scene() -> None:
        for configured in (made(), made(row("one.example", "/**"))):
            held = identities.bundles(configured, Times(), PublishedDocuments({}))
            found = identities.attested(configured, held, Times(), {"urn:platform": platform})
            assert found is not None
            assert (await found.assertion("job", "urn:platform")).id == "job"

    asyncio.run(scene())


def test_server_metadata_names_the_ways_that_there_are(tmp_path: Path) -> None:
    assert identities.methods(made()) == ()
    assert identities.methods(made(ROW)) == ("spiffe_jwt",)
    with_tls = structs.replace(tls(tmp_path), trust_domains=made(ROW).trust_domains)
    assert identities.methods(with_tls) == ("spiffe_jwt", "spiffe_x509")


# -- the TLS listener -------------------------------------------------------------------------------------------------


def tls(directory: Path, mode: int = 0o600) -> Settings:
    svid = server(Authority.root("the web"), "127.0.0.1")
    (directory / "tls.pem").write_bytes(svid.chain[0].public_bytes(Encoding.PEM))
    key = directory / "tls.key"
    key.write_bytes(svid.pem)
    key.chmod(mode)
    files = {"certificate": str(directory / "tls.pem"), "key": str(key)}
    return made(tls={"listen": "127.0.0.1:8443", "names": ["127.0.0.1"], **files})


def door(settings: Settings) -> ServerTLS | None:
    assert settings.tls is not None
    return identities.server_tls(settings, identities.CertificateFiles(settings.tls).read, None)


def test_web_alone_may_ask_for_the_key_of_the_certificate() -> None:
    roles.check_method(roles.WEB, "server_certificate")
    with pytest.raises(DeniedError):
        roles.check_method(roles.EDGE, "server_certificate")


def test_without_tls_there_is_no_door(tmp_path: Path) -> None:
    assert identities.server_tls(made(), lambda: (b"", b""), None) is None
    assert door(tls(tmp_path)) is not None


def test_files_that_take_the_place_of_others_are_what_is_read_next(tmp_path: Path) -> None:
    tls(tmp_path)
    found = made(
        tls={
            "listen": "127.0.0.1:8443",
            "names": ["127.0.0.1"],
            "certificate": str(tmp_path / "live" / "tls.pem"),
            "key": str(tmp_path / "live" / "tls.key"),
        }
    )
    assert found.tls is not None
    files, seen = identities.CertificateFiles(found.tls), set[tuple[bytes, bytes]]()
    for edition in "abc":  # as cert-manager and certbot lay them out: links, of which one is led elsewhere in one step
        (tmp_path / edition).mkdir()
        tls(tmp_path / edition)
        (tmp_path / "fresh").symlink_to(edition)
        (tmp_path / "fresh").replace(tmp_path / "live")
        assert files.read() == asyncio.run(files.server_certificate())
        seen.add(files.read())
    assert len(seen) == 3
    (tmp_path / "tls.pem").replace(tmp_path / "c" / "tls.pem")
    assert files.read()[0] not in {certificate for certificate, _ in seen}
    (tmp_path / "c" / "tls.pem").write_bytes(bytes(identities.MAX_PEM + 1))
    with pytest.raises(UnavailableError):
        files.read()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_key_that_others_can_read_or_write_opens_no_door(tmp_path: Path, mode: int) -> None:
    with pytest.raises(InvalidRequestError, match="others"):
        door(tls(tmp_path, mode))


def test_a_key_that_is_missing_or_no_key_opens_no_door(tmp_path: Path) -> None:
    found = tls(tmp_path)
    (tmp_path / "tls.key").write_bytes(b"")
    with pytest.raises(UnavailableError):
        door(found)
    (tmp_path / "tls.key").unlink()
    with pytest.raises(InvalidRequestError):
        door(found)
