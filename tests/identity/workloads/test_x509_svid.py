from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from remit.core.principal import Workload
from remit.errors import UnauthenticatedError, UnavailableError
from remit.identity.workloads import certificates as module
from remit.identity.workloads.attested import AttestedWorkloads
from remit.identity.workloads.bundles import TrustBundles
from remit.identity.workloads.certificates import MAX_CHAIN
from tests.identity.spire import BOTH, NOW, Authority, Domain, Held, Svid, Times, key, usage

DOMAIN = Domain("prod.example")
OTHER = Domain("other.example")
ALLOW = ("spiffe://prod.example/ns/agents/**", "spiffe://other.example/**")
ME = DOMAIN.id()


def certificates(clock: Times | None = None, **sources: Held) -> AttestedWorkloads:
    held = {one.name: Held(one.bundle()) for one in (DOMAIN, OTHER)}
    named = {name.replace("_", "."): source for name, source in sources.items()}
    times = clock or Times()
    return AttestedWorkloads({}, "", times, TrustBundles({**held, **named}, times), ALLOW)


def certified(chain: Sequence[bytes], by: AttestedWorkloads | None = None) -> Workload:
    return asyncio.run((by or certificates()).certified(chain))


def test_an_x509_svid_names_its_workload_until_it_ends() -> None:
    svid = DOMAIN.svid()
    found = certified(svid.ders)
    assert (found.id, found.method, found.x5t, found.jkt, found.digest) == (ME, "x509-svid", svid.x5t, None, None)
    assert found.expires_at == svid.chain[0].not_valid_after_utc


def test_intermediates_may_come_with_it_in_any_order() -> None:
    deep = DOMAIN.authority.below("region", x509.BasicConstraints(ca=True, path_length=1), usage("key_cert_sign"))
    svid = deep.below("node").svid(ME)
    leaf, *others = svid.ders
    assert certified([leaf, *others]).id == certified([leaf, *reversed(others)]).id == ME


def test_one_whose_intermediate_is_missing_is_refused() -> None:
    svid = DOMAIN.authority.below("region").svid(ME)
    with pytest.raises(UnauthenticatedError, match="not valid under"):
        certified(svid.ders[:1])


@pytest.mark.parametrize("size", [0, MAX_CHAIN + 1])
def test_no_certificate_and_too_many_are_refused(size: int) -> None:
    with pytest.raises(UnauthenticatedError):
        certified(DOMAIN.svid().ders * size)


# -- the leaf ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uris",
    [
        (),
        (ME, ME),
        (ME, "spiffe://prod.example/ns/agents/admin"),
        (ME, "https://prod.example/planner"),
        ("https://prod.example/ns/agents/planner",),
        ("spiffe://prod.example",),
        ("spiffe://prod.example/",),
        ("spiffe://prod.example/ns/agents/planner/",),
        ("spiffe://prod.example/ns//planner",),
        ("spiffe://prod.example/ns/agents/../admin",),
        ("spiffe://prod.example/ns/agents/%61dmin",),
        ("spiffe://prod.example:443/ns/agents/planner",),
        ("SPIFFE://prod.example/ns/agents/planner",),
    ],
)
def test_a_leaf_has_exactly_one_uri_and_it_is_a_workloads_name(uris: tuple[str, ...]) -> None:
    with pytest.raises(UnauthenticatedError):
        certified(DOMAIN.authority.svid(*uris).ders)


def test_a_trust_domain_is_no_workload_of_its_own() -> None:
    with pytest.raises(UnauthenticatedError, match="not a workload"):
        certified(DOMAIN.authority.svid("spiffe://prod.example").ders)


def test_names_of_other_kinds_beside_the_uri_are_no_second_identity() -> None:
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(ME), x509.DNSName("planner.prod.example")])
    assert certified(DOMAIN.authority.svid(names=names).ders).id == ME


