"""The doors by which commands come in, and who may: the registry, the routes of HTTP, tokens."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from xmppd.access.audit import Audit, Entry
from xmppd.access.callers import Callers
from xmppd.access.replays import Replays
from xmppd.access.tokens import ApiTokens
from xmppd.admin.audit import AuditCommands
from xmppd.admin.commands import Caller, Description, Parameter, commands_of
from xmppd.admin.keys import ApiTokenCommands
from xmppd.admin.registry import Commands
from xmppd.api import routes as api
from xmppd.api.events import Tracks
from xmppd.config import Config
from xmppd.net.http.routes import Routes
from xmppd.parts.http import HttpHandler, HttpRequest, Route
from xmppd.parts.keysets import KeySet
from xmppd.rules import configured_tokens, http_rules, issuers

if TYPE_CHECKING:
    from xmppd.app import App

TELL_SECONDS: Final = 1.0
"""How long requests are counted before other nodes are told of them."""


class Doors:
    """The registry of commands of one server, and all by which it is reached."""

    def __init__(self, config: Config, app: App) -> None:
        store, spawn, now, clock = app.store, app.jobs.spawn, app.now, app.clock
        self._everywhere = everywhere = app.everywhere
        self._spawn = spawn
        self._call_later = app.timers.call_later
        self._now = now
        self._clock = clock
        self._key_sets: dict[Any, KeySet] = {}
        self._is_telling = False
        self._configured = configured_tokens(config)
        self.tokens = ApiTokens(store, lambda: self._configured, self._tell_of_tokens, spawn, now, clock)
        everywhere.serve("api-token changed", self._tokens_changed)
        everywhere.serve("http taken", self._taken_elsewhere)
        self.callers = Callers((self._configured, self.tokens))
        replays = Replays(store, spawn, now)
        self.routes = Routes(http_rules(config), self.callers, replays, app.hooks.failed, clock)
        self._plugin_routes: Sequence[tuple[Route, HttpHandler]] = ()
        self.own: Callable[[], Iterable[tuple[Route, HttpHandler]]] = tuple
        """What is served besides commands and what plugins serve."""
        self.commands = Commands()
        self._tracks = Tracks(self.commands, spawn)
        self.commands.on_changed = self.changed
        self.audit = Audit(store, spawn, now, self._node, config.audit.days)
        self.commands.witness = self.audit
        self.routes.witness = self._seen
        self.commands.add(*commands_of(ApiTokenCommands(self.tokens)))
        self.commands.add(*commands_of(AuditCommands(self.audit)))

    def share(self) -> None:
        """There are other nodes: limits on requests count over all of them from now on."""
        self.routes.share(self._some_are_taken)

    def _some_are_taken(self) -> None:
        if not self._is_telling:
            self._is_telling = True
            self._call_later(TELL_SECONDS, self._told_soon)

    def _told_soon(self) -> None:
        self._spawn(self._tell_of_requests())

    async def _tell_of_requests(self) -> None:
        self._is_telling = False
        await self._everywhere.others("http taken", {"news": self.routes.news()})

    async def _taken_elsewhere(self, arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        self.routes.heard(*arguments["news"])
        return []

    def apply(self, config: Config) -> None:
        """Another configuration."""
        self._configured = configured_tokens(config)
        self.callers.sources = (self._configured, self.tokens)
        self.trust(config)
        self.routes.rules = http_rules(config)
        self.audit.days = config.audit.days

    def trust(self, config: Config) -> None:
        """Let in whom the issuers of the configuration name; ConfigError."""
        found = issuers(config)
        former, self._key_sets = self._key_sets, {}
        issued: list[Any] = []
        if found:
            jwts = importlib.import_module("xmppd.access.jwts")
            for it in dict.fromkeys(found):
                kept = it in former  # with what was fetched, which may not be had at this moment
                self._key_sets[it] = former.pop(it) if kept else jwts.key_set_of(it, self._now, self._clock)
            issued = [jwts.Jwts([*self._key_sets.items()], self._now)]
        self.callers.sources = (self._configured, self.tokens, *issued)
        for gone in former.values():
            self._spawn(gone.close())

    async def close(self) -> None:
        """Ask others for nothing more, and wait for nobody who follows something."""
        await self._tracks.close()
        for keys in self._key_sets.values():
            await keys.close()

    def serve(self, routes: Iterable[tuple[Route, HttpHandler]]) -> None:
        """Plugins serve these now."""
        self._plugin_routes = [*routes]
        self.changed()

    def changed(self) -> None:
        """What is served has changed, or who may ask for it."""
        self.routes.compile((*self._plugin_routes, *api.routes(self.commands, self._tracks), *self.own()))

    async def _seen(self, route: Route, request: HttpRequest) -> Entry:
        """A route of a plugin is about to change something."""
        about = Description(f"route {route.method} {route.path}", "", (Parameter("path", "str"),))
        by = Caller("http", request.caller, request.peer, request.scopes)
        return await self.audit.begin(about, {"path": request.path}, by)

    def _node(self) -> str:
        cluster = self._everywhere.cluster
        return "" if cluster is None else cluster.mesh.name

    async def _tell_of_tokens(self) -> Sequence[Mapping[str, Any]]:
        return await self._everywhere.rows("api-token changed", {})

    async def _tokens_changed(self, arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        self.tokens.forget()
        return []
