"""TLS of the control plane: a server certificate and optional client certificates, both replaced while it serves.

The handshake is a filter alone: it lets in whoever presents no certificate, or one that some configured authority
signed. Contexts cannot forget an authority, so each change makes a new one, and the next handshake takes it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from remit.errors import UnavailableError
from remit.ports.trust import Pair

HANDSHAKE = 5.0  # seconds for a handshake
MAX_HANDSHAKES = 64  # at a time: whoever can reach the listener can begin one; the oldest makes room for the next
BREATH = 0.5  # seconds without accepting when there are no descriptors left
_AT_ONCE = 16  # connections accepted before anything else gets its turn
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2: forward secrecy and authenticated encryption alone

_LOG = logging.getLogger("remit.web")

Anchors = Callable[[], tuple[bytes, ...] | None]  # DER; None: clients are not asked for a certificate


def context(pair: Pair, anchors: Sequence[bytes] | None) -> ssl.SSLContext:
    """Return the context of a server, or raise UnavailableError."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    made.num_tickets = 0  # a session that is resumed would keep a certificate that is no longer trusted
    made.set_ciphers(CIPHERS)
    made.set_alpn_protocols(["http/1.1"])
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an authority of a bundle need not be self-signed
    made.verify_mode = ssl.CERT_NONE if anchors is None else ssl.CERT_OPTIONAL
    try:
        with _in_memory(pair[0]) as certificate, _in_memory(pair[1]) as key:
            made.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise UnavailableError(
            "the certificate of the TLS listener cannot be used",
            help="check `tls.certificate` (PEM, with its chain) and `tls.key` (PEM, without a password)",
        ) from error
    for anchor in anchors or ():
        with suppress(ssl.SSLError, ValueError):  # one that OpenSSL does not take lets nobody in, and keeps nobody out
            made.load_verify_locations(cadata=anchor)
    return made


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Yield the path of a file that is nowhere but in memory: OpenSSL is given no keys but by paths."""
    with os.fdopen(os.memfd_create("tls"), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _no_password() -> str:
    raise ValueError("the key has a password")


class ServerTLS:
    """What TLS handshakes use: always the newest pair and the newest of the bundles; or UnavailableError."""

    def __init__(self, read: Callable[[], Pair], anchors: Anchors) -> None:
        """``read`` returns what serves from now on, or raises UnavailableError."""
        self._read, self._anchors = read, anchors
        self._pair, self._believed = read(), anchors()
        self._seen: Pair | None = self._pair
        self._current = context(self._pair, self._believed)
        self.context = context(self._pair, self._believed)  # what a listener is started with
        self.context.sni_callback = self._swap  # called with or without a name

    def refresh(self) -> bool:
        """Use what is new, from the next handshake on; a certificate or key that cannot be used is told to the log.

        Return whether an authority is gone: connections that came in by it should end.
        """
        before, self._believed = self._believed, self._anchors()
        if self._renewed() or before != self._believed:
            self._current = context(self._pair, self._believed)
        return not set(before or ()) <= set(self._believed or ())

    def _renewed(self) -> bool:
        """Take over a pair that is new, if it can be used."""
        seen, self._seen = self._seen, None
        try:
            self._seen = found = self._read()
            if found != seen:
                context(found, None)
                self._pair = found
                return True
        except UnavailableError as error:
            if self._seen != seen:
                _LOG.warning("%s; the last good one serves (%s)", error.detail, error.__cause__)
        return False

    def _swap(self, peer: ssl.SSLObject, _name: str | None, _started: ssl.SSLContext) -> None:
        peer.context = self._current


def presented(peer: Any) -> tuple[bytes, ...]:
    """Return the certificates (DER, the leaf first) at the other end of a TLS connection; none without TLS."""
    if peer is None or peer.getpeercert(binary_form=True) is None:
        return ()
    if hasattr(peer, "get_unverified_chain"):  # from Python 3.13 on
        return tuple(peer.get_unverified_chain())
    inner = peer._sslobj  # noqa: SLF001 - what 3.13 made public
    return tuple(ssl.PEM_cert_to_DER_cert(found.public_bytes()) for found in inner.get_unverified_chain())


class Handshakes:
    """Accepts on a TLS listener: few handshakes at a time, and none for long. ``made`` speaks once one is done.

    The loop's own servers would let strangers hold as many descriptors as they like, unseen by us until they are done.
    """

    def __init__(self, sock: socket.socket, made: Callable[[], asyncio.Protocol], context: ssl.SSLContext) -> None:
        self._sock, self._made, self._context = sock, made, context
        self._loop = asyncio.get_running_loop()
        self._going: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._pause: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Stop accepting, and end the handshakes there are."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for task in self._going:
            task.cancel()

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                accepted, _ = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # no descriptors, or no memory
                self._loop.remove_reader(self._sock)
                self._pause = self._loop.call_later(BREATH, self._listen)
                return
            if len(self._going) >= MAX_HANDSHAKES:
                oldest = next(iter(self._going))
                del self._going[oldest]
                oldest.cancel()
            accepted.setblocking(False)
            task = self._loop.create_task(self._shake(accepted))
            self._going[task] = None
            task.add_done_callback(lambda done: self._going.pop(done, None))

    async def _shake(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._made, accepted, ssl=self._context, ssl_handshake_timeout=HANDSHAKE
            )
        except (OSError, asyncio.CancelledError):  # no handshake, no connection
            accepted.close()
