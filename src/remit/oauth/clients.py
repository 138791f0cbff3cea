"""Who asks: an attested workload, a public client that names itself, or nobody in particular.

A workload shows one of: a JWT-SVID or an OIDC token as its client assertion (RFC 7523 §2.2), an X.509-SVID in the TLS
handshake with its SPIFFE ID as ``client_id`` (RFC 8705 §2), or a WIT with a proof of its key (WIMSE). No client is
registered for any of them: which workloads are let in is decided by trust domain, path and claims.

Who may ask in a browser is in the configuration, or publishes a document about itself (Client ID Metadata Document,
draft-ietf-oauth-client-id-metadata-document) at an https URL that is its id. Where that leads, and whether it may be
fetched at all, is decided by ``Fetch``, which is built with the process.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from remit.core import spiffe
from remit.core.legible import is_legible
from remit.core.principal import JWT_BEARER, JWT_SPIFFE, PRIVATE_KEY_JWT, Principal, Workload
from remit.errors import (
    InvalidRequestError,
    ReplayError,
    TokenError,
    UnauthenticatedError,
    UnavailableError,
    UsedError,
)
from remit.jose import client_assertion
from remit.jose.keys import MAX_KEYS, key_set, read_key_set
from remit.jose.proof import MAX_AGE, SKEW, Proof
from remit.jose.strict import read_json
from remit.ports import Clock
from remit.ports.identity import ITSELF, ClientRegistry, Registered, Workloads
from remit.web import wire
from remit.web.authentication import SocketAuth, certificates_of, listener_of, url_of
from remit.web.verifier import WIT, Verifier
from remit.web.wire import LOCAL, Form, split_url

WPT = "workload-proof-token"
FIELDS = frozenset({"client_id", "client_assertion", "client_assertion_type"})
TARGETS = frozenset({"resource", "audience"})  # whom a token is to be for
OWN_ID = "itself."  # begins the id of a client that registered itself
MAX_NAME = 100
MAX_REDIRECTS = 20  # of one client
MAX_KEPT = 1_000  # documents
KEPT = timedelta(minutes=5)
RETRY = timedelta(seconds=10)  # no document is fetched sooner again, whoever wants it anew
MAX_ASSERTION = timedelta(seconds=MAX_AGE + SKEW)  # from now, that one by a document counts: so long it is remembered

_SPENT, _ANEW = "the client's credential counts once, and was used", "get a new one"

Fetch = Callable[[str], Awaitable[bytes]]  # an https URL -> its document; bounded, pinned, never redirected

_ID = re.compile(r"[A-Za-z0-9:/?#\[\]@!$&'()*+,;=._~%-]{1,512}")  # what a URI may hold
_OIDC = re.compile(r"[^#]*://[^#]*#")  # issuer#subject; the id of no other client is a URL with a fragment
_LOOPBACK = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\]|localhost))(?::[0-9]{1,5})?([/?][^#]*)?")
_NAMED_PORT = "http://localhost:"
_PRIVATE_SCHEME = re.compile(r"[a-z][a-z0-9+-]*(?:\.[a-z0-9+-]+)+:/[^/]")  # RFC 8252 §7.1: a reversed domain name


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """An OAuth client and its request."""

    id: str = ""  # empty for one that names itself nothing
    workload: Workload | None = None  # set when it was attested
    principal: Principal | None = None  # who acts: the listener's, or the workload; None for a public client
    form: Form = field(default_factory=dict, repr=False)
    url: str = ""  # what ``proofs`` are to be made for
    proofs: Sequence[str] = ()  # its ``DPoP`` headers
    certificates: Sequence[bytes] = ()  # of its TLS handshake
    local: bool = False  # whether it came by a unix socket
    proven: bool = False  # it has authenticated: as a workload, or by a key of its own document

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

    def __init__(self, workloads: Workloads | None, verifier: Verifier, registry: ClientRegistry | None = None) -> None:
        self._workloads, self._verifier, self._registry = workloads, verifier, registry or Registry()

    def of(
        self, fields: frozenset[str], meant: Callable[[Form], frozenset[str]] | None = None
    ) -> Callable[[Request], Awaitable[OAuthClient]]:
        """Return the authentication of an endpoint whose form has ``fields``; it may say which are ``meant``."""

        async def authenticate(request: Request) -> OAuthClient:
            form = await wire.form(request, fields | FIELDS, TARGETS)
            return await self.authenticate(request, form if meant is None else wire.meant(form, meant(form) | FIELDS))

        return authenticate

    async def authenticate(self, request: Request, form: Form) -> OAuthClient:
        """Return the client of a request, which authenticates in one way at most; a refusal is in the audit.

        A client that proves nothing is public: its name is its own affair, and worth nothing as a proof.
        """
        return await self._verifier.authenticate(self._authenticate(request, form))

    async def _authenticate(self, request: Request, form: Form) -> OAuthClient:
        listener, headers, named = listener_of(request), request.headers, form.get("client_id", "")
        if headers.getlist("authorization"):
            raise UnauthenticatedError("a client does not authenticate by `Authorization` here")
        if named and not _ID.fullmatch(named):
            raise InvalidRequestError("`client_id` must be a URI or a name")
        holder = listener.holder if isinstance(listener, SocketAuth) else None
        url, certificates = url_of(request, self._verifier.issuer), certificates_of(request)
        proofs = headers.getlist("dpop")
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
            check_proven(self._registry.named(named), client)
            return client
        if ways == ["assertion"] and (document := self._document(form)) is not None:
            return await self._by_document(document, client)
        return await self._attested(ways[0], request, client)

    async def _attested(self, way: str, request: Request, client: OAuthClient) -> OAuthClient:
        # draft-ietf-wimse-wpt: 400, as there is no challenge to answer with
        refusal = TokenError if way == "wit" else UnauthenticatedError
        try:
            workload = await self._verified(way, request, client)
        except UnauthenticatedError as error:
            raise refusal(error.detail, help=error.help) from error
        if client.id not in {"", workload.id, workload.id.partition("#")[2]}:  # for an OIDC token its bare subject too
            raise UnauthenticatedError("`client_id` is not whom the credential names")
        try:
            workload = await self._verifier.spend(workload, client.proofs, client.url)
        except UsedError as error:
            raise refusal(_SPENT, help=_ANEW) from error
        return replace(client, id=workload.id, workload=workload, principal=client.principal or workload, proven=True)

    def _document(self, form: Form) -> str | None:
        """Return the client whose document has the key of an assertion; None where others verify it."""
        if form.get("client_assertion_type") != JWT_BEARER or not self._registry.documents:
            return None
        named = client_assertion.issuer(form.get("client_assertion", ""))
        return named if named and "://" in named and self._registry.named(named) is None else None

    async def _by_document(self, named: str, client: OAuthClient) -> OAuthClient:
        """Return a client that its own document vouches for: what it signed is verified here, and counts once.

        It is no workload: nobody but whoever publishes the document says who it is.
        """
        if client.id not in {"", named}:
            raise UnauthenticatedError("`client_id` is not whom the credential names")
        try:
            once = await self._signed(named, client.form["client_assertion"])
        except UnauthenticatedError as error:
            raise UnauthenticatedError(error.detail, help=error.help) from error
        if client.proofs:  # whoever lacks but the nonce comes back with the same
            self._verifier.read(client.proofs, "POST", client.url, None)
        try:
            await self._verifier.pending.burn(once, stranger=True)
        except ReplayError as error:
            raise UnauthenticatedError(_SPENT, help=_ANEW) from error
        return replace(client, id=named, proven=True)

    async def _signed(self, named: str, assertion: str) -> Proof:
        """Return by what an assertion counts once, if one of the keys of the client's document has signed it."""
        now, meant = self._verifier.clock(), audiences(self._verifier.issuer)
        read = client_assertion.read(assertion, meant, now, MAX_ASSERTION)
        found = await self._registry.get(named)
        if found.keys is None or found.keys.find(read.jwt.compact, UnauthenticatedError) is None:
            found = await self._registry.get(named, anew=True)
        if found.keys is None:
            raise UnauthenticatedError("this client's document has no keys by which it authenticates")
        found.keys.verify(read.jwt.compact, UnauthenticatedError)
        # remembered as long as it counts: for as long after this ``iat``
        return Proof(read.digest, "assertion", int(read.expires_at.timestamp()) - MAX_AGE)

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


