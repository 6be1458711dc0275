"""The engines on which every test of the port runs. A new one is a class and an entry in `ENGINES`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio

from xmppd.store.sqlite import SqliteStore
from xmppd.store.table import Store, Table


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.5

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds


class Engine(Protocol):
    """One place where data lives, and stores that use it one after the other."""

    def store(self) -> Store: ...

    def advance(self, seconds: float) -> None:
        """Let time pass for TTLs."""


class SqliteInFile:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "store.db"
        self._clock = Clock()
        self.advance = self._clock.advance

    def store(self) -> Store:
        return SqliteStore(self._path, now=self._clock)


class SqliteInMemory:
    def __init__(self, folder: Path) -> None:
        self._clock = Clock()
        self.advance = self._clock.advance

    def store(self) -> Store:
        return SqliteStore(":memory:", now=self._clock)


ENGINES = {"sqlite-file": SqliteInFile, "sqlite-memory": SqliteInMemory}
LASTING = ["sqlite-file"]

Opened = Callable[..., Awaitable[Store]]


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return ENGINES[request.param](tmp_path)


@pytest.fixture(params=LASTING)
def lasting_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """An engine that keeps data when a store is closed."""
    return ENGINES[request.param](tmp_path)


@pytest_asyncio.fixture
async def opened(engine: Engine) -> AsyncIterator[Opened]:
    """Opens a store with the tables given; it is closed after the test."""
    store = engine.store()

    async def open_tables(*tables: Table) -> Store:
        await store.open(tables)
        return store

    yield open_tables
    await store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "store.db"
