"""What a browser does at the page where a human decides."""

from __future__ import annotations

import httpx

from tests.oauth.consent_driver import (
    App,
    form_of,
)

DETAIL = '{"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any"}'


async def visited(app: App, visitor: httpx.AsyncClient, **more: str | None) -> httpx.Response:
    """Come to the page of a request."""
    return await visitor.get("/oauth/authorize", params=app.browser_request(**more))


async def approved(visitor: httpx.AsyncClient, page: httpx.Response, **more: str) -> httpx.Response:
    """Press approve."""
    return await visitor.post("/oauth/consent", data={**form_of(page), "decision": "approve", **more})


async def logged_in(app: App, visitor: httpx.AsyncClient) -> str:
    """Approve; return where the issuer sends the browser back."""
    return app.issuer.back(await approved(visitor, await visited(app, visitor)))