class Registry:
    """The clients that are known, and those that can be got to know."""

    def __init__(
        self,
        known: Sequence[Registered] = (),
        fetch: Fetch | None = None,
        now: Clock | None = None,
        themselves: Callable[[str], Awaitable[Registered]] | None = None,
    ) -> None:
        """``themselves`` knows those again that registered themselves, by ids that begin as theirs do."""
        self._themselves = themselves
        self._known = {client.client_id: client for client in known}
        self._fetch, self._now = fetch, now
        self._read: dict[str, tuple[datetime, Registered]] = {}

    @property
    def documents(self) -> bool:
        return self._fetch is not None

    async def get(self, client_id: str, *, anew: bool = False) -> Registered:
        if (found := self._known.get(client_id)) is not None:
            return found
        if self._themselves is not None and client_id.startswith(OWN_ID):
            return await self._themselves(client_id)
        if self._fetch is None or self._now is None or not client_id.startswith(("https://", "http://")):
            raise UnauthenticatedError("this client is not known here")
        now = self._now()
        until, kept = self._read.get(client_id, (now, None))
        if kept is not None and now < until - (KEPT - RETRY if anew else timedelta()):
            return kept
        check_document_url(client_id)
        try:
            client = await self._described(client_id, await self._fetch(client_id), self._fetch)
        except (InvalidRequestError, UnavailableError) as error:
            raise UnauthenticatedError(f"this client's document is not one to go by: {error.detail}") from error
        self._read.pop(client_id, None)
        self._read[client_id] = (now + KEPT, client)
        if len(self._read) > MAX_KEPT:  # of which one host may have published all: the oldest is fetched again
            del self._read[next(iter(self._read))]
        return client

    async def _described(self, client_id: str, raw: bytes, fetch: Fetch) -> Registered:
        """Return the client of a document, with its keys, which may be elsewhere: where documents may be."""
        client, uri = described(client_id, raw)
        if uri is None:
            return client
        split_url(uri, "jwks_uri")
        return replace(client, keys=read_key_set(await fetch(uri)))

    def named(self, client_id: str) -> Registered | None:
        return self._known.get(client_id)


