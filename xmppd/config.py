"""From a YAML file and the environment to one frozen `Config`, or to every mistake at once with its place.

`config/xmppd.yaml` explains all keys; `xmppd.settings` holds their types and defaults.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, PrivateAttr

from xmppd.document import Document, KeyPath, dotted, read_document
from xmppd.errors import ConfigError, Problem
from xmppd.settings import (
    AuthConfig,
    CacheConfig,
    HttpConfig,
    LimitsConfig,
    ListenConfig,
    LogConfig,
    LoopConfig,
    PluginsConfig,
    RostersConfig,
    Section,
    ServerConfig,
    SessionsConfig,
    StoreConfig,
    TlsConfig,
)
from xmppd.validation import validated

FILE_NAME = "xmppd.yaml"
FILE_VARIABLE = "XMPPD_CONFIG"
OVERRIDE = "XMPPD__"

Model = TypeVar("Model", bound=BaseModel)


class Config(Section):
    """The whole configuration, frozen. `source` is the file it came from."""

    server: ServerConfig = ServerConfig()
    listen: ListenConfig = ListenConfig()
    http: HttpConfig = HttpConfig()
    tls: TlsConfig = TlsConfig()
    auth: AuthConfig = AuthConfig()
    limits: LimitsConfig = LimitsConfig()
    sessions: SessionsConfig = SessionsConfig()
    rosters: RostersConfig = RostersConfig()
    store: StoreConfig = StoreConfig()
    cache: CacheConfig = CacheConfig()
    plugins: PluginsConfig = PluginsConfig()
    log: LogConfig = LogConfig()
    loop: LoopConfig = LoopConfig()

    _document: Document = PrivateAttr(default_factory=lambda: Document("built-in defaults"))

    @property
    def source(self) -> Path:
        """The file this was read from."""
        return Path(self._document.file)

    @property
    def store_path(self) -> Path:
        """The file of the SQLite store."""
        return self.store.path or self.server.data_folder / "xmppd.sqlite"

    @property
    def socket_path(self) -> Path:
        """The unix socket through which commands reach the running server."""
        return self.server.data_folder / "xmppd.sock"

    def plugin(self, name: str, model: type[Model]) -> Model:
        """`plugins.config.<name>`, validated by the plugin's own model; ConfigError with every mistake."""
        raw = self.plugins.config.get(name, {})
        return validated(model, dict(raw), self._document, ("plugins", "config", name))

    def problem(self, path: KeyPath, message: str) -> Problem:
        """A mistake found elsewhere (an unknown plugin, say), with the place of `path` in the file."""
        return self._document.problem(path, message)


def data_folder(name: str) -> Path:
    """A folder shipped with xmppd (`config`, `plugins`): in the package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "_data" / name
    return installed if installed.is_dir() else package.parent / name


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """The file at `path`, else the one `find` finds, with the overrides in `environ`; or ConfigError."""
    document = _read(path or find(environ))
    _apply_overrides(document, environ)
    if document.data is None:
        document.data = {}
    if not isinstance(document.data, dict):
        raise ConfigError(
            [*document.problems, document.problem((), "must be sections (`name:` and keys below)")]
        )
    _drop_empty_sections(document.data)
    config = validated(Config, document.data, document, ())
    config._document = document
    return config


def check(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> list[Problem]:
    """Every mistake that `load` would raise."""
    try:
        load(path, environ)
    except ConfigError as error:
        return error.problems
    return []


def find(environ: Mapping[str, str] = os.environ) -> Path:
    """$XMPPD_CONFIG, ./xmppd.yaml, the XDG configuration folder, /etc/xmppd; else the built-in defaults."""
    if named := environ.get(FILE_VARIABLE):
        return Path(named)
    xdg = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "/")) / ".config")
    for candidate in (Path(FILE_NAME), xdg / "xmppd" / FILE_NAME, Path("/etc/xmppd") / FILE_NAME):
        # Unlike Path.is_file this is also False for a folder we may not enter.
        if os.path.isfile(candidate):  # noqa: PTH113
            return candidate
    return data_folder("config") / FILE_NAME


def _read(path: Path) -> Document:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError([Problem(str(path), 0, 0, "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(str(path), 0, 0, "", f"is not UTF-8 (byte {error.start})")]) from None
    document = read_document(text, str(path))
    if document.problems and document.data is None:
        raise ConfigError(document.problems)
    return document


def _apply_overrides(document: Document, environ: Mapping[str, str]) -> None:
    """`XMPPD__SECTION__KEY=value`: values are YAML, so `[a, b]` and `true` work; names ignore case."""
    for name in sorted(environ):
        if not name.upper().startswith(OVERRIDE):
            continue
        value = read_document(environ[name], f"${name}", lines=False)
        document.problems.extend(value.problems)
        path = tuple(name[len(OVERRIDE) :].lower().split("__"))
        if not all(path):
            document.problems.append(Problem(f"${name}", 0, 0, "", "must be named XMPPD__SECTION__KEY"))
        elif obstacle := document.graft(path, value):
            document.problems.append(Problem(f"${name}", 0, 0, dotted(path), obstacle))


def _drop_empty_sections(data: dict[str, Any]) -> None:
    """A section whose keys are all commented out is null to YAML and means its defaults."""
    plugins = data.get("plugins")
    configs = plugins.get("config") if isinstance(plugins, dict) else None
    for sections in (configs, plugins, data):
        if isinstance(sections, dict):
            for name in [name for name, section in sections.items() if section is None]:
                del sections[name]
