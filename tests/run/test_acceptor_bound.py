"""What a launcher passes is what was asked for."""

from __future__ import annotations

import socket

import pytest

from remit.errors import InvalidRequestError
from remit.ports.runs import RunListener
from remit.run.acceptor import _places

GATEWAY = RunListener("gateway", port=0)


@pytest.mark.attack("LAU-10")
def test_a_listener_of_another_protocol_than_tcp_is_not_taken() -> None:
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
    except OSError:
        pytest.skip("this kernel has no other protocol of that family and kind")
    with sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        with pytest.raises(InvalidRequestError, match="not the listener"):
            _places({"bound": ["gateway"]}, [GATEWAY], [sock])


def test_one_of_tcp_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock, socket.socket(fileno=sock.detach()) as passed:
        assert _places({"bound": ["gateway"]}, [GATEWAY], [passed]) == {"gateway": passed.getsockname()[1]}
