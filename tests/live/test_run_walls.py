"""What a real run may not ask of the kernel, what it may not fill, and what git runs as its user."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.test_run import CHILD, SELF, inside
from tests.run.rig import READ, House, house, opening

pytestmark = pytest.mark.live

FLAT = opening(READ, depth=0, fan_out=0)  # no child, so no run inside
UNSHARE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
print(libc.unshare(0x10000000) and ctypes.get_errno())
"""
FILL = """
import os, sys
try:
    with open(sys.argv[1] + "/fill", "wb", 0) as file:
        for _ in range(5):
            file.write(bytes(1 << 20))
except OSError as error:
    print(error.errno)
"""


@pytest.fixture
def runs() -> Iterator[House]:
    with house() as built:
        yield built


def test_a_run_makes_no_user_namespace_unless_runs_are_to_be_launched_inside(runs: House) -> None:
    assert runs.python(UNSHARE, request=FLAT).stdout.strip() == str(errno.EPERM)
    assert runs.python(UNSHARE, request=FLAT, nest=True).stdout.strip() == "0"
    assert runs.python(UNSHARE, request=opening(READ, depth=1, fan_out=1)).stdout.strip() == "0"


def test_a_run_inside_that_may_have_none_says_what_the_one_around_it_lacks(runs: House) -> None:
    grant = opening(READ, depth=0, fan_out=0)
    done = runs.run(inside(["true"], CHILD), grant, binds=SELF)
    assert done.returncode == 3
    assert "unavailable: the sandbox cannot be made: bwrap: " in done.stderr
    assert "help: the run around this one was launched without `--nest`, or a `--depth`" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["git", "--version"],
        ["sh", "-c", 'node -e \'new (require("worker_threads").Worker)("console.log(1)", {eval: true})\''],
        ["sh", "-c", "git init -q r && cd r && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x"],
        [sys.executable, "-c", "import threading, subprocess; subprocess.run(['true'], check=True)"],
        [sys.executable, "-c", "from multiprocessing import Pool; assert Pool(2).map(abs, [-1]) == [1]"],
    ],
)
def test_programs_of_every_day_work_in_a_run(runs: House, command: list[str]) -> None:
    if command[-1].startswith("node") and not Path("/usr/bin/node").exists():
        pytest.skip("node is not installed")
    done = runs.run(command, FLAT)
    assert (done.returncode, done.stderr.count("error")) == (0, 0), done.stderr


@pytest.mark.parametrize("folder", ["/tmp", "/var/tmp", "/run", "/dev/shm", "~"])  # noqa: S108 - a run's
def test_an_empty_folder_holds_so_much_and_no_more(runs: House, folder: str) -> None:
    place = str(runs.folder / "home") if folder == "~" else folder
    assert runs.python(FILL, place, request=FLAT, room=4 << 20).stdout.strip() == str(errno.ENOSPC)
    assert runs.python(FILL, place, request=FLAT).stdout.strip() == ""


def test_nothing_else_of_a_run_is_in_memory_and_writable(runs: House) -> None:
    assert runs.python(FILL, "/dev", request=FLAT).stdout.strip() == str(errno.EROFS)
    assert runs.python(FILL, "/", request=FLAT).stdout.strip() == str(errno.EROFS)


def test_a_run_is_told_how_many_processes_it_may_have(runs: House) -> None:
    ask = "import resource; print(resource.getrlimit(resource.RLIMIT_NPROC))"
    assert runs.python(ask, request=FLAT).stdout.strip() == "(4096, 4096)"
    assert runs.python(ask, request=FLAT, processes=64).stdout.strip() == "(64, 64)"


GROW = """
import mmap, resource
print(resource.getrlimit(resource.RLIMIT_DATA)[0] >> 20)
held = mmap.mmap(-1, 1 << 33, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 0)  # as Node and Java do
try:
    print(len(bytes(300 << 20)) >> 20)
except MemoryError:
    print("no more")
"""


