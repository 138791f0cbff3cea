"""The kinds of resources that this process knows: those that ship with remit, and those of packages that are named."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from remit import catalog
from remit.config import settings
from remit.config.settings import Settings
from remit.core import scope as scopes
from remit.errors import InvalidRequestError
from remit.kinds import egress, elsewhere, http, mcp, postgres, spiffe
from remit.ports.kind import Kind

GROUP = "remit.kinds"  # entry points by which packages bring kinds; only those that are configured are loaded
_KINDS = (http.KIND, postgres.KIND, spiffe.KIND, egress.KIND, mcp.KIND, elsewhere.KIND)
BUILT_IN = {kind.name: kind for kind in _KINDS}


def known(configured: Settings | None = None) -> Mapping[str, Kind]:
    """Return the kinds by name. Their tables, and providers of one's own, are known to this process from now on."""
    named = {} if configured is None else configured.kinds
    catalog.add({} if configured is None else configured.providers)
    found = BUILT_IN | {name: _loaded(name, version) for name, version in named.items()}
    for kind in found.values():
        scopes.register(kind.name, kind.table)
    return MappingProxyType(found)


def warm() -> None:
    """Import what serves the sockets of the kinds that ship with remit."""
    from remit.kinds.spiffe import listen  # noqa: F401 - an edge needs it later


def on_this_machine(environ: Mapping[str, str]) -> Mapping[str, Kind]:
    """Return the kinds that the configuration of this machine names, for commands."""
    try:
        return known(settings.load(environ))
    except InvalidRequestError:  # the broker says what is wrong with it
        return known()


def installed() -> Mapping[str, str]:
    """Return the kinds that other packages bring, configured or not, with the packages' versions."""
    return {entry.name: _version(entry) for entry in entry_points(group=GROUP)}


def _loaded(name: str, version: str) -> Kind:
    entries = [entry for entry in entry_points(group=GROUP, name=name) if _version(entry) == version]
    if name in BUILT_IN or len(entries) != 1:
        there = ", ".join(f"`{other}` {its}" for other, its in sorted(installed().items())) or "none"
        raise InvalidRequestError(
            f"`kinds.{name}`: no package that is installed brings that kind in version {version}",
            help=f"kinds of other packages that are installed: {there}",
        )
    kind = entries[0].load()
    if not isinstance(kind, Kind) or kind.name != name:
        raise InvalidRequestError(f"`kinds.{name}`: what the package brings is no kind of that name")
    return kind


def _version(entry: EntryPoint) -> str:
    return "" if entry.dist is None else entry.dist.version
