"""Any sequence of calls does to a store what it does to a dict."""

import asyncio
import itertools
import math
import operator
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from xmppd.store.cassandra.store import CassandraOptions, CassandraStore
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Delete, Put, Store, Stored, Table

UP = Table("up", ("p",), ("c", "n"), {"n": "int", "x": "int", "y": "text", "z": "bool"}, static={"s": "int"})
DOWN = Table("down", UP.partition, UP.cluster, UP.columns, UP.static, ttl=50, descending=True)
HEAP = replace(UP, name="heap", heap=True)
PLAIN = ("x", "y", "z")

TABLES = {table.name: table for table in (UP, DOWN, HEAP)}
tables = st.sampled_from(list(TABLES.values()))
PARTITIONS = ["\0", "a", "\U0001f40d"]
partitions = st.sampled_from(PARTITIONS)
clusters = st.tuples(st.sampled_from(["", "k", "k\0", "é"]), st.sampled_from([-1, 0, 2**40]))
some_columns = st.fixed_dictionaries(
    {},
    optional={
        "x": st.none() | st.integers(-1, 1),
        "y": st.none() | st.sampled_from(["", "y\0"]),
        "z": st.none() | st.booleans(),
    },
)
lives = st.none() | st.sampled_from([10.0, 100.0])
prefixes = st.none() | clusters.flatmap(lambda key: st.sampled_from([(), key[:1], key]))
ranges = st.tuples(
    st.tuples(st.sampled_from(["start", "after"]), prefixes),
    st.tuples(st.sampled_from(["end", "before"]), prefixes),
).map(dict)
versions = st.none() | st.integers(0, 2)


