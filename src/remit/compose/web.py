"""Web: what strangers speak to. OAuth, pages, ``/v1`` over TCP, and what issuers and receivers of events are told."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import remit.compose.app as control
from remit.compose import identities
from remit.compose.rounds import Round
from remit.config.settings import Settings
from remit.ports.broker import Notice
from remit.ports.trust import CertificatePort, Pair
from remit.web import listen
from remit.web.authentication import TokenAuth
from remit.web.listen import Listener
from remit.web.routes import AppDeps

TRUST = 1.0  # seconds between two looks whether our certificate is new
SIGNALS = 1.0  # seconds between two looks whether events are to be fetched or sent


class WebRole:
    """What serves strangers."""

    def __init__(
        self,
        deps: AppDeps,
        settings: Settings,
        signals: Sequence[Round] = (),
        certificates: CertificatePort | None = None,
        pair: Pair = (b"", b""),
    ) -> None:
        """``pair`` is what ``certificates`` said last; there are some where there is ``[tls]``."""
        self._deps, self._settings, self._certificates, self._pair = deps, settings, certificates, pair
        self._app = control.build(deps)
        self._tls = identities.server_tls(settings, lambda: self._pair, deps.trust)
        self._listeners: list[Listener] = []
        self.rounds = [(TRUST, self.renew), *((SIGNALS, what) for what in signals)]

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
        who = TokenAuth(section.hosts, verifier.holder, gateway=verifier.gateway, scheme="https")
        self._listeners.append(await listen.serve(self._app, sock, who, tls=self._tls.context))

    def noticed(self, notice: Notice) -> None:
        """Take over keys."""
        self._deps.verifier.noticed(notice)
        if self._deps.trust is not None and notice.trust is not None:
            self._deps.trust.noticed(notice)
            self._refresh()

    async def renew(self) -> None:
        """Look for a new certificate of ours; TLS handshakes use it from now on."""
        try:
            if self._certificates is not None:
                self._pair = await self._certificates.server_certificate()
        finally:
            self._refresh()

    def _refresh(self) -> None:
        if self._tls is not None and self._tls.refresh():
            for listener in self._listeners:
                listener.cut_certified()

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()
