"""The sandbox as bubblewrap arguments. Pure: what is on the machine comes in as facts.

What a run sees: the system read-only, a few files of /etc that hold no secret, its working directory, what was bound by
name, and the interpreter that runs remit. HOME, /tmp and /run are empty. What was hidden stays hidden whatever else is
bound, and the interpreter stays read-only even inside the working directory: what an agent writes there must not run
with its operator's authority the next time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath as Path

from remit.errors import InvalidRequestError

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC = (
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "ca-certificates.conf",
    "debian_version",
    "fonts",
    "gai.conf",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "locale.conf",
    "localtime",
    "magic",
    "mime.types",
    "networks",
    "nsswitch.conf",
    "os-release",
    "pki/ca-trust",
    "pki/tls/certs",
    "protocols",
    "rpc",
    "services",
    "shells",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
)
ETC_HOST_NET = ("hosts", "resolv.conf")  # needed only to reach what a network of one's own cannot reach
PROC = ("acpi", "bus", "driver", "dynamic_debug", "fs", "irq", "mtrr", "scsi", "sys", "sysrq-trigger", "tty")
RUN = "/run/remit"  # where a run's own sockets are
UNPRIVILEGED = 1000  # root appears as this uid in a run: uid 0 could not be mapped again in a nested run


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or folder that a run sees at its own path."""

    path: Path
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts about this machine. ``links`` are system folders that are symbolic links, with their targets.

    ``nested``: this is itself a run whose /proc has covers, so that the kernel mounts no fresh one.
    """

    uid: int
    gid: int
    links: Mapping[str, str]
    nested: bool = False
    interpreter: tuple[Path, ...] = ()  # prefixes and sources that a run's Python needs, read-only


@dataclass(frozen=True, slots=True)
class Room:
    """What one run is to see. ``hidden`` folders and ``masked`` files are covered, whatever else is bound."""

    cwd: Path
    home: Path
    binds: tuple[Bind, ...] = ()
    hidden: tuple[Path, ...] = ()
    masked: tuple[Path, ...] = ()
    host_net: bool = False


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Open descriptors that bubblewrap reads from, by number."""

    passwd: int
    group: int
    hosts: int
    seccomp: int | None = None
    blanks: tuple[int, ...] = ()  # an empty one for each masked file


def check(room: Room) -> None:
    """Raise InvalidRequestError when what is to be seen would show what must not be."""
    for bind in room.binds:
        if not bind.path.is_absolute() or ".." in bind.path.parts:
            raise InvalidRequestError(f"`{bind.path}` must be an absolute path")
        if any(bind.path == hidden or hidden in bind.path.parents for hidden in room.hidden):
            raise InvalidRequestError(f"`{bind.path}` belongs to remit and is in no run")
    if room.cwd == room.home or room.cwd in room.home.parents:
        raise InvalidRequestError(
            f"the working directory `{room.cwd}` would show the run your whole home",
            help="start it in the folder of a project, or name what it needs with --bind",
        )
    if any(room.cwd == hidden or hidden in room.cwd.parents for hidden in room.hidden):
        raise InvalidRequestError(f"the working directory `{room.cwd}` belongs to remit and is in no run")


def arguments(machine: Machine, room: Room, given: Descriptors) -> list[str]:
    """Return bubblewrap's options for a room, or raise InvalidRequestError."""
    check(room)
    return [
        *_namespaces(machine, room.host_net),
        *_system(machine),
        *_etc(room.host_net, given),
        *_proc(machine),
        *("--dev", "/dev"),
        *_empty(room.home),
        *_binds(machine, room),
        *_covers(room, given.blanks),
        *("--remount-ro", "/", "--chdir", str(room.cwd)),
        *(("--seccomp", str(given.seccomp)) if given.seccomp is not None else ()),
    ]


def inside_ids(uid: int, gid: int) -> tuple[int, int]:
    """Return the uid and gid that a run sees itself as."""
    return (uid or UNPRIVILEGED, gid or UNPRIVILEGED)


