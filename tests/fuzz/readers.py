"""Five model readers of a path, as upstreams have them; and whether what each sees lies inside a grant."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from urllib.parse import unquote


def _once(path: str) -> str:
    return unquote(path, errors="replace")


def _whatwg(path: str) -> str:
    r"""Read a path as a WHATWG URL parser does: drop tab and newline, `\` is `/`, escaped dots are dots."""
    path = path.replace("\t", "").replace("\n", "").replace("\\", "/")
    kept: list[str] = []
    segments = path.split("/")
    for index, segment in enumerate(segments):
        plain = segment.lower().replace("%2e", ".")
        if plain == "..":
            kept = kept[:-1] if len(kept) > 1 else kept
        elif plain != ".":
            kept.append(segment)
        if plain in {".", ".."} and index == len(segments) - 1:
            kept.append("")
    return "/".join(kept)


def _posix(path: str) -> str:
    return posixpath.normpath(_once(path).replace("\\", "/").casefold())


READERS: Mapping[str, Callable[[str], str]] = {
    "none": str,
    "once": _once,
    "twice": lambda path: _once(_once(path)),
    "whatwg": _whatwg,
    "posix": _posix,
    "parameters": lambda path: "/".join(segment.partition(";")[0] for segment in _once(path).split("/")),
}


def inside(path: str, prefix: tuple[str, ...]) -> bool:
    """Whether a path, with everything in it resolved, begins with the segments of ``prefix``."""
    segments = posixpath.normpath(path).replace("\\", "/").split("/")
    return tuple(segments[1 : 1 + len(prefix)]) == prefix and ".." not in segments and "\0" not in path


def outside(path: str, prefix: tuple[str, ...]) -> list[str]:
    """Return the readers to whom ``path`` is not inside ``prefix``."""
    return [name for name, read in READERS.items() if not inside(read(path), prefix)]
