"""Who somebody was proven to be: humans by an issuer, workloads by an attester; and what an issuer later says of them.

Values alone. Adapters in ``identity/`` make them from tokens and certificates; the broker and the edges take them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from remit.core.grant import Subject

# what a workload's client assertion is (``client_assertion_type``)
JWT_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class Human:
    """A human, by an ID token or an ID-JAG that was verified.

    ``digest`` is the SHA-256 of the token (base64url), to be burnt until ``until``: one token opens one task.
    ``client`` is the party the token was issued to; ``nonce`` ties it to the one request it was obtained for.
    ``details`` is what an ID-JAG limits the task to, in wire form (RFC 9396); None: it names no limit. ``jkt`` is the
    key that an ID-JAG is bound to; None: it is a bearer's.
    ``confidential``: the party has a secret, and the token came to the broker's own callback alone.
    """

    subject: Subject
    digest: str
    issued_at: datetime
    until: datetime
    client: str
    nonce: str | None = None
    details: object = None
    jkt: str | None = None
    confidential: bool = False


@dataclass(frozen=True, slots=True)
class Workload:
    """An attested workload. ``id`` is a SPIFFE ID, or ``issuer#subject`` for the OIDC tokens of platforms.

    ``method`` is jwt-svid | x509-svid | wit | oidc. ``claims`` are what the configuration picks for policies. ``jkt``
    is the key that the credential is itself bound to (WIT), ``x5t`` the certificate it came by (RFC 8705).
    ``digest`` identifies a credential that counts once, and ``until`` is when it could not be shown again anyway; None
    where reuse is its nature.
    """

    id: str
    method: str
    expires_at: datetime
    claims: Mapping[str, str] = field(default_factory=dict)
    jkt: str | None = None
    x5t: str | None = None
    digest: str | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Signal:
    """What an issuer says of a human: the tasks opened on its word up to ``at`` are to end.

    ``sub`` is issuer-qualified; with ``sid`` it is one session only. ``cause`` is the kind of event. ``digest`` makes
    a second delivery known.
    """

    at: datetime
    cause: str
    digest: str
    sub: str | None = None
    sid: str | None = None  # issuer-qualified: issuer#sid
