"""The life of the server process: listeners, signals, reload, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import functools
import gc
import importlib
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from xmppd import __version__, systemd
from xmppd import log as logs
from xmppd.admin.builtin import ServerCommands
from xmppd.admin.commands import commands_of
from xmppd.admin.nodes import PACE, NodeCommands
from xmppd.admin.settings import SettingsCommands
from xmppd.admin.socket import AdminSocket
from xmppd.admin.whereabouts import noted
from xmppd.allocator import collect, heap, memory_bytes, trim
from xmppd.app import App
from xmppd.checks import refuse_fatal
from xmppd.config import Config
from xmppd.core.begun import work_of
from xmppd.effective import differences, rows_of
from xmppd.encryption import certificates, warn_of_certificates
from xmppd.engines import prepare_folder
from xmppd.errors import CommandError, ConfigError, XmppdError
from xmppd.guide import demo_accounts, login_guide
from xmppd.jobs import log_tasks
from xmppd.net.c2s.service import SWEEP_SECONDS
from xmppd.net.c2s.tcp import client_wire
from xmppd.net.listener import Listener
from xmppd.rules import (
    binding_rules,
    blocking_rules,
    brake_rules,
    management_rules,
    plugin_folders,
    presence_rules,
    service_rules,
    wire_rules,
)
from xmppd.section import changed
from xmppd.seeing.health import OK
from xmppd.settings import HttpListenerConfig, ListenerConfig
from xmppd.text import host_and_port

if TYPE_CHECKING:
    from xmppd.joining import Joining
    from xmppd.net.http.door import Door

log = logging.getLogger(__name__)

FIXED = (
    "server.domains",
    "server.data_folder",
    "server.name",
    "server.contact",
    "listen",
    "auth.mechanisms",
    "auth.plain_without_tls",
    "auth.anonymous",
    "auth.iterations",
    "auth.fast",
    "limits.roster_items",
    "limits.roster_bytes",
    "limits.roster_groups_per_item",
    "limits.name_bytes",
    "rosters",
    "store",
    "cache",
    "cluster",
    "tracing",
    "loop",
)
"""What a reload cannot change."""

EXPIRY_DAYS = 14
"""From how many days before its end on a certificate is warned of."""

COLLECTIONS = (5000, -1, 330)
"""The thresholds of the collector. What is new is looked at once, 5,000 objects at a time, which are still in
the processor's caches, and what stays is old then (-1: the middle generation is always taken along). Where
many come at once nearly all stays: to look at half of it twice took half as long again, and to look at 50,000
at a time 18 ms at once. A full collection holds everybody up,
for 25 ms when thousands have just come, and finds next to nothing: so it comes a twentieth as often as by
default.
"""

RESTART = 75
"""The exit code of a node that is to be started again (EX_TEMPFAIL)."""

LAST_SECONDS = 1.0
"""What the end of a server may take at least, when clients took all of the drain time."""


def serve(load: Callable[[], Config], *, guide: bool) -> int:
    """Run the server until it is told to stop; its exit code. `load` reads the configuration, again for
    each reload. With `guide` it says on stderr how to log in, once it listens.
    """
    config = load()
    refuse_fatal(config)
    logs.configure(config.log)
    sys.unraisablehook = logs.tell_ignored
    factory = uvloop.new_event_loop if config.loop.uvloop else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_serve(config, load, guide=guide))


async def _serve(config: Config, load: Callable[[], Config], *, guide: bool) -> int:
    process = Process(config, load)
    try:
        if await process.unless(process.stopping, process.start()):
            if guide:
                sys.stderr.write(await process.guide())
            await process.stopping.wait()
    finally:
        await process.stop()
    return process.exit_code


class Process:
    """One server at work."""

    def __init__(self, config: Config, load: Callable[[], Config]) -> None:
        prepare_folder(config)
        self._config = config
        self._load = load
        self._started = time.monotonic()
        self._listeners: list[Listener] = []
        self._door: Door | None = None
        self._joining: Joining | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._watcher: asyncio.TimerHandle | None = None
        self._is_up = self._is_going = False
        self._leave_now = asyncio.Event()
        self._pace = 0
        self.exit_code = 0
        self.stopping = asyncio.Event()
        self.app = App(config)
        self._changing = self.app.loader.changing
        self.app.seeing.begin_spans()
        self.app.shared.certificates = certificates(config)
        self.app.seeing.health.checks |= {
            "listeners": self._listening,
            "cluster": self._joined,
            "draining": self._staying,
        }
        self.app.commands.add(*commands_of(ServerCommands(self)))
        self.app.commands.add(*commands_of(NodeCommands(self)))
        self.app.commands.add(*commands_of(SettingsCommands(self)))
        self.app.everywhere.serve("plugin reload", self._plugins_reloaded)
        self.app.everywhere.serve("node", self._node)
        self.app.everywhere.serve("drain", self._drain)
        self._socket = AdminSocket(config.socket_path, self.app.commands)
        self._note = contextlib.ExitStack()

    # start and stop

    async def start(self) -> None:
        """Open the store, load plugins, listen; then tell whoever waits for that."""
        raise_descriptor_limit()
        self._heed_signals()
        async with self._changing:
            self._socket.claim()
            self._note.enter_context(noted(self._config.source, self._config.socket_path))
            if self._config.cluster.listen is not None:
                self._joining = importlib.import_module("xmppd.joining").Joining(self.app, self._terminate)
            await self.app.open()
            await self._socket.start()  # before, no plugin would be told of what commands do
            if self._joining is not None:
                await self._joining.start()
            for config in self._config.listen.c2s:
                await self._listen(config)
            await self._listen_http()
            listen = self._config.listen
            await self.app.listeners.open(listen.backlog, reuse_port=listen.reuse_port)
        self._sweep()
        self._watch_certificates()
        collect()
        trim()
        gc.freeze()
        gc.set_threshold(*COLLECTIONS)
        addresses = [
            host_and_port(listener.address, port)
            for listener, port in zip(self._config.listen.c2s, self.ports, strict=True)
        ]
        self._is_up = True
        systemd.notify(f"READY=1\nSTATUS=listening on {', '.join(addresses)}")
        log.info("listening", extra={"addresses": addresses, "domains": list(self._config.server.domains)})

    async def guide(self) -> str:
        """How to log in, with the accounts to try it with that are in the store."""
        accounts = demo_accounts(self._config)
        known = {name: word for name, word in accounts.items() if await self.app.server.account_exists(name)}
        return login_guide(self._config, self.ports, known)

    @property
    def ports(self) -> list[int]:
        """The ports in use, in the order of the configuration."""
        return [listener.port for listener in self._listeners]

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._terminate)
        loop.add_signal_handler(signal.SIGINT, self._terminate)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        loop.add_signal_handler(signal.SIGUSR1, log_tasks, work_of)
        # First the threads, at once, even when the loop is stuck; then, by the loop, the tasks.
        faulthandler.register(signal.SIGUSR1, all_threads=True, chain=True)

    async def _listen(self, config: ListenerConfig) -> None:
        direct, starttls = config.tls == "direct", config.tls == "starttls"
        make = functools.partial(
            client_wire, self.app.service, self.app.shared, direct_tls=direct, starttls=starttls
        )
        listener = Listener(make, self.app.jobs.spawn, self.app.service.has_room)
        await self._open(listener, config)
        self._listeners.append(listener)

    async def _listen_http(self) -> None:
        config = self._config.listen.http
        if config is None:
            return
        self.app.doors.trust(self._config)
        # What is behind it takes a third of a second to load and 15 MB.
        module = importlib.import_module("xmppd.net.http.door")
        door = module.Door(self.app.routes, self._config.http.connections, self.app.jobs.spawn)
        await self._open(door, config)
        if config.own_port is not None:
            await self._open(door, config, config.own_port)
        self._door = door
        self.app.seeing.begin()

    async def _open(
        self, door: Listener | Door, config: ListenerConfig | HttpListenerConfig, own_port: int | None = None
    ) -> None:
        """Listen at the port of all workers, or at one of this process alone; CommandError."""
        listen, port = self._config.listen, config.port if own_port is None else own_port
        where, shares = host_and_port(config.address, port), listen.reuse_port and own_port is None
        try:
            await door.open(config.address, port, listen.backlog, reuse_port=shares)
        except PermissionError:
            raise CommandError(f"no right to listen on {where}", 77) from None
        except OSError as error:
            raise CommandError(f"cannot listen on {where}: {error.strerror or error}") from None

    def _terminate(self) -> None:
        if self.stopping.is_set():
            self._leave_now.set()
        self.stopping.set()

    async def unless(
        self, told: asyncio.Event, work: Coroutine[Any, Any, None], seconds: float | None = None
    ) -> bool:
        """Do some work until it is done, `told` is set, or so many seconds have passed; whether it was
        done.
        """
        doing, waiting = asyncio.ensure_future(work), asyncio.ensure_future(told.wait())
        await asyncio.wait((doing, waiting), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if doing.done():
            doing.result()
            return True
        doing.cancel()
        await asyncio.wait((doing,), timeout=LAST_SECONDS)
        return False

    async def stop(self) -> None:
        """Stop accepting, send clients away, finish what was begun; a second signal cuts the waiting short.

        What the store accepted is written in any case. A node among others ends its sessions at a pace, and
        stays there for those that look whether it is ready until they are gone.
        """
        pace, drain_seconds = self._how_to_drain()
        deadline = time.monotonic() + drain_seconds
        self._is_going = True
        if self._is_up:
            systemd.notify("STOPPING=1")
            log.info("stopping", extra={"sessions": len(self.app.sessions.by_full)})
        self.app.service.draining = True
        if self._joining is not None:
            self.app.service.other_host = self._config.cluster.see_other_host or ""
        doors = [self._door] if self._door is not None and self._joining is None else []
        await asyncio.gather(
            *(listener.drain() for listener in self._listeners),
            self.app.listeners.drain(),
            *(door.shut() for door in doors),
        )
        await self.unless(self._leave_now, self._clients_to_go(pace), drain_seconds)
        if self._joining is not None:
            await self._joining.leave()
        for timer in (self._sweeper, self._watcher):
            if timer is not None:
                timer.cancel()
        await self.app.service.cut_off()
        self.app.following.close()
        if self._door is not None:
            await self._door.close()
        self.app.seeing.end()
        await self._close(max(deadline - time.monotonic(), LAST_SECONDS))
        await self.app.seeing.end_spans()
        await self._socket.close()
        self._note.close()
        if self._is_up:
            log.info("stopped")

    async def _close(self, seconds: float) -> None:
        """Finish all work; what is not done in time is left, but for what the store accepted."""
        if not self._leave_now.is_set():
            closing = self.app.close(seconds)
            if await self.unless(self._leave_now, closing, seconds + LAST_SECONDS):
                return
        log.warning("stopped-early", extra={"jobs": len(self.app.jobs)})
        await self.unless(asyncio.Event(), self.app.close(0.0), LAST_SECONDS)
        self.app.accounts.close()
        await self.app.store.close()

    def _how_to_drain(self) -> tuple[float, float]:
        """How many sessions are ended in a second (0: all at once), and how long that may take."""
        seconds = self._config.server.drain_seconds
        count = len(self.app.sessions.by_full)
        if self._joining is None:
            return 0, seconds
        if self._pace:
            return self._pace, seconds + count / self._pace
        return max(PACE, 2 * count / max(seconds, LAST_SECONDS)), seconds

    async def _clients_to_go(self, pace: float) -> None:
        while any(listener.coming for listener in self._listeners):  # noqa: ASYNC110 - who waited
            await asyncio.sleep(0.001)
        if self._joining is not None and self._is_up:
            await self._joining.drain()
        await self.app.service.shut_down(pace)
        while self.app.service.connections:  # noqa: ASYNC110 - they tell nobody of their end
            await asyncio.sleep(0.02)

    def _sweep(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)
        self.app.service.sweep()

    def _watch_certificates(self) -> None:
        """Warn, once a day, of certificates that are about to end."""
        for file, end in self.app.shared.certificates.expiries().items():
            days = int((end - time.time()) // 86400)
            if days < EXPIRY_DAYS:
                log.warning("certificate-expires", extra={"file": str(file), "days": days})
        warn_of_certificates(self._config)
        self._watcher = asyncio.get_running_loop().call_later(86400, self._watch_certificates)

    # whether clients should come

    def _listening(self) -> str:
        if not self._is_up:
            return "the server has not begun to listen"
        return "no descriptors are left" if any(one.is_short for one in self._listeners) else OK

    def _joined(self) -> str:
        return OK if self._is_up or self._joining is None else "the other nodes are not all met"

    def _staying(self) -> str:
        return "sessions are ended, and then the server stops" if self._is_going else OK

    # reload

    def _hang_up(self) -> None:
        self.app.jobs.spawn(self.reload())

    def effective(self) -> Sequence[Mapping[str, Any]]:
        """A row for each key of the configuration at work."""
        return rows_of(self._config, [loaded.plugin for loaded in self.app.loader.loaded])

    def differences(self) -> Sequence[Mapping[str, Any]]:
        """A row for each key that the file has otherwise now; ConfigError."""
        return differences(self._config, self._load(), FIXED)

    async def reload_config(self) -> Sequence[str]:
        """Read all again; the keys that need a restart. What is wrong is raised: XmppdError, OSError."""
        async with self._changing:
            return await self._reloaded()

    async def reload(self) -> None:
        """Read configuration, certificates and plugins again (SIGHUP); what is wrong is logged, and then
        everything stays as it was.
        """
        async with self._changing:
            try:
                await self._reloaded()
            except ConfigError as error:
                for problem in error.problems:
                    log.error("reload-refused", extra={"problem": str(problem)})
            except (XmppdError, OSError) as error:
                log.error("reload-refused", extra={"problem": str(error)})
            except Exception:  # a plugin may raise anything
                log.exception("reload-failed")

    async def _reloaded(self) -> Sequence[str]:
        systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            return await self._reload(self._load())
        finally:
            systemd.notify("READY=1")

    async def _reload(self, wanted: Config) -> Sequence[str]:
        config, kept = with_kept(wanted, self._config)
        refuse_fatal(config)
        fresh = certificates(config)
        loader = self.app.loader
        loader.set_folders(plugin_folders(config))
        try:
            await loader.load(config)
        except BaseException:
            loader.set_folders(plugin_folders(self._config))
            raise
        self.app.shared.certificates = fresh
        self.app.service.apply(service_rules(config))
        self.app.service.lang = config.server.language
        self.app.shared.rules = wire_rules(config)
        self.app.shared.tempo.share = config.limits.loop_share
        self.app.cork.kept_bytes = config.limits.write_buffer_hard
        self.app.binding.rules = binding_rules(config)
        self.app.resumption.rules = management_rules(config)
        self.app.logins.brake.apply(brake_rules(config))
        self.app.accounts.ends_sessions = config.auth.end_sessions_on_password_change
        self.app.expiry.grace = config.auth.expiry_grace
        self.app.presences.rules = presence_rules(config)
        self.app.blocking.rules = blocking_rules(config)
        self.app.iqs.from_strangers = config.iqs.from_strangers == "deliver"
        self.app.doors.apply(config)
        self.app.rights.apply(config)
        if self._door is not None:
            self._door.most = config.http.connections
        logs.configure(config.log)
        self._config = self.app.config = config
        self.app.rows.forget()
        self.app.doors.changed()
        warn_of_certificates(config)
        if kept:
            log.warning("restart-needed", extra={"keys": kept})
        log.info("reloaded", extra={"file": str(config.source)})
        return kept

    # nodes

    async def nodes(self) -> list[Mapping[str, Any]]:
        """A row for each node."""
        rows = await self.app.everywhere.rows("node", {})
        return rows if self._joining is None else self._joining.described(rows)

    async def drain(self, node: str, pace: int, *, restart: bool) -> list[Mapping[str, Any]]:
        """Have a node end its sessions, and itself."""
        rows = await self.app.everywhere.ask(node, "drain", {"pace": pace, "restart": restart})
        return [{"node": node, **row} if node else row for row in rows]

    async def _node(self, arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        joining = self._joining
        row = {
            "version": __version__,
            "state": "up" if joining is None else joining.state,
            "age_seconds": round(time.monotonic() - self._started, 1),
            "sessions": len(self.app.sessions.by_full),
        }
        return [row if joining is None else {**row, "load": joining.load, "elsewhere": joining.elsewhere}]

    async def _drain(self, arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        self._pace = arguments["pace"]
        self.exit_code = RESTART if arguments["restart"] else 0
        self.stopping.set()
        return [{"sessions": len(self.app.sessions.by_full)}]

    # commands

    def status(self) -> Mapping[str, Any]:
        """How the process is doing."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "sessions": len(self.app.sessions.by_full),
            "accounts_online": len(self.app.sessions.accounts),
            "connections": len(self.app.service.connections),
            "connections_before_login": self.app.service.strangers,
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
            "memory_mib": round(memory_bytes() / 2**20, 1),
            "memory_peak_mib": usage.ru_maxrss // 1024,
            "heap": heap(),
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "tasks": len(asyncio.all_tasks()),
            "jobs": len(self.app.jobs),
            "jobs_failed": self.app.jobs.failed + self.app.lasting.failed,
            "stanza_errors": self.app.router.errors,
            "hook_failures": self.app.hooks.failures,
            "refusals": dict(sorted(self.app.reports.counts.items())),
            "http": {"served": self.app.routes.served, "refused": self.app.routes.refused},
            "store": self.app.store_stats(),
            "caches": self.app.caches(),
            "metrics": {name: metric.shown for name, metric in sorted(self.app.server.metrics.items())},
            "config": str(self._config.source.absolute()),
        }

    def plugins(self) -> Sequence[Mapping[str, Any]]:
        """The plugins at work."""
        return [
            {
                "name": loaded.name,
                "about": (sys.modules[type(loaded.plugin).__module__].__doc__ or "").split("\n")[0],
                "origin": loaded.origin,
            }
            for loaded in self.app.loader.loaded
        ]

    async def reload_plugin(self, name: str) -> Sequence[str]:
        """Load one plugin again, or all that have changed."""
        async with self._changing:
            if name:
                return await self.app.loader.reload(name, self._config)
            return await self.app.loader.load(self._config)

    async def reload_plugins_everywhere(self, name: str) -> Sequence[Mapping[str, Any]]:
        """The same on all nodes."""
        return await self.app.everywhere.rows("plugin reload", {"name": name})

    async def _plugins_reloaded(self, arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return [{"reloaded": [*await self.reload_plugin(arguments["name"])]}]


def with_kept(wanted: Config, now: Config) -> tuple[Config, list[str]]:
    """The wanted configuration, with what cannot change as it is now; and the keys that were to change."""
    kept = []
    for path in FIXED:
        section, _, key = path.partition(".")
        old, new = getattr(now, section), getattr(wanted, section)
        if key and getattr(old, key) != getattr(new, key):
            kept.append(path)
            mixed = changed(new, **{key: getattr(old, key)})
            wanted = changed(wanted, **{section: mixed})
        elif not key and old != new:
            kept.append(path)
            wanted = changed(wanted, **{section: old})
    return wanted, kept


def raise_descriptor_limit() -> None:
    """Allow this process as many descriptors as its hard limit does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
