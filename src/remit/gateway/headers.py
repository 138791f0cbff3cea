"""Which request headers carry authority, or change what a request does: they never go along unless named. Pure.

It is a list of what is known, for details that leave every argument free. An upstream that takes authority from a
header of another name is to be bounded by named arguments (``limits.md``).
"""

from __future__ import annotations

import re

_PLAIN = re.compile(rb"[a-z0-9-]+")  # `_` and `.` are `-` to CGI and its heirs, so a second spelling of any name
_AUTHORITY = re.compile(
    rb"authorization|cookie2?|set-cookie2?|sudo|destination|(?:if-|x-ms-)?range|http2-settings|upgrade"
    rb"|(?:x-)?(?:on-behalf-of|act-as|run-?as|impersonate)|mscrmcallerid|callerobjectid|stripe-(?:account|context)"
    rb"|dropbox-api-select-.*|x-sendfile-type|x-accel-.*|(?:.*-)?client-?(?:cert|verify|(?:[is]-)?dn|subject).*"
    rb"|(?:.*-)?(?:user|subject|caller|principal|actor)-?(?:id|name|email|dn)"
    rb"|(?:proxy|sec|remit|cf|cdn|fastly|impersonate|x-(?:remit|forwarded|original|rewrite|proxy|envoy|middleware"
    rb"|http-method|method|auth|authenticated|webauth|amzn|ms-client-principal))(?:-.*)?"
    rb"|(?:.*-)?(?:override|host|ip|addr|url|uri|users?|groups?|roles?|scopes?|authorization|auth|secret|password|token"
    rb"|credentials?|assertion|cert|jwt|principal)"
    rb"|.*(?:copy|rename)-source.*|(?!.*idempotency-key)(?:.*-)?(?:api)?key"
)
_SAID = 32  # names of dropped headers that are told
# What remit itself sees to: nobody misses it.
_SILENT = frozenset(
    {
        b"accept-encoding",
        b"connection",
        b"content-length",
        b"dpop",
        b"expect",
        b"host",
        b"keep-alive",
        b"proxy-connection",
        b"remit-grant",
        b"te",
        b"transfer-encoding",
    }
)


def carries_authority(name: bytes) -> bool:
    """Whether a header says who asks or what is done, or is a second spelling of one that may."""
    return not _PLAIN.fullmatch(name) or _AUTHORITY.fullmatch(name) is not None


def told(names: list[bytes]) -> bytes:
    """Return the names of dropped headers as they are told to the client, or nothing."""
    missed = sorted(set(names) - _SILENT)
    return b", ".join(missed[:_SAID])
