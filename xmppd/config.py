"""From a YAML file and the environment to one frozen `Config`, or to every mistake at once with its place.

`config/xmppd.yaml` explains all keys; `xmppd.settings` holds their types and defaults.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from xmppd.configfile import SOCKET_NAME, read
from xmppd.document import Document, KeyPath, Place
from xmppd.errors import ConfigError, Problem
from xmppd.section import Section
from xmppd.settings import (
    AuditConfig,
    AuthConfig,
    CacheConfig,
    ClusterConfig,
    HttpConfig,
    IqsConfig,
    LimitsConfig,
    ListenConfig,
    LogConfig,
    LoopConfig,
    PluginsConfig,
    RightsConfig,
    RostersConfig,
    ServerConfig,
    SessionsConfig,
    StoreConfig,
    TlsConfig,
    TracingConfig,
)
from xmppd.validation import validated

Made = TypeVar("Made", bound=Section)


class Config(Section):
    """The whole configuration, frozen. `source` is the file it came from."""

    server: ServerConfig = ServerConfig()
    listen: ListenConfig = ListenConfig()
    http: HttpConfig = HttpConfig()
    audit: AuditConfig = AuditConfig()
    rights: RightsConfig = RightsConfig()
    tls: TlsConfig = TlsConfig()
    auth: AuthConfig = AuthConfig()
    limits: LimitsConfig = LimitsConfig()
    sessions: SessionsConfig = SessionsConfig()
    iqs: IqsConfig = IqsConfig()
    rosters: RostersConfig = RostersConfig()
    store: StoreConfig = StoreConfig()
    cache: CacheConfig = CacheConfig()
    cluster: ClusterConfig = ClusterConfig()
    plugins: PluginsConfig = PluginsConfig()
    log: LogConfig = LogConfig()
    tracing: TracingConfig = TracingConfig()
    loop: LoopConfig = LoopConfig()

    _document = Document("built-in defaults")

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
        return self.server.data_folder / SOCKET_NAME

    def plugin(self, name: str, section: type[Made]) -> Made:
        """`plugins.config.<name>` as the plugin's own section; ConfigError with every mistake."""
        raw = self.plugins.config.get(name, {})
        return validated(section, dict(raw), self._document, ("plugins", "config", name))

    def place_of(self, path: KeyPath) -> Place | None:
        """Where the value at a path was written, or the list that it is in; None for what was not."""
        values = self._document.values
        found = values.get(path)
        while found is None and path and isinstance(path[-1], int):
            path = path[:-1]
            found = values.get(path)
        return found

    def problem(self, path: KeyPath, message: str, *, at_key: bool = False) -> Problem:
        """A mistake found elsewhere (an unknown plugin, say), with the place of `path` in the file."""
        return self._document.problem(path, message, at_key=at_key)


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """The file at `path`, else the one `find` finds, with the overrides in `environ`; or ConfigError."""
    document = read(path, environ)
    _drop_empty_sections(document.data)
    return _made(document)


def made_of(data: Mapping[str, Any]) -> Config:
    """Plain data, as it would be read from a file; ConfigError."""
    return _made(Document("plain data", data))


def _made(document: Document) -> Config:
    config = validated(Config, document.data, document, ())
    vars(config)["_document"] = document
    return config


def check(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> list[Problem]:
    """Every mistake that `load` would raise."""
    try:
        load(path, environ)
    except ConfigError as error:
        return error.problems
    return []


def _drop_empty_sections(data: dict[str, Any]) -> None:
    """A section whose keys are all commented out is null to YAML and means its defaults."""
    plugins = data.get("plugins")
    configs = plugins.get("config") if isinstance(plugins, dict) else None
    for sections in (configs, plugins, data):
        if isinstance(sections, dict):
            for name in [name for name, section in sections.items() if section is None]:
                del sections[name]
