"""Who asks at the token endpoint: an attested workload, a public client that names itself, or nobody in particular.

A workload shows one of: a JWT-SVID or an OIDC token as its client assertion (RFC 7523 §2.2), an X.509-SVID in the TLS
handshake with its SPIFFE ID as ``client_id`` (RFC 8705 §2), or a WIT with a proof of its key (WIMSE). No client is
registered for any of them: which workloads are let in is decided by trust domain, path and claims.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request

from remit import jose
from remit.core import spiffe
from remit.core.principal import JWT_BEARER, JWT_SPIFFE, Workload
from remit.errors import InvalidRequestError, TokenError, UnauthenticatedError, UsedError
from remit.ports.identity import Workloads
from remit.web.authentication import certificates_of, url_of

WIT, WPT = "workload-identity-token", "workload-proof-token"
FIELDS = frozenset({"client_id", "client_assertion", "client_assertion_type"})

_ID = re.compile(r"[A-Za-z0-9:/?#\[\]@!$&'()*+,;=._~%-]{1,512}")  # what a URI may hold
_OIDC = re.compile(r"[^#]*://[^#]*#")  # issuer#subject; the id of no other client is a URL with a fragment
_SPIFFE = "spiffe://"

Form = Mapping[str, str]


class Spender(Protocol):
    """What sees to it that a credential which counts once is not taken twice."""

    @property
    def issuer(self) -> str:
        """This broker's URL."""
        ...

    async def spend(self, workload: Workload, texts: Sequence[str], url: str) -> Workload:
        """Use up what a client showed; ``texts`` are its request's proofs. UsedError if it was used before."""
        ...


@dataclass(frozen=True, slots=True)
class Client:
    """An OAuth client. ``id`` is empty for one that names itself nothing; ``workload`` is set when it was attested."""

    id: str = ""
    workload: Workload | None = None

    def check_named(self) -> None:
        """Raise UnauthenticatedError for a client that calls itself by a workload's name and proves nothing."""
        if self.workload is None and (self.id.startswith(spiffe.SCHEMES) or _OIDC.match(self.id)):
            raise UnauthenticatedError("a client with a workload's name has to prove it")


class Clients:
    """Authenticates the clients of the token endpoint."""

    def __init__(self, workloads: Workloads | None, spender: Spender) -> None:
        """Believe what ``workloads`` verifies, as often as ``spender`` lets it; without it no workload."""
        self._workloads, self._issuer, self._spend = workloads, spender.issuer, spender.spend

    async def authenticate(self, request: Request, form: Form) -> Client:
        """Return who asks, or raise UnauthenticatedError; InvalidRequestError when it says so in more than one way.

        A client that proves nothing is public: its name is its own affair, and worth nothing as a proof.
        """
        if request.headers.getlist("authorization"):
            raise UnauthenticatedError("a client does not authenticate by `Authorization` here")
        named = form.get("client_id", "")
        if named and not _ID.fullmatch(named):
            raise InvalidRequestError("`client_id` must be a URI or a name")
        ways = [way for way, shown in _shown(request, form, named) if shown]
        if len(ways) > 1:
            raise InvalidRequestError("a client authenticates in one way, not in several")
        if not ways:
            return Client(named)
        workload = await self._workload(ways[0], request, form)
        if named not in _names(workload):
            raise UnauthenticatedError("`client_id` is not whom the credential names")
        return Client(workload.id, await self._spent(request, workload))

    async def _spent(self, request: Request, workload: Workload) -> Workload:
        try:
            return await self._spend(workload, request.headers.getlist("dpop"), url_of(request, self._issuer))
        except UsedError as error:
            kind = TokenError if workload.method == "wit" else UnauthenticatedError
            raise kind("the client's credential counts once, and was used", help="get a new one") from error

    async def _workload(self, way: str, request: Request, form: Form) -> Workload:
        try:
            return await self._verified(way, request, form)
        except UnauthenticatedError as error:
            # draft-ietf-wimse-wpt: 400, as there is no challenge to answer with
            kind = TokenError if way == "wit" else UnauthenticatedError
            raise kind(error.detail, help=error.help) from error

    def _verified(self, way: str, request: Request, form: Form) -> Awaitable[Workload]:
        shown = _assertion(form) if way == "assertion" else ("", "")
        proof = _proof(request, form, self._issuer) if way == "wit" else ("", "", "", None)
        if self._workloads is None:
            raise UnauthenticatedError("no workloads are let in here: no trust domain and no issuer is configured")
        match way:
            case "assertion":
                return self._workloads.assertion(*shown)
            case "wit":
                return self._workloads.proven(*proof)
        return self._workloads.certified(certificates_of(request))


def _shown(request: Request, form: Form, named: str) -> tuple[tuple[str, bool], ...]:
    certified = bool(certificates_of(request)) and named.startswith(_SPIFFE)
    return (
        ("assertion", bool(form.keys() & {"client_assertion", "client_assertion_type"})),
        ("wit", bool(request.headers.getlist(WIT) or request.headers.getlist(WPT))),
        ("certificate", certified),
    )


def _names(workload: Workload) -> set[str]:
    """Return what a workload may call itself: for an OIDC token its bare subject too, and nothing at all."""
    return {"", workload.id, workload.id.partition("#")[2]}


def _assertion(form: Form) -> tuple[str, str]:
    if form.get("client_assertion_type") not in {JWT_SPIFFE, JWT_BEARER} or "client_assertion" not in form:
        raise InvalidRequestError("`client_assertion` and a `client_assertion_type` that is known here go together")
    return form["client_assertion"], form["client_assertion_type"]


def _proof(request: Request, form: Form, issuer: str) -> tuple[str, str, str, str | None]:
    """Return WIT, WPT, the target and the token that the proof must cover: the one that is to be exchanged."""
    wit, wpt = request.headers.getlist(WIT), request.headers.getlist(WPT)
    if len(wit) != 1 or len(wpt) != 1:
        raise InvalidRequestError("there must be one Workload-Identity-Token and one Workload-Proof-Token")
    return wit[0], wpt[0], url_of(request, issuer), form.get("subject_token")


def assertion_type(token: str) -> str:
    """Return as what a workload's JWT is to be verified.

    It is a WIT by its ``typ``, a JWT-SVID if it says that its subject has a SPIFFE ID, else a platform's OIDC token.
    What it says is believed by nobody before it is verified as just that.
    """
    compact = jose.read(token, frozenset({"typ"}), UnauthenticatedError, others=True)
    if compact.header.get("typ") == "wit+jwt":
        return WIT
    subject = jose.document(compact.payload, UnauthenticatedError).get("sub")
    return JWT_SPIFFE if isinstance(subject, str) and subject.startswith(_SPIFFE) else JWT_BEARER
