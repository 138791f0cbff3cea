"""Chosen code inside a confined role: what it cannot do, and what it can."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remit.process.survey import survey
from tests.process import certificates
from tests.process.rig import Rig

NOBODY = 65534
UNPRIVILEGED = os.geteuid() != 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a worker sees, with the state of a broker and a key in it, and what it does not see beside it."""
    top = tmp_path_factory.mktemp("files")
    for name in ("seen/state/deep", "seen/config", "unseen"):
        (top / name).mkdir(parents=True)
    for name in ("seen/plain", "seen/state/secret", "seen/state/deep/secret", "seen/config/key", "unseen/secret"):
        (top / name).write_text(name, encoding="utf-8")
    for name in ("open", "other"):
        (top / "seen/config" / name).write_text(name, encoding="utf-8")
    certificates.write(top / "seen/chain.pem")
    for path in (top, *top.rglob("*")):
        path.chmod(0o777)  # what is kept from workers is kept by walls, not by owners
    for path in (top, *top.parents[:2]):
        path.chmod(0o755)
    return top


def _rig(walls: str, folder: Path, uid: int | None = None) -> Rig:
    rig = Rig(walls, [folder / "seen"], [folder / "seen/state", folder / "seen/config/key"], uid=uid)
    for role in ("edge", "targets"):
        rig.start(role)
    return rig


@pytest.fixture(scope="module", params=["namespaces", "landlock"])
def confined(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[str, Rig]]:
    found = survey()
    if not (found.namespaces if request.param == "namespaces" else found.landlock) or not found.seccomp:
        pytest.skip(f"this kernel has no {request.param}")
    with _rig(request.param, folder) as rig:
        yield request.param, rig


@pytest.fixture(scope="module")
def open_rig(folder: Path) -> Iterator[Rig]:
    with _rig("none", folder) as rig:
        yield rig


CALL = """
import ctypes, os
from remit.process.syscalls import ARCHITECTURES
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    number = ARCHITECTURES[os.uname().machine].calls[name]
    if libc.syscall(ctypes.c_long(number), *map(ctypes.c_ulong, arguments)) == -1:
        raise OSError(ctypes.get_errno(), name)
"""

CANNOT = {
    "open the state": "found = open('{seen}/state/secret').read()",
    "open what lies deep in the state": "found = open('{seen}/state/deep/secret').read()",
    "open a key": "text = open('{seen}/config/key').read()\n"
    "if not text: raise FileNotFoundError(2, 'empty')\nfound = text",
    "open what it was not shown": "found = open('{unseen}/secret').read()",
    "list what it was not shown": "import os; found = os.listdir('{unseen}')",
    "write where it reads": "found = open('{seen}/plain', 'a').write('x')",
    "make a file where it reads": "found = open('{seen}/new', 'w').write('x')",
    "make a folder": "import os; found = os.mkdir('{seen}/folder') or 1",
    "remove a file": "import os; found = os.unlink('{seen}/config/other') or 1",
    "change a mode": "import os; found = os.chmod('{seen}/plain', 0o600) or 1",
    "make a unix socket": "import socket; found = socket.socket(socket.AF_UNIX).fileno()",
    "make one of datagrams": "import socket; found = len(socket.socketpair(type=socket.SOCK_DGRAM))",
    "hear the kernel": "import socket; found = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15).fileno()",
    "fork": "import os\nif os.fork() == 0: os._exit(0)\nfound = 1",
    "start a program": "import subprocess; found = subprocess.run(['/bin/true']).returncode or 1",
    "become a program": "import os; os.execv('/bin/sh', ['sh', '-c', 'exec sleep 30'])",
    "signal the authority": "import os; found = os.kill({authority}, 0) or 1",
    "signal the supervisor": "import os; found = os.kill({supervisor}, 0) or 1",
    "signal itself": "import os; found = os.kill(os.getpid(), 0) or 1",
    "see the authority": "import os; found = len(os.listdir('/proc/{authority}/task'))",
    "outlive the supervisor": CALL + "call('prctl', 1, 0, 0, 0, 0); found = 1",
    "be dumped": CALL + "call('prctl', 4, 1, 0, 0, 0); found = 1",
    "change another's limits": CALL + "call('prlimit64', {authority}, 7, 0, 0); found = 1",
    "take a descriptor": CALL + "import os; os.pidfd_open({authority}); found = 1",
    "trace": CALL + "call('ptrace', 16, {authority}, 0, 0); found = call('ptrace', 17, {authority}, 0, 0) or 1",
    "read memory": CALL + "call('process_vm_readv', {authority}, 0, 0, 0, 0, 0); found = 1",
    "write memory": CALL + "call('process_vm_writev', {authority}, 0, 0, 0, 0, 0); found = 1",
    "use rings": CALL + "buffer = ctypes.create_string_buffer(120)\n"
    "call('io_uring_setup', 8, ctypes.addressof(buffer)); found = 1",
    "use a keyring": CALL + "call('keyctl', 0, 0xFFFFFFFC, 1); found = 1",
    "leave its namespaces": CALL + "call('unshare', 0x10000000); found = 1",
    "filter itself anew": CALL + "call('seccomp', 2, 0, ctypes.addressof(ctypes.c_uint(0x7FFF0000))); found = 1",
}
NEVER = {
    "become a program",
    "trace",
    "filter itself anew",
    "use a keyring",
}  # needs more than a process may, or ends it

