"""Make the blocking client from the async one: ``python -m tests.house.sync_client`` writes it, a test compares it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SDK = Path(__file__).parents[2] / "src" / "remit" / "sdk"
MADE = "# Made from aio.py by `make generate`: change that.\n"
RULES = (
    (r"\n *@awaitable_context(?=\n)", ""),
    (r", awaitable_context\b", ""),
    (r"\bawait (http)\.", r"\1x."),
    (r"\(await ([^\n]+?\))\)(?=[.\[])", r"\1"),
    (r"\b(async|await) ", ""),
    (r"__a(enter|exit)__", r"__\1__"),
    (r"\ba(close|task|current)\b", r"\1"),
    (r"AsyncHTTPTransport", "HTTPTransport"),
    (r"\bAsync([A-Z])", r"\1"),
)


def blocking(source: str) -> str:
    """Return the text of the blocking client for that of the async one."""
    for pattern, to in RULES:
        source = re.sub(pattern, to, source)
    text = MADE + source
    for tool in (["check", "--quiet", "--fix", "--select", "I"], ["format", "--quiet"]):
        command = [sys.executable, "-m", "ruff", *tool, "--stdin-filename", str(SDK / "client.py"), "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return text


def main() -> None:
    """Write the blocking client."""
    (SDK / "client.py").write_text(blocking((SDK / "aio.py").read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