class Model:
    """Two dicts: rows and static columns, each with the moment when it ends."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.rows: dict[tuple[str, str], dict[tuple[str, int], tuple[dict[str, Any], float]]] = {}
        self.static: dict[tuple[str, str], tuple[int | None, float]] = {}

    def end(self, table: Table, ttl: float | None) -> float:
        life = ttl or table.ttl
        return self.now + life if life else float("inf")

    def live(self, table: Table, partition: str) -> dict[tuple[str, int], dict[str, Any]]:
        rows = self.rows.get((table.name, partition), {})
        return {key: row for key, (row, end) in sorted(rows.items()) if end > self.now}

    def version(self, table: Table, partition: str) -> int | None:
        value, end = self.static.get((table.name, partition), (None, 0.0))
        return value if end > self.now else None

    def put(self, table: Table, partition: str, key: Any, columns: dict[str, Any], ttl: float | None) -> None:
        old = self.live(table, partition).get(key, dict.fromkeys(PLAIN))
        rows = self.rows.setdefault((table.name, partition), {})
        rows[key] = (old | columns, self.end(table, ttl))

    def delete(self, table: Table, partition: str, key: Any) -> None:
        self.rows.get((table.name, partition), {}).pop(key, None)

    def read(self, table: Table, partition: str) -> list[dict[str, Any]]:
        version = self.version(table, partition)
        return [
            {"p": partition, "c": c, "n": n, **row, "s": version}
            for (c, n), row in self.live(table, partition).items()
        ]


class Machine(RuleBasedStateMachine):
    """All calls of the port. `writes_whole_rows` is for engines on which columns end one by one."""

    writes_whole_rows = False

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.runner = asyncio.Runner()
        self.store = self.make()
        self.run(self.store.open([UP, DOWN, HEAP]))

    def make(self) -> Store:
        raise NotImplementedError

    def written(self, columns: dict[str, Any]) -> dict[str, Any]:
        return dict.fromkeys(PLAIN) | columns if self.writes_whole_rows else columns

    def shown(self, entry: Stored) -> str:
        return repr((entry.key, sorted(entry.values.items(), key=repr), entry.expires))

    def run(self, call: Any) -> Any:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()

    @rule(table=tables, p=partitions, key=clusters, columns=some_columns, ttl=lives)
    def put(self, table: Table, p: str, key: Any, columns: dict[str, Any], ttl: float | None) -> None:
        columns = self.written(columns)
        self.run(self.store.put(table, {**columns, "n": key[1], "c": key[0], "p": p}, ttl=ttl))
        self.model.put(table, p, key, columns, ttl)

    @rule(
        rows=st.dictionaries(
            st.tuples(st.sampled_from(list(TABLES)), partitions, clusters),
            some_columns,
            min_size=1,
            max_size=4,
        ),
        ttl=lives,
    )
    def write(self, rows: Any, ttl: float | None) -> None:
        rows = {place: self.written(columns) for place, columns in rows.items()}
        self.run(self.write_rows(rows, ttl))
        for (name, p, key), columns in rows.items():
            self.model.put(TABLES[name], p, key, columns, ttl)

    async def write_rows(self, rows: Any, ttl: float | None) -> None:
        made = []
        for (name, p, key), columns in rows.items():
            writer = self.store.writer(TABLES[name], ("n", *columns, "p", "c"))
            made.append(writer.row(key[1], *columns.values(), p, key[0]))
        await self.store.write(made, ttl=ttl)

    @rule(table=tables, p=partitions, key=clusters)
    def delete(self, table: Table, p: str, key: Any) -> None:
        self.run(self.store.delete(table, (p, *key)))
        self.model.delete(table, p, key)

    @rule(table=tables, p=partitions, key=clusters, expect=some_columns, finds=st.booleans())
    def delete_if(self, table: Table, p: str, key: Any, expect: Any, finds: bool) -> None:
        row = self.model.live(table, p).get(key)
        if finds and row is not None:
            expect = {column: row[column] for column in expect or PLAIN}
        if all(value is None for value in expect.values()):
            return  # refused
        holds = row is not None and {column: row[column] for column in expect} == expect
        assert self.run(self.store.delete_if(table, (p, *key), expect)) is holds
        if holds:
            self.model.delete(table, p, key)

    @rule(table=tables, p=partitions, end=clusters.flatmap(lambda key: st.sampled_from([key[:1], key])))
    def delete_through(self, table: Table, p: str, end: Any) -> None:
        self.run(self.store.batch(table, (p,), [Delete(end, through=True)]))
        for key in [key for key in self.model.rows.get((table.name, p), {}) if key[: len(end)] <= end]:
            self.model.delete(table, p, key)

    @rule(table=tables, p=partitions)
    def delete_partition(self, table: Table, p: str) -> None:
        self.run(self.store.delete(table, (p,)))
        self.model.rows.pop((table.name, p), None)
        self.model.static.pop((table.name, p), None)

    @rule(
        table=tables,
        p=partitions,
        key=clusters,
        columns=some_columns,
        expect=st.none() | some_columns,
        ttl=lives,
    )
    def put_if(self, table: Table, p: str, key: Any, columns: Any, expect: Any, ttl: float | None) -> None:
        if expect == {}:
            expect = None
        columns = self.written(columns)
        row = self.model.live(table, p).get(key)
        if expect is None:
            holds = row is None
        else:
            holds = {column: (row or {}).get(column) for column in expect} == expect
        written = self.run(
            self.store.put_if(table, {"p": p, "c": key[0], "n": key[1], **columns}, expect, ttl=ttl)
        )
        assert written is holds
        if holds:
            self.model.put(table, p, key, columns, ttl)

    @rule(
        table=tables,
        p=partitions,
        changes=st.dictionaries(clusters, st.none() | st.tuples(some_columns, lives), max_size=4),
        version=st.none() | st.tuples(versions),
        expect=st.none() | st.tuples(versions),
    )
    def batch(self, table: Table, p: str, changes: Any, version: Any, expect: Any) -> None:
        changes = {key: change and (self.written(change[0]), change[1]) for key, change in changes.items()}
        writes: list[Put | Delete] = [
            Delete(key) if change is None else Put({"c": key[0], "n": key[1], **change[0]}, change[1])
            for key, change in changes.items()
        ]
        done = self.run(
            self.store.batch(
                table,
                (p,),
                writes,
                static=None if version is None else {"s": version[0]},
                expect=None if expect is None else {"s": expect[0]},
            )
        )
        assert done is (expect is None or self.model.version(table, p) == expect[0])
        if not done:
            return
        for key, change in changes.items():
            if change is None:
                self.model.delete(table, p, key)
            else:
                self.model.put(table, p, key, *change)
        if version is not None:
            self.model.static[table.name, p] = (version[0], self.model.end(table, None))

    @rule(table=tables, p=partitions, ends=ranges, reverse=st.booleans(), limit=st.integers(1, 4))
    def scan_by_pages(self, table: Table, p: str, ends: Any, reverse: bool, limit: int) -> None:
        found: list[Any] = []
        page = None
        for _ in itertools.count():
            part = self.run(self.store.scan(table, (p,), **ends, reverse=reverse, limit=limit, page=page))
            found += part.rows
            page = part.next
            if page is None:
                break
            assert len(part.rows) == limit
        keys = [(row["c"], row["n"]) for row in found]
        assert keys == [key for key, _ in self.between(table, p, ends, reverse)]

    @rule(
        table=tables,
        p=partitions,
        ends=ranges,
        reverse=st.booleans(),
        limit=st.none() | st.integers(1, 4),
        match=st.none() | st.sampled_from([-1, 0]),
        examine=st.none() | st.integers(1, 3),
    )
    def scan_columns_by_pages(
        self,
        table: Table,
        p: str,
        ends: Any,
        reverse: bool,
        limit: int | None,
        match: int | None,
        examine: int | None,
    ) -> None:
        how = {**ends, "reverse": reverse, "limit": limit, "examine": examine}
        if match is not None:
            how = {name: value[:1] if isinstance(value, tuple) else value for name, value in how.items()}
            how["match"] = {"n": match}
        found: list[Any] = []
        page = None
        while True:
            part = self.run(self.store.scan_columns(table, (p,), ("y", "n", "z"), **how, page=page))
            found += part.rows
            page = part.next
            if page is None:
                break
        between = self.between(table, p, {name: how.get(name) for name in ends}, reverse)
        assert found == [
            (row["y"], key[1], row["z"]) for key, row in between if match is None or key[1] == match
        ]

    def between(self, table: Table, p: str, ends: Any, reverse: bool) -> list[Any]:
        """The live rows in a range, as they are to come."""
        found = []
        for key, row in self.model.live(table, p).items():
            beyond = [
                value and not holds(key[: len(value)], value)
                for holds, value in (
                    (operator.ge, ends.get("start")),
                    (operator.gt, ends.get("after")),
                    (operator.le, ends.get("end")),
                    (operator.lt, ends.get("before")),
                )
            ]
            if not any(beyond):
                found.append((key, row))
        return found[::-1] if reverse != table.descending else found

    @rule(table=tables, p=partitions, keys=st.lists(clusters, max_size=4), width=st.sampled_from([1, 2]))
    def get_rows(self, table: Table, p: str, keys: Any, width: int) -> None:
        found = self.run(self.store.get_rows(table, (p,), [key[:width] for key in keys]))
        wanted = {key[:width] for key in keys}
        expected = [row for row in self.model.read(table, p) if (row["c"], row["n"])[:width] in wanted]
        assert found == (expected[::-1] if table.descending else expected)

    @rule(table=tables, p=partitions, key=clusters)
    def get(self, table: Table, p: str, key: Any) -> None:
        found = self.run(self.store.get(table, (p, *key)))
        expected = [row for row in self.model.read(table, p) if (row["c"], row["n"]) == key]
        assert [found] == (expected or [None])

    @invariant()
    def everything_is_as_in_the_model(self) -> None:
        for table in (UP, DOWN, HEAP):
            everything = []
            for p in PARTITIONS:
                rows = self.model.read(table, p)
                everything += rows
                scanned = self.run(self.store.scan(table, (p,))).rows
                assert scanned == (rows[::-1] if table.descending else rows)
                version = self.model.version(table, p)
                static = self.run(self.store.get_static(table, (p,)))
                assert static == (None if version is None else {"s": version})
            found, page = [], None
            while True:
                part = self.run(self.store.scan_all(table, limit=3, page=page))
                found += part.rows
                page = part.next
                if page is None:
                    break
            assert sorted(map(str, found)) == sorted(map(str, everything))
            self.is_dumped_as_in_the_model(table)

    def is_dumped_as_in_the_model(self, table: Table) -> None:
        found: list[Stored] = []
        page = None
        while True:
            part = self.run(self.store.dump(table, limit=3, page=page))
            found += part.entries
            page = part.next
            if page is None:
                break
        expected = []
        for p in PARTITIONS:
            version, end = self.model.static.get((table.name, p), (None, 0.0))
            if version is not None and end > self.model.now:
                expected.append(Stored((p,), {"s": version}, None if end == math.inf else end))
            for key, (row, end) in self.model.rows.get((table.name, p), {}).items():
                if end > self.model.now:
                    values = {column: value for column, value in row.items() if value is not None}
                    expected.append(Stored((p, *key), values, None if end == math.inf else end))
        assert sorted(map(self.shown, found)) == sorted(map(self.shown, expected))


class InMemory(Machine):
    def make(self) -> Store:
        return SqliteStore(":memory:", now=lambda: self.model.now)

    @rule(seconds=st.sampled_from([1.0, 10.0, 60.0, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        self.model.now += seconds


class InFile(InMemory):
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        super().__init__()

    def make(self) -> Store:
        return SqliteStore(self.folder / "store.db", now=lambda: self.model.now)

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.folder)

    @rule()
    def reopen(self) -> None:
        self.run(self.store.close())
        self.store = self.make()
        self.run(self.store.open([UP, DOWN, HEAP]))


class InCassandra(Machine):
    """Time does not pass here: no example takes as long as the shortest life."""

    writes_whole_rows = True

    def __init__(self, options: CassandraOptions) -> None:
        self.options = options
        super().__init__()

    def make(self) -> Store:
        return CassandraStore(self.options)

    def shown(self, entry: Stored) -> str:
        values = sorted(entry.values.items(), key=repr)
        return repr((entry.key, values, entry.expires is not None))

    def teardown(self) -> None:
        for table in (UP, DOWN, HEAP):
            for p in PARTITIONS:
                self.run(self.store.delete(table, (p,)))
        super().teardown()


def test_in_cassandra(keyspace: Any) -> None:
    run_state_machine_as_test(
        lambda: InCassandra(keyspace.options), settings=settings(max_examples=12, stateful_step_count=25)
    )


TestInMemory = InMemory.TestCase
TestInMemory.settings = settings(max_examples=60, stateful_step_count=30)
TestInFile = InFile.TestCase
TestInFile.settings = settings(max_examples=25, stateful_step_count=25)