CAN = {
    "read what it is shown": "found = open('{seen}/plain').read() + open('{seen}/config/open').read()",
    "import late": "import email.mime.text, xml.dom.minidom, sqlite3, decimal, remit.gateway.server; found = 1",
    "read time zones": "import zoneinfo; found = str(zoneinfo.ZoneInfo('Europe/Vienna'))",
    "look up names": "import socket; found = len(socket.getaddrinfo('localhost', 80))",
    "look itself up": "import os, pwd; found = pwd.getpwuid(0).pw_name",
    "use threads": "from concurrent.futures import ThreadPoolExecutor as Pool\nfound = list(Pool(4).map(abs, [-1, 2]))",
    "verify certificates": "import ssl; found = len(ssl.create_default_context().get_ca_certs()) >= 0",
    "draw random numbers": "import os, secrets; found = len(os.urandom(8) + secrets.token_bytes(8))",
    "measure": "import time, resource; found = time.monotonic() + resource.getrusage(0).ru_maxrss > 0",
    "allocate": "import mmap; found = len(mmap.mmap(-1, 1 << 24)) + len(bytearray(1 << 24))",
    "throw things away": "found = open('/dev/null', 'w').write('gone')",
}

SERVES = """
import asyncio, json, ssl
{loop}
async def main():
    async def answer(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
    server = await asyncio.start_server(answer, sock=context.listeners["tcp"].dup())
    reader, writer = await asyncio.open_connection(*context.listeners["tcp"].getsockname()[:2])
    writer.write(b"hello\\n")
    got = await reader.readline()
    writer.close()
    server.close()
    looked = await asyncio.get_running_loop().getaddrinfo("localhost", 1)
    return got.decode() + str(bool(looked))
found = {run}(main())
"""
LOOPS = {
    "asyncio": SERVES.format(loop="", run="asyncio.run"),
    "uvloop": SERVES.format(loop="import uvloop", run="uvloop.run"),
}

TLS = """
import socket, ssl, threading
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain("{seen}/chain.pem")
client = ssl.create_default_context(cafile="{seen}/chain.pem")
ours, theirs = socket.socketpair()
def answer():
    with server.wrap_socket(theirs, server_side=True) as sock:
        sock.sendall(sock.recv(5))
threading.Thread(target=answer).start()
with client.wrap_socket(ours, server_hostname="localhost") as sock:
    sock.sendall(b"hello")
    found = sock.recv(5).decode()
"""


def _code(what: str, rig: Rig, folder: Path) -> str:
    for name, value in {
        "seen": folder / "seen",
        "unseen": folder / "unseen",
        "authority": rig.pids["authority"],
        "supervisor": rig.process.pid,
    }.items():
        what = what.replace("{" + name + "}", str(value))
    return what


@pytest.mark.parametrize("what", CANNOT)
def test_it_cannot(confined: tuple[str, Rig], folder: Path, what: str) -> None:
    answer = confined[1].run("edge", _code(CANNOT[what], confined[1], folder))
    assert answer.keys() == {"error"}, answer
    refused = {"EPERM", "EACCES", "ENOENT", "ENOSYS", "EROFS", "EAFNOSUPPORT", "ENOTDIR", "ENODEV", "ENXIO"}
    assert answer["error"] in refused


@pytest.mark.parametrize("what", CAN)
def test_it_can(confined: tuple[str, Rig], folder: Path, what: str) -> None:
    answer = confined[1].run("edge", _code(CAN[what], confined[1], folder))
    assert not isinstance(answer, dict), answer
    assert answer


@pytest.mark.parametrize("loop", LOOPS)
def test_it_serves_and_connects(confined: tuple[str, Rig], loop: str) -> None:
    assert confined[1].run("edge", LOOPS[loop]) == "hello\nTrue"


def test_it_speaks_tls(confined: tuple[str, Rig], folder: Path) -> None:
    assert confined[1].run("edge", _code(TLS, confined[1], folder)) == "hello"


