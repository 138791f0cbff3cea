"""TLS in the name of the hosts that a run may reach, with certificates of the run's own authority.

Clients in the run are told to trust that authority, and its certificate is constrained to these hosts. A certificate
for a host is made when it is first asked for, and kept as long as the run.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Callable, Mapping
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from remit.core.orders import wider
from remit.gateway import http2_frames
from remit.gateway.downstream import GatewayListener
from remit.gateway.fronts import Front
from remit.gateway.fronts.proxy import HostFront
from remit.ports.runs import RunReach


class Interception:
    """What a run reaches by host: TLS in the name of each, and a listener for what comes through it."""

    def __init__(self, reach: RunReach, grant: str, listener: Callable[[Front], GatewayListener]) -> None:
        self.hosts: Mapping[str, object] = reach.hosts
        self.passed = reach.passed
        self._reach, self._grant, self._new = reach, grant, listener
        self._issuer = cast("ec.EllipticCurvePrivateKey", load_pem_private_key(reach.key.reveal().encode(), None))
        self._certificate = x509.load_pem_x509_certificate(reach.certificate.encode())
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._listeners: dict[str, GatewayListener] = {}
        self.by_name = _context()  # of TLS whose server name says the host
        self.by_name.sni_callback = self._named

    def passes(self, host: str) -> str | None:
        """Return the resource by which a host is reached that is not looked into; None: there is none."""
        known = None if host in self.hosts else next(filter(self.passed.__contains__, wider(host)), None)
        return None if known is None else self.passed[known]

    def listener(self, host: str) -> GatewayListener:
        """Return the listener of connections for a host that the run reaches."""
        found = self._listeners.get(host)
        if found is None:
            front = HostFront(self._grant, host.encode(), self._reach.hosts[host])
            self._listeners[host] = found = self._new(front)
        return found

    def context(self, host: str) -> ssl.SSLContext:
        """Return what TLS for a host that the run reaches is served with; another server name is refused."""
        found = self._contexts.get(host)
        if found is None:
            found = _context()
            self._load(found, host)  # may fail for want of a descriptor: what has no certificate is not kept
            found.sni_callback = lambda _session, name, _context: (
                None if not name or name.lower() == host else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            )
            self._contexts[host] = found
        return found

    def host_of(self, session: ssl.SSLObject) -> str:
        """Return the host of a session of ``by_name``."""
        return next(host for host, context in self._contexts.items() if context is session.context)

    def _named(self, session: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
        host = "" if name is None else name.lower()
        if host not in self._reach.hosts:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        session.context = self.context(host)
        return None

    def _load(self, context: ssl.SSLContext, host: str) -> None:
        private = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = private + self._leaf(host).public_bytes(Encoding.PEM) + self._reach.certificate.encode()
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)  # the module ``ssl`` reads files alone
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(chain)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)

    def _leaf(self, host: str) -> x509.Certificate:
        """Make the certificate of a host, as CA/Browser Forum Baseline Requirements §7.1.2.7 has them."""
        issuer, public = self._certificate, self._key.public_key()
        key_of_issuer = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        usage = x509.KeyUsage(True, *[False] * 8)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(issuer.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(issuer.not_valid_before_utc)
            .not_valid_after(issuer.not_valid_after_utc)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_of_issuer), critical=False
            )
            .sign(self._issuer, hashes.SHA256())
        )


def unraisable(told: sys.UnraisableHookArgs) -> None:
    """Print what could not be raised, as Python does, but what `ssl` has of a server name that is no ASCII.

    Such a name is refused, and what clients say there is no reason to write a traceback each time.
    """
    if not (isinstance(told.exc_value, UnicodeDecodeError) and isinstance(told.object, bytes)):
        sys.__unraisablehook__(told)


def _context() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1", "h2"] if http2_frames.AVAILABLE else ["http/1.1"])  # the first costs less
    made.num_tickets = 0  # a handshake within one machine is cheaper than to keep and turn a key for tickets
    return made
