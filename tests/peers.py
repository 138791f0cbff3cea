"""Programs that live tests need and pip cannot bring: found, or asked for by name.

On a developer's machine an absent one skips its tests and says what to install. With ``REMIT_REQUIRE_PEERS=1``, as in
``.ci/run``, a skip is a failure.
"""

from __future__ import annotations

import os
import shutil

import pytest

DEBIAN = {"cc": "gcc libc6-dev", "nginx": "nginx-light", "wrk": "wrk", "sshd": "openssh-server", "openssl": "openssl"}


def require(name: str) -> str:
    """Return the path of a program, or skip the test (fail it when peers are required)."""
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if found is not None:
        return found
    text = f"`{name}` is not installed; on Debian: apt-get install {DEBIAN.get(name, name)}"
    if os.environ.get("REMIT_REQUIRE_PEERS") == "1":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)
