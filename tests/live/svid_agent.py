"""An agent that speaks SPIFFE by the official client, told line by line what to do. It runs inside ``remit run``."""

from __future__ import annotations

import json
import socket
import ssl
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import SpiffeId, TrustDomain, WorkloadApiClient, X509Bundle, X509Source, X509Svid
from spiffe.svid.jwt_svid import JwtSvid

warnings.filterwarnings("ignore", category=DeprecationWarning)
PATIENCE = 60.0  # seconds


class Agent:
    """What it knows: the client, and once asked for, a source that keeps itself fresh."""

    def __init__(self) -> None:
        self.client = WorkloadApiClient(default_timeout=PATIENCE)
        self.source: X509Source | None = None
        self.changed = threading.Event()
        self.errors: list[str] = []
        self.failed = threading.Event()

    def x509(self) -> dict[str, Any]:
        return shown(self.client.fetch_x509_svid())

    def x509_bundle(self) -> dict[str, Any]:
        bundles = self.client.fetch_x509_bundles()
        return {str(each.trust_domain): len(each.x509_authorities) for each in bundles.bundles}

    def jwt(self, audience: list[str], subject: str | None = None) -> dict[str, Any]:
        svid = self.client.fetch_jwt_svid(set(audience), SpiffeId(subject) if subject else None)
        return {"id": str(svid.spiffe_id), "token": svid.token, "expiry": svid.expiry}

    def validate(self, token: str, audience: str) -> dict[str, Any]:
        """Validate by the Workload API, and by the bundle alone; both must agree."""
        asked = self.client.validate_jwt_svid(token, audience)
        domain = asked.spiffe_id.trust_domain
        bundle = self.client.fetch_jwt_bundles().get_bundle_for_trust_domain(TrustDomain(str(domain)))
        assert bundle is not None
        own = JwtSvid.parse_and_validate(token, bundle, {audience})
        return {"asked": str(asked.spiffe_id), "own": str(own.spiffe_id)}

    def watch(self) -> dict[str, Any]:
        """Begin to follow the Workload API; return the SVID there is."""
        self.source = X509Source(timeout_in_seconds=PATIENCE)
        self.source.subscribe_for_updates(self.changed.set)
        self.client.stream_x509_contexts(lambda _: None, self.note, retry_connect=False)
        return shown(self.source.svid)

    def note(self, error: Exception) -> None:
        self.errors.append(str(error))
        self.failed.set()

    def update(self, serial: str) -> dict[str, Any]:
        """Return the SVID that comes after the one with this serial number."""
        assert self.source is not None
        while True:
            self.changed.clear()
            found = shown(self.source.svid)
            if found["serial"] != serial:
                return found
            assert self.changed.wait(PATIENCE)

    def end(self) -> dict[str, Any]:
        """Return how the stream ended."""
        assert self.failed.wait(PATIENCE)
        return {"ended": self.errors}

    def call(self, path: str, domain: str) -> dict[str, Any]:
        """Speak to a service of a trust domain with mutual TLS; return who it was and what it said."""
        context = self.client.fetch_x509_context()
        svid, bundle = context.default_svid, context.x509_bundle_set.get_bundle_for_trust_domain(TrustDomain(domain))
        assert bundle is not None
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(PATIENCE)
            raw.connect(path)
            with tls(svid, bundle).wrap_socket(raw) as secured:
                certificate: Any = secured.getpeercert()
                (name,) = [value for kind, value in certificate["subjectAltName"] if kind == "URI"]
                return {"server": name, "said": secured.recv(1_000).decode()}


def tls(svid: X509Svid, bundle: X509Bundle) -> ssl.SSLContext:
    """Return a client's context: nobody but the trust domain vouches for the other side."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False  # a SPIFFE ID is no host name; the caller looks at it
    if str(svid.spiffe_id.trust_domain) == str(bundle.trust_domain):
        made.verify_flags |= ssl.VERIFY_X509_STRICT  # of our own; others may be older than RFC 5280
    made.load_verify_locations(cadata=b"".join(each.public_bytes(Encoding.DER) for each in bundle.x509_authorities))
    with tempfile.TemporaryDirectory() as folder:
        chain, key = Path(folder, "chain"), Path(folder, "key")
        svid.save(chain, key, Encoding.PEM)
        made.load_cert_chain(chain, key)
    return made


def shown(svid: X509Svid) -> dict[str, Any]:
    """Return an SVID as text."""
    leaf = svid.leaf
    return {
        "id": str(svid.spiffe_id),
        "serial": f"{leaf.serial_number:x}",
        "until": leaf.not_valid_after_utc.isoformat(),
    }


def main() -> None:
    """Answer each line with one."""
    agent = Agent()
    for line in sys.stdin:
        told = json.loads(line)
        try:
            answer = getattr(agent, told.pop("do"))(**told)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