@pytest.mark.parametrize("role", ["edge", "targets"])
def test_nobody_looks_into_it_and_it_has_no_privilege(confined: tuple[str, Rig], role: str) -> None:
    lines = Path(f"/proc/{confined[1].pids[role]}/status").read_text(encoding="ascii").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert {status[name].strip("0") for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {""}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    limits = "import resource, ctypes; found = [*resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3)]"
    assert confined[1].run(role, limits) == [0, 0, 0]


def test_status_says_what_confines_it(confined: tuple[str, Rig]) -> None:
    walls, rig = confined
    first = "namespaces" if walls == "namespaces" else f"landlock {survey().landlock}"
    assert rig.state()["edge"][2] == [first, "seccomp"]


def test_what_a_worker_without_walls_starts_dies_with_it(open_rig: Rig) -> None:
    rig = open_rig
    leaves = "import subprocess; found = subprocess.run(['/bin/sh', '-c', 'sleep 300 & sleep 300 &']).returncode + 1"
    assert rig.run("targets", leaves) == 1
    left = [process for process in rig.family() if process.name() in {"sh", "sleep"}]
    assert len(left) == 2
    rig.ask("kill", "targets", 1)
    assert [process for process in left if process.is_running()] == []
    rig.wait("started", "targets")
    assert rig.run("targets", "found = 1") == 1


@pytest.mark.parametrize("what", sorted(CANNOT.keys() - NEVER))
def test_without_walls_it_could(open_rig: Rig, folder: Path, what: str) -> None:
    """So that it is the walls that keep it."""
    answer = open_rig.run("edge", _code(CANNOT[what], open_rig, folder))
    assert not isinstance(answer, dict), answer


def test_unprivileged_it_is_confined_as_well(folder: Path) -> None:
    if UNPRIVILEGED:
        pytest.skip("every other test is that one")
    with _rig("namespaces", folder, NOBODY) as rig:
        facts = "import os; found = [os.geteuid(), os.getpid(), sorted(filter(str.isdigit, os.listdir('/proc')))]"
        assert rig.run("edge", facts) == [NOBODY, 1, ["1"]]
        for what in ("open the state", "open what it was not shown", "fork", "signal the authority"):
            assert rig.run("edge", _code(CANNOT[what], rig, folder)).keys() == {"error"}


@pytest.mark.skipif(
    not survey().links, reason="this kernel lets descriptors through: its filter keeps what lingers out"
)
def test_it_passes_no_descriptor_over_its_link(confined: tuple[str, Rig]) -> None:
    passes = "import socket; found = socket.send_fds(context.links[1], [b'x'], [0])"
    assert confined[1].run("edge", passes) == {"error": "EPERM"}


def test_where_the_kernel_lets_descriptors_through_nothing_lingers(confined: tuple[str, Rig]) -> None:
    lingers = "import socket, struct; sock = socket.socket()\n"
    lingers += "found = sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 30)) or 1"
    discards = "import socket; from remit.run import handover; ours, theirs = socket.socketpair()\n"
    discards += "handover.discard([theirs.detach()]); found = len(ours.recv(1))"
    walls, rig = confined
    assert rig.run("edge", lingers) == ({"error": "ENOPROTOOPT"} if walls == "landlock" else 1)
    assert rig.run("edge", discards) == 0


def test_what_is_drawn_after_the_fork_is_drawn_by_each_alone(confined: tuple[str, Rig]) -> None:
    """The supervisor has drawn nothing that another process could know."""
    draws = "import os, random, secrets, uuid; from cryptography.hazmat.primitives.asymmetric import ed25519\n"
    draws += "key = ed25519.Ed25519PrivateKey.generate().private_bytes_raw().hex()\n"
    draws += "found = [random.random(), secrets.token_hex(), os.urandom(8).hex(), str(uuid.uuid4()), key]"
    rig = confined[1]
    drawn = [rig.ask("own", draws), rig.run("edge", draws), rig.run("targets", draws)]
    assert all(len(set(each)) == 3 for each in zip(*drawn, strict=True)), drawn


def test_a_worker_hears_nobody_from_outside(confined: tuple[str, Rig]) -> None:
    """Its listener is the supervisor's: another worker of the same name takes what waits on it."""
    rig = confined[1]
    address: Any = tuple(rig.run("edge", "found = context.listeners['tcp'].getsockname()"))
    rig.ask("kill", "edge", 1)
    with socket.create_connection(address, 10) as waiting:
        rig.wait("started", "edge")
        serve = "taken, _ = context.listeners['tcp'].accept(); taken.sendall(b'next'); taken.close(); found = 1"
        assert rig.run("edge", serve) == 1
        assert waiting.recv(4) == b"next"
