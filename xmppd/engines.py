"""The store and the cache that a configuration names."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from xmppd import __version__
from xmppd.admin.commands import UNAVAILABLE
from xmppd.config import Config
from xmppd.errors import CommandError, ConfigError
from xmppd.settings import CassandraConfig, address_of
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Store, Table

if TYPE_CHECKING:
    from xmppd.cluster.lines import Bus
    from xmppd.cluster.registry import NodeList
    from xmppd.core.roster.tier import SharedCache
    from xmppd.duties import SharedDuties


def store_of(config: Config, now: Callable[[], float] = time.time) -> Store:
    """The store that the configuration names, not yet open; ConfigError without its driver, or with files
    that are of no use.
    """
    if config.store.engine == "sqlite":
        return SqliteStore(config.store_path, now=now)
    try:
        # Its driver takes a third of a second to load and is not installed everywhere.
        engine = importlib.import_module("xmppd.store.cassandra.store")
    except ModuleNotFoundError as error:
        if error.name != "cassandra":
            raise
        message = "is cassandra, whose driver is not installed: pip install 'xmppd[cassandra]'"
        raise ConfigError([config.problem(("store", "engine"), message)]) from None
    options = engine.CassandraOptions(**cassandra_options(config.store.cassandra))
    try:
        store: Store = engine.CassandraStore(options, program=f"xmppd {__version__}")
    except ConfigError as error:
        found = [config.problem(tuple(it.path.split(".")), it.message) for it in error.problems]
        raise ConfigError(found) from None
    return store


def cassandra_options(config: CassandraConfig) -> dict[str, Any]:
    """The fields of `CassandraOptions`."""
    tls = config.tls
    files = (tls.ca, tls.certificate, tls.key) if tls is not None else (None, None, None)
    ca, certificate, key = (None if file is None else str(file) for file in files)
    return {
        "contact_points": tuple(address_of(text, 9042) for text in config.contact_points),
        "keyspace": config.keyspace,
        "local_dc": config.local_dc,
        "replication": config.replication,
        "username": config.username,
        "password": None if config.password is None else config.password.value,
        "tls": tls is not None,
        "tls_ca": ca,
        "tls_certificate": certificate,
        "tls_key": key,
        "tls_check_host_name": tls is None or tls.check_host_name,
        "connect_timeout": config.connect_timeout,
        "request_timeout": config.request_timeout,
        "in_flight": config.in_flight,
        "waiting": config.waiting,
        "migrate": config.migrate,
        "compaction": config.compaction.lasting,
        "compaction_expiring": config.compaction.expiring,
        "compaction_tables": config.compaction.tables,
    }


def shared_cache(config: Config) -> SharedCache | None:
    """The cache that all nodes share, None without one; ConfigError where its driver is missing."""
    cache = config.cache
    if cache.redis is None:
        return None
    try:
        module = importlib.import_module("xmppd.store.cache.redis")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        message = "needs the package `redis`, which is not installed: pip install 'xmppd[redis]'"
        raise ConfigError([config.problem(("cache", "redis"), message)]) from None
    try:
        made: SharedCache = module.RedisCache(
            cache.redis,
            prefix=cache.prefix,
            ttl=cache.ttl,
            timeout=cache.timeout,
            connect_timeout=cache.connect_timeout,
        )
    except ValueError as error:
        raise ConfigError([config.problem(("cache", "redis"), f"cannot be used: {error}")]) from None
    return made


def node_list(cache: SharedCache | None) -> NodeList | None:
    """Where nodes find each other: the Redis of the cache, if there is one."""
    nodes: NodeList | None = getattr(cache, "nodes", None)
    return nodes


def shared_duties(cache: SharedCache | None) -> SharedDuties | None:
    """Where nodes agree on who does what one of them does: the same Redis."""
    duties: SharedDuties | None = getattr(cache, "duties", None)
    return duties


def own_locks(cache: SharedCache | None, incarnation: int, has_ended: Callable[[int], bool]) -> None:
    """Have others know whose locks are this node's, and take those of a node that was given up."""
    locks = getattr(cache, "locks", None)
    if locks is not None:
        locks.belong(incarnation, has_ended)


def trunk_bus(cache: SharedCache | None) -> Bus:
    """What carries trunks where nodes do not reach each other: the Redis of the cache."""
    bus: Bus = getattr(cache, "bus")()  # noqa: B009 - it is the cache in Redis that has one
    return bus


def prepare_folder(config: Config) -> None:
    """Make the data folder, readable by its owner only; ConfigError where none can be."""
    try:
        config.server.data_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except PermissionError:
        raise
    except OSError as error:
        message = f"cannot be made: {error.filename}: {error.strerror}"
        raise ConfigError([config.problem(("server", "data_folder"), message)]) from None


async def prepare_store(config: Config, store: Store, tables: Sequence[Table], *, create: bool) -> None:
    """Make the data folder for a store that is there, or may be made; else CommandError."""
    if create:
        prepare_folder(config)
        return
    if config.store.engine == "sqlite":
        is_there, what = config.store_path.exists(), f"database at {config.store_path.absolute()}"
    else:
        is_there = not any(thing.startswith("keyspace ") for thing in await store.missing(tables))
        what = f"keyspace {config.store.cassandra.keyspace} on Cassandra"
    if not is_there:
        raise CommandError(
            f"there is no {what} ({config.source.absolute()}), and no server of this configuration runs: "
            "--create makes an empty one",
            UNAVAILABLE,
        )
    prepare_folder(config)
