"""What plugins claim for themselves, and that nobody else may have: requests, routes, hosts, recording."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import Any

from xmppd.core.iqs import Handler, HandlerKey
from xmppd.errors import CommandError
from xmppd.hooks import RECALL, RECORD, Mark
from xmppd.marks import marked
from xmppd.parts.http import OWN, routes_of
from xmppd.parts.services import Serves
from xmppd.plugin import Plugin, handlers_of


class Claims:
    """Who has what. The server's own come first, then those of each plugin, by the file that it is from."""

    def __init__(
        self,
        core_handlers: Iterable[tuple[HandlerKey, Handler]],
        labels: Mapping[str, str],
        domains: Collection[str],
    ) -> None:
        self._owners: dict[Hashable, str] = {("iq", key): "the server itself" for key, _ in core_handlers}
        self._owners |= {("host", domain): "the server itself" for domain in domains}
        self._labels = labels
        self._domains = domains

    def add(self, plugin: Plugin, origin: str) -> None:
        """All that one plugin claims; CommandError when somebody has it, or it cannot be had."""
        for key, method in handlers_of(plugin):
            address, kind, payload = key
            self._claim("iq", key, f"answers {kind}s of {payload} to {address.name}", method, origin)
        for route, method in routes_of(plugin):
            try:
                shape = route.shape
            except ValueError as error:
                raise CommandError(f"{origin}: {method.__qualname__}: {error}") from None
            if route.segments[0] in OWN:
                message = f"{origin}: {method.__qualname__} serves {route.path}, which is the server's own"
                raise CommandError(message)
            self._claim("route", shape, f"serves {route.method} {route.path}", method, origin)
        for method, use in marked(plugin, Mark):
            if use.stage in (RECORD, RECALL):
                self._claim("hook", use.hook, f"{use.stage}s by the hook {use.hook}", method, origin)
        for method, serves in marked(plugin, Serves):
            for domain in self._domains:
                host = f"{self._labels.get(serves.name, serves.name)}.{domain}"
                self._claim("host", host, f"answers for {host}", method, origin)

    def _claim(self, kind: str, key: Hashable, what: str, method: Callable[..., Any], origin: str) -> None:
        owner = self._owners.get((kind, key))
        if owner is not None:
            raise CommandError(f"{origin}: {method.__qualname__} {what}, and so does {owner}")
        self._owners[kind, key] = f"{method.__qualname__} in {origin}"
