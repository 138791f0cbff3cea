"""The sandbox as bubblewrap arguments. Pure: what is on the machine comes in as facts.

What a run sees: the system read-only, a few files of /etc that hold no secret, its working directory, what was bound by
name, and the interpreter that runs remit. HOME, /tmp and /run are empty. What was hidden stays hidden whatever else is
bound, and the interpreter stays read-only even inside the working directory: what an agent writes there must not run
with its operator's authority the next time. The same is true of git's hooks and settings. A mount point cannot be
renamed, but a folder that contains one can; so every folder between a writable bind and what lies protected in it is
bound onto itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath as Path

from remit.errors import InvalidRequestError
from remit.process.files import ETC, ETC_HOST_NET, SYSTEM

PROC = ("acpi", "bus", "driver", "dynamic_debug", "fs", "irq", "mtrr", "scsi", "sys", "sysrq-trigger", "tty")
ELSEWHERE = "start the run in another folder, one that holds the project alone"
HOSTS = "127.0.0.1 localhost\n::1 localhost\n"
RUN = "/run/remit"  # where a run's own sockets are
ROOTS = f"{RUN}/roots.pem"  # the certificates that clients in a run trust
# Where the system keeps those that everybody trusts: Debian and Arch; Fedora; Alpine and OpenSSL; SUSE.
BUNDLES = (
    *("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"),
    *("/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem"),
)
PROGRAMS = (
    *("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32", "/usr/libexec"),
    *("/usr/local/bin", "/usr/local/sbin", "/usr/local/lib"),
)  # what everybody runs: writable in no run, not even as root
ROOM = 2 << 30  # bytes that each empty folder of a run holds at most, in memory
UNPRIVILEGED = 1000  # root appears as this uid in a run: uid 0 could not be mapped again in a nested run


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or folder that a run sees at its own path."""

    path: Path
    writable: bool = False
    straight: bool = False  # no link leads to it, or the run is refused


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What the sandbox must know of this machine."""

    uid: int
    gid: int
    links: Mapping[str, str]  # system folders that are symbolic links, with their targets
    nested: bool = False  # this is itself a run whose /proc has covers, so that the kernel mounts no fresh one
    interpreter: tuple[Path, ...] = ()  # prefixes and sources that a run's Python needs, read-only
    bundles: tuple[str, ...] = ()  # those of ``BUNDLES`` that are there, as the kernel knows them


@dataclass(frozen=True, slots=True)
class SandboxView:
    """What one run is to see. ``hidden`` folders and ``masked`` files are covered, whatever else is bound."""

    cwd: Path
    home: Path
    binds: tuple[Bind, ...] = ()
    hidden: tuple[Path, ...] = ()
    masked: tuple[Path, ...] = ()
    kept: tuple[Path, ...] = ()  # what can be read alone, whatever is bound around it
    host_net: bool = False
    apart: tuple[Path, ...] = ()  # files that no bind may contain: their owner replaces them, which takes a cover away
    signs: tuple[Path, ...] = ()  # the symbolic links by which remit finds what is its own
    room: int = ROOM
    aliases: tuple[tuple[Path, Path], ...] = ()  # those by which binds were named, each with where it leads

    @property
    def shown(self) -> tuple[Bind, ...]:
        """The working directory and what was bound by name."""
        return (Bind(self.cwd, writable=True), *self.binds)


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What bubblewrap reads from: open descriptors, by number."""

    passwd: int
    group: int
    hosts: Path  # which the launcher writes, as the next one, when it knows what the run reaches
    roots: Path
    seccomp: int | None = None
    blank: Path | None = None  # an empty file that covers each masked one


