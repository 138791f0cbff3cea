"""What a launch is asked to do, and what it exposes: files that hold standing credentials by custom, among others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from remit.errors import InvalidRequestError
from remit.run.named import NamedVariable
from remit.run.renewal import Lasting
from remit.run.sandbox import ROOM, Bind

INHERITED = ("PATH", "LANG", "TERM", "TZ", "HOME", "USER")
LOCALE = frozenset(
    f"LC_{name}"
    for name in (
        *("ALL", "COLLATE", "CTYPE", "MESSAGES", "MONETARY", "NUMERIC", "TIME"),  # POSIX
        *("ADDRESS", "IDENTIFICATION", "MEASUREMENT", "NAME", "PAPER", "TELEPHONE"),  # glibc
    )
)
PROCESSES = 4_096  # and threads, of one run at a time
SERVERS = "servers"  # the listener by which servers that are commands are started
STDIO = "stdio"  # the kind of the listener of a command's session
MANY = 20  # files that are named one by one
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
CREDENTIALS_OF_A_HOME = (
    *(".aws/credentials", ".azure/msal_token_cache.json", ".config/gcloud/application_default_credentials.json"),
    *(".config/gh/hosts.yml", ".docker/config.json", ".env", ".git-credentials", ".kube/config", ".netrc", ".npmrc"),
    *(".pgpass", ".pypirc", ".ssh/id_ecdsa", ".ssh/id_ed25519", ".ssh/id_rsa"),
)
CREDENTIALS_OF_A_PROJECT = (".env", ".env.*", ".envrc", ".git-credentials", ".netrc", ".npmrc", ".pgpass", ".pypirc")
# Variables by which clients are told what certificates to trust: OpenSSL and Go; requests; curl; Node; AWS; git; pip;
# npm; Deno; Codex; gRPC; cargo; Nix.
TRUSTED_BY = (
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE"),
    *("GIT_SSL_CAINFO", "PIP_CERT", "npm_config_cafile", "DENO_CERT", "CODEX_CA_CERTIFICATE"),
    *("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "CARGO_HTTP_CAINFO", "NIX_SSL_CERT_FILE"),
)
TEMPLATES = (".example", ".sample", ".template", ".dist", ".tmpl")


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """One ``remit run``.

    ``request`` is exactly one of ``{"open": {"purpose", "ttl", …, "authorization_details", "id_token"?}}``,
    ``{"delegate": {"parent"?, "authorization_details", "ttl"?, …, "label"}}`` (``parent`` defaults to the channel's own
    grant) and ``{"grant": "grt_…"}``; ``…`` are the other bounds of a grant request.
    """

    command: tuple[str, ...]
    socket: Path  # the broker's control.sock, inside a run its channel
    request: Mapping[str, object]
    cwd: Path
    environ: Mapping[str, str]  # the caller's
    binds: tuple[Bind, ...] = ()
    env: tuple[str, ...] = ()  # the --env options: NAME or NAME=VALUE
    named: tuple[NamedVariable, ...] = ()  # by the project's file
    hidden: tuple[Path, ...] = ()  # folders that no run may see
    host_net: bool = False
    unsandboxed: bool = False
    quiet: bool = False
    apart: tuple[Path, ...] = ()  # files of remit's own elsewhere, which no folder of a run may contain
    room: int = ROOM  # bytes in each empty folder
    processes: int = PROCESSES
    memory: int | None = None  # bytes that each process may have; None: half of this machine's
    nest: bool = False  # runs may be launched inside
    lasting: Lasting | None = None  # it is renewed until then; None: it ends when its grant was made to
    masked: tuple[Path, ...] = ()  # credential files; the launcher adds those that it finds
    servers: bool = True  # the launcher starts those of its grant that are commands
    stdio: str | None = None  # the resource that the command is: its input and output are led through the edge

    @property
    def limits(self) -> Mapping[str, int]:
        """The resource limits of the command, by the kernel's names."""
        memory = self.memory or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        return {} if self.unsandboxed else {"RLIMIT_NPROC": self.processes, "RLIMIT_DATA": memory}

    @property
    def isolation(self) -> str:
        return "unsandboxed" if self.unsandboxed else "host-net" if self.host_net else "namespace"

    @property
    def nests(self) -> bool:
        """Whether the run may make namespaces: it was asked for, or the grant that is asked for may have children."""
        return self.nest or any(isinstance(asked, Mapping) and asked.get("depth") for asked in self.request.values())

    @property
    def home(self) -> Path:
        """The home of the run: the caller's, emptied; one of its own when the caller has none."""
        named = self.environ.get("HOME", "")
        usable = named.startswith("/") and len(Path(named).parts) > 1
        return Path(named) if usable else Path("/home/run")