@pytest.mark.parametrize(
    "more",
    [
        {"constraints": x509.BasicConstraints(ca=True, path_length=0)},
        {"usage": None},
        {"usage": usage("key_encipherment")},
        {"usage": usage("digital_signature", "key_cert_sign")},
        {"usage": usage("digital_signature", "crl_sign")},
        {"extended": x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])},
        {"extended": x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])},
    ],
)
def test_a_leaf_that_is_for_something_else_is_refused(more: dict[str, object]) -> None:
    with pytest.raises(UnauthenticatedError):
        certified(DOMAIN.svid("/ns/agents/planner", **more).ders)


@pytest.mark.parametrize(
    "more",
    [
        {"constraints": None},
        {"extended": None},
        {"usage": usage("digital_signature", "key_agreement", "key_encipherment")},
        {"extended": x509.ExtendedKeyUsage([*BOTH, ExtendedKeyUsageOID.EMAIL_PROTECTION])},
    ],
)
def test_a_leaf_may_have_or_lack_what_the_specification_leaves_open(more: dict[str, object]) -> None:
    assert certified(DOMAIN.svid("/ns/agents/planner", **more).ders).id == ME


@pytest.mark.parametrize(
    ("at", "counts"),
    [
        (timedelta(minutes=-2), False),
        (timedelta(0), True),
        (timedelta(minutes=59, seconds=59), True),
        (timedelta(hours=1, seconds=1), False),
    ],
)
def test_a_leaf_counts_between_its_two_ends_and_no_longer(at: timedelta, counts: bool) -> None:  # noqa: FBT001 - a case
    by = certificates(Times(NOW + at))
    if counts:
        assert certified(DOMAIN.svid().ders, by).id == ME
    else:
        with pytest.raises(UnauthenticatedError):
            certified(DOMAIN.svid().ders, by)


def test_a_name_that_no_pattern_allows_is_refused() -> None:
    with pytest.raises(UnauthenticatedError, match="pattern"):
        certified(DOMAIN.svid("/ns/others/planner").ders)


def test_a_critical_extension_that_is_unknown_is_refused() -> None:
    strange = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\0")
    svid = DOMAIN.authority.svid(ME, more=strange)
    assert certified(svid.ders).id == ME  # as it is not critical
    with pytest.raises(UnauthenticatedError, match="critical"):
        certified([_critical(svid.chain[0])])


def _critical(old: x509.Certificate) -> bytes:
    """Sign a certificate anew, with all extensions critical."""
    made = x509.CertificateBuilder(
        old.issuer, old.subject, old.public_key(), 7, old.not_valid_before_utc, old.not_valid_after_utc
    )
    for extension in old.extensions:
        made = made.add_extension(extension.value, critical=True)
    return made.sign(DOMAIN.authority.key, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"\x30\x82\xff\xff", b"-----BEGIN CERTIFICATE-----"])
def test_what_is_no_certificate_is_refused(der: bytes) -> None:
    for chain in ([der], [DOMAIN.svid().ders[0], der]):
        with pytest.raises(UnauthenticatedError):
            certified(chain)


# -- the chain --------------------------------------------------------------------------------------------------------


def test_an_authority_of_one_trust_domain_signs_nothing_for_another() -> None:
    for authority, name in ((OTHER.authority, DOMAIN.id()), (DOMAIN.authority, OTHER.id())):
        with pytest.raises(UnauthenticatedError, match="not valid under"):
            certified(authority.svid(name).ders)


def test_an_authority_that_the_client_brings_is_not_believed() -> None:
    for forged in (Authority.root("prod.example", ("spiffe://prod.example",)), Authority.root("stranger")):
        svid = forged.svid(ME)
        with pytest.raises(UnauthenticatedError):
            certified((*svid.ders, forged.certificate.public_bytes(Encoding.DER)))


def test_a_workload_is_no_authority() -> None:
    """A leaf signs another leaf: its own key, its own chain, all true but for what it may sign."""
    above = DOMAIN.svid()
    forger = Authority(above.key, above.chain[0], above.chain)
    with pytest.raises(UnauthenticatedError):
        certified(forger.svid(DOMAIN.id("/ns/agents/admin")).ders)


