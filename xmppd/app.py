"""The composition root: the only file that picks implementations and ties them together."""

from __future__ import annotations

import asyncio
import importlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from xmppd import __version__, jid
from xmppd.allocator import collect, trim
from xmppd.config import Config
from xmppd.core.accounts import Accounts
from xmppd.core.arrivals import Arrivals
from xmppd.core.binding import Binding
from xmppd.core.blocking import Blocking
from xmppd.core.blocks import Blocks
from xmppd.core.brake import Brake
from xmppd.core.contacts import Contacts
from xmppd.core.disco import Disco
from xmppd.core.elsewhere import Elsewhere
from xmppd.core.events import Events
from xmppd.core.expiry import Expiry
from xmppd.core.friendships import Friendships
from xmppd.core.gone import GONE_SECONDS
from xmppd.core.handover import Handover
from xmppd.core.happenings import UP, migrated, sources
from xmppd.core.ids import Ids
from xmppd.core.intake import Intake
from xmppd.core.iqs import Iqs
from xmppd.core.lastseen import LastSeen
from xmppd.core.leftover import LeftOver
from xmppd.core.logins import Logins
from xmppd.core.messages import Messages
from xmppd.core.output import Cork
from xmppd.core.presence import Presences
from xmppd.core.probes import Probes
from xmppd.core.questions import Questions
from xmppd.core.reports import Reports
from xmppd.core.resumption import Resumption
from xmppd.core.roster.rosters import Rosters
from xmppd.core.roster.tier import RosterTier
from xmppd.core.router import Router
from xmppd.core.sending import Sending
from xmppd.core.services import Hosts, Services
from xmppd.core.sessions import Sessions
from xmppd.core.tokens import ClientTokens
from xmppd.core.visibility import Visibility
from xmppd.doors import Doors
from xmppd.duties import Duties
from xmppd.engines import shared_cache, shared_duties, store_of
from xmppd.everywhere import Everywhere
from xmppd.following import Following
from xmppd.hooks import Callables, Hooks
from xmppd.jobs import Jobs, finished
from xmppd.loader import Loader
from xmppd.loglevels import Levels
from xmppd.migrate.merge import merged
from xmppd.net.c2s.negotiation.activity import Activity
from xmppd.net.c2s.negotiation.bind2 import Bind2
from xmppd.net.c2s.negotiation.early import EarlyIqs
from xmppd.net.c2s.negotiation.errors import ClientErrors
from xmppd.net.c2s.negotiation.fast import Fast
from xmppd.net.c2s.negotiation.management import Management
from xmppd.net.c2s.negotiation.resource import Resource, SessionOffers
from xmppd.net.c2s.negotiation.sasl import Sasl
from xmppd.net.c2s.negotiation.sasl2 import Sasl2
from xmppd.net.c2s.negotiation.starttls import StartTls
from xmppd.net.c2s.service import Service
from xmppd.net.ebb import Ebb
from xmppd.net.listeners import Listeners
from xmppd.net.pace import Tempo
from xmppd.net.wire import Shared
from xmppd.nodes import Nodes
from xmppd.operating import operators_commands
from xmppd.parts.belongings import Belonging, belongings_of
from xmppd.parts.http import routes_of
from xmppd.parts.listeners import claims_of
from xmppd.plugin import Plugin
from xmppd.rights.office import RightsOffice
from xmppd.rules import (
    binding_rules,
    blocking_rules,
    brake_rules,
    hashes,
    management_rules,
    mechanisms,
    plugin_folders,
    presence_rules,
    service_rules,
    token_mechanisms,
    token_rules,
    wire_rules,
)
from xmppd.scope import Scope
from xmppd.section import values_of
from xmppd.seeing.routes import Seeing
from xmppd.server import Server
from xmppd.software import Software
from xmppd.steady import steady
from xmppd.store.table import Store, Table
from xmppd.stream.inline import Inlines
from xmppd.stream.rows import Rows
from xmppd.tables import TABLES
from xmppd.timers import Timers
from xmppd.tokenkey import TokenKey
from xmppd.xml.scan import Engine

if TYPE_CHECKING:
    from xmppd.cluster.nodes import OtherNodes

log = logging.getLogger(__name__)

CallLater = Callable[[float, Callable[[], None]], Any]


