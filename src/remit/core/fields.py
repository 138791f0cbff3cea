"""Fields of a decoded document, and URLs, read strictly: a value of its own type, or a refusal that names it. Pure."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from remit.core.addresses import is_address
from remit.errors import InvalidRequestError

MAX_URL = 2_048  # characters


def text(name: str, value: object, pattern: re.Pattern[str] | None = None) -> str:
    """Return text that prints and is not empty; all of it matches ``pattern``."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise InvalidRequestError(f"`{name}` must be text")
    if pattern is not None and not pattern.fullmatch(value):
        raise InvalidRequestError(f"`{name}` has an impossible value")
    return value


def texts(name: str, value: object, pattern: re.Pattern[str] | None = None) -> tuple[str, ...]:
    return tuple(text(name, item, pattern) for item in items(name, value))


def items(name: str, value: object) -> list[object]:
    """Return a list, or the items of a tuple."""
    if not isinstance(value, list | tuple):
        raise InvalidRequestError(f"`{name}` must be a list")
    return list(value)


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequestError(f"`{name}` must be true or false")
    return value


def whole(name: str, value: object, least: int = 0, most: int = 2**53 - 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidRequestError(f"`{name}` must be a whole number from {least} to {most}")
    return value


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


def check_endpoint(value: object, what: str, issuer: str) -> str:
    """Return the URL of an issuer's endpoint: what is sent to it is as safe on its way as the issuer's own word."""
    url = check_url(value, what)
    if issuer.startswith("https://") and not url.startswith("https://"):
        raise InvalidRequestError(f"{what} must be https, as the issuer is")
    return url


def is_loopback(host: str) -> bool:
    """Whether a host name means this host and nothing else."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)
