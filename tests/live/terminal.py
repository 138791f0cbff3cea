"""The command line as people use it: `remit` in a process of its own, and a browser that it finds by ``BROWSER``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.live.idp import Browser

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from remit.cli import main; main()"]
PATIENCE = 60  # seconds for a command

_BROWSER = """#!{python}
import sys
sys.path.insert(0, {root!r})
from tests.live.idp import Browser
browser = Browser({issuer!r}, {login!r}, {acr!r}, {consent!r})
page = browser.decide(sys.argv[1], {decision!r}) if "/approvals/" in sys.argv[1] else browser.visit(sys.argv[1])
open({page!r}, "w").write(page.text)
"""


@dataclass
class Terminal:
    """A user's state and configuration in ``home``, and who sits at the browser."""

    home: Path
    issuer: str
    login: str = "alice"
    acr: str = "urn:test:password"
    consent: bool = True
    decision: str = "approve"
    grant: str | None = None  # of the run that this is in
    work: Path | None = None  # where commands are started, if not at home

    @property
    def state(self) -> Path:
        """Where the state is."""
        return self.home / "state"

    def environ(self) -> dict[str, str]:
        """Return the environment of commands."""
        browser = self.home / "browser"
        source = _BROWSER.format(
            python=sys.executable,
            root=str(ROOT),
            issuer=self.issuer,
            login=self.login,
            acr=self.acr,
            consent=self.consent,
            decision=self.decision,
            page=str(self.home / "page"),
        )
        browser.write_text(source)
        browser.chmod(0o700)
        inside = {} if self.grant is None else {"REMIT_GRANT": self.grant}
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.home),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "REMIT_STATE_DIR": str(self.state),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "BROWSER": f"{browser} %s",
            **inside,
        }

    def start(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start a command, with nothing to read unless ``stdin`` says otherwise."""
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.work or self.home,
            env=self.environ(),
            text=True,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command; return its exit code and what it printed to stdout and stderr."""
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=PATIENCE)
            return process.returncode, out, err

    def told(self, *arguments: str) -> Any:
        """Run a command that succeeds; return the JSON that it printed."""
        code, out, err = self.run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    def browser(self) -> Browser:
        """Return a browser of the same human."""
        return Browser(self.issuer, self.login, self.acr, self.consent)


def configure(home: Path, lines: Sequence[str]) -> None:
    """Write the configuration of a user."""
    path = home / "config" / "remit" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines) + "\n")
