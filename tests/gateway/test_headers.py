"""Which request headers say who asks or what is done, and are never free."""

from __future__ import annotations

import pytest

from remit.gateway import framing
from remit.gateway.target import carries_authority
from tests.gateway.test_target import shape

AUTHORITY = [
    "x-user-id",
    "x-user-email",
    "x-username",
    "x-hasura-user-id",
    "on-behalf-of",
    "x-on-behalf-of",
    "stripe-account",
    "dropbox-api-select-admin",
    "mscrmcallerid",
    "callerobjectid",
    "x-run-as",
    "x-ssl-client-verify",
    "x-ssl-client-s-dn",
    "ssl-client-subject-dn",
    "x-arr-clientcert",
    "client-cert-chain",
    "x-sendfile-type",
    "x-accel-mapping",
    "x-ms-range",
    "authorization",
    "proxy-authorization",
    "cookie",
    "cookie2",
    "x-api-key",
    "api-key",
    "apikey",
    "x-apikey",
    "key",
    "private-token",
    "x-auth-token",
    "x-csrf-token",
    "x-goog-api-key",
    "x-amz-security-token",
    "x-access-token",
    "x-auth",
    "x-auth-user",
    "x-ms-client-principal-id",
    "x-amzn-oidc-identity",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-method",
    "x-original-method",
    "x-original-url",
    "x-rewrite-url",
    "x-original-uri",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-prefix",
    "x-forwarded",
    "x-real-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-client-ip",
    "x-remote-addr",
    "x-host",
    "x-http-host-override",
    "x-envoy-original-path",
    "x-middleware-subrequest",
    "x-user",
    "remote-user",
    "impersonate-user",
    "impersonate-group",
    "sudo",
    "x-groups",
    "x-user-roles",
    "x-goog-iap-jwt-assertion",
    "x-ssl-client-cert",
    "destination",
    "x-amz-copy-source",
    "x-amz-copy-source-range",
    "x-ms-copy-source",
    "x-ms-rename-source",
    "range",
    "if-range",
    "upgrade",
    "sec-websocket-key",
    "remit-grant",
    "x-remit-grant",
    "proxy-status",
    "http2-settings",
    "x_http_method_override",
    "x_forwarded_for",
    "x.forwarded.for",
    "proxy_authorization",
    "token",
    "x-ip",
    "url",
]
FREE = [
    "git-protocol",
    "notion-version",
    "traceparent",
    "tracestate",
    "baggage",
    "x-request-id",
    "x-stainless-lang",
    "x-stainless-retry-count",
    "openai-beta",
    "x-idempotency-key",
    "idempotency-key",
    "content-range",
    "content-digest",
    "priority",
    "origin",
    "referer",
    "depth",
    "x-ms-version",
    "dnt",
    "mcp-session-id",
    "mcp-protocol-version",
    "x-custom",
    "accept-charset",
    "cache-control",
    "pragma",
    "link",
    "x-github-api-version",
]


@pytest.mark.attack("HTT-13")
@pytest.mark.parametrize("name", AUTHORITY)
def test_a_header_that_says_who_asks_or_what_is_done_is_never_free(name: str) -> None:
    assert carries_authority(name.encode())


@pytest.mark.parametrize("name", FREE)
def test_other_headers_are(name: str) -> None:
    assert not carries_authority(name.encode())


def told(*names: str) -> bytes:
    """Return the names of dropped headers as they are told, where a grant leaves nothing free."""
    section = framing.request_fields("\r\n".join(["Host: a", *(f"{name}: x" for name in names)]).encode())
    return shape().forwarded(section, frozenset())[1]


def test_what_is_dropped_is_told_once_sorted_and_without_what_remit_sees_to() -> None:
    assert told("x-b", "keep-alive", "x-a", "x-b") == b"x-a, x-b"
    assert told("accept-encoding") == b""


def test_no_more_is_told_than_a_client_can_take() -> None:
    assert len(told(*(f"x-{at}" for at in range(98))).split(b", ")) == 32
