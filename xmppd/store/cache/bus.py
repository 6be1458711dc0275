"""The bus of `xmppd.cluster.lines` on Redis: a channel `{prefix}:trunk:{node}` for each node.

Two connections: one hears, and what is said goes over the other in one piece a turn of the loop. Twice a
second a node says something to itself: so it learns that what it says comes to where it hears, that both
are on the same Redis (one may have taken over), and that it was not cut off for reading too slowly
(`client-output-buffer-limit`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, Final

from xmppd.store._turns import within
from xmppd.store.cache.link import FAILURES
from xmppd.store.cache.url import Place

log = logging.getLogger(__name__)

ECHO_SECONDS: Final = 0.5
"""How often a node speaks to itself."""

UNHEARD: Final = 4
"""After so many times that it did not hear itself both connections are made anew."""

PAUSE_SECONDS: Final = (0.05, 0.5)
"""How long Redis is left alone after a failure: at first, and at most."""

CLOSE_SECONDS: Final = 1.0
"""How long the last words may take."""

_PUBLISH: Final = b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
"""The command as it goes out: redis-py takes as long to put one together as the rest of this takes."""

_ECHO: Final = b"\xc1"
"""What a node says to itself begins with: no msgpack does."""


class RedisBus:
    """Implements `xmppd.cluster.lines.Bus`. Nothing raises because of Redis. `patience`: seconds that a
    connection may take. `said` counts what was said.
    """

    def __init__(self, place: Place, prefix: str, patience: float) -> None:
        self.said = 0
        self._place = place
        self._prefix = prefix
        self._patience = patience
        self._own = ""
        self._hear: Callable[[bytes], None]
        self._turn: Callable[[bool], None]
        self._is_up = False
        self._queue: list[tuple[bytes, bytes]] = []
        self._wake = asyncio.Event()
        self._mark = b""
        self._unheard = 0
        self._unanswered = 0
        self._echoes: dict[bytes, asyncio.Future[None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def open(self, node: str, hear: Callable[[bytes], None], turn: Callable[[bool], None]) -> None:
        """Begin; Redis need not be there."""
        self._own, self._hear, self._turn = node, hear, turn
        tried = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._keep(tried))
        await tried.wait()

    def publish(self, node: str, data: bytes) -> None:
        """Say something to a node."""
        if self._is_up:
            self.said += 1
            self._put(node, data)

    async def echo(self) -> None:
        """Done when Redis has all that was said here, and all was heard here that it had by then; at once
        when it is away.
        """
        if self._is_up:
            token = self._mark + secrets.token_bytes(8)
            self._echoes[token] = asyncio.get_running_loop().create_future()
            self._put(self._own, token)
            await self._echoes[token]

    async def close(self) -> None:
        """Say what was to be said, if that can be done soon, and disconnect."""
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                await within(CLOSE_SECONDS, self.echo())
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _put(self, node: str, data: bytes) -> None:
        self._queue.append((self._channel(node), data))
        self._wake.set()

    def _channel(self, node: str) -> bytes:
        return f"{self._prefix}:trunk:{node}".encode()

    async def _keep(self, tried: asyncio.Event) -> None:
        """Use the bus, for ever."""
        delay = PAUSE_SECONDS[0]
        told = ""
        while True:
            problem = ""
            try:
                await self._work(tried)
            except Exception as error:
                if not isinstance(error, FAILURES):
                    log.error("bus-failed", exc_info=error)
                problem = str(error) or type(error).__name__
            finally:
                was_up = self._is_up
                self._down()
                tried.set()
            if was_up:
                delay, told = PAUSE_SECONDS[0], ""
            if problem != told:
                told = problem
                log.warning("bus-lost", extra={"problem": problem})
            await asyncio.sleep(delay)
            delay = min(delay * 2, PAUSE_SECONDS[1])

    def _down(self) -> None:
        was_up, self._is_up = self._is_up, False
        self._queue.clear()
        for echo in self._echoes.values():
            if not echo.done():
                echo.set_result(None)
        self._echoes.clear()
        if was_up:
            self._turn(False)

    async def _work(self, tried: asyncio.Event) -> None:
        """Connect, hear and speak until that fails."""
        clients = [self._place.channel(), self._place.channel()]
        tasks: list[asyncio.Task[None]] = []
        ends: list[Any] = []
        try:
            for client in clients:
                # A connection of its own: what is pooled takes a question at a time.
                ends.append(client.connection_pool.make_connection())
                await within(self._patience, ends[-1].connect())
            ears, mouth = ends
            self._mark = _ECHO + secrets.token_bytes(8)
            self._unheard = self._unanswered = 0
            await within(self._patience, ears.send_command("SUBSCRIBE", self._channel(self._own)))
            works: tuple[Coroutine[Any, Any, None], ...] = (
                self._listen(ears, tried),
                self._speak(mouth),
                self._check(mouth),
                self._echo_on(),
            )
            tasks += [asyncio.get_running_loop().create_task(work) for work in works]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._down()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for end in ends:
                with contextlib.suppress(*FAILURES):
                    await end.disconnect(nowait=True)
            for client in clients:
                with contextlib.suppress(*FAILURES):
                    await client.aclose()

    async def _listen(self, ears: Any, tried: asyncio.Event) -> None:
        while True:
            answer = await ears.read_response(disable_decoding=True)
            if answer[0] == b"subscribe":
                self._put(self._own, self._mark)
            elif answer[0] == b"message":
                self._heard(answer[2], tried)

    def _heard(self, data: bytes, tried: asyncio.Event) -> None:
        if data.startswith(_ECHO):
            if data.startswith(self._mark):
                self._unheard = 0
                if (echo := self._echoes.pop(data, None)) is not None and not echo.done():
                    echo.set_result(None)
                if not self._is_up:
                    self._is_up = True
                    log.info("bus-open")
                    self._turn(True)
                    tried.set()
        elif self._is_up:
            try:
                self._hear(data)
            except Exception:  # one packet; the bus stays
                log.exception("bus-failed")

    async def _speak(self, mouth: Any) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            queue, self._queue = self._queue, []
            if queue:
                self._unanswered += len(queue)
                said = [_PUBLISH % (len(channel), channel, len(data), data) for channel, data in queue]
                await mouth.send_packed_command(said, check_health=False)

    async def _check(self, mouth: Any) -> None:
        """Have what Redis refuses fail; not at once, since waking up for each answer costs more than it says.
        How many heard what was said is no proof of anything: in a Redis Cluster only those of one node count.
        """
        while True:
            await asyncio.sleep(ECHO_SECONDS)
            while self._unanswered:
                await mouth.read_response(disable_decoding=True)
                self._unanswered -= 1

    async def _echo_on(self) -> None:
        while True:
            await asyncio.sleep(ECHO_SECONDS)
            self._unheard += 1
            if self._unheard > UNHEARD:
                raise TimeoutError("nothing comes back from Redis")
            self._put(self._own, self._mark)
