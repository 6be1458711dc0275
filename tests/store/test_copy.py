"""Whole installations copied from store to store: everything, after any interruption, and compared."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from xmppd.errors import CommandError, StoreTimeout, StoreUnavailable
from xmppd.store import comparison, transfer
from xmppd.store.cassandra.store import CassandraStore
from xmppd.store.comparison import LIFE_SECONDS, Comparison, Findings
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Delete, Put, Store, Stored, Table
from xmppd.store.transfer import COPIES, Transfer

pytestmark = pytest.mark.asyncio

TYPES = Table(
    "types",
    partition=("p_blob", "p_int"),
    cluster=("c_bool", "c_float", "c_blob", "c_text"),
    columns={
        "p_blob": "blob", "p_int": "int", "c_bool": "bool", "c_float": "float", "c_blob": "blob",
        "text": "text", "blob": "blob", "int": "int", "float": "float", "bool": "bool", "at": "timestamp",
    },
)  # fmt: skip
ITEMS = Table("items", ("account",), ("contact",), {"name": "text", "rank": "int"}, {"version": "int"})
NEWEST = Table(
    "newest", ("room",), ("at",), {"at": "timestamp", "text": "text"}, {"owner": "text"}, descending=True
)
SHORT = Table("short", ("account",), ("token",), {"used": "bool"}, {"count": "int"}, ttl=5000)
PROFILE = Table("profile", ("account",), (), {"card": "blob"})
PAGE = 47
SECONDS = 3.0
"""How far apart two engines may let an entry end."""
LOG = Table("log", ("owner", "month"), ("id",), {"owner": "int", "month": "int", "stanza": "blob"}, heap=True)
SHOWN = Table("shown", ("account",), ("peer",), {"item": "text", "at": "int"}, ttl=5000, order="at")
TABLES = (TYPES, ITEMS, NEWEST, SHORT, PROFILE, LOG, SHOWN)


class Silent:
    """Progress that nobody looks at, but the test."""

    def __init__(self) -> None:
        self.stages: list[list[Any]] = []

    def begin(self, what: str, total: int | None = None, done: int = 0) -> None:
        self.stages.append([what, total, done])

    def advance(self, rows: int) -> None:
        self.stages[-1][2] += rows

    def end(self) -> None:
        pass


class Trouble:
    """A store that fails when it is told to, after `good` more writes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.good = 10**9
        self.error: BaseException = StoreUnavailable("gone")
        self.restored = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def restore(self, table: Table, entries: Any) -> None:
        self.good -= 1
        if self.good < 0:
            raise self.error
        await self._store.restore(table, entries)
        self.restored += len(entries)


class Installation:
    """Source and target, and what is done with them; `advance` lets time pass for both."""

    def __init__(
        self, source: Store, target: Trouble, now: Callable[[], float], advance: Callable[[float], None]
    ) -> None:
        self.source = source
        self.target = target
        self.now = now
        self.advance = advance
        self.progress = Silent()

    def transfer(self, name: str = "here", tables: Any = TABLES) -> Transfer:
        return Transfer(self.source, self.target, tables, name=name, progress=self.progress, now=self.now)

    async def compare(self) -> dict[str, Findings]:
        compared = Comparison(self.source, self.target, progress=self.progress, now=self.now)
        return {findings.table: findings for findings in await compared.run(TABLES, None)}

    async def is_complete(self) -> bool:
        """Whether both hold the same, found out in another way."""
        for table in TABLES:
            mine = (await self.source.dump(table, limit=10**6)).entries
            theirs = (await self.target.dump(table, limit=10**6)).entries
            if not alike(mine, theirs):
                return False
        return True


def alike(mine: list[Stored], theirs: list[Stored]) -> bool:
    """Whether two stores hold the same, in whatever order, and for equally long."""
    mine, theirs = (sorted(entries, key=lambda entry: repr(entry.key)) for entries in (mine, theirs))
    pairs = list(zip(mine, theirs, strict=False))
    return len(mine) == len(theirs) and all(
        one.key == other.key
        and one.values == other.values
        and (one.expires == other.expires or abs(one.expires - other.expires) < SECONDS)
        for one, other in pairs
    )