def audiences(issuer: str) -> Collection[str]:
    """Return whom a client's assertion may be for: the issuer, or what libraries write in its place (RFC 9126 §2)."""
    return {issuer, *(f"{issuer}/oauth/{name}" for name in ("token", "par", "bc-authorize"))}


def check_proven(registered: Registered | None, client: OAuthClient) -> None:
    """Raise UnauthenticatedError for a client that has a key to prove who it is by, and did not."""
    if registered is not None and registered.keyed and not client.proven:
        raise UnauthenticatedError("this client has to authenticate", help="by `private_key_jwt`, RFC 7523 §2.2")


async def asking(registry: ClientRegistry, client: OAuthClient) -> Registered:
    """Return who asks where no browser is sent back: a client that is known, or a workload that proved itself."""
    client.check_named()
    if client.workload is not None and registry.named(client.id) is None:
        return Registered(client.id, client.id, (), proven=True)
    if not client.id:
        raise InvalidRequestError("`client_id` is missing")
    found = await registry.get(client.id)
    if found.vouched == ITSELF:  # who would see what it calls itself has nothing else to go by
        raise UnauthenticatedError("a client that registered itself asks in a browser alone")
    check_proven(found, client)
    return replace(found, proven=client.proven)


def check_document_url(url: str) -> None:
    """Raise unless a URL can be the id of a client: with a path, and without what could be read in two ways."""
    parts = split_url(url, "client_id")
    segments = parts.path.split("/")
    if parts.scheme not in {"https", "http"} or not parts.hostname or "@" in parts.netloc or parts.path in {"", "/"}:
        raise UnauthenticatedError("`client_id` must be an https URL with a path")
    if parts.fragment or "." in segments or ".." in segments:
        raise UnauthenticatedError("`client_id` must have no fragment and no dot segments")


