"""How this node is doing, again and again, for who looks on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from xmppd.allocator import memory_bytes
from xmppd.core.busiest import Busiest
from xmppd.feed import Feed
from xmppd.moments import utc_stamp

if TYPE_CHECKING:
    from xmppd.app import App

TICK_SECONDS: Final = 0.1
KINDS: Final = ("message", "presence", "iq")


class Overview:
    """Gives snapshots to those who look on. While somebody does, the accounts of a part of all stanzas are
    counted, and it is looked how late the loop is.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self._looks: set[_Look] = set()
        self._lag: _Lag | None = None

    def open(self, arguments: Mapping[str, Any]) -> Feed:
        """A snapshot now, and every so many `seconds`, with as many accounts as there are to be at `most`."""
        look = _Look(self, arguments["seconds"], arguments["most"])
        self._looks.add(look)
        if self._lag is None:
            self._lag = _Lag()
            self.app.router.count(self._count)
        look.begin()
        return look.feed

    def left(self, look: _Look) -> None:
        """Somebody looks no more."""
        self._looks.discard(look)
        if not self._looks and self._lag is not None:
            self.app.router.count(None)
            self._lag.close()
            self._lag = None

    def _count(self, account: str) -> None:
        for look in self._looks:
            look.busiest.add(account)

    def lag(self) -> float:
        """Seconds by which the loop was late at most since this was asked last."""
        return 0.0 if self._lag is None else self._lag.take()


class _Look:
    """One who looks on."""

    def __init__(self, overview: Overview, seconds: float, most: int) -> None:
        self.busiest = Busiest()
        self.feed = Feed(self._closed, most=8)
        self._overview = overview
        self._seconds = seconds
        self._most = most
        self._before: dict[str, int] = {}
        self._cpu = self._at = 0.0
        self._timer: Any = None

    def begin(self) -> None:
        """The first snapshot knows of no rates yet."""
        self._note()
        self.feed.put(self._snapshot(None))
        self._wait()

    def _closed(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._overview.left(self)

    def _wait(self) -> None:
        self._timer = self._overview.app.timers.call_later(self._seconds, self._due)

    def _due(self) -> None:
        before, cpu, at = self._before, self._cpu, self._at
        self._note()
        seconds = max(self._at - at, 0.001)
        rates = {kind: round((self._before[kind] - before[kind]) / seconds, 1) for kind in KINDS}
        self.feed.put(self._snapshot((seconds, rates, (self._cpu - cpu) / seconds)))
        self._wait()

    def _note(self) -> None:
        router = self._overview.app.router
        taken = router.messages_taken, router.presences_taken, router.iqs_taken
        self._before = dict(zip(KINDS, taken, strict=True))
        self._cpu, self._at = time.process_time(), time.monotonic()

    def _snapshot(self, rated: tuple[float, dict[str, float], float] | None) -> Mapping[str, Any]:
        app = self._overview.app
        seconds, rates, cpu = rated or (1.0, dict.fromkeys(KINDS), None)
        busiest = [
            {"account": account, "per_second": round(count / seconds, 1)}
            for account, count in self.busiest.take(self._most)
        ]
        return {
            "at": utc_stamp(app.now(), to="milliseconds"),
            "what": "top",
            "sessions": len(app.sessions.by_full),
            "accounts": len(app.sessions.accounts),
            "connections": len(app.service.connections),
            "stanzas_per_second": rates,
            "cpu": None if cpu is None else round(cpu, 3),
            "lag_ms": round(self._overview.lag() * 1000, 1),
            "memory_mib": memory_bytes() // 2**20,
            "busiest": busiest,
        }


class _Lag:
    """How late the loop is."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._most = 0.0
        self._wait()

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def take(self) -> float:
        """The most since this was asked last, in seconds."""
        most, self._most = self._most, 0.0
        return most

    def _wait(self) -> None:
        self._due = self._loop.time() + TICK_SECONDS
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._most = max(self._most, self._loop.time() - self._due)
        self._wait()
