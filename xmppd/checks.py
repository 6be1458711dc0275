"""What is wrong with a configuration where it is to work: files, addresses, certificates, plugins.

`serve` refuses what it could not work with; the rest it warns of, or finds out when it comes to it.
"""

from __future__ import annotations

import errno
import importlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any, NamedTuple

from xmppd.config import Config
from xmppd.document import KeyPath, dotted
from xmppd.errors import CommandError, ConfigError, Finding, Problem
from xmppd.finding import find_plugin, names_in, plugin_modules, put_back
from xmppd.fundaments import MATTER_TO_THE_STORE, Check, made, refuse
from xmppd.net.tls import CIPHERS
from xmppd.parts.offers import missing
from xmppd.rules import issuers, plugin_folders
from xmppd.seeing.spans import recorder
from xmppd.settings import HttpListenerConfig, ListenerConfig, address_of
from xmppd.text import host_and_port
from xmppd.validation import did_you_mean

SQLITE = b"SQLite format 3\0"
"""How every database begins, but for an empty one."""


def check(config: Config) -> list[Problem]:
    """Every mistake, in the order of the file."""
    parts = (
        *MATTER_TO_A_SERVER,
        check_compaction,
        check_addresses,
        check_certificates,
        check_database,
        check_plugins,
    )
    found = [finding.problem for part in parts for finding in part(config)]
    return sorted(dict.fromkeys(found), key=lambda problem: (problem.file, problem.line, problem.column))


def refuse_fatal(config: Config) -> None:
    """ConfigError with every mistake that keeps a server from working."""
    refuse(config, MATTER_TO_A_SERVER)


# where clients come in


def check_listeners(config: Config) -> Iterator[Finding]:
    """No listener at all, or two at one place."""
    if not config.listen.c2s:
        message = "names no listener, so nobody could connect (leave the key out for 5222 and 5223)"
        yield Finding(config.problem(("listen", "c2s"), message), is_fatal=True)
    taken: dict[tuple[str, int], KeyPath] = {}
    for door in _doors(config):
        for host in _resolved(door.address) if door.port else ():
            first = next((taken[place] for place in taken if _collide(place, (host, door.port))), None)
            if first is not None:
                message = f"{host_and_port(host, door.port)} is taken by {dotted(first)}"
                yield Finding(config.problem(door.port_path, message), is_fatal=True)
                break
            taken[host, door.port] = door.path


def check_addresses(config: Config) -> Iterator[Finding]:
    """Addresses that are not on this machine, now."""
    for door in _doors(config):
        path = door.address_path
        hosts = _resolved(door.address)
        if not hosts:
            message = f"{door.address} cannot be resolved to an address"
            yield Finding(config.problem(path, message))
        for host in hosts:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as attempt:
                try:
                    attempt.bind((host, 0))
                except OSError as error:
                    reason = "is no address of this machine"
                    if error.errno != errno.EADDRNOTAVAIL:
                        reason = f"cannot be used: {error.strerror}"
                    yield Finding(config.problem(path, f"{host} {reason}"))


class _Door(NamedTuple):
    """A listener: its address and port, and where it and they stand in the configuration."""

    address: str
    port: int
    path: KeyPath
    address_path: KeyPath
    port_path: KeyPath


def _doors(config: Config) -> Iterator[_Door]:
    listeners: list[tuple[KeyPath, ListenerConfig | HttpListenerConfig]] = [
        (("listen", "c2s", index), listener) for index, listener in enumerate(config.listen.c2s)
    ]
    if config.listen.http is not None:
        listeners.append((("listen", "http"), config.listen.http))
    for path, listener in listeners:
        yield _Door(listener.address, listener.port, path, (*path, "address"), (*path, "port"))
        if isinstance(listener, HttpListenerConfig) and listener.own_port is not None:
            own = (*path, "own_port")
            yield _Door(listener.address, listener.own_port, own, (*path, "address"), own)
    if config.cluster.listen is not None and config.cluster.carrier == "direct":
        path = ("cluster", "listen")
        yield _Door(*address_of(config.cluster.listen, 0), path, path, path)


