"""URLs that a configuration or a document names: https, or http to this very host. Pure."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from remit.errors import InvalidRequestError

MAX_URL = 2_048  # characters


def check_url(url: object, what: str) -> str:
    """Return a URL that may be fetched (https, or http to a loopback host), or raise InvalidRequestError."""
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