@pytest.mark.parametrize(
    "extensions",
    [
        (x509.BasicConstraints(ca=False, path_length=None), usage("key_cert_sign")),
        (x509.BasicConstraints(ca=True, path_length=None), usage("digital_signature")),
        (usage("key_cert_sign"),),
        (x509.BasicConstraints(ca=True, path_length=0),),
    ],
)
def test_an_intermediate_that_may_not_sign_is_none(extensions: tuple[x509.ExtensionType, ...]) -> None:
    with pytest.raises(UnauthenticatedError):
        certified(DOMAIN.authority.below("node", *extensions).svid(ME).ders)


def test_a_chain_is_no_longer_than_its_authorities_allow() -> None:
    first = DOMAIN.authority.below("first")  # may sign leaves alone
    with pytest.raises(UnauthenticatedError):
        certified(first.below("second").svid(ME).ders)


def test_an_intermediate_that_has_ended_signs_nothing_any_more() -> None:
    svid = DOMAIN.authority.below("node", days=1 / 48).svid(ME)
    assert certified(svid.ders).id == ME
    with pytest.raises(UnauthenticatedError):
        certified(svid.ders, certificates(Times(NOW + timedelta(minutes=31))))


# -- name constraints on URIs (RFC 5280 §4.2.1.10): the host of a SPIFFE ID is its trust domain ------------------------


def limited(*hosts: str, forbidden: bool = False, of: Authority | None = None) -> Authority:
    """Return an authority below one, by default of the trust domain, that may name these hosts alone, or all others."""
    trees = [x509.UniformResourceIdentifier(host) for host in hosts]
    constraints = x509.NameConstraints(None, trees) if forbidden else x509.NameConstraints(trees, None)
    parts = (x509.BasicConstraints(ca=True, path_length=1), usage("key_cert_sign"), constraints)
    return (of or DOMAIN.authority).below("limited", *parts)


@pytest.mark.parametrize(
    ("hosts", "forbidden", "counts"),
    [
        (("prod.example",), False, True),
        (("other.example", "prod.example"), False, True),
        ((".example",), False, True),
        (("other.example",), False, False),
        ((".prod.example",), False, False),  # what is below it, and not itself
        (("prod.example",), True, False),
        ((".example",), True, False),
        (("other.example",), True, True),
    ],
)
def test_an_authority_names_what_it_may_name_and_nothing_else(
    hosts: tuple[str, ...],
    forbidden: bool,  # noqa: FBT001 - a case
    counts: bool,  # noqa: FBT001 - a case
) -> None:
    for below in (limited(*hosts, forbidden=forbidden), limited(*hosts, forbidden=forbidden).below("node")):
        with nullcontext() if counts else pytest.raises(UnauthenticatedError):
            assert certified(below.svid(ME).ders).id == ME


def test_a_limit_counts_for_an_authority_of_the_bundle_as_well() -> None:
    for hosts, counts in ((("prod.example",), True), (("other.example",), False)):
        alone = replace(limited(*hosts), above=())
        x5c = base64.b64encode(alone.certificate.public_bytes(Encoding.DER)).decode()
        raw = json.dumps({"keys": [{"use": "x509-svid", "kty": "EC", "x5c": [x5c]}]}).encode()
        with nullcontext() if counts else pytest.raises(UnauthenticatedError):
            assert certified(alone.svid(ME).ders, certificates(prod_example=Held(raw))).id == ME


def test_what_is_asked_of_other_chains_is_asked_of_limited_ones() -> None:
    parts = x509.BasicConstraints(ca=True, path_length=0), usage("key_cert_sign")
    good = limited("prod.example")
    wrong = [
        good.svid(ME, now=NOW - timedelta(hours=2)),  # it has ended
        good.below("node", *parts).below("too far").svid(ME),
        good.below("node", parts[0]).svid(ME),
        good.below("node", parts[0], usage("digital_signature")).svid(ME),
        good.below("node", parts[1]).svid(ME),
        good.below("node", *parts, days=-1 / 2_880).svid(ME),
        limited("prod.example", of=Authority.root("prod.example")).svid(ME),  # of nobody that is known
        replace(good, key=key()).svid(ME),  # of a key that is not its own
        Svid(good.svid(ME).key, good.svid(ME).chain[:1]),  # a chain that leads nowhere
    ]
    for svid in wrong:
        with pytest.raises(UnauthenticatedError):
            certified(svid.ders)


