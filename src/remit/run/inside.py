"""What runs first inside a run: bind its listeners, hand them over, become the command.

It is started by path with ``python -I -S`` so that it imports the standard library alone, from the interpreter, and
nothing from the folder it starts in. Its one argument is the number of a stream socket to the launcher, on which
messages are four bytes of length and JSON::

    hello {}                                        the launcher takes the pid from the kernel's credentials
        {"listeners": [...], "keep": [0, 1], "tty": [2]} with the descriptors to keep
    bound {"bound": [...]} with the sockets, and the terminal's other end last
        {"command": [...], "environment": {...}, "limits": {"RLIMIT_…": most}}
    end of file (the command runs) or {"failed": errno}
"""

import array
import contextlib
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import sys
import termios
import time

BACKLOG = 1_024  # who connects while nobody serves the run waits there
NICE = 10  # as nice(1) has it
TURN = 100_000  # nanoseconds at a core while others want it, the least there is
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
PAUSE = 0.05  # seconds; the kernel lets one process do this every tenth of a second
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # what a shell answers
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def receive(channel: socket.socket) -> tuple[dict, list[int]]:  # type: ignore[type-arg]  # JSON; typing is slow
    """Return the next message and its descriptors."""
    first, descriptors, _, _ = socket.recv_fds(channel, 4, 3)
    head = first + read(channel, 4 - len(first))
    return json.loads(read(channel, struct.unpack("!I", head)[0])), descriptors


def read(channel: socket.socket, size: int) -> bytes:
    """Return exactly ``size`` bytes; ConnectionResetError when the other end has gone."""
    data = b""
    while len(data) < size:
        part = channel.recv(size - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data


def send(channel: socket.socket, message: object, descriptors: list[int] | tuple[int, ...] = ()) -> None:
    """Send one message; descriptors travel with its first byte."""
    data = json.dumps(message).encode()
    packet = struct.pack("!I", len(data)) + data
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sent = channel.sendmsg([packet], rights)
    channel.sendall(packet[sent:])


def bind(listener: dict) -> socket.socket:  # type: ignore[type-arg]  # JSON
    """Return a listening socket, in the network and the files of this process."""
    if "path" in listener:
        kind = socket.SOCK_SEQPACKET if listener["name"] == "launch" else socket.SOCK_STREAM
        sock = socket.socket(socket.AF_UNIX, kind)
        sock.bind(listener["path"])
        os.chmod(listener["path"], 0o600)  # noqa: PTH101 - pathlib is slow to import
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", listener["port"]))
    sock.listen(BACKLOG)
    return sock


def terminal(places: list[int]) -> int:
    """Put a fresh terminal in the place of the operator's; return its other end."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
    for place in places:
        os.dup2(theirs, place)
    os.close(theirs)
    return ours


def become(channel: socket.socket, order: dict) -> None:  # type: ignore[type-arg]  # JSON
    """Replace this process by the command; the channel closes with it."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # what Python ignores, a command expects at its default
        signal.signal(number, signal.SIG_DFL)
    for name, most in order["limits"].items():  # processes are counted in the user namespace of the run (Linux 5.14)
        limit = getattr(resource, name)
        hard = resource.getrlimit(limit)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (least, least))
    command, environment = order["command"], order["environment"]
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - the exact arguments, and no shell
    except OSError as error:
        send(channel, {"failed": error.errno})
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        os._exit(NOT_FOUND if missing else NOT_EXECUTABLE)


def stand_back() -> None:
    """Let the broker go first, at cores and memory: it serves this run, too.

    Where the kernel divides its cores by sessions (autogroup), the new one of this run stands back as a whole. Turns
    are short (Linux 6.12): a run that asks for little need not wait until one that wants all has had a long one.
    """
    nice = max(NICE, os.getpriority(os.PRIO_PROCESS, 0))
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    if number := SCHED_SETATTR.get(os.uname().machine):
        ctypes.CDLL(None).syscall(number, 0, struct.pack("=IIQiIQQQ", 48, 0, 0, nice, 0, TURN, 0, 0), 0)
    for name, value in (("autogroup", NICE), ("oom_score_adj", 1_000)):
        for _ in range(10):
            try:
                with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - pathlib is slow to import
                    file.write(str(value))
            except BlockingIOError:
                time.sleep(PAUSE)
                continue
            except OSError:  # there is no such thing here
                pass
            break


def main() -> None:
    """Hand over, then become the command."""
    with contextlib.suppress(PermissionError):  # it leads one already
        os.setsid()  # of its own: the group that a signal from the launcher goes to
    stand_back()
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    send(channel, {})
    order, descriptors = receive(channel)
    for place, descriptor in zip(order["keep"], descriptors, strict=True):  # what the launcher passed goes into place
        os.dup2(descriptor, place)
        os.close(descriptor)
    sockets = [bind(listener) for listener in order["listeners"]]
    ends = [sock.detach() for sock in sockets]
    if order["tty"]:
        ends.append(terminal(order["tty"]))
    send(channel, {"bound": [listener["name"] for listener in order["listeners"]]}, ends)
    for end in ends:
        os.close(end)
    become(channel, receive(channel)[0])


if __name__ == "__main__":
    with contextlib.suppress(ConnectionResetError):  # the launcher has gone
        main()
    os._exit(NOT_EXECUTABLE)
