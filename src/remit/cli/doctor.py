"""The doctor: what of this machine and this state is not as it should be."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

from remit.cli import options
from remit.cli.render import emit, said, table

if TYPE_CHECKING:
    from remit.cli.checks import Finding


def doctor(json: options.Json = False) -> None:
    """Look at all that a broker rests on, and say what to do about what is not as it should be.

    File modes, keys, policies, the TLS certificate, issuers and trust domains, namespaces, the clock, the log, the
    broker that is up and its databases. Issuers and trust domains are asked, each for a few seconds at most.

    Exits with 1 when something is wrong; a warning is what remit works with, and cannot promise everything under.

    \b
    Examples:
      remit doctor
      remit doctor --json
    """
    from remit.cli.checks import examine

    findings = examine(os.environ)
    bad = any(finding.level == "wrong" for finding in findings)
    if json:
        emit({"findings": [_written(finding) for finding in findings], "healthy": not bad})
    else:
        table(("level", "what", "finding"), ((f.level, f.name, f.text) for f in findings))
        for finding in findings:
            if finding.help and finding.level != "good":
                said(f"{finding.name}: {finding.help}")
    raise typer.Exit(int(bad))


def _written(finding: Finding) -> dict[str, str]:
    shown = {"name": finding.name, "level": finding.level, "text": finding.text, "help": finding.help}
    return {name: value for name, value in shown.items() if value}
