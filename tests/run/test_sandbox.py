from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath as Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.errors import InvalidRequestError
from remit.run import sandbox
from remit.run.sandbox import Bind, Descriptors, MachineFacts, SandboxView

USER = MachineFacts(1000, 1000, {"/bin": "usr/bin"}, interpreter=(Path("/home/ann/project/.venv"),))
ROOT = replace(USER, uid=0, gid=0)
ROOM = SandboxView(Path("/home/ann/project"), Path("/home/ann"), hidden=(Path("/home/ann/.local/state/remit"),))
FILES = (Path("/run/1/hosts-1"), Path("/run/1/roots-1"))
GIVEN = Descriptors(10, 11, *FILES, 13)


def options(machine: MachineFacts = USER, view: SandboxView = ROOM, given: Descriptors = GIVEN) -> list[str]:
    return sandbox.arguments(machine, view, given)


def pairs(found: list[str], option: str) -> list[tuple[str, str]]:
    return [(found[at + 1], found[at + 2]) for at, word in enumerate(found) if word == option]


def at(found: list[str], *words: str) -> int:
    """Return where a sequence of words starts."""
    return next(i for i in range(len(found)) if tuple(found[i : i + len(words)]) == words)


def test_every_namespace_is_its_own_and_every_capability_is_dropped() -> None:
    assert options()[:5] == ["--unshare-all", "--new-session", "--die-with-parent", "--cap-drop", "ALL"]


def test_the_network_is_shared_only_when_asked_for() -> None:
    assert "--share-net" not in options()
    assert "--share-net" in options(view=replace(ROOM, host_net=True))


def test_no_environment_is_set_on_the_command_line() -> None:
    assert "--setenv" not in options()


def test_the_working_directory_is_writable_at_its_own_path() -> None:
    assert pairs(options(), "--bind") == [("/home/ann/project", "/home/ann/project")]


def test_what_is_bound_by_name_is_read_only_unless_said_otherwise() -> None:
    binds = (Bind(Path("/data/a")), Bind(Path("/data/b"), writable=True))
    found = options(view=replace(ROOM, binds=binds))
    assert ("/data/a", "/data/a") in pairs(found, "--ro-bind")
    assert ("/data/b", "/data/b") in pairs(found, "--bind")


def test_the_interpreter_stays_read_only_inside_the_working_directory() -> None:
    found = options()
    cover = at(found, "--ro-bind", "/home/ann/project/.venv")
    assert cover > at(found, "--bind", "/home/ann/project")


def test_an_outer_bind_does_not_cover_an_inner_one() -> None:
    binds = (Bind(Path("/data/in/side"), writable=True), Bind(Path("/data")))
    found = options(view=replace(ROOM, binds=binds))
    assert at(found, "--ro-bind", "/data") < at(found, "--bind", "/data/in/side")


def test_home_is_emptied_after_the_folder_it_is_in() -> None:
    found = options(view=replace(ROOM, cwd=Path("/run/h/p"), home=Path("/run/h")))
    assert at(found, "--tmpfs", "/run") < at(found, "--tmpfs", "/run/h") < at(found, "--bind", "/run/h/p")


def test_the_roots_own_folders_are_read_only_in_the_end() -> None:
    assert at(options(), "--remount-ro", "/") > max(
        at(options(), "--tmpfs", "/run"), at(options(), "--dir", "/run/remit")
    )


def test_system_links_stay_links() -> None:
    found = options()
    assert ("usr/bin", "/bin") in pairs(found, "--symlink")
    assert ("/bin", "/bin") not in pairs(found, "--ro-bind-try")


@pytest.mark.parametrize("name", ["shadow", "gshadow", "passwd", "npmrc", "pip.conf", "environment", "ssh", "ssl"])
def test_no_secret_of_the_machine_is_taken_from_etc(name: str) -> None:
    taken = {source for option in ("--ro-bind", "--ro-bind-try") for source, _ in pairs(options(), option)}
    assert f"/etc/{name}" not in taken


