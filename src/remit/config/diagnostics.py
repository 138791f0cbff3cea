"""What is wrong in the configuration: in which file, in which line where that is clear, and which name was meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from remit.errors import InvalidRequestError

_NAMED = re.compile(r"`([a-z_]+(?:\.[^`.]+)?)`")  # a setting, or a section, as details begin with it
_HEADER = re.compile(r"\s*\[\[?\s*([\w-]+)\s*\]")


def unknown(name: str, known: Iterable[str], what: str = "a setting") -> InvalidRequestError:
    """Return the refusal of a name, a section or ``section.setting``; ``known`` are the last parts that there are."""
    section, dot, last = name.rpartition(".")
    among = sorted(known)
    near = get_close_matches(last, among, 1)
    all_ = ", ".join(f"`{section}{dot}{one}`" for one in among)
    told = f"did you mean `{section}{dot}{near[0]}`?" if near else f"there are {all_}"
    return InvalidRequestError(f"`{name}` is not {what}", help=told)


@contextmanager
def located(config: Path) -> Iterator[None]:
    """Have a refusal from within that names a setting say in which file it is, and in which line if that is clear."""
    try:
        yield
    except InvalidRequestError as error:
        named = _NAMED.match(error.detail)
        if named is None or not config.exists():
            raise
        line = line_of(config.read_text("utf-8"), named[1])
        where = str(config) if line is None else f"{config}:{line}"
        raise InvalidRequestError(f"{where}: {error.detail}", help=error.help) from error


def line_of(text: str, name: str) -> int | None:
    """Return the line, from 1, where TOML text has a setting (``section.setting``) or section; None unless just one."""
    section, _, key = name.partition(".")
    wanted, current, found = re.compile(rf'\s*"?{re.escape(key or section)}"?\s*='), "", []
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        current = header[1] if header else current
        at = wanted.match(line) and current == (section if key else "")
        if at or (header and not key and current == section):
            found.append(number)
    return found[0] if len(found) == 1 else None
