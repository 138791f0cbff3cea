"""Files that hold standing credentials by custom, where they are found. Reads names only, never contents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

HOME = (
    ".aws/credentials",
    ".azure/msal_token_cache.json",
    ".config/gcloud/application_default_credentials.json",
    ".config/gh/hosts.yml",
    ".docker/config.json",
    ".env",
    ".git-credentials",
    ".kube/config",
    ".netrc",
    ".npmrc",
    ".pgpass",
    ".pypirc",
    ".ssh/id_ecdsa",
    ".ssh/id_ed25519",
    ".ssh/id_rsa",
)
PROJECT = (".env", ".env.*", ".envrc", ".git-credentials", ".netrc", ".npmrc", ".pgpass", ".pypirc")
TEMPLATES = (".example", ".sample", ".template", ".dist", ".tmpl")


def in_project(folder: Path) -> Iterator[Path]:
    """Yield the credential files directly in a working directory, by name; for a link the file that it leads to."""
    for pattern in PROJECT:
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and not path.name.endswith(TEMPLATES):
                yield path.resolve()


def in_home(home: Path) -> Iterator[Path]:
    """Yield the credential files of a home."""
    return (home / name for name in HOME if (home / name).is_file())
