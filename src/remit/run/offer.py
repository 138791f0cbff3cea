"""Asking for a run and its credentials, as its launcher: on the operator's control socket, or on the channel of a run.

It is written out, since a launcher starts in a fraction of the time that a client library takes to load.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import suppress

from remit.errors import UnavailableError
from remit.run import handover
from remit.run.handover import Message

PATIENCE = 60.0  # seconds for an answer: policies and the disk may be slow
_ERROR = 400  # and above


def begin(broker: socket.socket, request: Mapping[str, object]) -> Message:
    """Return the offer of a run, or raise what the broker answers; the connection is of no more use."""
    return post(broker, "/v1/runs", request)


def post(broker: socket.socket, path: str, request: Mapping[str, object]) -> Message:
    """Return what is answered to a request, or raise the refusal; the connection is of no more use."""
    body = json.dumps(request, separators=(",", ":")).encode()
    fields = f"host: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close"
    broker.settimeout(PATIENCE)
    with suppress(OSError):  # it may refuse before it has read all, and then its answer says so
        broker.sendall(f"POST {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode() + body)
    try:
        answer = b"".join(iter(lambda: broker.recv(65_536), b""))
        head, _, content = answer.partition(b"\r\n\r\n")
        status, message = int(head.split(b" ", 2)[1]), handover.decode(content)
    except (OSError, ValueError, IndexError) as error:
        raise UnavailableError(
            "the broker ended before it answered",
            help="what was asked may have been done: `remit tree` shows it; a run that nobody came for ends by itself",
        ) from error
    if status >= _ERROR:
        handover.raise_problem({"error": message})
    return message
