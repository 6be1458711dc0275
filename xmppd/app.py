"""The composition root: the only file that picks implementations and ties them together."""

from __future__ import annotations

import asyncio
import importlib
import logging
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from xmppd import __version__, jid
from xmppd.admin.builtin import StoreCommands, UserCommands
from xmppd.admin.commands import Commands, commands_of
from xmppd.admin.rosters import RosterCommands
from xmppd.allocator import collect, trim
from xmppd.config import Config
from xmppd.configfile import shipped
from xmppd.core import accounts as account_tables
from xmppd.core.accounts import GONE_SECONDS, Accounts
from xmppd.core.binding import Binding, BindingRules
from xmppd.core.brake import Brake, BrakeRules
from xmppd.core.contacts import Contacts
from xmppd.core.disco import Disco
from xmppd.core.elsewhere import Elsewhere
from xmppd.core.expiry import Expiry
from xmppd.core.intake import Intake
from xmppd.core.iqs import Iqs
from xmppd.core.lastseen import LAST_PRESENCE, LastSeen
from xmppd.core.logins import Logins
from xmppd.core.messages import Messages
from xmppd.core.output import Cork
from xmppd.core.presence import PresenceRules, Presences
from xmppd.core.probes import Probes
from xmppd.core.questions import Questions
from xmppd.core.reports import Reports
from xmppd.core.roster.office import RosterOffice
from xmppd.core.roster.repair import RosterRepair
from xmppd.core.roster.rosters import ROSTER, Rosters
from xmppd.core.roster.tier import RosterTier, SharedCache
from xmppd.core.router import Router
from xmppd.core.sending import Sending
from xmppd.core.services import Hosts, Services
from xmppd.core.sessions import Sessions
from xmppd.core.visibility import Visibility
from xmppd.errors import CommandError, ConfigError
from xmppd.finding import find_plugin
from xmppd.hooks import Hooks
from xmppd.jobs import Jobs
from xmppd.loader import Loader
from xmppd.net.c2s.negotiation.early import EarlyIqs
from xmppd.net.c2s.negotiation.errors import ClientErrors
from xmppd.net.c2s.negotiation.resource import Resource, SessionOffers
from xmppd.net.c2s.negotiation.sasl import Sasl
from xmppd.net.c2s.negotiation.starttls import StartTls
from xmppd.net.c2s.service import Service, ServiceRules
from xmppd.net.certificates import CIPHERS, Certificates, KeyPair, development_certificate
from xmppd.net.ebb import Ebb
from xmppd.net.http.routes import HttpRules, Routes, Token
from xmppd.net.listeners import Listeners
from xmppd.net.pace import Tempo
from xmppd.net.wire import Shared, WireRules
from xmppd.nodes import Nodes
from xmppd.parts.http import routes_of
from xmppd.parts.listeners import claims_of
from xmppd.plugin import Plugin
from xmppd.scope import Scope
from xmppd.server import Server
from xmppd.settings import CassandraConfig, address_of
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Store, Table
from xmppd.stream.plain import Anonymous, Plain
from xmppd.stream.rows import Rows
from xmppd.stream.sasl import Mechanism
from xmppd.stream.scram import scram_mechanisms
from xmppd.timers import Timers
from xmppd.xml.scan import Engine, Limits

log = logging.getLogger(__name__)

TABLES = (*account_tables.TABLES, ROSTER, LAST_PRESENCE)


