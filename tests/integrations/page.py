"""The page of what was tried under ``remit run``: ``python -m tests.integrations.page`` writes it from the records.

A record is a table ``[[tried]]`` in ``sdk.toml``, ``framework.toml`` or ``server.toml`` beside this file. Its test runs
the software, and fails where the version or the verdict is another than the record's.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "reference" / "integrations.md"
Verdict = Literal["zero", "conf", "no"]
GROUPS = {
    "sdk": "SDKs",
    "framework": "Frameworks of agents",
    "server": "MCP servers on stdio",
}
HEAD = """\
# Integrations

What was run under `remit run`, each as it is installed, against a double of its provider on loopback. The double has to
get the real key, and the process must never have it: neither in its environment nor in an answer. Made by
`python -m tests.integrations.page` from what the tests below see; a test fails where it is otherwise.

- `zero`: works unchanged, with what `remit run -r RESOURCE` sets.
- `conf`: works once something is set, which the last column says.
- `no`: does not work, or not without the key.
"""


@dataclass(frozen=True)
class Record:
    """What came of one software in one version; ``test`` is the function that tries it (``path::name``)."""

    group: str
    software: str
    version: str
    verdict: Verdict
    why: str
    test: str


def records(group: str) -> list[Record]:
    """Return the records of a group, by name; ValueError for one that says no verdict."""
    path = HERE / f"{group}.toml"
    rows = tomllib.loads(path.read_text(encoding="utf-8")).get("tried", []) if path.exists() else []
    found = [Record(group, **row) for row in rows]
    for record in found:
        if record.verdict not in get_args(Verdict):
            raise ValueError(f"{path.name}: `{record.verdict}` is no verdict")
    return sorted(found, key=lambda record: record.software.lower())


def rendered() -> str:
    """Return the page."""
    return "\n".join([HEAD, *(_table(title, found) for group, title in GROUPS.items() if (found := records(group)))])


def _table(title: str, found: list[Record]) -> str:
    tests = sorted({record.test.partition("::")[0] for record in found})
    zero = sum(record.verdict == "zero" for record in found)
    rows = [f"| {record.software} | {record.version} | `{record.verdict}` | {record.why} |" for record in found]
    said = f"{zero} of {len(found)} `zero`; tried by " + ", ".join(f"`{name}`" for name in tests) + "."
    lines = [f"## {title}", "", said, "", "| software | version | | why |", "|---|---|---|---|", *rows, ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(rendered(), encoding="utf-8")