def _collide(one: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether the kernel refuses to listen at both: at the same, or at all addresses beside one of them."""
    if one[1] != other[1] or (":" in one[0]) != (":" in other[0]):
        return False
    return one[0] == other[0] or not {"::", "0.0.0.0"}.isdisjoint((one[0], other[0]))


def _resolved(address: str) -> list[str]:
    """The addresses it stands for; none when nobody knows it."""
    try:
        found = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


# encryption


def check_tls(config: Config) -> Iterator[Finding]:
    """Ciphers and certificates that OpenSSL does not take."""
    ciphers = config.tls.ciphers or CIPHERS
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(ciphers)
    except ssl.SSLError:
        message = (
            f"selects no cipher (`openssl ciphers '{ciphers}'` shows which; those of TLS 1.3 need no choice)"
        )
        yield Finding(config.problem(("tls", "ciphers"), message), is_fatal=True)
    if config.tls.certificates:
        yield from _encryption().check_files(config)


def check_certificates(config: Config) -> Iterator[Finding]:
    """Certificates that clients will not believe, and those of nobody."""
    for name in config.tls.certificates:
        if name != "*" and name not in config.server.domains:
            hint = did_you_mean(name, config.server.domains)
            message = f"{name} is not among server.domains{hint}"
            yield Finding(config.problem(("tls", "certificates", name), message, at_key=True))
    if config.tls.certificates:
        yield from _encryption().check_belief(config)


def _encryption() -> Any:
    """What reads certificates, which takes a tenth of a second to load."""
    return importlib.import_module("xmppd.encryption")


# files


def check_plugin_folders(config: Config) -> Iterator[Finding]:
    """Folders that are not there."""
    for index, folder in enumerate(config.plugins.folders):
        if not folder.is_dir():
            message = f"{folder} is no folder"
            yield Finding(config.problem(("plugins", "folders", index), message), is_fatal=True)


def check_database(config: Config) -> Iterator[Finding]:
    """A file that is no database, or cannot be one."""
    if config.store.engine == "sqlite" and (reason := _no_database(config)):
        yield Finding(config.problem(("store", "path"), reason))


def _no_database(config: Config) -> str:
    """Why there can be no database at its place, "" when there can."""
    file = config.store_path
    if config.store.path is not None and not file.parent.is_dir():
        return f"{file.parent} is no folder"
    if not file.exists():
        return ""
    if not file.is_file():
        return f"{file} is no file"
    try:
        with file.open("rb") as database:
            head = database.read(len(SQLITE))
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}"
    return "" if head in (b"", SQLITE) else f"{file} is no SQLite database"


# engines


def check_compaction(config: Config) -> Iterator[Finding]:
    """Options for tables that nobody declares."""
    if config.store.engine != "cassandra" or not config.store.cassandra.compaction.tables:
        return  # and no plugin's file is run for nothing
    at_work = plugin_modules()
    try:
        # Seldom needed, and much stands behind it.
        tables = importlib.import_module("xmppd.tables")
        known = [table.name for table in tables.tables_of(config)]
    except (ConfigError, CommandError):
        return  # of a plugin, found by `check_plugins`
    finally:
        put_back(at_work)
    for name in config.store.cassandra.compaction.tables:
        if name not in known:
            path = ("store", "cassandra", "compaction", "tables", name)
            message = f"there is no table {name}{did_you_mean(name, known)}"
            yield Finding(config.problem(path, message, at_key=True))


# other nodes


def check_cluster(config: Config) -> Iterator[Finding]:
    """Nodes that could not find each other, or share nothing."""
    cluster = config.cluster
    if cluster.listen is None:
        for key in ("advertise", "secret", "seeds", "see_other_host"):
            if getattr(cluster, key):
                message = "is of no use without cluster.listen: this node has no cluster"
                yield Finding(config.problem(("cluster", key), message, at_key=True))
        return
    path = ("cluster", "listen")
    if config.store.engine == "sqlite":
        message = "needs a store that all nodes share: store.engine must be cassandra"
        yield Finding(config.problem(path, message), is_fatal=True)
    if config.cache.redis is None and not cluster.seeds:
        message = "needs cache.redis, in which nodes find each other, or cluster.seeds"
        yield Finding(config.problem(path, message), is_fatal=True)
    elif config.cache.redis is None and cluster.secret is None:
        message = "need cluster.secret beside them: without cache.redis nodes have no other in common"
        yield Finding(config.problem(("cluster", "seeds"), message, at_key=True), is_fatal=True)
    if cluster.carrier == "redis" and config.cache.redis is None:
        message = "needs cache.redis, which is to carry what nodes tell each other"
        yield Finding(config.problem(("cluster", "carrier"), message), is_fatal=True)
    elif cluster.carrier == "redis" and cluster.seeds:
        message = "are of no use with cluster.carrier: redis, since nobody is reached while Redis is away"
        yield Finding(config.problem(("cluster", "seeds"), message, at_key=True))


def check_issuers(config: Config) -> Iterator[Finding]:
    """Issuers of tokens without keys, or with some that are none."""
    yield from made(issuers, config)


# plugins


def check_plugins(config: Config) -> Iterator[Finding]:
    """Plugins that are not there or cannot be loaded, and what they were told."""
    folders = plugin_folders(config)
    for index, name in enumerate(config.plugins.enabled):
        try:
            plugin_class, _ = find_plugin(name, folders, config)
            for problem in missing(plugin_class, name, config.plugins.enabled):
                yield Finding(config.problem(("plugins", "enabled", index), problem))
            config.plugin(name, plugin_class.Config)
        except ConfigError as error:
            yield from map(Finding, error.problems)
        except CommandError as error:
            yield Finding(config.problem(("plugins", "enabled", index), str(error)))
    known = names_in(folders)
    for name in config.plugins.config:
        if name not in config.plugins.enabled and name not in known:
            message = f"there is no plugin {name!r}{did_you_mean(name, known)}"
            yield Finding(config.problem(("plugins", "config", name), message, at_key=True))


def check_tracing(config: Config) -> Iterator[Finding]:
    """A collector for spans, and no library that sends it any."""
    if config.tracing.endpoint is not None:
        yield from made(recorder, config)


MATTER_TO_A_SERVER: tuple[Check, ...] = (
    *MATTER_TO_THE_STORE,
    check_listeners,
    check_cluster,
    check_tls,
    check_issuers,
    check_plugin_folders,
    check_tracing,
)
