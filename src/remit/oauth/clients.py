"""Who asks at the token endpoint: an attested workload, a public client that names itself, or nobody in particular.

A workload shows one of: a JWT-SVID or an OIDC token as its client assertion (RFC 7523 §2.2), an X.509-SVID in the TLS
handshake with its SPIFFE ID as ``client_id`` (RFC 8705 §2), or a WIT with a proof of its key (WIMSE). No client is
registered for any of them: which workloads are let in is decided by trust domain, path and claims.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from starlette.requests import Request
from starlette.responses import Response

from remit.core import spiffe
from remit.core.principal import JWT_BEARER, JWT_SPIFFE, Principal, Workload
from remit.errors import InvalidRequestError, TokenError, UnauthenticatedError, UsedError
from remit.ports.identity import Workloads
from remit.web import wire
from remit.web.authentication import SocketAuth, certificates_of, listener_of, url_of
from remit.web.verifier import WIT, Verifier
from remit.web.wire import Form

WPT = "workload-proof-token"
FIELDS = frozenset({"client_id", "client_assertion", "client_assertion_type"})
TARGETS = frozenset({"resource", "audience"})  # whom a token is to be for

_ID = re.compile(r"[A-Za-z0-9:/?#\[\]@!$&'()*+,;=._~%-]{1,512}")  # what a URI may hold
_OIDC = re.compile(r"[^#]*://[^#]*#")  # issuer#subject; the id of no other client is a URL with a fragment


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """An OAuth client and its request. ``id`` is empty for one that names itself nothing.

    ``workload`` is set when it was attested. ``principal`` is who acts: the listener's, or the workload; None for a
    public client, which proves nothing. ``proofs`` are its ``DPoP`` headers, to be made for ``url``; ``certificates``
    are those of its TLS handshake; ``local``: it came by a unix socket.
    """

    id: str = ""
    workload: Workload | None = None
    principal: Principal | None = None
    form: Form = field(default_factory=dict, repr=False)
    url: str = ""
    proofs: Sequence[str] = ()
    certificates: Sequence[bytes] = ()
    local: bool = False

    def check_named(self) -> None:
        """Raise UnauthenticatedError for a client that calls itself by a workload's name and proves nothing."""
        if self.workload is None and (self.id.startswith(spiffe.SCHEMES) or _OIDC.match(self.id)):
            raise UnauthenticatedError("a client with a workload's name has to prove it")


@dataclass(frozen=True, slots=True)
class GrantType:
    """One way to a token: the form fields it takes beside those of every way, and what answers."""

    fields: frozenset[str]
    handler: Callable[[OAuthClient], Awaitable[Response]]


class Clients:
    """Authenticates the clients of OAuth endpoints. Without ``workloads`` there are public clients alone."""

    def __init__(self, workloads: Workloads | None, verifier: Verifier) -> None:
        self._workloads, self._verifier = workloads, verifier

    def of(self, fields: frozenset[str]) -> Callable[[Request], Awaitable[OAuthClient]]:
        """Return the authentication of an endpoint whose form has ``fields``."""

        async def authenticate(request: Request) -> OAuthClient:
            return await self.authenticate(request, await wire.form(request, fields | FIELDS, TARGETS))

        return authenticate

    async def authenticate(self, request: Request, form: Form) -> OAuthClient:
        """Return the client of a request; a refusal is in the audit.

        UnauthenticatedError, or InvalidRequestError for a client that authenticates in more than one way. A client that
        proves nothing is public: its name is its own affair, and worth nothing as a proof.
        """
        return await self._verifier.authenticate(self._authenticate(request, form))

    async def _authenticate(self, request: Request, form: Form) -> OAuthClient:
        listener, headers, named = listener_of(request), request.headers, form.get("client_id", "")
        if headers.getlist("authorization"):
            raise UnauthenticatedError("a client does not authenticate by `Authorization` here")
        if named and not _ID.fullmatch(named):
            raise InvalidRequestError("`client_id` must be a URI or a name")
        holder = listener.holder if isinstance(listener, SocketAuth) else None
        url, proofs, certificates = (
            url_of(request, self._verifier.issuer),
            headers.getlist("dpop"),
            certificates_of(request),
        )
        client = OAuthClient(named, None, holder, form, url, proofs, certificates, holder is not None)
        shown = {
            "assertion": form.keys() & {"client_assertion", "client_assertion_type"},
            "wit": headers.getlist(WIT) or headers.getlist(WPT),
            "certificate": certificates if named.startswith("spiffe://") else (),
        }
        ways = [way for way, given in shown.items() if given]
        if len(ways) > 1:
            raise InvalidRequestError("a client authenticates in one way, not in several")
        if not ways:
            return client
        # draft-ietf-wimse-wpt: 400, as there is no challenge to answer with
        refusal = TokenError if ways == ["wit"] else UnauthenticatedError
        try:
            workload = await self._verified(ways[0], request, client)
        except UnauthenticatedError as error:
            raise refusal(error.detail, help=error.help) from error
        if named not in {"", workload.id, workload.id.partition("#")[2]}:  # for an OIDC token its bare subject too
            raise UnauthenticatedError("`client_id` is not whom the credential names")
        try:
            workload = await self._verifier.spend(workload, proofs, url)
        except UsedError as error:
            raise refusal("the client's credential counts once, and was used", help="get a new one") from error
        return replace(client, id=workload.id, workload=workload, principal=holder or workload)

    def _verified(self, way: str, request: Request, client: OAuthClient) -> Awaitable[Workload]:
        form, wit, wpt = client.form, request.headers.getlist(WIT), request.headers.getlist(WPT)
        kind = form.get("client_assertion_type")
        if way == "assertion" and (kind not in {JWT_SPIFFE, JWT_BEARER} or "client_assertion" not in form):
            raise InvalidRequestError("`client_assertion` and a `client_assertion_type` that is known here go together")
        if way == "wit" and (len(wit) != 1 or len(wpt) != 1):
            raise InvalidRequestError("there must be one Workload-Identity-Token and one Workload-Proof-Token")
        if self._workloads is None:
            raise UnauthenticatedError("no workloads are let in here: no trust domain and no issuer is configured")
        if way == "assertion":
            return self._workloads.assertion(form["client_assertion"], str(kind))
        if way == "wit":  # the proof covers the token that is to be exchanged
            return self._workloads.proven(wit[0], wpt[0], client.url, form.get("subject_token"))
        return self._workloads.certified(client.certificates)
