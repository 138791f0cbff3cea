"""An agent that reads all it can: run inside a sandbox, it prints what it found as one JSON object."""

from __future__ import annotations

import ctypes
import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CANARY = re.compile(rb"CANARY-\d+-[0-9a-f]{16}")
LIMIT = 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)
PROCESS_FILES = ("environ", "cmdline", "auxv", "maps", "mountinfo", "status", "stack", "syscall", "io")
PIDFD_OPEN, PIDFD_GETFD, PTRACE_SEIZE = 434, 438, 0x4206


def canaries(data: bytes) -> set[str]:
    """Return the canaries in some bytes."""
    return {found.decode() for found in CANARY.findall(data)}


def read(path: Path) -> bytes:
    """Return the start of a file, or nothing."""
    try:
        with path.open("rb") as file:
            return file.read(LIMIT)
    except (OSError, ValueError):
        return b""


def itself() -> dict[str, object]:
    """Look at what this process was given."""
    environ = read(Path("/proc/self/environ"))
    fds = {name: str(Path(f"/proc/self/fd/{name}").readlink()) for name in ("0", "1", "2")}
    opened = [number for number in range(3, 4096) if _is_open(number)]
    names = sorted(part.partition(b"=")[0].decode() for part in environ.split(b"\0") if part)
    text = environ + repr((sys.argv, os.environ, Path.cwd(), fds)).encode()
    return {"canaries": sorted(canaries(text)), "names": names, "opened": opened, "standard": fds}


def _is_open(number: int) -> bool:
    with suppress(OSError):
        os.fstat(number)
        return True
    return False


def processes() -> dict[str, object]:
    """Read every other process there is, and try to take hold of it."""
    found: set[str] = set()
    held: list[str] = []
    pids = sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    others = [pid for pid in pids if pid != os.getpid()]
    for pid in others:
        for name in PROCESS_FILES:
            found |= canaries(read(Path(f"/proc/{pid}/{name}")))
        for data in _memory(pid):
            found |= canaries(data)
        with suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                found |= canaries(str(link.readlink()).encode())
    for argument in sys.argv[2:]:  # processes outside, by their numbers there
        held += _grips(int(argument))
    return {"canaries": sorted(found), "pids": pids, "held": held}


def _memory(pid: int) -> Iterator[bytes]:
    with suppress(OSError), Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in read(Path(f"/proc/{pid}/maps")).decode().splitlines():
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            with suppress(OSError, ValueError, OverflowError):
                memory.seek(start)
                yield memory.read(min(end - start, 8 * LIMIT))


def _grips(pid: int) -> list[str]:
    handle = LIBC.syscall(PIDFD_OPEN, pid, 0)
    grips = {
        "pidfd": handle >= 0,
        "getfd": handle >= 0 and LIBC.syscall(PIDFD_GETFD, handle, 0, 0) >= 0,
        "ptrace": LIBC.ptrace(PTRACE_SEIZE, pid, 0, 0) == 0,
        "environ": bool(read(Path(f"/proc/{pid}/environ"))),
    }
    return [name for name, held in grips.items() if held]


def files() -> dict[str, object]:
    """Walk everything but the system's own folders."""
    found: dict[str, list[str]] = {}
    skipped = {"/proc", "/usr", "/dev", sys.prefix, sys.base_prefix}
    for folder, below, names in os.walk("/"):
        below[:] = [name for name in below if str(Path(folder, name)) not in skipped]
        for name in names:
            path = Path(folder, name)
            if path.is_file() and (seen := canaries(read(path))):
                found[str(path)] = sorted(seen)
    return {"found": found, "sockets": _sockets()}


def _sockets() -> list[str]:
    places = ("/run", "/tmp", "/var", "/home", os.environ["HOME"])  # noqa: S108 - where sockets are
    return sorted({str(path) for place in places for path in Path(place).rglob("*") if path.is_socket()})


def keyrings() -> dict[str, object]:
    """Try to find, link and read keys; the numbers of known ones come as arguments."""
    calls = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
    buffer = ctypes.create_string_buffer(256)
    results = [LIBC.syscall(calls[0], b"user", b"mine", b"x", 1, -3)]
    for ring in (-3, -4, -5, *map(int, sys.argv[2:])):
        results += [LIBC.syscall(calls[1], 8, ring, -3), LIBC.syscall(calls[1], 11, ring, buffer, 256)]
    return {"canaries": sorted(canaries(bytes(buffer))), "worked": [result for result in results if result >= 0]}


def doors() -> dict[str, object]:
    """Knock at what listens outside: an abstract socket and a port, and look at terminals."""
    abstract, port = sys.argv[2:4]
    with socket.socket(socket.AF_UNIX) as unix, socket.socket() as inet:
        reached = {"abstract": unix.connect_ex(f"\0{abstract}"), "port": inet.connect_ex(("127.0.0.1", int(port)))}
    vsock = "refused"
    with suppress(OSError), socket.socket(socket.AF_VSOCK):
        vsock = "made"
    terminals = sorted(path.name for path in Path("/dev/pts").iterdir())
    return {"reached": [name for name, code in reached.items() if code == 0], "vsock": vsock, "terminals": terminals}


if __name__ == "__main__":
    probes = {"itself": itself, "processes": processes, "files": files, "keyrings": keyrings, "doors": doors}
    sys.stdout.write(json.dumps(probes[sys.argv[1]]()))
