"""Redis servers of our own, which tests may stop, fill and put to sleep; and nodes that share one store."""

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis
from patience import PATIENCE
from ports import free_ports
from redis import Redis

from xmppd.core.roster.rosters import ROSTER, Roster, Rosters, SetRequest
from xmppd.core.roster.tier import RosterTier
from xmppd.store.cache.redis import RedisCache
from xmppd.store.sqlite.store import SqliteStore

SERVER = "/usr/bin/redis-server"

LOADS = 3
"""Rosters that one node reads from the store at once."""


class RedisServer:
    """One process, ended by its id."""

    def __init__(self, folder: Path, *options: str, file: Path | None = None, port: int = 0) -> None:
        self.folder = folder
        self.port = port or free_ports(1)[0]
        self._first = [str(file)] if file is not None else []
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def client(self) -> Redis:
        return Redis(port=self.port)

    def start(self) -> None:
        command = [
            SERVER, *self._first, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
            "--enable-debug-command", "yes", "--save", "", "--appendonly", "no", *self._options,
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                with self.client as client:
                    client.ping()
                return
            except redis.RedisError:
                assert time.monotonic() < end and self._process.poll() is None, "redis-server does not start"
                time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def ask(self, *command: Any) -> Any:
        with self.client as client:
            return client.execute_command(*command)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    yield server
    server.kill()


class SlowStore(SqliteStore):
    """The store as nodes use it. Counts, takes its time, and waits where a test says so.

    `at_most` is the greatest number of partitions that were read at once.
    """

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.scans = 0
        self.reading = 0
        self.at_most = 0
        self.seconds = 0.0
        self.before: dict[str, Callable[[], Awaitable[None]]] = {}
        self.after: dict[str, Callable[[], Awaitable[None]]] = {}

    async def scan(self, *args: Any, **kwargs: Any) -> Any:
        self.scans += 1
        self.reading += 1
        self.at_most = max(self.at_most, self.reading)
        try:
            if self.seconds:
                await asyncio.sleep(self.seconds)
            return await self._hooked("scan", super().scan(*args, **kwargs))
        finally:
            self.reading -= 1

    async def batch(self, *args: Any, **kwargs: Any) -> Any:
        return await self._hooked("batch", super().batch(*args, **kwargs))

    async def delete(self, *args: Any, **kwargs: Any) -> Any:
        return await self._hooked("delete", super().delete(*args, **kwargs))

    async def _hooked(self, name: str, work: Awaitable[Any]) -> Any:
        """Each hook serves once."""
        try:
            if (hook := self.before.pop(name, None)) is not None:
                await hook()
        except BaseException:
            work.close()  # type: ignore[attr-defined]
            raise
        answer = await work
        if (hook := self.after.pop(name, None)) is not None:
            await hook()
        return answer


class Notices:
    """What a node learns of the others, applied to its rosters as the server does."""

    def __init__(self, rosters: Rosters) -> None:
        self._rosters = rosters
        self.all: list[tuple[Any, ...]] = []

    def roster_begun(self, account: str, token: str) -> None:
        self._rosters.forget(account)
        self.all.append(("begun", account))

    def roster_changed(self, account: str, version: int, token: str) -> None:
        kept = self._rosters.cached(account)
        if version and (kept is None or not 0 < version <= kept.version):
            self._rosters.forget(account)
        self.all.append(("changed", account, version))

    def account_changed(self, account: str) -> None:
        self.all.append(("account", account))

    def everything_changed(self) -> None:
        self._rosters.forget_all()
        self.all.append(("everything",))

    def lost(self) -> None:
        self._rosters.forget_all()
        self.all.append(("lost",))

    def back(self) -> None:
        self._rosters.forget_all()
        self.all.append(("back",))

    def tick(self) -> None:
        pass


class Node:
    """One server's rosters and cache."""

    def __init__(self, store: SqliteStore, url: str, prefix: str, patience: float) -> None:
        self.cache = RedisCache(url, prefix=prefix, timeout=patience)
        self.rosters = Rosters(store, tier=RosterTier(self.cache, loads=LOADS))
        self.notices = Notices(self.rosters)

    async def open(self) -> None:
        await self.cache.open(self.notices)
        await self.until(lambda: self.cache.is_heard)

    async def load(self, account: str) -> Roster:
        loading = self.rosters.load(account)
        return loading if isinstance(loading, Roster) else await loading

    async def set(self, account: str, contact: str, name: str = "") -> Roster:
        return (await self.rosters.set_item(account, SetRequest(contact, name, ()))).roster

    @property
    def stats(self) -> Any:
        return self.cache.stats

    async def until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it never came true"
            await asyncio.sleep(0.005)


@pytest_asyncio.fixture
async def store() -> AsyncIterator[SlowStore]:
    store = SlowStore()
    await store.open([ROSTER])
    yield store
    await store.close()


MakeNodes = Callable[..., Awaitable[list[Node]]]


@pytest_asyncio.fixture
async def make_nodes(store: SlowStore) -> AsyncIterator[MakeNodes]:
    made: list[Node] = []

    async def make(url: str, count: int = 2, patience: float = 0.3) -> list[Node]:
        prefix = f"test.{secrets.token_hex(4)}"
        nodes = [Node(store, url, prefix, patience) for _ in range(count)]
        made.extend(nodes)
        for node in nodes:
            await node.open()
        return nodes

    yield make
    for node in made:
        await node.cache.close()


@pytest_asyncio.fixture
async def nodes(make_nodes: MakeNodes, shared_server: RedisServer) -> list[Node]:
    """Two nodes on one store and one Redis, with keys of their own."""
    return await make_nodes(shared_server.url, patience=PATIENCE)
