"""Configuration and places. Never a secret; unknown keys are refused."""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from remit.compose import tls
from remit.compose.mistakes import located, unknown
from remit.compose.tls import Tls
from remit.errors import InvalidRequestError

MAX_PORT = 65_535

Address = tuple[str, int]

_KNOWN = {"listen": {"api", "gateway"}, "audit": {"witness"}, "keys": {"kek"}, "identity": {"trust_domain"}}
PARTS = frozenset({"humans", "workloads", "trust_domains", "clients", "client_documents", "policy", "signals", "tls"})


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are. ``state`` holds remit.db, kek, lock and log; ``runtime`` the sockets."""

    config: Path
    state: Path
    runtime: Path

    @property
    def control(self) -> Path:
        """The operator's socket."""
        return self.runtime / "control.sock"

    @property
    def log(self) -> Path:
        """What the broker says to its operator, never to a caller."""
        return self.state / "log"

    @property
    def launch(self) -> Path:
        """The socket on which runs hand over their listeners."""
        return self.runtime / "launch.sock"


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be configured. ``api`` and ``gateway`` are loopback addresses, or None for no TCP listener."""

    places: Places
    api: Address | None = ("127.0.0.1", 8470)
    gateway: Address | None = ("127.0.0.1", 8471)
    witness: Path | None = None
    kek: Path | None = None
    trust_domain: str = "remit.local"
    parts: Mapping[str, object] = field(default_factory=dict)  # read by the modules named after them
    tls: Tls | None = None

    @property
    def issuer(self) -> str:
        """The issuer of tokens: the API's own URL, that of the TLS listener if there is one."""
        if self.tls is not None:
            return self.tls.url
        host, port = self.api or ("127.0.0.1", 8470)
        return f"http://{host}:{port}"


def places(environ: Mapping[str, str]) -> Places:
    """Return the places by the XDG base directory rules, with ``REMIT_STATE_DIR`` above them."""
    home = Path(environ.get("HOME", "/"))
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "remit" / "config.toml"
    own = environ.get("REMIT_STATE_DIR")
    state = Path(own) if own else Path(environ.get("XDG_STATE_HOME") or home / ".local/state") / "remit"
    shared = environ.get("XDG_RUNTIME_DIR")
    runtime = Path(shared) / "remit" if shared and not own else state / "run"
    return Places(config, state.absolute(), runtime.absolute())


def load(environ: Mapping[str, str]) -> Settings:
    """Read the configuration file, if there is one, or raise InvalidRequestError naming the file and line.

    The parts of ``PARTS`` are read by the modules named after them, when a broker is built.
    """
    where = places(environ)
    try:
        raw = tomllib.loads(where.config.read_text("utf-8"))
    except FileNotFoundError:
        raw = {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidRequestError(f"`{where.config}` cannot be read: {_reason(error)}") from error
    with located(where.config):
        return read(where, raw)


def read(where: Places, raw: Mapping[str, object]) -> Settings:
    """Build settings from decoded TOML."""
    parts = {name: value for name, value in raw.items() if name in PARTS}
    for section, values in raw.items():
        if section in PARTS:
            continue
        if section not in _KNOWN or not isinstance(values, Mapping):
            raise unknown(section, PARTS | _KNOWN.keys(), "a section of the configuration")
        for key in values:
            if key not in _KNOWN[section]:
                raise unknown(f"{section}.{key}", _KNOWN[section])
    return Settings(
        places=where,
        api=_address(raw, "api", ("127.0.0.1", 8470)),
        gateway=_address(raw, "gateway", ("127.0.0.1", 8471)),
        witness=_path(raw, "audit", "witness"),
        kek=_path(raw, "keys", "kek"),
        trust_domain=_text(raw, "identity", "trust_domain") or "remit.local",
        parts=parts,
        tls=tls.read(parts.get("tls")),
    )


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, tomllib.TOMLDecodeError) else "it is not readable UTF-8 text"


def _get(raw: Mapping[str, object], section: str, key: str) -> object:
    values = raw.get(section, {})
    return values.get(key) if isinstance(values, Mapping) else None


def _text(raw: Mapping[str, object], section: str, key: str) -> str | None:
    value = _get(raw, section, key)
    if value is not None and not isinstance(value, str):
        raise InvalidRequestError(f"`{section}.{key}` must be text")
    return value


def _path(raw: Mapping[str, object], section: str, key: str) -> Path | None:
    value = _text(raw, section, key)
    if value is None:
        return None
    if not Path(value).is_absolute():
        raise InvalidRequestError(f"`{section}.{key}` must be an absolute path")
    return Path(value)


def _address(raw: Mapping[str, object], key: str, default: Address) -> Address | None:
    value = _text(raw, "listen", key)
    if value is None:
        return default
    if value == "off":
        return None
    host, _, port = value.rpartition(":")
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
        number = int(port)
    except ValueError:
        raise InvalidRequestError(f'`listen.{key}` must be "off" or a loopback address with a port') from None
    if not loopback or not 1 <= number <= MAX_PORT:
        raise InvalidRequestError(
            f"`listen.{key}` must be a loopback address", help="other hosts reach the listener of `[tls]` alone"
        )
    return host.strip("[]"), number
