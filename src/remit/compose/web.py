"""Web: what strangers speak to. OAuth, pages, ``/v1`` over TCP, and what issuers and receivers of events are told."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import remit.compose.app as control
from remit.compose import identities
from remit.compose.rounds import Round
from remit.config.settings import Settings
from remit.identity.workloads.bundles import TrustBundles
from remit.web import listen
from remit.web.authentication import TokenAuth
from remit.web.listen import Listener
from remit.web.routes import AppDeps

TRUST = 1.0  # seconds between two looks whether a trust bundle is due, or our certificate new
SIGNALS = 1.0  # seconds between two looks whether events are to be fetched or sent


class WebRole:
    """What serves strangers."""

    def __init__(
        self, deps: AppDeps, settings: Settings, bundles: TrustBundles | None, signals: Sequence[Round] = ()
    ) -> None:
        self._deps, self._settings, self._bundles = deps, settings, bundles
        self._app, self._tls = control.build(deps), identities.server_tls(settings, bundles)
        self._listeners: list[Listener] = []
        self.rounds = [(TRUST, self.trust), *((SIGNALS, what) for what in signals)]

    async def listen(self, sock: socket.socket) -> None:
        """Serve ``listen.api``."""
        api = self._settings.api
        hosts = frozenset({str(api), f"localhost:{api[1]}"}) if api is not None else frozenset[str]()
        verifier = self._deps.verifier
        who = TokenAuth(hosts, verifier.holder, gateway=verifier.gateway)
        self._listeners.append(await listen.serve(self._app, sock, who))

    async def listen_tls(self, sock: socket.socket) -> None:
        """Serve ``tls.listen``."""
        section, verifier = self._settings.tls, self._deps.verifier
        assert section is not None  # noqa: S101 - the caller bound what it names
        assert self._tls is not None  # noqa: S101 - so this was built
        await self.trust()
        who = TokenAuth(section.hosts, verifier.holder, gateway=verifier.gateway, scheme="https")
        self._listeners.append(await listen.serve(self._app, sock, who, tls=self._tls.context))

    async def trust(self) -> None:
        """Look for new trust bundles and a new certificate of ours; TLS handshakes use them from now on."""
        if self._bundles is not None:
            await self._bundles.refresh()
        if self._tls is not None and self._tls.refresh():
            for listener in self._listeners:
                listener.cut_certified()

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()