def test_a_process_of_a_run_has_so_much_memory_and_reserves_as_much_as_it_likes(runs: House) -> None:
    assert runs.python(GROW, request=FLAT, memory=256 << 20).stdout.split("\n")[:2] == ["256", "no more"]
    half = (os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) >> 21
    assert runs.python(GROW, request=FLAT).stdout.split() == [str(half), "300"]


def test_a_run_lets_the_broker_go_first(runs: House) -> None:
    ask = """
import os
said = [str(os.getpriority(os.PRIO_PROCESS, 0))]
for name in ("autogroup", "oom_score_adj"):
    if os.path.exists("/proc/self/" + name):
        said += open("/proc/self/" + name).read().split()[-1:]
print(*said)
try:
    os.setpriority(os.PRIO_PROCESS, 0, 0)
except PermissionError:
    print("it stays so")
"""
    grouped = ["10"] if Path("/proc/self/autogroup").exists() else []
    said = runs.python(ask, request=FLAT).stdout.split("\n")
    assert said[:2] == [" ".join(["10", *grouped, "1000"]), "it stays so"]


def test_turns_of_a_run_and_of_what_serves_it_are_short(runs: House) -> None:
    ask = """
import ctypes, os, struct
data = ctypes.create_string_buffer(48)
number = {"x86_64": 315, "aarch64": 275}[os.uname().machine]  # sched_getattr
assert ctypes.CDLL(None).syscall(number, 0, data, 48, 0) == 0
print(struct.unpack("=IIQiIQQQ", data.raw)[5])
"""
    before = tuple(map(int, os.uname().release.split(".")[:2])) < (6, 12)  # there a turn is as the kernel has it
    assert runs.python(ask, request=FLAT).stdout.strip() == ("0" if before else "100000")


def test_what_git_runs_as_its_user_cannot_be_changed_in_a_run(runs: House) -> None:
    project = runs.project
    for place in (project, project / "part"):
        subprocess.run(["git", "init", "-q", str(place)], check=True)
        (place / ".envrc").write_text("export A=1\n")
    (project / "part" / ".git" / "hooks" / "pre-commit.sample").unlink()
    (project / "tree").mkdir()
    (project / "tree" / ".git").write_text("gitdir: /elsewhere\n")
    empty = project / "bare"
    subprocess.run(["git", "init", "-q", "--template=", str(empty)], check=True)
    assert not (empty / ".git" / "hooks").exists()
    tries = (
        "for p in .git/hooks/post-checkout part/.git/hooks/x bare/.git/hooks/x; do echo evil > $p; done; "
        "for p in .git/config part/.git/config tree/.git part/.envrc; do echo evil >> $p; done; "
        "git config core.fsmonitor ./evil; mv .git/hooks h; mv .git g; rm -rf .git/hooks .git/config part/.git/config; "
        "ln -sf evil .git/config; mv part p"
    )
    before = _seen(project)
    done = runs.run(["sh", "-c", tries], FLAT)
    assert done.stderr.count("\n") >= 12, done.stderr
    assert _seen(project) == before


def _seen(project: Path) -> dict[str, bytes]:
    """Return what git and direnv would run, or be told by."""
    names = [path for path in sorted(project.rglob("*")) if path.is_file()]
    watched = [path for path in names if {"hooks", "config", ".envrc"} & set(path.parts) or path.name == ".git"]
    return {str(path.relative_to(project)): path.read_bytes() for path in watched}


def test_git_works_in_a_run_and_its_settings_can_be_opened_by_name(runs: House) -> None:
    subprocess.run(["git", "init", "-q", "-b", "main", str(runs.project)], check=True)
    commit = "touch a && git add a && git -c user.name=a -c user.email=a@b commit -q -m x && git switch -q -c b"
    done = runs.run(["sh", "-c", commit], FLAT)
    assert (done.returncode, done.stderr) == (0, "")
    settings = [[str(runs.project / ".git"), True]]
    done = runs.run(["git", "config", "remote.origin.url", "https://git.example"], FLAT, binds=settings)
    assert (done.returncode, done.stderr.count("error")) == (0, 0), done.stderr
    assert "git.example" in (runs.project / ".git" / "config").read_text()
