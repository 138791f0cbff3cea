"""The certificate authority of one run: clients in it trust it, nobody else does, and it speaks for its hosts alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from ipaddress import ip_network
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from remit.core.secret import Secret
from remit.ports.runs import ReachedHost, RunReach

_SKEW = timedelta(hours=1)  # that a clock may be off


NOTHING: Mapping[str, str] = MappingProxyType({})
NOWHERE = "invalid"  # RFC 6761 §6.4: what is permitted where there are no hosts, as one name has to be


def reach(
    run: str, hosts: Mapping[str, ReachedHost], now: datetime, until: datetime, passed: Mapping[str, str] = NOTHING
) -> RunReach:
    """Make the authority of a run for the hosts that it reaches, valid ``until`` its grant has ended.

    Its name constraints (RFC 5280 §4.2.1.10) permit these hosts, what is below them, and no address. For those that
    are ``passed`` on it does not speak.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"remit {run}")])
    # digital_signature, content_commitment, key_encipherment, data_encipherment, key_agreement, key_cert_sign, …
    usage = x509.KeyUsage(False, False, False, False, False, True, False, False, False)
    addresses = [x509.IPAddress(ip_network(every)) for every in ("0.0.0.0/0", "::/0")]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(until + _SKEW)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.NameConstraints([x509.DNSName(host) for host in sorted(hosts) or [NOWHERE]], addresses), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return RunReach(hosts, made.public_bytes(Encoding.PEM).decode(), Secret(private.decode()), passed)