def test_the_machines_resolver_is_there_only_with_its_network() -> None:
    assert ("/etc/resolv.conf", "/etc/resolv.conf") not in pairs(options(), "--ro-bind-try")
    shared = options(view=replace(ROOM, host_net=True))
    assert ("/etc/resolv.conf", "/etc/resolv.conf") in pairs(shared, "--ro-bind-try")


def test_users_of_the_machine_are_not_named() -> None:
    text = sandbox.passwd("ann", 1000, 1000, Path("/home/ann"))
    assert [line.split(":")[0] for line in text.splitlines()] == ["root", "ann", "nobody"]


def test_nobody_is_named_once_when_it_is_the_user() -> None:
    text = sandbox.passwd("agent", 65534, 65534, Path("/home/run"))
    assert [line.split(":")[2] for line in text.splitlines()] == ["0", "65534"]
    assert sandbox.group("agent", 65534).count("65534") == 1


def test_root_appears_as_somebody_else_so_that_it_can_be_mapped_again() -> None:
    found = options(ROOT)
    assert found[at(found, "--uid") + 1] == found[at(found, "--gid") + 1] == "1000"


def test_the_kernels_settings_are_covered_for_root() -> None:
    assert ("/proc/sys", "/proc/sys") in pairs(options(ROOT), "--ro-bind-try")
    assert ("/proc/sys", "/proc/sys") not in pairs(options(USER), "--ro-bind-try")


def test_a_run_inside_a_run_with_covers_shares_its_proc() -> None:
    found = options(replace(ROOT, uid=1000, nested=True))
    assert ("/proc", "/proc") in pairs(found, "--bind")
    assert "--proc" not in found


def test_the_filter_is_loaded_where_there_is_one() -> None:
    assert options()[-2:] == ["--seccomp", "13"]
    assert "--seccomp" not in options(given=Descriptors(10, 11, *FILES))


@pytest.mark.parametrize("cwd", ["/home/ann", "/home", "/"])
def test_a_working_directory_that_shows_the_whole_home_is_refused(cwd: str) -> None:
    with pytest.raises(InvalidRequestError, match="whole home"):
        options(view=replace(ROOM, cwd=Path(cwd)))


@pytest.mark.parametrize("path", ["/home/ann/.local/state/remit", "/home/ann/.local/state/remit/run"])
def test_what_belongs_to_remit_cannot_be_bound(path: str) -> None:
    with pytest.raises(InvalidRequestError, match="belongs to remit"):
        options(view=replace(ROOM, binds=(Bind(Path(path)),)))


def test_what_belongs_to_remit_cannot_be_the_working_directory() -> None:
    with pytest.raises(InvalidRequestError, match="belongs to remit"):
        options(view=replace(ROOM, cwd=Path("/home/ann/.local/state/remit/run")))


@pytest.mark.parametrize("path", ["relative", "/data/../home/ann"])
def test_a_bind_must_be_an_absolute_path_as_it_stands(path: str) -> None:
    with pytest.raises(InvalidRequestError, match="absolute"):
        options(view=replace(ROOM, binds=(Bind(Path(path)),)))


def test_what_belongs_to_remit_is_covered_inside_what_is_bound() -> None:
    hidden = Path("/home/ann/.local/state/remit")
    found = options(view=replace(ROOM, binds=(Bind(Path("/home/ann/.local")),)))
    assert at(found, "--tmpfs", str(hidden)) > at(found, "--ro-bind", "/home/ann/.local")


def test_what_is_not_shown_needs_no_cover() -> None:
    assert "/home/ann/.local/state/remit" not in options()


def test_a_masked_file_is_empty() -> None:
    found = options(
        view=replace(ROOM, masked=(Path("/home/ann/project/.env"),)), given=replace(GIVEN, blank=Path("/blank"))
    )
    assert ("/blank", "/home/ann/project/.env") in pairs(found, "--ro-bind")
    assert at(found, "--ro-bind", "/blank") > at(found, "--bind", "/home/ann/project")