def base_environment(spec: LaunchSpec) -> dict[str, str]:
    """Return what a run's environment is made of before the broker adds its part."""
    taken = {name: value for name, value in spec.environ.items() if name in INHERITED or name in LOCALE}
    taken.setdefault("PATH", DEFAULT_PATH)
    if not spec.unsandboxed:
        user = taken.get("USER", "")
        taken |= {"HOME": str(spec.home), "USER": "agent" if user in {"", "root"} else user}
    for option in spec.env:
        name, equals, value = option.partition("=")
        if not name or not name.isprintable() or "\0" in value:
            raise InvalidRequestError(f"`--env {option!r}` must be NAME or NAME=VALUE")
        if equals:
            taken[name] = value
        elif name in spec.environ:
            taken[name] = spec.environ[name]
    return taken


def complete(base: Mapping[str, str], given: Mapping[str, str], env: tuple[str, ...]) -> dict[str, str]:
    """Join both parts; refuse an ``--env`` for what the broker provides, since it would bring a standing key back."""
    both = sorted({option.partition("=")[0] for option in env} & given.keys())
    if both:
        raise InvalidRequestError(f"`{both[0]}` is set by remit for this run", help="leave out its --env")
    return {**base, **given}


def render_exposure(spec: LaunchSpec) -> list[str]:
    """Return the lines that say what this run can reach beyond its sandbox; none for the usual one."""
    lines = []
    if spec.unsandboxed:
        lines += [
            "warning: --unsandboxed: the command runs as you, beside your files, keyrings and processes",
            "warning: whatever you can read, it can; its environment is clean, and that is all",
        ]
    if spec.host_net or spec.unsandboxed:
        lines += [
            "warning: the command shares the network of this machine: it reaches whatever you reach",
            "warning: every local process, of any user, can use this run's gateway and database ports",
        ]
    lines += [f"note: the command can write to {bind.path}" for bind in spec.binds if bind.writable]
    lines += [f"note: {each.name} is a credential for {each.of}" for each in spec.named if each.source == "lease"]
    empty = "note: {} holds credentials and is empty in this run, until that file is replaced"
    said = "warning: it can read {}" if spec.unsandboxed else empty
    lines += [said.format(path) for path in spec.masked[:MANY]]
    if len(spec.masked) > MANY:
        lines.append(f"{said.partition(':')[0]}: the same is true of {len(spec.masked) - MANY} more files")
    return lines


def exposed_credentials(spec: LaunchSpec) -> tuple[Path, ...]:
    """Return the credential files that the working directory would show; without a sandbox, all that stay readable."""
    named = [Path(bind.path).resolve() for bind in spec.binds]
    tops = [Path("/")] if spec.unsandboxed else [spec.cwd.resolve(), *named]
    there = dict.fromkeys(path for path in credentials_in_project(spec.cwd.resolve()) if path not in named)
    found = [path for path in there if any(path.is_relative_to(top) for top in tops)]
    return (*spec.masked, *found, *(credentials_in_home(spec.home) if spec.unsandboxed else ()))


def credentials_in_project(folder: Path) -> Iterator[Path]:
    """Yield the credential files directly in a working directory, by name; for a link the file that it leads to."""
    for pattern in CREDENTIALS_OF_A_PROJECT:
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and not path.name.endswith(TEMPLATES):
                yield path.resolve()


def credentials_in_home(home: Path) -> Iterator[Path]:
    return (home / name for name in CREDENTIALS_OF_A_HOME if (home / name).is_file())
