"""The hand-over: JSON messages with descriptors over a SOCK_SEQPACKET socket, one message a packet.

The conversation, launcher first, which has asked for its run by ``POST /v1/runs``::

    {"ticket": "…"}
        {"redeemed": "run_…"}
    {"bound": [name, ...]} with one listening descriptor a name, in the order of the offer
        {"ready": true, "environment": {...}, "ticket": "…"}
    {"end": true}
        {"state", "revoked", "outstanding", "residue"}

Any answer may be ``{"error": {"code", "detail", "help", "offending"}}`` instead. End of file from the launcher's side
means the same as ``end``. End of file from the other side means that the launcher may hand over anew, with that ticket.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress

from remit import errors
from remit.errors import InvalidRequestError, RemitError, TooLargeError, UnavailableError

MAX_MESSAGE = 128 * 1024  # bytes; a packet is one allocation in the kernel
MAX_DESCRIPTORS = 64
_BY_CODE = {one.code: one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, RemitError)}

Message = dict[str, object]


def encode(message: Mapping[str, object]) -> bytes:
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > MAX_MESSAGE:
        raise TooLargeError("a hand-over message is larger than one may be")
    return data


def decode(data: bytes) -> Message:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidRequestError("a hand-over message is not JSON") from None
    if not isinstance(message, dict):
        raise InvalidRequestError("a hand-over message is not a JSON object")
    return message


def send(sock: socket.socket, message: Mapping[str, object], descriptors: Sequence[int] = ()) -> None:
    socket.send_fds(sock, [encode(message)], list(descriptors))


def receive(sock: socket.socket, due: int = MAX_DESCRIPTORS) -> tuple[Message, list[int]] | None:
    """Receive one message and its descriptors (close-on-exec), or None at end of file.

    More descriptors than are ``due`` are an error; the kernel closes the rest before this returns, and a socket that
    lingers holds it up.
    """
    data, descriptors, flags, _ = socket.recv_fds(sock, MAX_MESSAGE + 1, due)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    if not data:
        discard(descriptors)
        return None
    try:
        if flags & socket.MSG_TRUNC:
            raise TooLargeError("a hand-over message is too large")
        if flags & socket.MSG_CTRUNC:
            raise InvalidRequestError("more descriptors came than were asked for")
        return decode(data), descriptors
    except RemitError:
        discard(descriptors)
        raise


def discard(descriptors: Sequence[int]) -> None:
    """Close descriptors of unknown origin: a socket that lingers would hold up whoever closes it."""
    for descriptor in descriptors:
        with suppress(OSError), socket.socket(fileno=descriptor) as sock:
            with suppress(OSError):  # our own filter refuses it where nobody can set it
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
            continue
        with suppress(OSError):
            os.close(descriptor)


def problem(error: RemitError) -> Message:
    shown = {"code": error.code, "detail": error.detail, "help": error.help, "offending": list(error.offending)}
    return {"error": {key: value for key, value in shown.items() if value}}


def raise_problem(message: Message) -> None:
    raw = message.get("error")
    if raw is None:
        return
    shown = raw if isinstance(raw, dict) else {}
    kind = _BY_CODE.get(str(shown.get("code")), UnavailableError)
    offending = shown.get("offending", [])
    raise kind(
        str(shown.get("detail", "")) or None,
        help=str(shown["help"]) if "help" in shown else None,
        offending=[item for item in offending if isinstance(item, dict)] if isinstance(offending, list) else [],
    )