async def fill(store: Store, *, accounts: int = 40, rows: int = 30) -> None:
    """Some of everything: all types, TTLs, static columns with and without rows, a large partition."""
    chance = random.Random(1)
    full = {
        "text": "\0é\U0001f40d",
        "blob": b"\0\xff",
        "int": -(2**63),
        "float": -0.5,
        "bool": False,
        "at": 0.001,
    }
    log = store.writer(LOG, ("owner", "month", "id", "stanza"))
    work: list[Awaitable[object]] = []
    for number in range(40):
        key = {"p_blob": bytes([number]), "p_int": 2**62, "c_bool": True, "c_blob": b"\xff", "c_text": ""}
        row = {**key, "c_float": number / 7, **(full if number % 2 else {})}
        work.append(store.put(TYPES, row))
    for number in range(accounts):
        puts = [
            Put({"contact": f"c{i}@b", "name": str(i), "rank": i}, ttl=9000 if i % 5 == 0 else None)
            for i in range(rows)
        ]
        work.append(store.batch(ITEMS, (f"u{number}@a",), puts, static={"version": number}))
        work.append(store.batch(ITEMS, (f"alone{number}",), [], static={"version": number}))
        tokens = [Put({"token": str(i), "used": True}, ttl=chance.choice([None, 100, 9e6])) for i in range(3)]
        work.append(
            store.batch(SHORT, (f"u{number}",), tokens, static={"count": number} if number % 2 else None)
        )
        work.append(store.put(PROFILE, {"account": f"u{number}", "card": bytes(number)}))
        work.append(store.write([log.row(number, i % 2, str(i), bytes(i)) for i in range(rows)]))
        row = {
            "account": f"u{number}",
            "peer": "p",
            "item": str(number),
            "at": time.time_ns() // 1000,  # since the test before deleted its rows
        }
        work.append(store.put_newest(SHOWN, row))
    lines = [Put({"at": float(i), "text": str(i)}) for i in range(1700)]
    work.append(store.batch(NEWEST, ("large",), lines, static={"owner": "a"}))
    work.append(store.batch(NEWEST, ("small",), lines[:3]))
    await asyncio.gather(*work)
    await store.batch(ITEMS, ("u3@a",), [Delete()])
    await store.delete(PROFILE, ("u3",))


@contextlib.asynccontextmanager
async def filled(source: Store, target: Store, now: Any, advance: Any) -> AsyncIterator[Installation]:
    await source.open(TABLES)
    await target.open([*TABLES, COPIES])
    await fill(source)
    yield Installation(source, Trouble(target), now, advance)
    await source.close()
    await target.close()


@pytest_asyncio.fixture
async def installation(tmp_path, clock):
    """From SQLite to SQLite."""
    source, target = (SqliteStore(place, now=clock) for place in (tmp_path / "a", ":memory:"))
    async with filled(source, target, clock, clock.advance) as made:
        yield made


