"""What one node of all does, agreed on in Redis: a key for each duty, with a token of whoever took it, that
lives until the duty may be taken again. The time is that of Redis.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress

from xmppd.store.cache.link import Link, LinkDown
from xmppd.store.cache.scripts import RELEASE, RENEW, TAKE, Script

LIFE_SECONDS = 10.0
"""How long a duty is that of a node at work that does not renew it: it has ended."""

RENEW_SECONDS = 3.0


class Held:
    """A duty of this node. `free_at`: when it may be taken again, by the loop's clock; `as_said`: the key
    lives just as long.
    """

    __slots__ = ("as_said", "free_at", "key", "timer", "token")

    def __init__(self, key: str, free_at: float, *, as_said: bool) -> None:
        self.key = key
        self.token = secrets.token_hex(8)
        self.free_at = free_at
        self.as_said = as_said
        self.timer: asyncio.TimerHandle | None = None


class RedisDuties:
    """Implements `xmppd.duties.SharedDuties`. Who is killed at work keeps others from it for `life` seconds
    at most, or for as long as he said.
    """

    def __init__(
        self, link: Link, prefix: str, *, life: float = LIFE_SECONDS, renew: float = RENEW_SECONDS
    ) -> None:
        self._link = link
        self._prefix = prefix
        self._life = life
        self._renew_seconds = renew
        self._held: dict[str, Held] = {}

    async def take(self, name: str, seconds: float) -> float | None:
        """See `SharedDuties.take`."""
        loop = asyncio.get_running_loop()
        held = Held(f"{self._prefix}:duty:{name}", loop.time() + seconds, as_said=seconds >= self._life)
        try:
            left: int = await self._link.run(TAKE, (held.key,), held.token, _ms(max(seconds, self._life)))
        except LinkDown:
            return None
        if left:
            return left / 1000 if left > 0 else None
        self._held[name] = held
        held.timer = loop.call_later(self._renew_seconds, self._renew, held)
        return 0.0

    def done(self, name: str) -> None:
        """See `SharedDuties.done`; harmless where it was never taken."""
        held = self._held.pop(name, None)
        if held is None:
            return
        if held.timer is not None:
            held.timer.cancel()
        left = held.free_at - asyncio.get_running_loop().time()
        if left <= 0:
            self._say(RELEASE, held)
        elif not held.as_said:
            self._say(RENEW, held, _ms(left))

    def _renew(self, held: Held) -> None:
        """It goes on."""
        loop = asyncio.get_running_loop()
        if held.free_at - loop.time() < self._life:
            held.as_said = False
            self._say(RENEW, held, _ms(self._life))
        held.timer = loop.call_later(self._renew_seconds, self._renew, held)

    def _say(self, script: Script, held: Held, *args: int) -> None:
        """What is not said ends by itself."""
        with suppress(LinkDown):
            self._link.run(script, (held.key,), held.token, *args)


def _ms(seconds: float) -> int:
    return max(int(seconds * 1000), 1)
