"""The command line: parse, call, render. One file a noun; no logic."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line of this process. Until a command runs an interrupt ends it, and no traceback is made."""
    interrupted_in_silence()
    from remit.cli import entry  # what it loads takes long enough to be interrupted

    entry.main()


def interrupted_in_silence() -> None:
    """Have an interrupt end this process as it ends any other, unless it is ignored or somebody handles it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