LAYERS = Path("/home/ann/project/a/b/state")


@pytest.mark.parametrize("cwd", ["/home/ann/project", "/home/ann/project/a"])
def test_every_folder_between_a_writable_one_and_what_is_hidden_is_a_mount_point(cwd: str) -> None:
    found = options(replace(USER, interpreter=()), SandboxView(Path(cwd), Path("/home/ann"), hidden=(LAYERS,)))
    between = [str(level) for level in LAYERS.parents if Path(cwd) in (level, *level.parents)]
    assert pairs(found, "--bind") == [(level, level) for level in reversed(between)]


def test_a_folder_in_a_read_only_bind_is_not_made_writable_on_the_way() -> None:
    binds = (Bind(Path("/home/ann/project/a")),)
    found = options(replace(USER, interpreter=()), replace(ROOM, binds=binds, hidden=(LAYERS,)))
    assert pairs(found, "--bind") == [("/home/ann/project", "/home/ann/project")]


@pytest.mark.parametrize("path", ["/", "/usr", "/usr/local", "/etc", "/usr/lib/python3", "/home/ann/project/.venv/lib"])
def test_programs_of_everybody_are_writable_in_no_run(path: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"programs|system"):
        options(view=replace(ROOM, binds=(Bind(Path(path), writable=True),)))


def test_a_key_in_a_folder_that_is_covered_is_no_hindrance() -> None:
    hidden = Path("/home/ann/project/state")
    view = replace(ROOM, hidden=(hidden,), apart=(hidden / "kek",), signs=(hidden / "link",))
    assert "--tmpfs" in options(view=view)


def test_a_link_in_what_is_read_only_is_no_hindrance() -> None:
    assert options(view=replace(ROOM, signs=(Path("/home/ann/project/.venv/bin/python"), Path("/home/ann/link"))))


def test_a_bind_is_found_by_the_link_it_was_named_by() -> None:
    binds = (Bind(Path("/data/real")),)
    aliases = ((Path("/data/link"), Path("/data/real")), (Path("/home/ann/project/link"), Path("/data/real")))
    assert pairs(options(view=replace(ROOM, binds=binds, aliases=aliases)), "--symlink")[1:] == [
        ("/data/real", "/data/link")
    ]


segments = st.sampled_from(["a", "b", "c", ".local", "state"])
paths = st.lists(segments, min_size=1, max_size=4).map(lambda parts: Path("/", *parts))


@given(cwd=paths, home=paths, binds=st.lists(st.builds(Bind, paths, st.booleans()), max_size=4), hidden=paths)
def test_nothing_hidden_is_ever_left_uncovered(cwd: Path, home: Path, binds: list[Bind], hidden: Path) -> None:
    view = SandboxView(cwd, home, tuple(binds), (hidden,))
    try:
        found = options(replace(USER, interpreter=()), view)
    except InvalidRequestError:
        return
    shown = [cwd, *(bind.path for bind in binds)]
    assert hidden not in shown
    if any(path in hidden.parents for path in shown):
        last = max(i for i, word in enumerate(found) if word in {"--bind", "--ro-bind"})
        assert at(found, "--tmpfs", str(hidden)) > last


@given(cwd=paths, home=paths, binds=st.lists(st.builds(Bind, paths, st.booleans()), max_size=4), hidden=paths)
def test_nothing_hidden_can_ever_be_moved(cwd: Path, home: Path, binds: list[Bind], hidden: Path) -> None:
    view = SandboxView(cwd, home, tuple(binds), (hidden,))
    try:
        found = options(replace(USER, interpreter=()), view)
    except InvalidRequestError:
        return
    writable = {Path(path) for path, _ in pairs(found, "--bind")}
    points = writable | {Path(path) for path, _ in pairs(found, "--ro-bind")}
    for level in hidden.parents:
        around = [point for point in points if point in level.parents]
        assert level in points or not around or max(around, key=lambda point: len(point.parts)) not in writable