def passwd(name: str, uid: int, gid: int, home: Path) -> str:
    """Return an /etc/passwd that names the run's own user and nobody of the machine's."""
    own = f"{name}:x:{uid}:{gid}::{home}:/bin/sh\n"
    nobody = "" if uid == 65534 else "nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"  # noqa: PLR2004 - its uid
    return f"root:x:0:0::/nonexistent:/usr/sbin/nologin\n{own}{nobody}"


def group(name: str, gid: int) -> str:
    """Return the /etc/group that goes with ``passwd``."""
    nogroup = "" if gid == 65534 else "nogroup:x:65534:\n"  # noqa: PLR2004 - its gid
    return f"root:x:0:\n{name}:x:{gid}:\n{nogroup}"


HOSTS = "127.0.0.1 localhost\n::1 localhost\n"


def _namespaces(machine: Machine, host_net: bool) -> Sequence[str]:  # noqa: FBT001 - a field passed on
    uid, gid = inside_ids(machine.uid, machine.gid)
    own = ("--unshare-all", "--new-session", "--die-with-parent", "--cap-drop", "ALL")
    return (*own, "--uid", str(uid), "--gid", str(gid), "--hostname", "run", *(("--share-net",) if host_net else ()))


def _system(machine: Machine) -> Sequence[str]:
    options: list[str] = []
    for folder in SYSTEM:
        link = machine.links.get(folder)
        options += ["--symlink", link, folder] if link else ["--ro-bind-try", folder, folder]
    return options


def _etc(host_net: bool, given: Descriptors) -> Sequence[str]:  # noqa: FBT001 - a field passed on
    names = (*ETC, *(ETC_HOST_NET if host_net else ()))
    copied = [option for name in names for option in ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")]
    own = ["--ro-bind-data", str(given.passwd), "/etc/passwd", "--ro-bind-data", str(given.group), "/etc/group"]
    hosts = [] if host_net else ["--ro-bind-data", str(given.hosts), "/etc/hosts"]
    return (*copied, *own, *hosts)


def _proc(machine: Machine) -> Sequence[str]:
    """Show processes, and for root nothing of the kernel that can be written.

    The kernel asks only for uid 0, not for capabilities, before it lets somebody write core_pattern and its kind: as
    root a run would get out that way. The covers keep a nested run from a fresh /proc; it shares that of the run around
    it, where it can see other runs' command lines and, being in another user namespace, nothing else of them.
    """
    if machine.nested:
        return ("--bind", "/proc", "/proc")
    names = PROC if machine.uid == 0 else ()
    return ("--proc", "/proc", *(o for name in names for o in ("--ro-bind-try", f"/proc/{name}", f"/proc/{name}")))


def _empty(home: Path) -> Sequence[str]:
    fixed = [("1777", "/tmp"), ("1777", "/var/tmp"), ("0755", "/run")]  # noqa: S108 - the run's own
    folders = sorted([*fixed, ("0700", str(home))], key=lambda item: item[1].count("/"))
    options = [option for mode, folder in folders for option in ("--perms", mode, "--tmpfs", folder)]
    return (*options, "--perms", "0700", "--dir", RUN)


def _binds(machine: Machine, room: Room) -> Sequence[str]:
    """Order binds from the outside in, so that a folder does not cover what was bound inside it."""
    program = [Bind(path) for path in machine.interpreter]
    wanted = [Bind(room.cwd, writable=True), *room.binds, *program]
    ordered = sorted(wanted, key=lambda bind: len(bind.path.parts))
    return [option for bind in ordered for option in _bind(bind)]


def _bind(bind: Bind) -> Sequence[str]:
    return ("--bind" if bind.writable else "--ro-bind", str(bind.path), str(bind.path))


def _covers(room: Room, blanks: Sequence[int]) -> Sequence[str]:
    shown = [room.cwd, *(bind.path for bind in room.binds)]
    folders = [path for path in room.hidden if any(top in path.parents for top in shown)]
    over = [option for path in folders for option in ("--perms", "0500", "--tmpfs", str(path))]
    pairs = zip(blanks, room.masked, strict=True)
    blank = [option for number, path in pairs for option in ("--ro-bind-data", str(number), str(path))]
    return (*over, *blank)