def check(machine: MachineFacts, view: SandboxView) -> None:
    """Raise InvalidRequestError when a run would see, or could change, what belongs to remit or to everybody."""
    for bind in view.binds:
        if not bind.path.is_absolute() or ".." in bind.path.parts:
            raise InvalidRequestError(f"`{bind.path}` must be an absolute path")
        if _hidden(view, bind.path):
            raise InvalidRequestError(f"`{bind.path}` belongs to remit and is in no run")
    if view.home.is_relative_to(view.cwd):
        raise InvalidRequestError(
            f"the working directory `{view.cwd}` would show the run your whole home",
            help="start it in the folder of a project, or name what it needs with --bind",
        )
    if _hidden(view, view.cwd):
        raise InvalidRequestError(f"the working directory `{view.cwd}` belongs to remit and is in no run")
    system = [Path(folder) for folder in PROGRAMS]
    for path in (bind.path for bind in view.shown if bind.writable):
        if any(path.is_relative_to(program) for program in (*machine.interpreter, *system)):
            raise InvalidRequestError(f"`{path}` holds programs that run outside, too", help=ELSEWHERE)
        if any(folder.is_relative_to(path) for folder in (*system, Path("/etc"))):
            raise InvalidRequestError(f"`{path}` contains the system's own files", help=ELSEWHERE)
    _check_own(view, _mounts(machine, view))


def _check_own(view: SandboxView, mounts: Sequence[Bind]) -> None:
    for path in view.apart:
        if not _hidden(view, path) and _around(path, mounts) is not None:
            raise InvalidRequestError(
                f"`{path}` belongs to remit and would be in the run",
                help="keep key, witness and policies in folders that no run sees, or start this run in another folder",
            )
    for sign in view.signs:
        around = None if _hidden(view, sign) else _around(sign, mounts)
        if around is not None and around.writable:
            raise InvalidRequestError(f"remit follows the link `{sign}`, which the run could replace", help=ELSEWHERE)


def _hidden(view: SandboxView, path: Path) -> bool:
    return any(path.is_relative_to(hidden) for hidden in view.hidden)


def _around(path: Path, mounts: Sequence[Bind]) -> Bind | None:
    """Return the bind that shows a path: the innermost, of several of the same folder the last."""
    return next((bind for bind in reversed(mounts) if path.is_relative_to(bind.path)), None)


