"""The engines on which every test of the port runs. A new one is a class and an entry in `ENGINES`."""

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_asyncio
from cassandra.cluster import Cluster, Session

from xmppd.store.cassandra.store import CassandraOptions, CassandraStore
from xmppd.store.sqlite.store import SqliteStore
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

    def crowded(self) -> Store:
        """A store with room for four writes at a time."""

    def advance(self, seconds: float) -> None:
        """Let time pass for TTLs."""


class SqliteInFile:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "store.db"
        self._clock = Clock()
        self.advance = self._clock.advance

    def store(self) -> Store:
        return SqliteStore(self._path, now=self._clock)

    def crowded(self) -> Store:
        return SqliteStore(self._path, now=self._clock, bound=4)


class SqliteInMemory:
    def __init__(self, folder: Path) -> None:
        self._clock = Clock()
        self.advance = self._clock.advance

    def store(self) -> Store:
        return SqliteStore(":memory:", now=self._clock)

    crowded = store


class Keyspace:
    """A keyspace of a real Cassandra, whose tables serve many tests: making one takes 0.1 s."""

    def __init__(self, nodes: list[tuple[str, int]], session: Session) -> None:
        self.name = f"xmppd_test_{uuid.uuid4().hex[:12]}"
        self.options = CassandraOptions(contact_points=tuple(nodes), keyspace=self.name)
        self._session = session

    def clear(self) -> None:
        """Take all rows away, and the tables that a test has changed."""
        if not self._ask("SELECT * FROM system_schema.tables WHERE keyspace_name = %s", self.name):
            return
        schema = f"{self.name}.xmppd_schema"
        for table in self._ask(f"SELECT name, version FROM {schema}"):
            if table.version > 1:
                self._session.execute(f'DROP TABLE {self.name}."{table.name}"')
                self._session.execute(f"DELETE FROM {schema} WHERE name = %s", (table.name,))
            else:
                self._delete_rows(table.name)

    def _delete_rows(self, table: str) -> None:
        columns = self._ask(
            "SELECT column_name, kind FROM system_schema.columns "
            "WHERE keyspace_name = %s AND table_name = %s",
            self.name,
            table,
        )
        partition = [f'"{column.column_name}"' for column in columns if column.kind == "partition_key"]
        where = " AND ".join(f"{column} = %s" for column in partition)
        for key in self._ask(f'SELECT DISTINCT {", ".join(partition)} FROM {self.name}."{table}"'):
            self._session.execute(f'DELETE FROM {self.name}."{table}" WHERE {where}', tuple(key))

    def drop(self) -> None:
        self._session.execute(f"DROP KEYSPACE IF EXISTS {self.name}")

    def execute(self, text: str) -> None:
        """What somebody else writes, who is waited for."""
        self._session.execute(text)

    def _ask(self, text: str, *values: object) -> list[Any]:
        return list(self._session.execute(text, values))


class InCassandra:
    """Time cannot be told to pass there."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._options = keyspace.options

    def store(self) -> Store:
        return CassandraStore(self._options)

    def crowded(self) -> Store:
        return CassandraStore(replace(self._options, waiting=4))

    def advance(self, seconds: float) -> None:
        time.sleep(seconds)


ENGINES = ["sqlite-file", "sqlite-memory", "cassandra"]
LASTING = ["sqlite-file", "cassandra"]

Opened = Callable[..., Awaitable[Store]]


@pytest.fixture(scope="session")
def cassandra_session(cassandra_nodes: list[tuple[str, int]]) -> Iterator[Session]:
    """A connection of the tests' own."""
    cluster = Cluster(cassandra_nodes)
    yield cluster.connect()
    cluster.shutdown()


@pytest.fixture(scope="module")
def module_keyspace(cassandra_nodes: list[tuple[str, int]], cassandra_session: Session) -> Iterator[Keyspace]:
    """A keyspace for one module, because tables of different modules have the same names."""
    keyspace = Keyspace(cassandra_nodes, cassandra_session)
    yield keyspace
    keyspace.drop()


@pytest.fixture
def keyspace(module_keyspace: Keyspace) -> Iterator[Keyspace]:
    """A keyspace without rows."""
    yield module_keyspace
    module_keyspace.clear()


@pytest.fixture
def empty_keyspace(cassandra_nodes: list[tuple[str, int]], cassandra_session: Session) -> Iterator[Keyspace]:
    """A keyspace that is not there yet, for one test."""
    keyspace = Keyspace(cassandra_nodes, cassandra_session)
    yield keyspace
    keyspace.drop()


def make(name: str, request: pytest.FixtureRequest, folder: Path) -> Engine:
    if name == "cassandra":
        return InCassandra(request.getfixturevalue("keyspace"))
    return {"sqlite-file": SqliteInFile, "sqlite-memory": SqliteInMemory}[name](folder)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return make(request.param, request, tmp_path)


@pytest.fixture(params=LASTING)
def lasting_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """An engine that keeps data when a store is closed."""
    return make(request.param, request, tmp_path)


@pytest_asyncio.fixture
async def opened(engine: Engine) -> AsyncIterator[Opened]:
    """Opens a store with the tables given; it is closed after the test."""
    store = engine.store()

    async def open_tables(*tables: Table) -> Store:
        await store.open(tables)
        return store

    yield open_tables
    await store.close()


@pytest_asyncio.fixture
async def crowded(lasting_engine: Engine) -> AsyncIterator[Opened]:
    """Opens a store that has room for four writes at a time."""
    store = lasting_engine.crowded()

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
