"""Refusals as an agent reads them."""

from __future__ import annotations

import json

import pytest

from remit import errors
from remit.gateway import downstream
from remit.web import middleware

BASE = "https://remit.test/problems/"


def _classes() -> list[type[errors.RemitError]]:
    found, queue = [], [errors.RemitError]
    while queue:
        found.append(queue.pop())
        queue += found[-1].__subclasses__()
    return found


@pytest.mark.parametrize("kind", _classes(), ids=lambda kind: kind.__name__)
def test_every_error_renders_as_a_problem_and_says_that_remit_refused(kind: type[errors.RemitError]) -> None:
    raw = downstream.response(kind(), "req_1", BASE, head=False, keep=True)
    head, _, body = raw.partition(b"\r\n\r\n")
    read = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % kind.status)
    assert (read["status"], read["code"], read["type"]) == (kind.status, kind.code, BASE + kind.code)
    assert b"\r\nProxy-Status: remit; error=" in head
    assert b"Content-Length: %d\r\n" % len(body) in head


def test_what_would_have_been_enough_is_said() -> None:
    error = errors.ScopeError(enough={"type": "http"}, help="ask", offending=[{"type": "x"}])
    read = downstream.document(error, "req_1", BASE)
    assert (read["enough"], read["help"], read["offending"]) == ({"type": "http"}, "ask", [{"type": "x"}])


def test_what_is_wrong_is_said_where_sdks_of_model_providers_look_for_it_too() -> None:
    read = downstream.document(errors.ScopeError("too wide", help="ask"), "req_1", BASE)
    assert read["error"] == {"message": "remit: too wide (ask)", "type": f"{BASE}scope", "code": "scope"}
    read = downstream.document(errors.RevokedError("it was revoked"), "req_1", BASE)
    assert read["error"] == {"message": "remit: it was revoked", "type": f"{BASE}revoked", "code": "revoked"}


def test_a_placeholder_in_the_wrong_place_is_told_the_right_one() -> None:
    assert "in the header where its own resource's key goes" in str(
        downstream.document(errors.PlaceholderError(), "r", BASE)
    )


def test_a_head_request_gets_no_body_and_a_last_answer_says_so() -> None:
    raw = downstream.response(errors.ScopeError(), "req_1", BASE, head=True, keep=False)
    assert raw.endswith(b"Connection: close\r\n\r\n")


def test_a_caller_without_proof_is_challenged() -> None:
    raw = downstream.response(errors.NonceRequiredError(), "req_1", BASE, head=False, keep=True, nonce="n-1")
    assert b'WWW-Authenticate: DPoP error="use_dpop_nonce"' in raw
    assert b"\r\nDPoP-Nonce: n-1\r\n" in raw


def test_a_limit_says_when_to_come_back() -> None:
    raw = downstream.response(errors.LimitError(retry_after=3), "req_1", BASE, head=False, keep=True)
    assert b"\r\nRetry-After: 3\r\n" in raw


def test_a_detail_with_line_breaks_stays_in_the_body() -> None:
    raw = downstream.response(errors.ScopeError("a\r\nX: y"), "req_1", BASE, head=False, keep=True)
    assert raw.count(b"\r\nX: y") == 0


def test_a_challenge_names_the_algorithms_that_the_control_plane_names() -> None:
    head = downstream.response(errors.ProofError(), "req_1", BASE, head=True, keep=True)
    told = middleware.problem_document(errors.ProofError(), "https://remit.test", "req_1").headers["www-authenticate"]
    challenge, _, where = told.rpartition(", ")
    assert where.startswith("resource_metadata=")  # of the API alone
    assert 'algs="ES256 Ed25519 EdDSA"' in challenge
    assert b"\r\nWWW-Authenticate: %b\r\n" % challenge.encode() in head
