"""Who may ask in a browser: clients from the configuration, and clients that publish a document about themselves.

A Client ID Metadata Document (draft-ietf-oauth-client-id-metadata-document) is at an https URL that is the client's id.
Where it leads, and whether it may be fetched at all, is decided by ``Fetch``, which is built with the process.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from remit.core.legible import is_legible
from remit.errors import InvalidRequestError, UnauthenticatedError, UnavailableError
from remit.jose.strict import read_json
from remit.oauth.clients import OAuthClient
from remit.ports.identity import ClientRegistry, Registered
from remit.web.wire import LOCAL, split_url

MAX_NAME = 100
MAX_REDIRECTS = 20  # of one client
MAX_KEPT = 1_000  # documents
KEPT = timedelta(minutes=5)

Fetch = Callable[[str], Awaitable[bytes]]  # an https URL -> its document; bounded, pinned, never redirected

_LOOPBACK = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\]))(?::[0-9]{1,5})?([/?][^#]*)?")
_PRIVATE_SCHEME = re.compile(r"[a-z][a-z0-9+-]*(?:\.[a-z0-9+-]+)+:/[^/]")  # RFC 8252 §7.1: a reversed domain name


class Registry:
    """The clients that are known, and those that can be got to know."""

    def __init__(
        self, known: Sequence[Registered] = (), fetch: Fetch | None = None, now: Callable[[], datetime] | None = None
    ) -> None:
        self._known = {client.client_id: client for client in known}
        self._fetch, self._now = fetch, now
        self._read: dict[str, tuple[datetime, Registered]] = {}

    @property
    def documents(self) -> bool:
        """Whether clients may name themselves by a document (``client_id_metadata_document_supported``)."""
        return self._fetch is not None

    async def get(self, client_id: str) -> Registered:
        """Return a client, or raise UnauthenticatedError; LimitError when too many documents are asked for at once."""
        found = self._known.get(client_id)
        if found is not None:
            return found
        if self._fetch is None or self._now is None or not client_id.startswith(("https://", "http://")):
            raise UnauthenticatedError("this client is not known here")
        now = self._now()
        until, kept = self._read.get(client_id, (now, None))
        if kept is not None and now < until:
            return kept
        check_document_url(client_id)
        try:
            client = described(client_id, await self._fetch(client_id))
        except (InvalidRequestError, UnavailableError) as error:
            raise UnauthenticatedError(f"this client's document is not one to go by: {error.detail}") from error
        self._read.pop(client_id, None)
        self._read[client_id] = (now + KEPT, client)
        if len(self._read) > MAX_KEPT:  # of which one host may have published all: the oldest is fetched again
            del self._read[next(iter(self._read))]
        return client

    def named(self, client_id: str) -> Registered | None:
        """Return a client that an operator set up; None: it is no client's id."""
        return self._known.get(client_id)


async def asking(registry: ClientRegistry, client: OAuthClient) -> Registered:
    """Return who asks where no browser is sent back: a client that is known, or a workload that proved itself."""
    client.check_named()
    if client.workload is not None and registry.named(client.id) is None:
        return Registered(client.id, client.id, (), proven=True)
    if not client.id:
        raise InvalidRequestError("`client_id` is missing")
    return replace(await registry.get(client.id), proven=client.workload is not None)


def check_document_url(url: str) -> None:
    """Raise unless a URL can be the id of a client: with a path, and without what could be read in two ways."""
    parts = split_url(url, "client_id")
    segments = parts.path.split("/")
    if parts.scheme not in {"https", "http"} or not parts.hostname or "@" in parts.netloc or parts.path in {"", "/"}:
        raise UnauthenticatedError("`client_id` must be an https URL with a path")
    if parts.fragment or "." in segments or ".." in segments:
        raise UnauthenticatedError("`client_id` must have no fragment and no dot segments")


def described(client_id: str, raw: bytes) -> Registered:
    """Return the client that a document describes, if it is its own (``client_id`` equals the URL)."""
    document = read_json(raw)
    if not isinstance(document, dict) or document.get("client_id") != client_id:
        raise InvalidRequestError("its `client_id` is not its URL")
    if "client_secret" in document or document.get("token_endpoint_auth_method", "none") != "none":
        raise InvalidRequestError("only public clients can be known by a document here")
    uris, name = document.get("redirect_uris"), document.get("client_name", client_id)
    if not isinstance(uris, list) or not 1 <= len(uris) <= MAX_REDIRECTS:
        raise InvalidRequestError(f"its `redirect_uris` must be a list of 1 to {MAX_REDIRECTS}")
    host = urlsplit(client_id).netloc
    return Registered(client_id, check_name(name), tuple(check_redirect(uri) for uri in uris), host)


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

    RFC 9700 §4.1.3 and RFC 8252 §7.3: ``localhost`` is a name, not a literal, so its port counts.
    """
    if uri in client.redirect_uris:
        return True
    given, own = _LOOPBACK.fullmatch(uri), map(_LOOPBACK.fullmatch, client.redirect_uris)
    try:
        readable = split_url(uri, "redirect_uri").port != 0
    except InvalidRequestError:
        return False
    return readable and given is not None and any(each and each.groups() == given.groups() for each in own)
