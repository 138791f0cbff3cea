"""What stands in the memory of a process; who may look is the kernel's to say."""

from __future__ import annotations

import re
from pathlib import Path


def copies(pid: int, text: str) -> int:
    """Count a text in what a process may write; PermissionError where it is not dumpable and one is not root."""
    found = 0
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if place is None:
                continue
            start, end = (int(text, 16) for text in place.groups())
            try:
                memory.seek(start)
                found += memory.read(end - start).count(text.encode())
            except OSError:  # a mapping that cannot be read, such as the kernel's own
                continue
    return found
