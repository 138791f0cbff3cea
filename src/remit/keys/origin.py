"""The name of the audit log, sealed in a file when the log is begun: its verifier key and checkpoints are evidence.

They count for one name. What the name was taken from, the trust domain, may be changed later; the log stays the same.
"""

from __future__ import annotations

from pathlib import Path

from remit.errors import IntegrityError, NotFoundError
from remit.keys.file import private_directory, read_private, write_private
from remit.ports import Sealer

NAME = "audit.origin"
_ASSOCIATED = b"audit.origin"


def log_origin(directory: Path, sealer: Sealer, begun: str) -> str:
    """Return the origin that ``directory`` (mode 0700) keeps; the first time it is ``begun``, and is kept.

    IntegrityError when the file was changed, or was sealed under another key.
    """
    private_directory(directory)
    path = directory / NAME
    try:
        sealed = read_private(path)
    except NotFoundError:
        write_private(path, sealer.seal(begun.encode(), _ASSOCIATED))
        sealed = read_private(path)
    try:
        return sealer.open(sealed, _ASSOCIATED).decode()
    except IntegrityError as error:
        raise IntegrityError("the name of the audit log does not open", help=f"restore `{path}`") from error
