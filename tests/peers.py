"""Programs that live tests need and pip cannot bring: found, or asked for by name.

On a developer's machine an absent one skips its tests and says what to install. With ``REMIT_REQUIRE_PEERS=1``, as in
``.ci/run``, a skip is a failure.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

DEBIAN = {
    "cc": "gcc libc6-dev",
    "java": "default-jdk-headless",
    "h2load": "nghttp2-client",
    "nginx": "nginx-light",
    "wrk": "wrk",
    "sshd": "openssh-server",
    "openssl": "openssl",
    "zsh": "zsh",
    "fish": "fish",
}


def require(name: str) -> str:
    """Return the path of a program, or skip the test (fail it when peers are required)."""
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    return found if found is not None else absent(f"`{name}`", f"on Debian: apt-get install {DEBIAN.get(name, name)}")


def require_file(path: Path, package: str) -> Path:
    """Return the path of a file that a Debian package brings, or skip the test as above."""
    return path if path.exists() else absent(f"`{path}`", f"on Debian: apt-get install {package}")


def absent(what: str, remedy: str) -> NoReturn:
    """Skip the test, or fail it when peers are required."""
    text = f"{what} is not installed; {remedy}"
    if os.environ.get("REMIT_REQUIRE_PEERS") == "1":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)
