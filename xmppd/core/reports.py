"""Log lines and counters about what anybody may cause as often as they like: refusals and failures."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable

from xmppd.core.network import network_of

log = logging.getLogger(__name__)

LINES = 20
SECONDS = 60.0
"""So many lines an event and network may have in so many seconds."""

TOGETHER = 6_000
"""And so many all networks."""

NETWORKS = 10_000
"""Of how many it is remembered."""


class Reports:
    """Tells operators, and programs that shut out addresses by what the log says. `clock` gives seconds that
    never jump.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._lines: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._together = 0
        self.counts: Counter[str] = Counter()
        """How often each event was, logged or not."""

    def tell(self, event: str, peer: str, **fields: str) -> None:
        """One event caused by the client at this address. No field may hold anything secret."""
        self.counts[event] += 1
        now = self._clock()
        if now - self._since > SECONDS:
            self._lines.clear()
            self._together = 0
            self._since = now
        key = event, network_of(peer)
        lines = self._lines.get(key, 0) + 1
        if lines > LINES or self._together >= TOGETHER:
            return
        self._together += 1
        self._lines[key] = lines
        if len(self._lines) > NETWORKS:
            self._lines.popitem(last=False)
        more = {"last_line": "of this minute"} if lines == LINES else {}
        log.info(event, extra={"peer": peer, **fields, **more})