def described(client_id: str, raw: bytes) -> tuple[Registered, str | None]:
    """Return the client that a document describes, if it is its own (``client_id`` equals the URL).

    With it, where its keys are, if they are elsewhere.
    """
    document = read_json(raw)
    if not isinstance(document, dict) or document.get("client_id") != client_id:
        raise InvalidRequestError("its `client_id` is not its URL")
    method = document.get("token_endpoint_auth_method", "none")
    if "client_secret" in document or method not in {"none", PRIVATE_KEY_JWT}:
        raise InvalidRequestError("a client known by a document is public here, or authenticates by `private_key_jwt`")
    keyed, jwks, uri = method == PRIVATE_KEY_JWT, document.get("jwks"), document.get("jwks_uri")
    if keyed and (jwks is None) == (uri is None):
        raise InvalidRequestError("it must have `jwks` or `jwks_uri`, by which the client authenticates")
    if keyed and uri is not None and not isinstance(uri, str):
        raise InvalidRequestError("its `jwks_uri` must be text")
    listed = jwks.get("keys") if keyed and isinstance(jwks, Mapping) else None
    keys = key_set(listed[:MAX_KEYS]) if isinstance(listed, list) else None
    uris, name = document.get("redirect_uris"), document.get("client_name", client_id)
    if not isinstance(uris, list) or not 1 <= len(uris) <= MAX_REDIRECTS:
        raise InvalidRequestError(f"its `redirect_uris` must be a list of 1 to {MAX_REDIRECTS}")
    host = urlsplit(client_id).netloc
    redirects = tuple(check_redirect(each) for each in uris)
    client = Registered(client_id, check_name(name), redirects, host, keyed=keyed, keys=keys)
    return client, uri if keyed and isinstance(uri, str) else None


def check_name(name: object) -> str:
    """Return the name of a client, for people to read."""
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME or not is_legible(name):
        raise InvalidRequestError(f"a client's name must be 1 to {MAX_NAME} printable characters")
    return name


def check_redirect(uri: object) -> str:
    """Return a redirect URI that may be registered: https, http to this host, or a scheme that an app owns."""
    if not isinstance(uri, str):
        raise InvalidRequestError("a redirect URI must be text")
    parts = split_url(uri, "redirect_uri")
    if "@" in parts.netloc or "#" in uri:
        raise InvalidRequestError("a redirect URI has no user and no fragment")
    local = parts.scheme == "http" and parts.hostname in LOCAL
    if not (local or (parts.scheme == "https" and parts.hostname) or _PRIVATE_SCHEME.match(uri)):
        raise InvalidRequestError("a redirect URI must be https, http to this host, or of a scheme like com.example:/")
    return uri


def is_registered(client: Registered, uri: str) -> bool:
    """Whether a redirect URI is one of the client's: the same text, but for the port of a loopback literal.

    RFC 9700 §4.1.3, RFC 8252 §7.3. ``localhost`` is a name, and its port counts where one was registered; clients of
    MCP listen there at any, and register none.
    """
    if uri in client.redirect_uris:
        return True
    free = [one for one in client.redirect_uris if not one.startswith(_NAMED_PORT)]
    given, own = _LOOPBACK.fullmatch(uri), map(_LOOPBACK.fullmatch, free)
    try:
        readable = split_url(uri, "redirect_uri").port != 0
    except InvalidRequestError:
        return False
    return readable and given is not None and any(each and each.groups() == given.groups() for each in own)
