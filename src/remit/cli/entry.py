"""The entry point ``remit``: exit 0 when done, 1 with an ``error:`` line, 2 when the command line is wrong."""

from __future__ import annotations

import io
import os
import pwd
import re
import signal
import sys
import traceback
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from remit.cli import interrupted_in_silence

MISUSE = 2
FAILED = 1
INTERRUPTED = 130
SERVER = ("httptools", "jinja2", "joserfc", "msgspec", "starlette", "typer", "uvicorn", "uvloop", "wsproto")  # an extra

PLAIN_UP = re.compile(r"up(?: --json)?(?: --edges[ =]([1-8]))?(?: --json)?")


def main() -> None:
    """Run the command line of this process (``cli.main``, which is loaded sooner)."""
    open_streams()
    settle(os.environ)
    sys.path[:] = trusted(sys.path, os.curdir)
    missing = [name for name in SERVER if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"error: this is the client library alone: commands and the broker lack {', '.join(missing)}\n"
            "help: pip install 'remit[server]' (in a clone of it: '.[server]')\n"
        )
        raise SystemExit(FAILED)
    if sys.argv[1:2] == ["up"]:
        from remit.compose.environ import begin_anew

        begin_anew()
    up = PLAIN_UP.fullmatch(" ".join(sys.argv[1:]))
    if up is None:
        code = run(sys.argv[1:])
        interrupted_in_silence()
        raise SystemExit(flushed(code))
    # What reads command lines takes 15 MB, which a broker would keep for as long as it serves.
    from remit.cli.render import complain
    from remit.compose.up import foreground
    from remit.errors import RemitError

    try:
        foreground(as_json="--json" in sys.argv, edges=int(up[1] or 1))
    except RemitError as error:
        complain(error)
        raise SystemExit(FAILED) from error
    except Exception as error:
        raise SystemExit(failed(error)) from error


def open_streams() -> None:
    """Open standard streams that are closed, else what we open has their numbers; have stdout escape what it lacks."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            os.dup2(opened, number)
            if opened != number:
                os.close(opened)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def settle(environ: MutableMapping[str, str]) -> None:
    """Have names of folders mean the same to us and to a broker, which has another working directory."""
    if not environ.get("HOME", "").startswith("/"):
        with suppress(KeyError):  # a user whom nobody knows
            environ["HOME"] = pwd.getpwuid(os.geteuid()).pw_dir
    if environ.get("REMIT_STATE_DIR"):
        with suppress(FileNotFoundError):  # the working directory is gone
            environ["REMIT_STATE_DIR"] = os.path.abspath(environ["REMIT_STATE_DIR"])  # noqa: PTH100 - pathlib is not ours yet
    for name in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        if not environ.get(name, "/").startswith("/"):  # "consider the path invalid and ignore it"
            del environ[name]


def flushed(code: int) -> int:
    """Write what is left to be written, which Python would do later, and with a traceback; return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            code = failed(error) if stream is sys.stdout else code or FAILED
    return code


def failed(error: Exception) -> int:
    """Say what nobody foresaw, in place of a traceback: of the machine, or a fault of ours and where it is."""
    from remit.cli.render import complain
    from remit.errors import RemitError
    from remit.sdk.place import state

    if isinstance(error, BrokenPipeError):  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    frames = list(traceback.walk_tb(error.__traceback__))
    where = f"{Path(frames[-1][0].f_code.co_filename).name}:{frames[-1][1]}" if frames else "?"
    if isinstance(error, UnicodeEncodeError):
        complain(RemitError("a name here is no text: it has bytes that are not UTF-8"))
        return FAILED
    if isinstance(error, FileNotFoundError) and error.filename is None:  # as `getcwd` says it
        complain(RemitError("the working directory is gone", help="go to one that is there"))
        return FAILED
    if isinstance(error, OSError) and error.strerror:
        complain(RemitError(f"{error.strerror}: `{error.filename}`" if error.filename else error.strerror))
        return FAILED
    said = f"this is a fault of remit's own: {type(error).__name__} at {where}: {error}"
    complain(RemitError(said, help=f"the broker's log may say more: {state(os.environ) / 'log'}"))
    return FAILED


def trusted(path: Sequence[str], current: str) -> list[str]:
    """Return an import path without the directory we happen to be in: what lies there must not become us."""
    here = ""
    with suppress(FileNotFoundError):  # it is gone
        here = os.path.realpath(current)
    library = os.path.dirname(os.__file__)  # noqa: PTH120 - pathlib is not ours yet
    ours = [entry for entry in path if entry.endswith("-packages") or entry == library]
    return [entry for entry in path if entry.startswith("/") and (os.path.realpath(entry) != here or entry in ours)]


def _named(command: object, arguments: Sequence[str]) -> str:
    """Return the longest command that the arguments begin with; not every misuse says to which it belongs."""
    words = ["remit"]
    for word in arguments:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            break
        words.append(word)
    return " ".join(words)


def run(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code."""
    import typer  # after the path is safe

    from remit.cli.app import app
    from remit.cli.render import complain, misused
    from remit.cli.sdk import pointed
    from remit.errors import RemitError

    wrong = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ in {"ClickException", "TyperException"})
    if "_REMIT_COMPLETE" in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = app(list(arguments), prog_name="remit", standalone_mode=False)
    except RemitError as error:
        complain(pointed(error))
        return FAILED
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - of a command line, or told of without a traceback
        if not isinstance(error, wrong):
            return failed(error)
        misused(error, _named(typer.main.get_command(app), arguments))
        return MISUSE
    return code if isinstance(code, int) else 0
