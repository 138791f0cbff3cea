"""Completions in the shells that they are for."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers import require

REMIT = Path(sys.executable).with_name("remit")
BASH = """
source completions
answer() { COMP_WORDS=(remit "$@"); COMP_CWORD=$#; _remit_completion remit; echo "${COMPREPLY[@]}"; }
answer resou
answer run --ne
answer completion ""
"""
FISH = """
source completions
for line in "remit resou" "remit run --ne" "remit completion "
    echo (complete -C $line | string replace -r '\\t.*' '')
end
"""
READY = "fpath=($PWD/functions $fpath); autoload -Uz compinit; compinit -u -D; PS1=go-on; print ready$((1+1))\n"


def told(shell: str, folder: Path, script: str, *options: str) -> list[str]:
    """Return the lines that a shell prints for a script."""
    environ = {"PATH": f"{REMIT.parent}:{os.environ['PATH']}", "HOME": str(folder), "TERM": "xterm"}
    command = [require(shell), *options, "-c", script]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=True, timeout=40)
    return done.stdout.splitlines()


def printed(shell: str) -> str:
    return subprocess.run([REMIT, "completion", shell], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(("shell", "script", "options"), [("bash", BASH, ["--norc"]), ("fish", FISH, [])])
def test_a_shell_completes_commands_options_and_values(
    tmp_path: Path, shell: str, script: str, options: list[str]
) -> None:
    (tmp_path / "completions").write_text(printed(shell))
    commands, named, shells = (sorted(line.split()) for line in told(shell, tmp_path, script, *options))
    assert (commands, named, shells) == (["resource"], ["--nest", "--net"], ["bash", "fish", "zsh"])


def test_zsh_completes_from_the_first_time_on(tmp_path: Path) -> None:
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "_remit").write_text(printed("zsh"))
    end, theirs = pty.openpty()
    environ = {"PATH": f"{REMIT.parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "xterm"}
    command, seen = [require("zsh"), "-f", "-i"], b""
    with subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as shell:
        os.close(theirs)
        try:
            # what is completed is run: a function of the shell's own says what that was
            lines = (READY, "remit() { print got:$* }; print set$((1+1))\n", "remit resou\t\n", "remit run --nes\t\n")
            for line, answer in zip(lines, (b"ready2", b"set2", b"got:resource", b"got:run --nest"), strict=True):
                os.write(end, line.encode())
                seen = b""
                while b"go-on" not in seen.partition(answer)[2]:  # else it does not read keys yet
                    assert select.select([end], [], [], 10)[0], (line, seen)
                    seen += os.read(end, 65_536)
        finally:
            shell.kill()
    os.close(end)