def arguments(machine: MachineFacts, view: SandboxView, given: Descriptors) -> list[str]:
    """Return bubblewrap's options for a view, or raise InvalidRequestError."""
    check(machine, view)
    mounts = _mounts(machine, view)
    shown = [*map(Path, SYSTEM), *(bind.path for bind in mounts)]
    covered = [path for path in view.hidden if any(top in path.parents for top in shown)]
    absent = [pair for pair in view.aliases if not any(pair[0].is_relative_to(top) for top in shown)]
    return [
        *namespaces(machine, host_net=view.host_net),
        *_system(machine, view, given),
        *_proc(machine),
        *("--dev", "/dev", "--size", str(view.room), "--perms", "1777", "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),  # noqa: S108 - the run's own
        *_empty(view.home, view.room),
        *("--ro-bind", str(given.roots), ROOTS),
        *_binds(machine, view, mounts),
        *(option for path in covered for option in ("--size", "4096", "--perms", "0500", "--tmpfs", str(path))),
        *(option for path in view.masked for option in ("--ro-bind", str(given.blank), str(path))),
        *(option for link, target in absent for option in ("--symlink", str(target), str(link))),
        *("--remount-ro", "/", "--chdir", str(view.cwd)),
        *(("--seccomp", str(given.seccomp)) if given.seccomp is not None else ()),
    ]


def inside_ids(uid: int, gid: int) -> tuple[int, int]:
    return (uid or UNPRIVILEGED, gid or UNPRIVILEGED)


def passwd(name: str, uid: int, gid: int, home: Path) -> str:
    """Return an /etc/passwd that names the run's own user and nobody of the machine's."""
    own = f"{name}:x:{uid}:{gid}::{home}:/bin/sh\n"
    nobody = "" if uid == 65534 else "nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"  # noqa: PLR2004 - its uid
    return f"root:x:0:0::/nonexistent:/usr/sbin/nologin\n{own}{nobody}"


def group(name: str, gid: int) -> str:
    nogroup = "" if gid == 65534 else "nogroup:x:65534:\n"  # noqa: PLR2004 - its gid
    return f"root:x:0:\n{name}:x:{gid}:\n{nogroup}"


def namespaces(machine: MachineFacts, *, host_net: bool = False) -> Sequence[str]:
    uid, gid = inside_ids(machine.uid, machine.gid)
    own = ("--unshare-all", "--new-session", "--die-with-parent", "--cap-drop", "ALL")
    return (*own, "--uid", str(uid), "--gid", str(gid), "--hostname", "run", *(("--share-net",) if host_net else ()))


def _same(option: str, paths: Iterable[str]) -> Iterator[str]:
    """Yield an option that shows each path as itself."""
    for path in paths:
        yield from (option, path, path)


def _system(machine: MachineFacts, view: SandboxView, given: Descriptors) -> Iterator[str]:
    for folder in SYSTEM:
        link = machine.links.get(folder)
        yield from ("--symlink", link, folder) if link else ("--ro-bind-try", folder, folder)
    names = (*ETC, *(ETC_HOST_NET if view.host_net else ()))
    yield from _same("--ro-bind-try", (f"/etc/{name}" for name in names))
    yield from ("--ro-bind-data", str(given.passwd), "/etc/passwd", "--ro-bind-data", str(given.group), "/etc/group")
    if not view.host_net:
        yield from ("--ro-bind", str(given.hosts), "/etc/hosts")
    for bundle in machine.bundles:
        yield from ("--ro-bind", str(given.roots), bundle)


def _proc(machine: MachineFacts) -> Sequence[str]:
    """Show processes, and for root nothing of the kernel that can be written.

    The kernel asks only for uid 0, not for capabilities, before it lets somebody write core_pattern and its kind: as
    root a run would get out that way. The covers keep a nested run from a fresh /proc; it shares that of the run around
    it, where it can see other runs' command lines and, being in another user namespace, nothing else of them.
    """
    if machine.nested:
        return ("--bind", "/proc", "/proc")
    names = PROC if machine.uid == 0 else ()
    return ("--proc", "/proc", *_same("--ro-bind-try", (f"/proc/{name}" for name in names)))


def _empty(home: Path, room: int) -> Sequence[str]:
    fixed = [("1777", "/tmp"), ("1777", "/var/tmp"), ("0755", "/run")]  # noqa: S108 - the run's own
    folders = sorted([*fixed, ("0700", str(home))], key=lambda item: item[1].count("/"))
    options = [
        option for mode, folder in folders for option in ("--size", str(room), "--perms", mode, "--tmpfs", folder)
    ]
    return (*options, "--perms", "0700", "--dir", RUN)


def _mounts(machine: MachineFacts, view: SandboxView) -> list[Bind]:
    """Order binds from the outside in, so that a folder does not cover what was bound inside it."""
    wanted = [*view.shown, *(Bind(path) for path in (*view.kept, *machine.interpreter))]
    return sorted(wanted, key=lambda bind: len(bind.path.parts))


def _binds(machine: MachineFacts, view: SandboxView, mounts: Sequence[Bind]) -> Iterator[str]:
    """Yield the options for all binds, and for the folders around what is protected: they cannot be moved with it."""
    held = set[Bind]()
    for path in (*machine.interpreter, *view.hidden, *view.masked, *view.kept):
        for level in path.parents:
            around = _around(level, mounts)
            if around is not None and around.writable and around.path != level:
                held.add(Bind(level, writable=True))
    for bind in sorted([*mounts, *held], key=lambda bind: (len(bind.path.parts), str(bind.path))):
        yield from ("--bind" if bind.writable else "--ro-bind", str(bind.path), str(bind.path))
