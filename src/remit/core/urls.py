"""URLs that a configuration or a document names: https, or http to this very host. Pure."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from remit.errors import InvalidRequestError

MAX_URL = 2_048  # characters
LOCAL = frozenset({"127.0.0.1", "::1", "localhost"})

_UNSAFE = re.compile(r"[^!-~]|[\"'<>\\^`{|}]")  # what RFC 3986 has no place for


def check_url(url: object, what: str) -> str:
    """Return a URL that may be fetched: https, or http to a loopback host; or raise InvalidRequestError.

    Credentials, fragments, and whatever does not print have no place in it.
    """
    if not isinstance(url, str) or len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidRequestError(f"{what} is not a URL")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidRequestError(f"{what} is not a URL") from None
    if not host or "@" in parts.netloc or "#" in url or "\\" in url:
        raise InvalidRequestError(f"{what} is not a URL without credentials and fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise InvalidRequestError(f"{what} must be https, or http to a loopback host")
    return url


def check_issuer(value: object, what: str) -> str:
    """Return an issuer identifier (a URL without query and fragment), or raise InvalidRequestError."""
    url = check_url(value, what)
    if "?" in url:
        raise InvalidRequestError(f"{what} has a query, and is no issuer")
    return url


def is_loopback(host: str) -> bool:
    """Whether a host name means this host and nothing else."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_url(url: str, name: str) -> SplitResult:
    """Return the parts of a URL that has one reading, or raise InvalidRequestError."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises when it is no port
    except ValueError:
        raise InvalidRequestError(f"`{name}` is not a URL") from None
    if len(url) > MAX_URL or _UNSAFE.search(url):
        raise InvalidRequestError(f"`{name}` is not a URL")
    return parts


def check_login_page(url: str) -> str:
    """Return a URL that a browser may be sent to for a login, https or loopback http; or raise (RED-05)."""
    parts = split_url(url, "authorization_endpoint")
    if not parts.hostname or "@" in parts.netloc:
        raise InvalidRequestError("the issuer names no place to log in at")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOCAL):
        raise InvalidRequestError("the issuer's login page must be https")
    return url