class App:
    """One server, assembled and not yet listening. Make it inside a running event loop.

    `now` gives seconds since the epoch, `clock` such as never jump. `steady` counts those of sleep, too.
    `jobs` are tasks that end by themselves, `lasting` those of plugins, which may last as long as they do.
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
        self.now, self.clock, self.steady = now, clock, steady if clock is time.monotonic else clock
        self.jobs = Jobs()
        self.lasting = Jobs()
        self.timers = Timers(clock)
        self.hooks = Hooks()
        self.cluster: OtherNodes | None = None
        self.listeners = Listeners(self.jobs.spawn)
        self.store = store if store is not None else store_of(config, now)
        self.everywhere = Everywhere()
        self.levels = Levels(self.timers.call_later, now)
        self.following = Following(self.everywhere, self.jobs.spawn, self.timers.call_later)
        self.doors = Doors(config, self)
        self.routes, self.commands = self.doors.routes, self.doors.commands
        self.cache = shared_cache(config)
        self.seeing = Seeing(self)
        self.doors.own = self.seeing.routes
        self.duties = Duties(shared_duties(self.cache))
        self.ids = Ids(self.store, now, self.steady, self.jobs.spawn)
        self.events = Events(self.ids.time, self.hooks.failed, lambda: self.nodes.name)
        self.ids.is_shared = self.cache is not None
        self.accounts = Accounts(
            self.store,
            iterations=config.auth.iterations,
            hashes=hashes(config),
            spawn=self.jobs.spawn,
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
        self.blocks = Blocks(self.store, self.sessions, self.accounts)
        self.visibility = Visibility(self.accounts, self.rosters, self.blocks, self.hooks)
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
        self.nodes = Nodes()
        self.presences = Presences(
            self.sessions,
            self.rosters,
            self.last_seen,
            self.visibility,
            self.services,
            self.hooks,
            self.jobs.spawn,
            presence_rules(config),
        )
        self.messages = Messages(
            self.sessions, self.accounts, self.services, self.blocks, self.hooks, domains, self.now
        )
        self.contacts = Contacts(
            self.sessions,
            self.accounts,
            self.rosters,
            self.presences,
            self.services,
            self.blocks,
            self.hooks,
            self.jobs.spawn,
            domains,
        )
        self.blocking = Blocking(
            blocks=self.blocks,
            sessions=self.sessions,
            presences=self.presences,
            visibility=self.visibility,
            hooks=self.hooks,
            spawn=self.jobs.spawn,
            now=now,
            rules=blocking_rules(config),
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
        self.probes = Probes(self.sessions, self.visibility, self.last_seen)
        self.router = Router(
            Intake(self.sessions, hosts),
            self.messages,
            self.presences,
            self.probes,
            self.contacts,
            self.iqs,
            self.services,
            self.blocks,
            self.hooks,
            domains,
        )
        self.binding = Binding(
            self.sessions, self.presences, self.blocks, self.hooks, self.jobs.spawn, binding_rules(config)
        )
        self.left_over = LeftOver(
            self.router,
            self.messages.carbons,
            self._messages_left,
            lambda: self.sessions.cluster,
            self.jobs.spawn,
            self.messages.fates,
        )
        self.resumption = Resumption(
            management_rules(config),
            sessions=self.sessions,
            route=self.router.take,
            end=self.binding.end,
            left_over=self.left_over.take,
            hooks=self.hooks,
            call_soon=self.cork.call_soon,
            call_later=self.timers.call_later,
            clock=clock,
            now=now,
        )
        self.handover = Handover(
            self.resumption,
            self.binding,
            self.contacts,
            self.presences,
            self.router.send,
            self.left_over.take,
            self.jobs.spawn,
            lambda kept: self.hooks.tell(self.hooks.session_kept_signal, kept),
        )
        self.reports = Reports(clock)
        self.logins = Logins(
            self.accounts,
            self.sessions,
            self.blocks,
            self.hooks,
            self.binding.end,
            Brake(brake_rules(config), clock),
            self.reports,
        )
        self.expiry = Expiry(self.hooks, self.binding.end, self.jobs.spawn, now, config.auth.expiry_grace)
        self.server = Server(
            store=self.store,
            commands=self.commands,
            accounts=self.accounts,
            rosters=Friendships(self.rosters, self.contacts, self.accounts),
            blocks=self.blocking,
            visibility=self.visibility,
            presences=self.presences,
            sessions=self.sessions,
            resumption=self.resumption,
            handover=self.handover,
            router=self.router,
            sending=Sending(
                self.router,
                self.sessions,
                self.questions,
                self.hooks,
                self.services,
                hosts,
                config.server.domains,
            ),
            disco=Disco(self.iqs, self.services),
            services=self.services,
            end_session=self.binding.end,
            expiry=self.expiry,
            logins=self.logins,
            spawn=self.jobs.spawn,
            now=now,
            clock=clock,
            ids=self.ids,
            domains=domains,
            name=config.server.name,
            version=__version__,
            contact_addresses=values_of(config.server.contact),
            nodes=self.nodes,
            scope=lambda: Scope(self.timers, self.lasting.spawn, self.hooks.failed, self.duties),
            left=self._messages_left,
            hooks=self.hooks,
            lock=self.cache.lock if self.cache is not None else unlocked,
            events=self.events,
            whose_client=Software(self.sessions, self.everywhere).whose,
        )
        self.events.sources = sources(
            self.events, self.store, self.sessions, self.accounts, self.messages, self.rosters, self.blocking
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
            blocks=self.blocks,
            blocking=self.blocking,
            spawn=self.jobs.spawn,
            clock=clock,
            max_age=config.cache.ttl,
        )
        self.rosters.on_loaded = self.elsewhere.roster_loaded
        self.rosters.on_unsure = self.elsewhere.roster_unsure
        if tier is not None:
            tier.on_marked = self.elsewhere.roster_marked
            self.accounts.on_changed.append(tier.cache.publish_account)
            self.blocking.on_changed = tier.cache.publish_account
        self._mechanisms = mechanisms(config, self.accounts, self.hooks)
        self.rows = Rows()
        self.inlines = Inlines()
        tempo = Tempo(clock, config.limits.loop_share)
        self.shared = Shared(wire_rules(config), tempo, self.reports)
        self.service = Service(
            service_rules(config),
            tempo=tempo,
            engine=Engine(),
            domains=domains,
            default_domain=config.server.domains[0],
            lang=config.server.language,
            rows=self.rows,
            mark=self.logins.mark,
            binding=self.binding,
            router=self.router,
            reports=self.reports,
            spawn=self.jobs.spawn,
        )
        self.service.looks += [
            self.shared.unsent.look,
            self.expiry.look,
            self.elsewhere.delete_late,
            self.ids.tick,
            self.resumption.look,
        ]
        key = TokenKey(config)
        self.tokens = ClientTokens(self.store, self.accounts, key, token_rules(config), now)
        shown = token_mechanisms(config, self.tokens, has_key=key.can_be)
        self.sasl = Sasl(self._mechanisms, self.logins, lambda: self.service.rules.attempts, tokens=shown)
        self._negotiators = (
            StartTls(),
            self.sasl,
            Sasl2(self.logins, self.rows, self.inlines, in_clear=config.auth.plain_without_tls),
            Fast(self.tokens, shown),
            EarlyIqs(self.iqs.early),
            Resource(self.binding, self.logins, self.expiry),
            Management(self.resumption, self.handover, self.logins, self.expiry),
            Bind2(self.binding, self.logins, self.expiry, self.inlines),  # behind what resumes
            Activity(lambda: self.config.sessions.client_state, self.hooks),
            SessionOffers(),
            ClientErrors(),
        )
        self.service.ebb = Ebb(self._release)
        self._belongings: Mapping[str, Belonging] = {}
        self.arrivals = Arrivals(
            self.accounts,
            self.rosters,
            self.contacts,
            self.blocks,
            self.blocking,
            self.store,
            belongings=lambda: self._belongings,
            merge=merged,
            now=now,
            tell=migrated(self.events),
        )
        hooks = self.hooks
        self.accounts.on_created.append(lambda name: hooks.tell_all(hooks.account_created_signal, name))
        self.accounts.on_altered = lambda *about: self.hooks.tell(self.hooks.account_changed_signal, *about)
        self.accounts.on_leaving += [self.contacts.remove_account, self.last_seen.forget]
        self.accounts.on_removed += [
            self._account_removed,
            self.blocking.forget,
            self.arrivals.forget,
            self.tokens.forget,
        ]
        self.accounts.on_revoked = self.logins.review
        self.accounts.on_unsure = self.elsewhere.account_unsure
        self.logins.unbound = self.service.unbound
        self.rights = RightsOffice(self)
        self.commands.add(*operators_commands(self))

    def join(self, name: str, incarnation: int, call_later: CallLater) -> OtherNodes:
        """Be one of several nodes, by this name; nothing is said to any of them yet."""
        # Loaded where there are several: it takes as long as a tenth of all else.
        nodes = importlib.import_module("xmppd.cluster.nodes")
        meshes = importlib.import_module("xmppd.cluster.mesh")
        mesh = meshes.Mesh(
            name, incarnation, self.sessions, self.cork.add_last, self.steady, call_later, self.ids.time
        )
        cluster: OtherNodes = nodes.OtherNodes(
            mesh,
            sessions=self.sessions,
            messages=self.messages,
            presences=self.presences,
            probes=self.probes,
            contacts=self.contacts,
            binding=self.binding,
            router=self.router,
            questions=self.questions,
            elsewhere=self.elsewhere,
            visibility=self.visibility,
            last_seen=self.last_seen,
            blocking=self.blocking,
            brake=self.logins.brake,
            additions=self.rosters.additions,
            log_budget=self.rosters.log_budget,
            spawn=self.jobs.spawn,
            call_later=call_later,
            signal=self.nodes.take,
            hint=self._messages_kept,
            came=lambda node: self._tell(self.hooks.node_met_signal, node),
            gone=self._node_gone,
            lost=lambda node, whose: self._tell(self.hooks.sessions_lost_signal, node, whose),
            plugins=self.nodes.plugins,
            told=lambda *about: self._tell(self.hooks.node_runs_signal, *about),
            grace=self.config.cluster.grace,
            now=self.now,
        )
        self.cluster = self.sessions.cluster = cluster
        self.ids.is_shared = True
        self.nodes.name = name
        self.nodes.others, self.nodes.other = cluster.calls.tell, cluster.calls.tell_one
        self.nodes.changed = cluster.plugins.changed
        cluster.known_fellows.was_given = self.handover.was_given
        resuming = importlib.import_module("xmppd.cluster.resuming")
        self.service.depart, self.service.departed = self.handover.depart, self.handover.departed
        self.handover.others = resuming.RemoteResumption(cluster, self.handover, self.jobs.spawn)
        self.duties.is_first = mesh.is_first
        self.everywhere.join(cluster)
        self.accounts.on_doubted = cluster.account_doubted
        self.doors.share()
        return cluster

    def _messages_left(self, account: str) -> None:
        (self._messages_kept if self.cluster is None else self.cluster.kept)(account)

    def _messages_kept(self, account: str) -> None:
        live = self.sessions.accounts.get(account)
        for session in live.kept_for if live is not None else ():
            self._tell(self.hooks.messages_kept_signal, session)  # it holds what comes behind

    def _node_gone(self, node: str, has_left: bool) -> None:
        self.handover.gone(node)
        if has_left:
            self._tell(self.hooks.node_left_signal, node)
        self._tell(self.hooks.node_lost_signal, node)

    def _tell(self, signals: Callables, *arguments: Any) -> None:
        if (told := self.hooks.tell(signals, *arguments)) is not None:
            self.jobs.spawn(finished(told))

    async def open(self) -> None:
        """Open the store, and load the plugins."""
        jid.load()
        await self.store.open(TABLES)
        if self.cache is not None:
            await self.cache.open(self.elsewhere)
        await self.accounts.open()
        await self.loader.load(self.config)
        await self.events.begin_behind()
        self.events.tell(UP, "", {})

    async def close(self, drain_seconds: float = 5.0) -> None:
        """End all sessions, finish all work, and close the store."""
        await self.service.shut_down()
        self.following.close()
        await self.doors.close()
        await self.jobs.drain(drain_seconds)
        await self.loader.close()
        await self.lasting.drain(0.0)
        self.levels.close()
        self.timers.close()
        self.accounts.close()
        if self.cache is not None:
            await self.cache.close()
        await self.store.close()

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
            "client_tokens": self.tokens.cached,
            "last_presences": self.last_seen.cached,
            "block_lists": self.blocks.cached,
            **{f"shared_{name}": value for name, value in shared.items()},
        }

    def store_stats(self) -> Mapping[str, int]:
        """What the store did so far, and how many writes wait in it."""
        return asdict(self.store.stats)

    def _release(self) -> None:
        """Many have gone: forget what can be read again, and return the memory."""
        self.rosters.release()
        self.accounts.release()
        self.tokens.release()
        self.last_seen.release()
        self.blocks.release()
        self.sessions.release()
        self.resumption.release()
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
        self.inlines.compile((*self._negotiators, *plugins))
        added = [mechanism for plugin in plugins for mechanism in plugin.mechanisms()]
        self.sasl.use([*self._mechanisms, *added])
        self._belongings = belongings_of(plugins)
        self.doors.serve(pair for plugin in plugins for pair in routes_of(plugin))
        self.listeners.claim(claim for plugin in plugins for claim in claims_of(plugin.name, plugin))

    async def _account_removed(self, account: str) -> None:
        await self.hooks.tell_all(self.hooks.account_removed_signal, account)


@asynccontextmanager
async def unlocked(name: str) -> AsyncIterator[None]:
    """There is no other node."""
    yield
