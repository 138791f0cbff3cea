"""What a network namespace really carries: every packet of it, by whoever may open a packet socket there."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_ALL = 0x0003  # ETH_P_ALL
_NEW_NET = 0x40000000
_PACKET, _STATISTICS = 263, 6  # SOL_PACKET, PACKET_STATISTICS
_FILTER, _ROOM_FORCED = 26, 33  # SO_ATTACH_FILTER, SO_RCVBUFFORCE
_ROOM = 64 << 20  # bytes that wait to be read
_SEEN = f"127.99.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"  # nobody else sends there
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Packet:
    """One packet: the interface that carried it, and where to."""

    interface: str
    to: str  # an address; or the EtherType of what is no IP


class Sniffer:
    """Keeps the packets of a namespace, from now on, even if all that is in it ends: all, or those ``to`` addresses."""

    def __init__(self, sock: socket.socket, to: Sequence[str]) -> None:
        self._sock = sock
        sock.setsockopt(socket.SOL_SOCKET, _ROOM_FORCED, _ROOM)
        sock.setblocking(False)
        if to:
            steps = [struct.pack("=HBBI", *step) for step in _filter(to)]
            program = ctypes.create_string_buffer(b"".join(steps))
            sock.setsockopt(socket.SOL_SOCKET, _FILTER, struct.pack("@HP", len(steps), ctypes.addressof(program)))
            with suppress(BlockingIOError):  # what came before
                while True:
                    sock.recv(1)
            sock.getsockopt(_PACKET, _STATISTICS, 8)

    def packets(self) -> list[Packet]:
        """Return what came by; AssertionError if there was no room for all of it."""
        found = []
        while True:
            try:
                data, (interface, kind, *_) = self._sock.recvfrom(256)
            except BlockingIOError:
                break
            found.append(Packet(interface, _to(kind, data)))
        dropped = self._sock.getsockopt(_PACKET, _STATISTICS, 8)
        assert int.from_bytes(dropped[4:8], "little") == 0
        return found


def _filter(addresses: Sequence[str]) -> Iterator[tuple[int, int, int, int]]:
    """Yield classic BPF that takes what is for one of these IPv4 addresses (RFC 791 §3.1: octet 16)."""
    yield 0x20, 0, 0, 16
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        yield 0x15, left, 0, int(ipaddress.IPv4Address(address))
    yield 0x06, 0, 0, 0
    yield 0x06, 0, 0, 0xFFFF


def _to(kind: int, data: bytes) -> str:
    if kind == 0x0800:
        return str(ipaddress.IPv4Address(data[16:20]))
    if kind == 0x86DD:
        return str(ipaddress.IPv6Address(data[24:40]))
    return hex(kind)


@contextmanager
def sniffing(pid: int, to: Sequence[str] = ()) -> Iterator[Sniffer]:
    """Look at a process's network: all, or what goes ``to`` IPv4 addresses; PermissionError for who may not."""
    with ThreadPoolExecutor(1) as thread:  # of its own: it goes into that network, and ends there
        sock = thread.submit(_within, pid).result()
    with sock:
        yield Sniffer(sock, to)


def _within(pid: int) -> socket.socket:
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.setns(network, _NEW_NET):
            code = ctypes.get_errno()
            raise PermissionError(code, os.strerror(code))
    finally:
        os.close(network)
    return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL))


def network_of(process: psutil.Process) -> int:
    """Return a process among those of a run that is in the run's network."""
    own = Path("/proc/self/ns/net").readlink()
    for child in process.children(recursive=True):
        with suppress(OSError):
            if Path(f"/proc/{child.pid}/ns/net").readlink() != own:
                return int(child.pid)
    raise AssertionError


@contextmanager
def watched(run: int, outside: Sequence[str]) -> Iterator[None]:
    """Watch a run's network, and this one for packets ``outside``: all that goes is on the first one's loopback."""
    pid = network_of(psutil.Process(run))
    with sniffing(pid) as inside, sniffing(os.getpid(), [*outside, _SEEN]) as here:
        yield
        packets = inside.packets()
        assert {packet.interface for packet in packets} == {"lo"}
        assert len(packets) > 100
        assert [one for one in packets if not ipaddress.ip_address(one.to).is_loopback] == []
        assert here.packets() == []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", (_SEEN, 9))  # so would one have been that went out
        assert {one.to for one in here.packets()} == {_SEEN}
