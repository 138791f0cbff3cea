from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx

from remit.compose.app import build
from remit.web.authentication import TokenAuth
from remit.web.listen import serve
from remit.web.routes import Identity
from tests.oauth.plane import Plane, _tcp, play


def test_anybody_is_told_how_humans_log_in_here(tmp_path: Path) -> None:
    known = {"issuer": "https://login.test", "client_id": "remit"}

    async def scene(plane: Plane) -> None:
        sock = _tcp()
        host = f"127.0.0.1:{sock.getsockname()[1]}"
        app = build(replace(plane.deps, identity=Identity(native=(known,), issuers={"https://web.test": "Web"})))
        plane.listeners.append(await serve(app, sock, TokenAuth(frozenset({host}), plane.verifier.holder)))
        async with httpx.AsyncClient() as anybody:
            told = await anybody.get(f"http://{host}/v1/identity")
        assert told.json() == {"issuer": plane.verifier.issuer, "humans": [known], "deciding": ["https://web.test"]}

    play(tmp_path, scene)


def test_without_an_issuer_nobody_is_named(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        assert (await plane.control.get("/v1/identity")).json()["humans"] == []

    play(tmp_path, scene)
