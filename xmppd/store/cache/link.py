"""Commands to Redis, joined: what is asked in one turn of the loop goes out in one piece, under one deadline.

One task talks to Redis and callers wait for plain futures. So a call costs no task and no timer, and whoever
has no current task (`xmppd.core.begun`) may call as well.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from xmppd.store._turns import within
from xmppd.store.cache.scripts import Script
from xmppd.store.cache.url import Client

BATCH = 64
"""Commands in one piece."""

QUEUE = 10_000
"""Commands that wait for a connection; more are refused, and their callers go without."""

FAILURES = (RedisError, RedisClusterException, OSError, TimeoutError)
"""What a command may end with, whatever the reason."""

Command = tuple[Any, ...]


class LinkDown(Exception):
    """Redis cannot be asked now."""


class Link:
    """The way to one Redis. While `is_up` is false no call is tried.

    `on_failure` is told the reason when a batch fails; it decides on `is_up`. `timeout` is in seconds, for
    each batch. `seconds` and `calls` sum up what successful calls took; `asked` counts all.
    """

    def __init__(self, timeout: float, on_failure: Callable[[BaseException], None]) -> None:
        self.is_up = False
        self.client: Client = None
        self.asked = 0
        self.calls = 0
        self.seconds = 0.0
        self._timeout = timeout
        self._on_failure = on_failure
        self._queue: deque[tuple[float, Command, asyncio.Future[Any]]] = deque()
        self._wake = asyncio.Event()

    def call(self, *command: Any) -> asyncio.Future[Any]:
        """Have a command done; LinkDown, at once or later."""
        if not self.is_up or len(self._queue) >= QUEUE:
            raise LinkDown
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked += 1
        self._queue.append((time.perf_counter(), command, future))
        self._wake.set()
        return future

    def run(self, script: Script, keys: Sequence[str], *args: Any) -> asyncio.Future[Any]:
        """Have a script run; LinkDown, at once or later."""
        return self.call("EVALSHA", script, len(keys), *keys, *args)

    async def pump(self) -> None:
        """Do what is asked, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                try:
                    self._settle(batch, await self.send([command for _, command, _ in batch], self._timeout))
                except Exception as error:  # noqa: BLE001 - whatever it is, callers wait for ever without this
                    self._fail([*batch, *self._queue])
                    self._queue.clear()
                    self._on_failure(error)
                except BaseException:  # cancelled: callers have no deadline of their own
                    self._fail(batch)
                    raise

    def close(self) -> None:
        """Nothing more is asked; who waits is told so."""
        self.is_up = False
        self._fail(list(self._queue))
        self._queue.clear()

    async def send(self, commands: Sequence[Command], limit: float) -> list[Any]:
        """Do commands now, whether the link is up or not; one of FAILURES if any of them fails, or `limit`
        seconds pass.
        """
        answers: list[Any] = await within(limit, self._answers(commands))
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    async def _answers(self, commands: Sequence[Command]) -> list[Any]:
        answers = await self._ask([_by_name(command) for command in commands])
        unknown = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:  # Redis was restarted, or its scripts were flushed
            again = await self._ask([_by_text(commands[index]) for index in unknown])
            for index, answer in zip(unknown, again, strict=True):
                answers[index] = answer
        return answers

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        if len(commands) == 1:
            try:
                return [await self.client.execute_command(*commands[0])]
            except NoScriptError as error:
                return [error]
        if hasattr(self.client, "get_nodes"):  # a cluster joins what is for one node by itself, or not
            asked = (self.client.execute_command(*command) for command in commands)
            return await asyncio.gather(*asked, return_exceptions=True)
        pipeline = self.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    def _settle(
        self, batch: Sequence[tuple[float, Command, asyncio.Future[Any]]], answers: Sequence[Any]
    ) -> None:
        now = time.perf_counter()
        for (since, _, future), answer in zip(batch, answers, strict=True):
            self.calls += 1
            self.seconds += now - since
            if not future.done():
                future.set_result(answer)

    @staticmethod
    def _fail(batch: Sequence[tuple[float, Command, asyncio.Future[Any]]]) -> None:
        for _, _, future in batch:
            if not future.done():
                future.set_exception(LinkDown())
                future.exception()  # nobody may be waiting


def _by_name(command: Command) -> Command:
    if command[0] == "EVALSHA":
        return (command[0], command[1].sha, *command[2:])
    return command


def _by_text(command: Command) -> Command:
    return ("EVAL", command[1].text, *command[2:])