@pytest_asyncio.fixture(params=["sqlite to sqlite", "sqlite to cassandra", "cassandra to sqlite"])
async def any_installation(request, tmp_path):
    """Between any two engines, of which not all can be told the time."""

    def make(engine: str, role: str) -> Store:
        if engine == "sqlite":
            return SqliteStore(tmp_path / role)
        return CassandraStore(request.getfixturevalue("keyspace").options)

    source, _, target = request.param.partition(" to ")
    async with filled(make(source, "a"), make(target, "b"), time.time, time.sleep) as made:
        yield made


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Pages so small that partitions go over several of them, and no pauses."""
    monkeypatch.setattr(transfer, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(transfer, "PAGE", PAGE)
    monkeypatch.setattr(comparison, "PAGE", PAGE)


def all_equal(found: dict[str, Findings]) -> bool:
    return all(findings.is_equal for findings in found.values())


# copying


async def test_everything_is_copied(any_installation):
    total = await any_installation.transfer().run()
    assert await any_installation.is_complete()
    found = await any_installation.compare()
    assert all_equal(found)
    assert sum(findings.entries for findings in found.values()) == total > 3000
    whats = [what for what, *_ in any_installation.progress.stages]
    assert whats == ["counting", "copying", "comparing", "looking for more in the target"]
    assert any_installation.progress.stages[1] == ["copying", total, total]


async def test_the_ends_are_copied(installation):
    await installation.transfer().run()
    installation.advance(200)
    assert await installation.is_complete()
    assert all_equal(await installation.compare())
    installation.advance(6000)
    assert await installation.is_complete()
    assert len((await installation.target.scan(SHORT, ("u1",))).rows) < 3


async def test_what_the_copy_kept_for_itself_goes(installation):
    await installation.transfer().run()
    assert (await installation.target.dump(COPIES)).entries
    await installation.transfer().forget()
    assert not (await installation.target.dump(COPIES)).entries


async def test_a_target_with_rows_is_refused(installation):
    await installation.target.put(PROFILE, {"account": "a", "card": b""})
    with pytest.raises(CommandError, match=r"has rows already \(table profile\)"):
        await installation.transfer().run()
    assert not (await installation.target.dump(COPIES)).entries


async def test_a_target_with_static_columns_only_is_refused(installation):
    await installation.target.batch(ITEMS, ("a",), [], static={"version": 1})
    with pytest.raises(CommandError, match=r"has rows already \(table items\)"):
        await installation.transfer().run()


async def test_a_target_that_is_being_filled_from_elsewhere_is_refused(installation):
    installation.target.good = 2
    with pytest.raises(StoreUnavailable):
        await installation.transfer().run()
    with pytest.raises(CommandError, match="is being filled from here, not from elsewhere"):
        await installation.transfer("elsewhere").run()


async def test_it_goes_on_after_any_error(any_installation):
    for good in (0, 1, 3, 2, 5):
        any_installation.target.good = good
        with pytest.raises(StoreUnavailable):
            await any_installation.transfer().run()
    any_installation.target.good = 10**9
    total = await any_installation.transfer().run()
    assert any_installation.target.restored < total + 5 * transfer.IN_FLIGHT * PAGE
    _, known, done = any_installation.progress.stages[-1]
    assert (known, done) == (total, total)
    assert await any_installation.is_complete()
    assert all_equal(await any_installation.compare())


async def test_it_goes_on_after_being_cut_off_anywhere(any_installation):
    chance = random.Random(7)
    for _ in range(25):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(chance.uniform(0, 0.06)):
                await any_installation.transfer().run()
    total = await any_installation.transfer().run()
    assert await any_installation.is_complete()
    assert all_equal(await any_installation.compare())
    assert any_installation.progress.stages[-3][1] == total


@pytest.mark.parametrize("error", [StoreUnavailable("gone"), StoreTimeout("late")])
async def test_a_store_that_fails_once_is_asked_again(installation, monkeypatch, error):
    failed = set()
    restore = installation.target._store.restore

    async def now_and_then(table, entries):
        if (table.name, entries[0].key) not in failed:
            failed.add((table.name, entries[0].key))
            raise error
        await restore(table, entries)

    monkeypatch.setattr(installation.target._store, "restore", now_and_then)
    await installation.transfer().run()
    assert await installation.is_complete()


async def test_a_table_declared_meanwhile_is_copied_too(installation):
    installation.target.good = 3
    with pytest.raises(StoreUnavailable):
        await installation.transfer(tables=TABLES[:2]).run()
    installation.target.good = 10**9
    await installation.transfer().run()
    assert await installation.is_complete()


async def test_an_empty_installation_is_copied(tmp_path):
    stores = [SqliteStore(tmp_path / name) for name in ("a", "b")]
    for store in stores:
        await store.open([*TABLES, COPIES])
    assert await Transfer(*stores, TABLES, name="x", progress=Silent(), now=lambda: 0.0).run() == 0
    for store in stores:
        await store.close()


# comparing


async def changed(installation: Installation) -> Findings:
    """What is found after a change, in the table ITEMS alone."""
    found = await installation.compare()
    items = found.pop("items")
    assert all_equal(found)
    return items


async def test_a_row_changed_in_the_source_is_found(any_installation):
    await any_installation.transfer().run()
    await any_installation.source.put(ITEMS, {"account": "u1@a", "contact": "c1@b", "name": "other"})
    items = await changed(any_installation)
    assert (items.missing, items.different, items.extra) == (0, 1, 0)
    assert items.examples == ["items ('u1@a', 'c1@b') differs in name"]


async def test_a_value_more_or_less_is_found(installation):
    await installation.transfer().run()
    await installation.source.put(ITEMS, {"account": "u1@a", "contact": "c1@b", "name": None})
    await installation.target.put(ITEMS, {"account": "u2@a", "contact": "c1@b", "rank": None})
    assert (await changed(installation)).different == 2


async def test_a_changed_static_column_is_found(installation):
    await installation.transfer().run()
    await installation.source.batch(ITEMS, ("alone1",), [], static={"version": 77})
    assert (await changed(installation)).examples == ["items ('alone1',) differs in version"]


async def test_a_row_added_to_the_source_is_found(installation):
    await installation.transfer().run()
    for account in ("u1@a", "nobody yet"):
        await installation.source.put(ITEMS, {"account": account, "contact": "new"})
    await installation.source.batch(ITEMS, ("static",), [], static={"version": 1})
    items = await changed(installation)
    assert (items.missing, items.different, items.extra) == (3, 0, 0)


@pytest.mark.parametrize("contact", ["", "c10", "c29@b!", "z"])
async def test_a_row_too_many_is_found(any_installation, contact):
    await any_installation.transfer().run()
    for account in ("u1@a", "u3@a", "alone1", "nobody yet"):
        await any_installation.target.put(ITEMS, {"account": account, "contact": contact})
    items = await changed(any_installation)
    assert (items.missing, items.different, items.extra) == (0, 0, 4)
    assert len(items.examples) == 4


async def test_rows_too_many_in_a_large_descending_partition_are_found(any_installation):
    await any_installation.transfer().run()
    for at in (-1.0, 500.5, 1e9):
        await any_installation.target.put(NEWEST, {"room": "large", "at": at})
    await any_installation.target.delete(NEWEST, ("large", 3.0))
    found = await any_installation.compare()
    newest = found.pop("newest")
    assert (newest.missing, newest.different, newest.extra) == (1, 0, 3)
    assert all_equal(found)


async def test_another_end_is_found(installation):
    await installation.transfer().run()
    for contact, ttl in (("c1@b", 9000), ("c5@b", None)):
        row = {"account": "u1@a", "contact": contact, "name": contact[1], "rank": int(contact[1])}
        await installation.target.put(ITEMS, row, ttl=ttl)
    items = await changed(installation)
    assert (items.missing, items.different, items.extra) == (0, 2, 0)
    assert items.examples[0].endswith("ends at another time")


async def test_what_ends_in_a_hundred_years_may_never_end(installation):
    await installation.transfer().run()
    await installation.source.put(ITEMS, {"account": "u1@a", "contact": "x"}, ttl=3e9)
    await installation.target.put(ITEMS, {"account": "u1@a", "contact": "x"})
    assert (await changed(installation)).is_equal


async def test_what_ends_meanwhile_is_no_difference(installation):
    await installation.transfer().run()
    await installation.source.put(ITEMS, {"account": "u1@a", "contact": "x"}, ttl=LIFE_SECONDS - 1)
    await installation.target.put(ITEMS, {"account": "u2@a", "contact": "x"}, ttl=LIFE_SECONDS - 1)
    await installation.target.put(ITEMS, {"account": "new", "contact": "x"}, ttl=LIFE_SECONDS - 1)
    assert (await changed(installation)).is_equal


async def test_an_empty_target_lacks_everything(installation):
    found = await installation.compare()
    assert all(findings.missing == findings.entries > 0 for findings in found.values())
    assert all(len(findings.examples) == 5 for findings in found.values())


async def test_a_target_of_an_empty_source_has_everything_too_much(tmp_path):
    source, target = (SqliteStore(tmp_path / name) for name in ("a", "b"))
    for store in (source, target):
        await store.open(TABLES)
    await fill(target)
    found = await Comparison(source, target, progress=Silent(), now=lambda: 0.0).run(TABLES, 0)
    assert sum(findings.extra for findings in found) > 3000
    for store in (source, target):
        await store.close()
