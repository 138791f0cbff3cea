"""A broker with a trust domain of its own and a TLS listener, agents in real runs, and a service that speaks SPIFFE."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any, Self

from cryptography.hazmat.primitives.serialization import Encoding

from tests.identity import spire

REMIT = str(Path(sys.prefix, "bin", "remit"))
DOMAIN = "agents.test"
LEDGER = "https://ledger.test"
PATIENCE = 60.0  # seconds
CONFIG = """
[listen]
api = "off"
gateway = "off"

[identity]
trust_domain = "{domain}"

[tls]
listen = "127.0.0.1:{port}"
names = ["127.0.0.1"]
certificate = "{certificate}"
key = "{key}"

[[trust_domains]]
name = "prod.test"
bundle_file = "{bundle}"
allow = ["spiffe://prod.test/**"]
"""


@dataclass
class Town:
    """The broker, as its operator has it."""

    folder: Path
    environ: dict[str, str]
    base: str
    ca: Path
    prod: spire.Domain

    @property
    def control(self) -> Path:
        """The operator's socket."""
        return Path(self.environ["REMIT_STATE_DIR"], "run", "control.sock")

    @property
    def project(self) -> Path:
        """Where runs start."""
        return self.folder / "project"

    def remit(self, *words: str) -> Any:
        """Run one command that answers in JSON."""
        command = [REMIT, *words, "--json"]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, cwd=self.project, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def opened(self, *more: str) -> str:
        """Open a task; return its root grant."""
        bounds = ("--ttl", "20m", "--depth", "2", "--fan-out", "8")
        grant: str = self.remit("open", "pay the bills", *bounds, *(more or ("-r", "mesh")))["grant"]
        return grant

    @contextmanager
    def agent(self, *words: str) -> Iterator[Agent]:
        """Start an agent in a run; ``words`` are what ``remit run`` is told."""
        command = [REMIT, "run", "--quiet", *words, "--", sys.executable, "svid_agent.py"]
        with started(command, self.environ, self.project) as process:
            yield Agent(process)


@contextmanager
def started(command: Sequence[str], environ: dict[str, str], cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a program that is told things by lines; it ends with its input."""
    with subprocess.Popen(
        command, env=environ, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.wait(PATIENCE)


@dataclass
class Agent:
    """An agent in its run."""

    process: subprocess.Popen[str]

    def tell(self, do: str, **more: object) -> Any:
        """Have it do something; return what came of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def founded(folder: Path) -> Iterator[Town]:
    """Found a town: a broker that is the authority of ``agents.test``, with one resource, ``mesh``."""
    authority = spire.Authority.root("web")
    (folder / "ca.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    server = spire.server(authority, "127.0.0.1")
    chain, key = folder / "server.pem", folder / "server.key"
    chain.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in server.chain))
    key.write_bytes(spire.pem(server.key))
    key.chmod(0o600)
    port = _free()
    config = folder / "config" / "remit"
    config.mkdir(parents=True)
    prod, bundle = spire.Domain("prod.test"), folder / "prod.json"
    bundle.write_bytes(prod.bundle())
    text = CONFIG.format(domain=DOMAIN, port=port, certificate=chain, key=key, bundle=bundle)
    (config / "config.toml").write_text(text, "utf-8")
    (folder / "project").mkdir()
    shutil.copy(Path(__file__).with_name("svid_agent.py"), folder / "project")
    names = {"XDG_CONFIG_HOME": str(config.parent), "REMIT_STATE_DIR": str(folder / "state")}
    town = Town(folder, {**os.environ, **names}, f"https://127.0.0.1:{port}", folder / "ca.pem", prod)
    with _up(town):
        bound = f"actions=x509,jwt,audiences={LEDGER},ttl=300"
        town.remit("resource", "add", "mesh", f"spiffe://{DOMAIN}", "-b", bound)
        yield town


@contextmanager
def _up(town: Town) -> Iterator[None]:
    process = subprocess.Popen([REMIT, "up", "--json"], env=town.environ, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline())["control"] == str(town.control)
        yield
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0
        process.stdout.close()


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
        return port


@dataclass
class Ledger:
    """A service with an SVID of its own that lets in one agent, by its SPIFFE ID."""

    path: Path
    credential: dict[str, str]
    bundle: bytes  # DER of the authorities it believes
    allowed: str = ""
    heard: Queue[str] = field(default_factory=Queue)

    def who(self) -> str:
        """Return who called next, or why there was nobody to believe."""
        return self.heard.get(timeout=PATIENCE)

    def __enter__(self) -> Self:
        """Listen."""
        self._stack = ExitStack()
        self._sock = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        self._sock.bind(str(self.path))
        self._sock.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._stack.close()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._sock.accept()
            except OSError:
                return
            with raw:
                raw.settimeout(PATIENCE)
                self._answer(raw)

    def _answer(self, raw: socket.socket) -> None:
        try:
            with self._context().wrap_socket(raw, server_side=True) as secured:
                certificate: Any = secured.getpeercert()
                (name,) = [value for kind, value in certificate["subjectAltName"] if kind == "URI"]
                self.heard.put(name)
                secured.sendall(b"paid" if name == self.allowed else b"not you")
        except OSError as error:
            self.heard.put(str(error))

    def _context(self) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.verify_mode = ssl.CERT_REQUIRED
        made.verify_flags |= ssl.VERIFY_X509_STRICT
        made.num_tickets = 0
        made.load_verify_locations(cadata=self.bundle)
        with tempfile.TemporaryDirectory() as folder:
            chain, key = Path(folder, "chain"), Path(folder, "key")
            chain.write_text(self.credential["certificate"])
            key.write_text(self.credential["key"])
            made.load_cert_chain(chain, key)
        return made
