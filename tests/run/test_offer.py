from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from remit.errors import AttenuationError, RemitError, UnavailableError
from remit.run import offer

OFFER = {"run": "run_1", "ticket": "t"}


def answer(status: int, content: object) -> bytes:
    body = json.dumps(content).encode()
    return f"HTTP/1.1 {status} Some\r\ncontent-type: application/json\r\n\r\n".encode() + body


@contextmanager
def broker(said: bytes, heard: list[bytes], *, reads: bool = True) -> Iterator[socket.socket]:
    """Give a connection to somebody who reads a request, if so, and answers what is said."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs:
            if reads:
                heard.append(theirs.recv(65_536))
            theirs.sendall(said)

    thread = threading.Thread(target=serve)
    thread.start()
    with ours:
        yield ours
    thread.join()


def test_the_request_is_one_of_http_and_its_answer_the_offer() -> None:
    heard: list[bytes] = []
    with broker(answer(201, OFFER), heard) as sock:
        assert offer.begin(sock, {"grant": "grt_ü"}) == OFFER
    head, _, body = heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/runs HTTP/1.1\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body) == {"grant": "grt_ü"}


def test_a_refusal_is_the_error_that_it_is() -> None:
    problem = {"type": "x", "status": 403, "code": "attenuation", "detail": "too wide", "help": "ask for less"}
    with broker(answer(403, problem), []) as sock, pytest.raises(AttenuationError, match="too wide") as raised:
        offer.begin(sock, {})
    assert raised.value.help == "ask for less"


def test_a_refusal_that_comes_before_all_was_read_is_heard() -> None:
    problem = {"status": 413, "code": "too-large", "detail": "a body has at most 65536 bytes"}
    with broker(answer(413, problem), [], reads=False) as sock, pytest.raises(RemitError) as raised:
        offer.begin(sock, {"purpose": "x" * 10_000_000})
    assert raised.value.code == "too-large"


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1", b"HTTP/1.1 x\r\n\r\n{}", b"junk\r\n\r\n{}"])
def test_what_is_no_answer_is_a_broker_that_went_away(said: bytes) -> None:
    with broker(said, []) as sock, pytest.raises(UnavailableError):
        offer.begin(sock, {})
