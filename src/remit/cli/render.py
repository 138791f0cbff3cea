"""What a person or a program reads. Answers go to stdout, complaints to stderr; JSON is one object a line."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from remit.core.legible import escaped

if TYPE_CHECKING:
    from rich.console import Console

    from remit.errors import RemitError
    from remit.sdk.verbs import Report, TokenResponse

UNCOVERED = "a checkpoint of it in the second place: until there is one, an older copy of the state could undo it"

T = TypeVar("T")
GAP = 2  # characters between the columns of a table
_compact = partial(json.dumps, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Table:
    """What is shown as a table."""

    columns: Sequence[str]
    rows: Iterable[Sequence[object]]


def answer(as_json: bool, document: object, *parts: str | Mapping[str, object] | Table) -> None:
    """Print an answer: one JSON object, or what people read of it, sentences, names with values, tables."""
    if as_json:
        sys.stdout.write(_compact(document, sort_keys=True) + "\n")
        return
    for part in parts:
        match part:
            case str():
                said(part)
            case Table():
                table(part.columns, part.rows)
            case _:
                lines(part)


def lines(values: Mapping[str, object]) -> None:
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        sys.stdout.write(f"{name:<{width}}  {safe(value)}\n")


def said(text: str) -> None:
    sys.stdout.write(f"{safe(text)}\n")


def wrapped(text: str) -> None:
    """Print a line; on a terminal it goes on below, and no word of it is cut: ids can be copied."""
    if sys.stdout.isatty():
        wide, below = shutil.get_terminal_size().columns, " " * 8
        whole = textwrap.TextWrapper(wide, subsequent_indent=below, break_long_words=False, break_on_hyphens=False)
        sys.stdout.write(whole.fill(safe(text)) + "\n")
    else:
        said(text)


def console() -> Console:
    """Return the console for tables and trees; they are never cut when stdout is no terminal."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 200
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=wide is not None, width=wide)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table. No word of it is cut, so that ids and times can be copied: where it does not fit, row by row."""
    from rich.cells import cell_len
    from rich.table import Table as RichTable
    from rich.text import Text

    target = console()
    cells = [[safe(cell) for cell in row] for row in rows]
    held = list(zip(columns, *cells, strict=True))
    most = [max(map(cell_len, column)) for column in held]
    words = [max(cell_len(word) for cell in column for word in cell.split() or [""]) for column in held]
    if target.soft_wrap:
        target.width = max(target.width, sum(most) + GAP * len(columns))
    spare = target.width - GAP * (len(columns) - 1) - sum(words)
    if spare < 0:
        for index, row in enumerate(cells):
            sys.stdout.write("\n" if index else "")
            lines(dict(zip(columns, row, strict=True)))
        return
    drawn = RichTable(box=None, pad_edge=False, header_style="bold")
    # Every column has its longest word, and what is left goes to those that have more to say, from the left.
    for name, least, full in zip(columns, words, most, strict=True):
        more = min(spare, full - least)
        spare -= more
        drawn.add_column(name, width=least + more)
    for row in cells:
        drawn.add_row(*map(Text, row))
    target.print(drawn)


def safe(value: object) -> str:
    """Return text without control characters: what an agent wrote must not drive a terminal."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case dict() | list():
            return escaped(json.dumps(value, ensure_ascii=False, separators=(", ", ": ")))
    return escaped(str(value))


def left(expires_at: str, now: datetime) -> str:
    seconds = int((datetime.fromisoformat(expires_at) - now).total_seconds())
    if seconds <= 0:
        return "expired"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02}m left"
    return f"{minutes}m {rest:02}s left" if minutes else f"{rest}s left"


def progress(items: Iterable[T], total: int | None, about: str) -> Iterator[T]:
    """Yield items, with a bar on a terminal; stdout stays as it is."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, about, total, console=Console(stderr=True), transient=True)


@contextmanager
def waiting(about: str) -> Iterator[None]:
    """Say on a terminal what is being waited for."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(safe(about)):
        yield


def pause(seconds: float = 1.0) -> None:
    time.sleep(seconds)


def detail_line(detail: Mapping[str, Any]) -> str:
    """Return a detail in one line: its resource, then what it permits."""
    rest = [(name, value) for name, value in detail.items() if name not in {"type", "resource", "actions"}]
    texts = [(name, _compact(value) if isinstance(value, Mapping) else value) for name, value in rest]
    parts = [str(detail.get("resource")), " ".join(map(str, detail.get("actions", ())))]
    parts += [" ".join(map(str, value)) for _, value in rest if isinstance(value, list)]
    parts += [f"{name} {text}" for name, text in texts if isinstance(text, str)]
    parts += [f"{name} {value}" for name, value in rest if isinstance(value, int)]
    return " · ".join(filter(None, parts))


def detail_lines(details: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return details below what they belong to, each in one line."""
    return [f"  {detail_line(detail)}" for detail in details]


def granted(grant: TokenResponse, as_json: bool, *parts: str, **more: object) -> None:
    """Print a grant that was opened or delegated."""
    about = {"task": grant.task, "grant": grant.grant}
    document = {**about, "expires_in": grant.expires_in, "authorization_details": grant.details}
    answer(as_json, document, {**about, "ends in": f"{grant.expires_in} s", **more}, *parts)


def ended(report: Report, as_json: bool) -> None:
    """Print the truthful answer to a revoke."""
    parts = [f"{report.state}: {report.revoked} revoked"]
    for item in report.outstanding:
        lease = f"{item.get('lease')} ({item.get('kind')}) until {item.get('expires_at')}"
        parts.append(f"  outstanding: {UNCOVERED if item.get('kind') == 'checkpoint' else lease}")
    if report.residue:
        parts.append(f"  left to clean up: {report.residue} (nothing of it can act)")
    if not report.recorded:
        parts.append(
            "  not recorded: the state cannot be written; it holds, is noted beside it, and the broker goes on trying"
        )
    answer(as_json, asdict(report), *parts)


def complain(error: RemitError) -> None:
    """Print an error: what is wrong, with what, and what to do next."""
    _complaint("error", error.detail)
    for item in error.offending:
        _complaint("  too wide", json.dumps(item, sort_keys=True))
    if error.enough is not None:
        _complaint("  enough", json.dumps(error.enough, sort_keys=True))
    if error.help:
        _complaint("help", error.help)
    for note in getattr(error, "__notes__", ()):
        _complaint("note", note)


def warn(text: str, remedy: str) -> None:
    """Print what is done, but not as was meant, and what to do about it."""
    _complaint("warning", text)
    _complaint("help", remedy)


def misused(error: Exception, command: str) -> None:
    """Print what is wrong with a command line, and whose help says more."""
    text = str(getattr(error, "format_message", lambda: str(error))()).strip()
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
        sys.stderr.write(f"{text}\n")
        return
    text = text.removeprefix("Invalid value: ")
    _complaint("error", (text[:1].lower() + text[1:]).rstrip(".") or "this needs a command")
    _complaint("help", f"`{command} --help`")


def _complaint(kind: str, text: str) -> None:
    with suppress(OSError):  # nobody can be told
        sys.stderr.write(f"{kind}: {safe(text)}\n")