def test_an_authority_with_a_weak_key_is_none_under_a_limit() -> None:
    trees = x509.NameConstraints([x509.UniformResourceIdentifier("prod.example")], None)
    weak = replace(limited("prod.example"), key=rsa.generate_private_key(65_537, 1_024))  # noqa: S505 - that is the case
    made = (
        x509.CertificateBuilder()
        .subject_name(weak.certificate.subject)
        .issuer_name(DOMAIN.authority.certificate.subject)
    )
    made = made.public_key(weak.key.public_key()).serial_number(7)
    made = made.not_valid_before(NOW - timedelta(minutes=1)).not_valid_after(NOW + timedelta(hours=1))
    for part in (x509.BasicConstraints(ca=True, path_length=0), usage("key_cert_sign"), trees):
        made = made.add_extension(part, critical=True)
    certificate = made.sign(DOMAIN.authority.key, hashes.SHA256())
    with pytest.raises(UnauthenticatedError, match="too weak"):
        certified(Authority(weak.key, certificate, (certificate,)).svid(ME).ders)


def test_without_the_library_that_understands_them_an_authority_with_limits_signs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "crypto", None)
    with pytest.raises(UnauthenticatedError, match="pyOpenSSL"):
        certified(limited("prod.example").svid(ME).ders)


# -- bundles with what nobody understands -----------------------------------------------------------------------------


def test_an_authority_that_is_not_understood_does_not_discredit_the_others() -> None:
    strange = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\0")
    parts = (x509.BasicConstraints(ca=True, path_length=0), usage("key_cert_sign"), strange)
    odd = DOMAIN.authority.below("odd", *parts)
    keys = json.loads(DOMAIN.bundle())["keys"]
    keys.insert(0, {"use": "x509-svid", "x5c": [base64.b64encode(_critical(odd.certificate)).decode()]})
    by = certificates(prod_example=Held(json.dumps({"keys": keys}).encode()))
    assert certified(DOMAIN.svid().ders, by).id == ME
    with pytest.raises(UnauthenticatedError):
        certified((odd.svid(ME).ders[0], _critical(odd.certificate)), by)


def test_an_intermediate_may_be_the_anchor() -> None:
    """Upstream authorities: a bundle may hold a certificate that is not self-signed."""
    node = DOMAIN.authority.below("node")
    x5c = base64.b64encode(node.certificate.public_bytes(Encoding.DER)).decode()
    raw = json.dumps({"keys": [{"use": "x509-svid", "kty": "EC", "x5c": [x5c]}]}).encode()
    by = certificates(prod_example=Held(raw))
    assert certified(node.svid(ME).ders, by).id == ME
    with pytest.raises(UnauthenticatedError):
        certified(DOMAIN.svid().ders, by)


# -- bundles ----------------------------------------------------------------------------------------------------------


def test_an_authority_that_left_the_bundle_is_not_believed_at_the_next_look() -> None:
    async def scene() -> None:
        source, clock = Held(DOMAIN.bundle(spiffe_refresh_hint=60)), Times()
        made, old = certificates(clock, prod_example=source), DOMAIN.svid()
        assert (await made.certified(old.ders)).id == ME
        renewed = Domain(DOMAIN.name)
        source.raw = renewed.bundle(spiffe_sequence=2)
        clock.pass_(seconds=60)
        assert (await made.certified(renewed.svid().ders)).id == ME
        with pytest.raises(UnauthenticatedError):
            await made.certified(old.ders)

    asyncio.run(scene())


def test_a_trust_domain_that_is_not_configured_is_refused() -> None:
    with pytest.raises(UnauthenticatedError, match="not configured"):
        certified(Domain("stranger.example").svid().ders)


def test_without_a_bundle_nobody_is_believed() -> None:
    with pytest.raises(UnavailableError):
        certified(DOMAIN.svid().ders, certificates(prod_example=Held(b"", out=True)))


def test_a_bundle_without_authorities_believes_no_certificate() -> None:
    with pytest.raises(UnauthenticatedError, match="no authority"):
        certified(DOMAIN.svid().ders, certificates(prod_example=Held(b'{"keys": []}')))
