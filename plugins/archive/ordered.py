"""The order of what is archived, as a part of the plugin: what it is told of other nodes and sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Final

from xmppd import hooks
from xmppd.plugin import Plugin, Session, StanzaError, cluster_signal

from .elsewhere import Elsewhere, Saying
from .ids import Pool
from .order import STUCK_SECONDS, Order

TICK_SECONDS: Final = 5.0
FINISHED_SECONDS: Final = STUCK_SECONDS + TICK_SECONDS
PAGE_SECONDS: Final = 5.0
"""How long a page waits for what is under way when it is asked for."""


class Ordered(Plugin):
    """Has the `order` of all messages under way."""

    async def start(self) -> None:
        """Nothing is under way."""
        self.order = Order(
            Elsewhere(self.server, self.name, self.hear.tell_node),
            self.server.ids.time,
            Pool().new_id,
            self.scope.clock,
            self._look_later,
        )
        self._is_looking = False

    async def horizon(self, account: str, seconds: float = PAGE_SECONDS, below: bytes = b"") -> bytes:
        """What is not shown of an archive now: this id and all larger ones, or `below`, where that is enough.
        StanzaError: nobody can say, in so many seconds.
        """
        if not self.server.has_other_nodes:
            return await self.order.horizon(account)
        return await self._in_time(partial(self.order.horizon, below=below), account, seconds)

    async def finished(self, account: str) -> bytes:
        """This moment, when all is over that was under way into an archive by now. StanzaError as before."""
        return await self._in_time(self.order.finished, account, FINISHED_SECONDS)

    async def _in_time(
        self, end: Callable[[str, float], Awaitable[bytes]], account: str, seconds: float
    ) -> bytes:
        until = self.scope.clock() + seconds
        timer = self.call_later(seconds, self.order.wake, account)
        try:
            return await end(account, until)
        except TimeoutError:
            raise StanzaError("resource-constraint", "Ask again in a while.", type="wait") from None
        finally:
            timer.cancel()

    async def pause(self, seconds: float) -> None:
        """Wait so long."""
        if self.scope.is_over:  # and with it its timers: what is done outlives it
            await asyncio.sleep(seconds)
            return
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.call_later(seconds, over.set_result, None)
        await over

    def horizon_now(self, account: str) -> bytes | None:
        """The same where nothing has to be waited for; None where something has."""
        return self.order.horizon_now(account)

    @cluster_signal
    def hear(self, node: str, sayings: Sequence[Saying]) -> None:
        """Another node says something of messages under way."""
        for verb, account, id, other in sayings:
            self.order.hear(node, verb, account, bytes.fromhex(id), bytes.fromhex(other))

    @hooks.node_runs
    def runs(self, node: str, plugins: Collection[str], anew: Collection[str]) -> None:
        """Where this plugin is not at work nobody has a say; where it began nothing is known of before."""
        if self.name not in plugins or self.name in anew:
            self.order.lost(node)
        if self.name in anew:
            self.order.met()

    @hooks.node_met
    def met(self, node: str) -> None:
        """It was not asked yet."""
        self.order.met()

    @hooks.node_lost
    def lost(self, node: str) -> None:
        """It says nothing more."""
        self.order.lost(node)

    @hooks.session_closed
    def left(self, session: Session) -> None:
        """Perhaps nobody of its account is here now."""
        self.order.left(session.account)

    def _look_later(self) -> None:
        if not self._is_looking:
            self._is_looking = True
            self.call_later(TICK_SECONDS, self._look)

    def _look(self) -> None:
        self._is_looking = False
        if self.order.tick():
            self._look_later()

    async def stop(self) -> None:
        """What is still under way asks nobody any more."""
        self.order.part()