class App:
    """One server, assembled and not yet listening. Make it inside a running event loop.

    `now` gives seconds since the epoch, `clock` seconds that never jump. `jobs` are tasks that end by
    themselves, `lasting` those of plugins, which may last as long as they do.
    """

    def __init__(
        self,
        config: Config,
        *,
        store: Store | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.jobs = Jobs()
        self.lasting = Jobs()
        self.timers = Timers(clock)
        self.hooks = Hooks()
        self.listeners = Listeners(self.jobs.spawn)
        self.routes = Routes(http_rules(config), self.hooks.failed)
        self.commands = Commands()
        self.store = store if store is not None else store_of(config, now)
        self.cache = shared_cache(config)
        self.accounts = Accounts(
            self.store,
            iterations=config.auth.iterations,
            now=now,
            clock=clock,
            ends_sessions=config.auth.end_sessions_on_password_change,
            gone_seconds=GONE_SECONDS if self.cache is not None else 0.0,
        )
        tier = RosterTier(self.cache, loads=config.cache.loads) if self.cache is not None else None
        limits = config.limits
        self.rosters = Rosters(
            self.store,
            max_items=limits.roster_items,
            max_bytes=limits.roster_bytes,
            max_groups=limits.roster_groups_per_item,
            max_name_bytes=limits.name_bytes,
            log_days=config.rosters.log_days,
            cache_bytes=config.cache.memory,
            tier=tier,
            hold=self.accounts.hold,
            now=now,
        )
        domains = frozenset(config.server.domains)
        self.cork = Cork(asyncio.get_running_loop().call_soon, kept_bytes=limits.write_buffer_hard)
        self.sessions = Sessions(self.cork, now)
        self.visibility = Visibility(self.accounts, self.rosters, self.hooks)
        self.last_seen = LastSeen(
            self.store,
            self.sessions,
            self.rosters,
            self.visibility,
            self.jobs.spawn,
            now,
            self.accounts.hold,
        )
        self.services = Services(self.jobs.spawn)
        self.presences = Presences(
            self.sessions,
            self.rosters,
            self.last_seen,
            self.visibility,
            self.services,
            self.hooks,
            presence_rules(config),
        )
        self.messages = Messages(self.sessions, self.accounts, self.services, self.hooks, domains)
        self.contacts = Contacts(
            self.sessions, self.accounts, self.rosters, self.presences, self.services, domains
        )
        self.questions = Questions(self.timers.call_later)
        self.sessions.on_removed = self.questions.gone
        self.iqs = Iqs(
            self.sessions,
            self.visibility,
            self.services,
            self.questions,
            self.hooks,
            domains,
            from_strangers=config.iqs.from_strangers == "deliver",
        )
        hosts = Hosts(domains, self.services)
        self.router = Router(
            Intake(self.sessions, hosts),
            self.messages,
            self.presences,
            Probes(self.sessions, self.visibility, self.last_seen),
            self.contacts,
            self.iqs,
            self.services,
            self.hooks,
            domains,
        )
        self.binding = Binding(
            self.sessions, self.presences, self.hooks, self.jobs.spawn, binding_rules(config)
        )
        self.reports = Reports(clock)
        self.logins = Logins(
            self.accounts,
            self.sessions,
            self.hooks,
            self.binding.end,
            Brake(brake_rules(config), clock),
            self.reports,
        )
        self.expiry = Expiry(self.hooks, self.binding.end, self.jobs.spawn, now, config.auth.expiry_grace)
        self.server = Server(
            store=self.store,
            accounts=self.accounts,
            visibility=self.visibility,
            sessions=self.sessions,
            router=self.router,
            sending=Sending(
                self.router,
                self.sessions,
                self.questions,
                self.hooks,
                hosts,
                config.server.domains,
            ),
            disco=Disco(self.iqs, self.services),
            services=self.services,
            end_session=self.binding.end,
            expiry=self.expiry,
            spawn=self.jobs.spawn,
            now=now,
            domains=domains,
            name=config.server.name,
            version=__version__,
            contact_addresses=config.server.contact.model_dump(),
            nodes=Nodes(),
            scope=lambda: Scope(self.timers, self.lasting.spawn, self.hooks.failed),
        )
        self.loader = Loader(
            plugin_folders(config),
            server=self.server,
            hooks=self.hooks,
            iqs=self.iqs,
            commands=self.commands,
            core_handlers=self.contacts.handlers,
            prepare=self._plugins_coming,
            on_change=self._plugins_changed,
        )
        self.elsewhere = Elsewhere(
            sessions=self.sessions,
            rosters=self.rosters,
            accounts=self.accounts,
            presences=self.presences,
            logins=self.logins,
            spawn=self.jobs.spawn,
            clock=clock,
            max_age=config.cache.ttl,
        )
        self.rosters.on_loaded = self.elsewhere.roster_loaded
        self.rosters.on_unsure = self.elsewhere.roster_unsure
        if tier is not None:
            tier.on_marked = self.elsewhere.roster_marked
            self.accounts.on_changed.append(tier.cache.publish_account)
        self._mechanisms = mechanisms(config, self.accounts, self.hooks)
        self.rows = Rows()
        tempo = Tempo(clock)
        self.shared = Shared(wire_rules(config), tempo, self.reports)
        self.service = Service(
            service_rules(config),
            tempo=tempo,
            engine=Engine(),
            domains=domains,
            default_domain=config.server.domains[0],
            lang=config.server.language,
            rows=self.rows,
            binding=self.binding,
            router=self.router,
            reports=self.reports,
            spawn=self.jobs.spawn,
        )
        self.service.looks.append(self.expiry.look)
        self.sasl = Sasl(self._mechanisms, self.logins, lambda: self.service.rules.attempts)
        self._negotiators = (
            StartTls(),
            self.sasl,
            EarlyIqs(self.iqs.early),
            Resource(self.binding, self.logins, self.expiry),
            SessionOffers(),
            ClientErrors(),
        )
        self.service.ebb = Ebb(self._release)
        self.accounts.on_created.append(self._account_created)
        self.accounts.on_leaving += [self.contacts.remove_account, self.last_seen.forget]
        self.accounts.on_removed.append(self._account_removed)
        self.accounts.on_revoked = self.logins.review
        self.accounts.on_unsure = self.elsewhere.account_unsure
        self.logins.unbound = self.service.unbound
        self.commands.add(*commands_of(UserCommands(AccountOffice(self), config.server.domains)))
        repairs = RosterRepair(self.rosters, self.contacts, self.accounts, domains)
        office = RosterOffice(self.rosters, self.contacts, self.accounts, repairs)
        self.commands.add(*commands_of(RosterCommands(office)))
        self.commands.add(*commands_of(StoreCommands(StoreOffice(self.store, self.tables))))

    async def open(self) -> None:
        """Open the store, and load the plugins."""
        await self.store.open(TABLES)
        if self.cache is not None:
            await self.cache.open(self.elsewhere)
        await self.accounts.open()
        await self.loader.load(self.config)

    async def close(self, drain_seconds: float = 5.0) -> None:
        """End all sessions, finish all work, and close the store."""
        await self.service.shut_down()
        await self.jobs.drain(drain_seconds)
        await self.loader.close()
        await self.lasting.drain(0.0)
        self.timers.close()
        self.accounts.close()
        if self.cache is not None:
            await self.cache.close()
        await self.store.close()

    async def has_account(self, account: str) -> bool:
        """Whether there is such an account, disabled or not."""
        known = self.accounts.exists(account)
        return known if isinstance(known, bool) else await known

    def tables(self) -> list[Table]:
        """All tables of the server and of the plugins at work."""
        loaded = self.loader.loaded
        plugins = [table for it in loaded for table in type(it.plugin).tables(it.name)]
        return [*TABLES, *plugins]

    def caches(self) -> Mapping[str, int]:
        """How much each cache holds, all are bounded; and what was done with the shared one."""
        shared = self.cache.counters if self.cache is not None else {}
        return {
            **self.rosters.cache,
            **self.accounts.cached,
            "last_presences": self.last_seen.cached,
            **{f"shared_{name}": value for name, value in shared.items()},
        }

    def store_stats(self) -> Mapping[str, int]:
        """What the store did so far, and how many writes wait in it."""
        return asdict(self.store.stats)

    def _release(self) -> None:
        """Many have gone: forget what can be read again, and return the memory."""
        self.rosters.release()
        self.accounts.release()
        self.last_seen.release()
        self.sessions.release()
        self.service.release()
        jid.release()
        self.service.engine.release()
        self.store.release()
        collect()
        trim()

    async def _plugins_coming(self, plugins: Sequence[Plugin]) -> None:
        await self.listeners.prepare(claim for plugin in plugins for claim in claims_of(plugin.name, plugin))

    def _plugins_changed(self, plugins: Sequence[Plugin]) -> None:
        self.rows.compile((*self._negotiators, *plugins))
        added = [mechanism for plugin in plugins for mechanism in plugin.mechanisms()]
        self.sasl.mechanisms = [*self._mechanisms, *added]
        self.routes.compile(pair for plugin in plugins for pair in routes_of(plugin))
        self.listeners.claim(claim for plugin in plugins for claim in claims_of(plugin.name, plugin))

    async def _account_created(self, account: str) -> None:
        await self.hooks.tell_in_order(self.hooks.account_created_signal, account)

    async def _account_removed(self, account: str) -> None:
        await self.hooks.tell_all(self.hooks.account_removed_signal, account)


class AccountOffice:
    """Accounts as `user` commands want them: what they do reaches sessions and belongings too."""

    def __init__(self, app: App) -> None:
        self.create = app.accounts.create
        self.exists = app.has_account
        self.set_password = app.accounts.set_password
        self.enable = app.accounts.enable
        self.info = app.accounts.info
        self.list = app.accounts.list
        self.remove = app.server.remove_account
        self.disable = app.accounts.disable
        self._app = app


class StoreOffice:
    """The store as `store` commands want it. `tables` gives what has to be there."""

    def __init__(self, store: Store, tables: Callable[[], Sequence[Table]]) -> None:
        self.info = store.info
        self._store = store
        self._tables = tables

    async def missing(self) -> Sequence[str]:
        """What is declared and not there."""
        return await self._store.missing(self._tables())

    async def migrate(self) -> Sequence[str]:
        """Make what is missing."""
        return await self._store.migrate(self._tables())


# from configuration to the rules of each part


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
        "password": None if config.password is None else config.password.get_secret_value(),
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


def binding_rules(config: Config) -> BindingRules:
    """How resources are bound."""
    return BindingRules(config.sessions.conflict == "replace", config.limits.sessions_per_account)


def presence_rules(config: Config) -> PresenceRules:
    """How many copies of its presence a session may cause."""
    limits = config.limits
    return PresenceRules(limits.presence_copy_rate, limits.presence_copy_burst, limits.presence_bytes)


def service_rules(config: Config) -> ServiceRules:
    """How clients are treated."""
    limits, sessions = config.limits, config.sessions
    scanned = Limits(
        stanza_bytes=limits.stanza_bytes,
        depth=limits.depth,
        attributes=limits.attributes,
        header_bytes=limits.header_bytes,
    )
    return ServiceRules(
        must_encrypt=config.tls.required,
        attempts=config.auth.attempts,
        login_seconds=config.auth.login_seconds,
        whitespace_after=sessions.whitespace_after,
        ping_after=sessions.ping_after,
        ping_timeout=sessions.ping_timeout,
        connections=limits.connections,
        connections_before_login=limits.connections_before_login,
        connections_before_login_per_address=limits.connections_before_login_per_address,
        stanza_rate=limits.stanza_rate,
        stanza_burst=limits.stanza_burst,
        limits=scanned,
        limits_before_login=replace(scanned, stanza_bytes=limits.stanza_bytes_before_login),
    )


def http_rules(config: Config) -> HttpRules:
    """Who may call by HTTP, and how much that may cost."""
    tokens = tuple(
        Token(token.name, bytes.fromhex(token.sha256.get_secret_value().strip()), frozenset(token.scopes))
        for token in config.http.tokens
    )
    return HttpRules(tokens, config.http.body_bytes, config.http.seconds)


def brake_rules(config: Config) -> BrakeRules:
    """How who guesses passwords is slowed down."""
    brake = config.auth.brake
    return BrakeRules(
        per_account=brake.failures_per_account,
        per_network=brake.failures_per_address,
        longest=brake.longest_seconds,
        forget=brake.forget_seconds,
        exempt=brake.exempt,
    )


def wire_rules(config: Config) -> WireRules:
    """How much unsent output a client may cause."""
    limits = config.limits
    return WireRules(limits.write_buffer_soft, limits.write_buffer_hard, limits.unsent_bytes)


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


def plugin_folders(config: Config) -> list[Path]:
    """Where plugins are looked for: the built-in folder, then the operator's."""
    return [shipped("plugins"), *config.plugins.folders]


def mechanisms(config: Config, accounts: Accounts, hooks: Hooks) -> list[Mechanism]:
    """The SASL mechanisms that the configuration allows."""
    known: list[Mechanism] = [
        *scram_mechanisms(accounts),
        Plain(
            accounts,
            needs_tls=not config.auth.plain_without_tls,
            checks=lambda: hooks.password_check_filter,
        ),
    ]
    chosen = [mechanism for mechanism in known if mechanism.name in config.auth.mechanisms]
    return [*chosen, Anonymous()] if config.auth.anonymous else chosen


def certificates(config: Config) -> Certificates:
    """The certificates of all domains; CertificateError when one cannot be used."""
    default, domains = key_pairs(config)
    version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[config.tls.minimum_version]
    return Certificates(default, domains, minimum_version=version, ciphers=config.tls.ciphers or CIPHERS)


def key_pairs(config: Config) -> tuple[KeyPair, dict[str, KeyPair]]:
    """The default certificate's files, and those of single domains; the development certificate where none is
    named.
    """
    named = {name: KeyPair(pair.certificate, pair.key) for name, pair in config.tls.certificates.items()}
    default = named.pop("*", None) or next(iter(named.values()), None)
    if default is None:
        default = development_certificate(config.server.data_folder, config.server.domains)
    return default, named


def tables_of(*configs: Config) -> list[Table]:
    """The tables of the core, and of all plugins that any of the configurations loads; ConfigError,
    CommandError.
    """
    found = {table.name: table for table in TABLES}
    for config in configs:
        for name in config.plugins.enabled:
            plugin_class, _ = find_plugin(name, plugin_folders(config), config)
            for table in plugin_class.tables(name):
                if found.setdefault(table.name, table) != table:
                    raise CommandError(f"the configurations have different plugins named {name!r}")
    return list(found.values())


def prepare_folder(config: Config) -> None:
    """Make the data folder, readable by its owner only; ConfigError where none can be."""
    try:
        config.server.data_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except PermissionError:
        raise
    except OSError as error:
        message = f"cannot be made: {error.filename}: {error.strerror}"
        raise ConfigError([config.problem(("server", "data_folder"), message)]) from None
