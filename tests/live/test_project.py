"""A project's file from `remit allow` to a run by it, as people use it, and an agent that wants another one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.terminal import COMMAND, PATIENCE, Terminal, configure
from tests.live.warehouse import warehouse

BOUND = '{"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"]}'
TEXT = """\
purpose = "sell shoes"
ttl = "10m"
resources = ["search"]
bind = ["../shared", "./out:rw"]
[env]
SEARCH_KEY = "placeholder:search"
SEARCH_BASE = "url:search/v1"
LOG_LEVEL = "=debug"
"""
AGENT = r"""
import json, os, pathlib, subprocess, sys
names = ("SEARCH_KEY", "SEARCH_BASE", "LOG_LEVEL", "REMIT_KEY_SEARCH", "REMIT_URL_SEARCH")
told = {name: os.environ.get(name) for name in names}
def tried(*command):
    return subprocess.run(command, capture_output=True, text=True).returncode
told["changed"] = tried("sh", "-c", "echo 'depth = 5' >> remit.toml")
told["moved"] = tried("mv", "remit.toml", "old.toml")
told["written"] = tried("sh", "-c", "echo x > out/file")
told["shared"] = tried("sh", "-c", "echo x > ../shared/file")
pathlib.Path("below").mkdir()
pathlib.Path("below/remit.toml").write_text('resources = ["search"]\nbind = ["/"]\n')
remit = [sys.executable, "-c", "from remit.cli import main; main()"]
told["allowed"] = tried(*remit, "allow", "below", "--yes")
clean = {name: value for name, value in os.environ.items() if not name.startswith("REMIT_")}
told["unset"] = subprocess.run([*remit, "allow", "below", "--yes"], env=clean, capture_output=True, text=True).stdout
print(json.dumps(told))
"""

pytestmark = pytest.mark.live


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Terminal]:
    """Return a terminal in a project whose file nobody has accepted."""
    configure(tmp_path, ["[listen]", 'api = "off"', 'gateway = "off"'])
    for folder in ("project/out", "project/link", "shared", "secret"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "project/remit.toml").write_text(TEXT)
    found = Terminal(tmp_path, "", work=tmp_path / "project")
    added = found.run("resource", "add", "search", "http://127.0.0.1:9", "--bound", BOUND)
    try:
        assert added[0] == 0, added[2]
        yield found
    finally:
        found.run("down")


@pytest.mark.attack("LAU-15")
def test_a_run_goes_by_an_accepted_file_which_no_agent_changes_or_accepts(here: Terminal) -> None:
    project, python = here.home / "project", (sys.executable, "-c", AGENT)
    code, _, err = here.run("run", "--", *python)
    assert (code, "was not accepted" in err) == (1, True)
    assert here.run("allow", "--yes")[0] == 0
    code, out, err = here.run("run", "--", *python)
    assert code == 0, err
    told = json.loads(out.splitlines()[-1])
    assert told["SEARCH_KEY"] == told["REMIT_KEY_SEARCH"]
    assert told["SEARCH_BASE"] == f"{told['REMIT_URL_SEARCH']}/v1"
    assert (told["LOG_LEVEL"], told["written"]) == ("debug", 0)
    assert "accepted: " in told["unset"]  # in the run's own home, where nobody looks
    assert [told[name] == 0 for name in ("changed", "moved", "shared", "allowed")] == [False] * 4
    assert (project / "remit.toml").read_text() == TEXT
    assert [task["purpose"] for task in here.told("tree", "--all")["tasks"]] == ["sell shoes"]
    here.work = project / "below"
    code, _, err = here.run("run", "--", "true")
    assert (code, "below/remit.toml` was not accepted" in err) == (1, True)


@pytest.mark.attack("LAU-15")
def test_a_bind_that_an_agent_has_turned_into_a_link_is_not_followed(here: Terminal) -> None:
    project = here.home / "project"
    (project / "remit.toml").write_text(TEXT.replace("./out:rw", "link:rw"))
    assert here.run("allow", "--yes")[0] == 0
    (project / "link").rmdir()
    (project / "link").symlink_to("../secret")  # as a run before could, while nothing is bound there
    code, _, err = here.run("run", "--", "touch", "link/x")
    assert (code, f"leads to `{here.home}/secret`" in err) == (1, True), err
    assert list((here.home / "secret").iterdir()) == []


LEASED = """\
resources = ["warehouse:ttl=4"]
[env]
DATABASE_URL = "lease:warehouse"
"""
QUERY = """
import os, sys, psycopg
print("ready", flush=True)
sys.stdin.readline()
with psycopg.connect(os.environ["DATABASE_URL"]) as database:
    print(database.execute("SELECT count(*) >= 0 FROM sales.revenue").fetchone()[0])
"""


def ends(here: Terminal) -> str:
    """Return when the one lease ends."""
    [lease] = [lease for task in here.told("tree")["tasks"] for lease in task["leases"]]
    assert lease["state"] == "active"
    return str(lease["expires_at"])


def test_a_lease_that_a_project_names_logs_in_at_a_database_and_is_renewed_there(here: Terminal) -> None:
    with warehouse() as house:
        url = f"postgresql://{house.login}@127.0.0.1:{house.server.port}/{house.name}"
        bound = ("--bound", "actions=select,tables=sales.revenue", "--setting", 'tls="loopback"')
        accepted = ("--accept", "public-temp", "--accept", "public-connect")
        added = subprocess.run(
            [*COMMAND, "resource", "add", "warehouse", url, "--secret", *bound, *accepted],
            cwd=here.work,
            env=here.environ(),
            input=house.password,
            text=True,
            capture_output=True,
            check=False,
        )
        assert added.returncode == 0, added.stderr
        (here.home / "project/remit.toml").write_text(LEASED)
        assert here.run("allow", "--yes")[0] == 0
        with here.start("run", "--", sys.executable, "-c", QUERY, stdin=subprocess.PIPE) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said == "ready\n", process.communicate(timeout=PATIENCE)
            first = ends(here)
            until = time.monotonic() + PATIENCE
            while ends(here) == first:  # it is renewed in place
                assert time.monotonic() < until
            out, err = process.communicate("\n", PATIENCE)
        assert (process.returncode, out) == (0, "True\n"), err
        with house.admin() as admin:  # shut at once; its role is tidied away later
            assert (
                admin.execute(r"SELECT rolname FROM pg_roles WHERE rolname LIKE '%\_lse\_%' AND rolcanlogin").fetchall()
                == []
            )
