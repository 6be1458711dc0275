"""Events that a receiver did not take: kept for operators, by the day."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import Webhooks
    from .subscription import Subscription
    from .window import Item


class DeadLetters:
    """The table `dead`, with a bound for each subscription."""

    def __init__(self, plugin: Webhooks) -> None:
        self._plugin = plugin
        self._counts: dict[str, int] = {}

    async def bury(self, subscription: Subscription, item: Item, why: str) -> None:
        """Keep one. Beyond the bound it is lost, and counted. StoreError."""
        plugin, number = self._plugin, subscription.id
        if number not in self._counts:
            self._counts[number] = sum([1 async for _ in self.days_of(number)])
        if self._counts[number] >= plugin.config.dead_letters:
            del self._counts[number]  # some may have ended by then
            plugin.lost.inc()
            plugin.log.warning("webhook-lost", extra={"subscription": subscription.name, "count": 1})
            return
        row = {
            "subscription": number,
            "day": day_of(plugin.now()),
            "id": item.id,
            "event": item.text,
            "reason": why,
            "attempts": item.attempts,
            "at": plugin.now(),
        }
        await plugin.dead.put(row, ttl=plugin.config.dead_days * 86400.0)
        self._counts[number] += 1

    async def days_of(self, number: str) -> AsyncIterator[dict[str, Any]]:
        """All of a subscription, the oldest day first; StoreError."""
        now = self._plugin.now()
        for days in range(self._plugin.config.dead_days + 1, -1, -1):
            after, day = None, day_of(now - days * 86400.0)
            while True:
                page = await self._plugin.dead.scan(number, day, limit=100, page=after)
                for row in page.rows:
                    yield row
                if (after := page.next) is None:
                    break

    async def forget(self, number: str, row: dict[str, Any]) -> None:
        """One of them; StoreError."""
        await self._plugin.dead.delete(number, row["day"], row["id"])
        self._counts.pop(number, None)

    async def forget_all(self, number: str) -> None:
        """All of a subscription; StoreError."""
        now = self._plugin.now()
        for days in range(self._plugin.config.dead_days + 2):
            await self._plugin.dead.delete(number, day_of(now - days * 86400.0))
        self._counts.pop(number, None)


def day_of(moment: float) -> str:
    """The day in UTC."""
    return str((datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=moment)).date())
