"""What only SQLite has: a file, a thread, groups of writes, and trouble with all three."""

import asyncio
import contextlib
import itertools
import os
import resource
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from patience import PATIENCE

from xmppd.core.begun import begun
from xmppd.errors import StoreBug, StoreError, StoreUnavailable
from xmppd.store.sqlite import writer as writer_module
from xmppd.store.sqlite.layout import TOGETHER
from xmppd.store.sqlite.statements import ALIKE, PIECE
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.sqlite.writer import GROUP, MANY
from xmppd.store.table import Put, Table

NOTES = Table("notes", ("owner",), ("number",), {"number": "int", "body": "blob"}, static={"count": "int"})
TOKENS = Table("tokens", ("owner",), columns={"value": "text"}, ttl=60)

Opening = Callable[..., contextlib.AbstractAsyncContextManager[SqliteStore]]


@pytest.fixture
def opening(path: Path) -> Opening:
    """A store on the file of this test, open inside `async with`."""

    @contextlib.asynccontextmanager
    async def open_store(**how: object) -> AsyncIterator[SqliteStore]:
        store = SqliteStore(path, **how)
        await store.open([NOTES, TOKENS])
        try:
            yield store
        finally:
            await store.close()

    return open_store


def note(number: int, body: bytes = b"") -> dict[str, object]:
    return {"owner": "a", "number": number, "body": body}


async def numbers(store: SqliteStore) -> list[int]:
    return [row["number"] for row in (await store.scan(NOTES, ("a",))).rows]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program is writing."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.rollback()
        other.close()


# groups


@pytest.mark.asyncio
async def test_concurrent_writes_share_transactions(opening):
    async with opening() as store:
        before = store.stats
        await asyncio.gather(*(store.put(NOTES, note(n)) for n in range(1000)))
        after = store.stats
        assert after.writes - before.writes == 1000
        assert after.groups - before.groups < 20
        assert after.pending == 0
        assert await numbers(store) == list(range(1000))


@pytest.mark.asyncio
async def test_a_group_is_bounded_by_its_statements(opening):
    async with opening() as store:
        writer = store.writer(NOTES, ("owner", "number"))
        await store.write([writer.row("a", 0)])
        for rows, calls, groups in (
            (1, 2 * GROUP, 2),
            (ALIKE, GROUP, 1),
            (ALIKE, GROUP + 1, 2),
            (ALIKE + 1, GROUP, 2),
            (ALIKE * GROUP, 3, 3),
        ):
            before = store.stats.groups
            await asyncio.gather(
                *(store.write([writer.row(f"a{call}", n) for n in range(rows)]) for call in range(calls))
            )
            assert store.stats.groups - before == groups


@pytest.mark.asyncio
@pytest.mark.parametrize(("before", "groups"), [(MANY, 2), (MANY - 1, 3)])
async def test_what_comes_behind_a_large_group_gathers(opening, monkeypatch, before, groups):
    monkeypatch.setattr(writer_module, "LOOK", 600.0)  # closing ends it
    async with opening() as store:
        writer = store.writer(NOTES, ("owner", "number"))
        await store.write([writer.row("a", 0)])
        began = store.stats.groups
        first = [store.write([writer.row("b", number)]) for number in range(before)]
        await asyncio.sleep(0)
        waiting = store.write([writer.row("c", 1)])
        await asyncio.gather(*first)
        for _ in range(3):
            await asyncio.sleep(0)
        last = store.write([writer.row("c", 2)])
        await store.close()
        assert waiting.done()
        assert last.done()
        assert store.stats.groups - began == groups


@pytest.mark.asyncio
async def test_who_is_told_writes_again_in_the_same_group_as_those_who_waited(opening, monkeypatch):
    monkeypatch.setattr(writer_module, "LOOK", 600.0)  # nothing else ends it
    async with opening() as store:
        writer = store.writer(NOTES, ("owner", "number"))
        await store.write([writer.row("a", 0)])

        async def twice(owner: str) -> None:
            for number in range(2):
                await store.write([writer.row(owner, number)])

        began = store.stats.groups
        first = [asyncio.ensure_future(twice(f"b{number}")) for number in range(MANY)]
        for _ in range(3):
            await asyncio.sleep(0)
        waiting = [store.write([writer.row("c", number)]) for number in range(MANY)]
        await asyncio.gather(*waiting, *first)
        assert store.stats.groups - began == 2


@pytest.mark.asyncio
async def test_nothing_gathers_behind_a_single_large_job(opening, monkeypatch):
    monkeypatch.setattr(writer_module, "LOOK", 600.0)
    async with opening() as store:
        writer = store.writer(NOTES, ("owner", "number"))
        for owner in "cba":
            await store.write([writer.row(owner, number) for number in range(ALIKE * MANY)])
        assert await numbers(store) == list(range(ALIKE * MANY))


@pytest.mark.asyncio
async def test_it_gathers_no_longer_than_more_comes(opening):
    async with opening() as store:
        writer = store.writer(NOTES, ("owner", "number"))
        for number in range(0, 9 * GROUP, 3 * GROUP):
            some = [store.write([writer.row("a", n)]) for n in range(number, number + 3 * GROUP)]
            await asyncio.gather(*some)
        assert await numbers(store) == list(range(9 * GROUP))


@pytest.mark.asyncio
async def test_a_large_partition_is_deleted_in_pieces_between_which_others_write(opening):
    async with opening() as store:
        writer = store.writer(NOTES, ("owner", "number"))
        await store.write([writer.row("a", number) for number in range(10 * PIECE + 1)])
        deletion = asyncio.ensure_future(store.delete(NOTES, ("a",)))
        left = []
        while not deletion.done():
            await store.put(NOTES, {"owner": "b", "number": 1})
            left.append(len(await numbers(store)))
        await deletion
        assert left == sorted(left, reverse=True)
        assert max(a - b for a, b in itertools.pairwise([10 * PIECE + 1, *left, 0])) <= 2 * PIECE
        assert await numbers(store) == []


@pytest.mark.asyncio
async def test_writes_are_committed_in_the_order_of_the_calls(opening):
    ended: list[int] = []
    async with opening() as store:
        writer = store.writer(NOTES, ("owner", "number", "body"))
        writes = [store.write([writer.row("a", 1, str(number).encode())]) for number in range(500)]
        for number, write in enumerate(writes):
            write.add_done_callback(lambda _, number=number: ended.append(number))
        await asyncio.gather(*writes)
        assert ended == list(range(500))
        assert (await store.get(NOTES, ("a", 1)))["body"] == b"499"


@pytest.mark.asyncio
@pytest.mark.parametrize("place", [0, TOGETHER + 1, 2 * TOGETHER])
async def test_of_many_rows_none_is_written_if_one_fails(opening, path, place):
    async with opening() as store:
        writer = store.writer(NOTES, ("owner", "number"))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute(
                "CREATE TRIGGER t BEFORE INSERT ON notes WHEN NEW.number = 1313 "
                "BEGIN SELECT RAISE(FAIL, 'unlucky'); END"
            )
        many = [("a", 1313 if number == place else number) for number in range(2 * TOGETHER + 3)]
        writes = store.write([writer.rows(many)]), store.write([writer.row("a", 77)])
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StoreBug, bool]
        assert await numbers(store) == [77]


@pytest.mark.asyncio
async def test_a_write_that_fails_fails_alone(opening, path):
    async with opening() as store:
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute(
                "CREATE TRIGGER t BEFORE INSERT ON notes WHEN NEW.number = 13 "
                "BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        alone = [store.put(NOTES, note(n)) for n in range(10, 20)]
        batches = [
            store.batch(
                NOTES,
                (owner,),
                [Put({"number": n}) for n in range(start, start + 5)],
                static={"count": 1},
                expect={"count": None},
            )
            for owner, start in (("b", 0), ("c", 10), ("d", 20))
        ]
        outcomes = await asyncio.gather(*batches, *alone, return_exceptions=True)
        refused = [place for place, outcome in enumerate(outcomes) if isinstance(outcome, StoreBug)]
        assert refused == [1, 6]
        others = [outcome for outcome in outcomes if not isinstance(outcome, StoreBug)]
        assert others == [True] * 2 + [None] * 9
        assert await numbers(store) == [10, 11, 12, 14, 15, 16, 17, 18, 19]
        assert [len((await store.scan(NOTES, (owner,))).rows) for owner in "bcd"] == [5, 0, 5]
        assert await store.get_static(NOTES, ("c",)) is None


@pytest.mark.asyncio
async def test_writes_that_come_during_a_commit_share_the_next(opening, path):
    async with opening() as store:
        with locked(path):
            tasks = []
            for number in range(20):
                tasks.append(asyncio.create_task(store.put(NOTES, note(number))))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            before = store.stats.groups
        await asyncio.gather(*tasks)
        assert store.stats.groups - before <= 3


@pytest.mark.asyncio
async def test_a_cancelled_task_harms_nobody(opening):
    async with opening() as store:
        tasks = [asyncio.create_task(store.put(NOTES, note(n))) for n in range(200)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
        assert outcomes[1::2] == [None] * 100
        await store.put(NOTES, note(1000))
        assert store.stats.pending == 0
        assert set(range(1, 200, 2)) <= set(await numbers(store))


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_no_write_is_starved_by_a_loop_that_never_rests(opening, new_loop):
    async def write_under_load() -> None:
        loop = asyncio.get_running_loop()
        is_done = False

        def spin() -> None:
            end = time.perf_counter() + 0.00005
            while time.perf_counter() < end:
                pass
            if not is_done:
                loop.call_soon(spin)

        async def write(store: SqliteStore, first: int) -> None:
            for number in range(first, first + 300):
                async with asyncio.timeout(PATIENCE):
                    await store.put(NOTES, note(number))

        async with opening() as store:
            spin()
            try:
                await asyncio.gather(*(write(store, first) for first in range(0, 3000, 300)))
            finally:
                is_done = True

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(write_under_load())


# bounds


@pytest.mark.asyncio
async def test_writers_wait_for_room(opening):
    async with opening(bound=4) as store:
        await asyncio.gather(*(store.put(NOTES, note(n)) for n in range(100)))
        assert await numbers(store) == list(range(100))


@pytest.mark.asyncio
async def test_writers_without_room_are_turned_away_in_time(opening, path):
    async with opening(bound=4, patience=0.2) as store:
        with locked(path):
            outcomes = await asyncio.gather(
                *(store.put(NOTES, note(n)) for n in range(20)), return_exceptions=True
            )
        assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}
        assert any("too many writes" in str(outcome) for outcome in outcomes)
        assert await numbers(store) == []
        await asyncio.gather(*(store.put(NOTES, note(n)) for n in range(20)))
        assert await numbers(store) == list(range(20))


@pytest.mark.asyncio
async def test_who_gives_up_waiting_for_room_takes_none(opening, path):
    async with opening(bound=2) as store:
        with locked(path):
            tasks = [asyncio.create_task(store.put(NOTES, note(n))) for n in range(8)]
            await asyncio.sleep(0)
            for task in tasks[2:7]:
                task.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await numbers(store) == [0, 1, 7]
        await asyncio.gather(*(store.put(NOTES, note(n)) for n in range(10, 20)))
        assert await numbers(store) == [0, 1, 7, *range(10, 20)]


@pytest.mark.asyncio
async def test_who_is_cancelled_with_room_in_hand_gives_it_back(opening):
    async with opening(bound=1) as store:
        waiting: asyncio.Task[None]

        async def write_and_cancel() -> None:
            await store.put(NOTES, note(1))
            waiting.cancel()

        first = asyncio.create_task(write_and_cancel())
        waiting = asyncio.create_task(store.put(NOTES, note(2)))
        await asyncio.gather(first, waiting, return_exceptions=True)
        async with asyncio.timeout(PATIENCE):
            await store.put(NOTES, note(3))
        assert await numbers(store) == [1, 3]


async def in_callback(make: Callable[[], object]) -> object:
    """What is made in a callback of the loop, where there is no task."""
    made = asyncio.get_running_loop().create_future()

    def call() -> None:
        try:
            made.set_result(make())
        except Exception as error:  # noqa: BLE001 - whatever it is
            made.set_exception(error)

    asyncio.get_running_loop().call_soon(call)
    return await made


@pytest.mark.asyncio
async def test_one_may_wait_for_room_outside_of_a_task(opening):
    async with opening(bound=1) as store:
        for number in range(3):
            first = asyncio.create_task(store.put(NOTES, note(2 * number)))
            await asyncio.sleep(0)
            waiting = await in_callback(lambda n=number: begun(store.put(NOTES, note(2 * n + 1))))
            await first
            await waiting
        assert await numbers(store) == [0, 1, 2, 3, 4, 5]


@pytest.mark.asyncio
async def test_who_gives_up_outside_of_a_task_takes_no_room_with_him(opening, path):
    async with opening(bound=1, patience=0.3) as store:
        with locked(path):
            first = asyncio.create_task(store.put(NOTES, note(0)))
            await asyncio.sleep(0)
            late = await in_callback(lambda: begun(store.put(NOTES, note(1))))
            gone = store.put(NOTES, note(2))
            assert gone.send(None) is not None
            gone.close()
            with pytest.raises(StoreUnavailable):
                await late
        await asyncio.gather(first, return_exceptions=True)
        await store.put(NOTES, note(3))
        assert 3 in await numbers(store)


# opening and closing


@pytest.mark.asyncio
async def test_closing_finishes_what_was_accepted(opening, path):
    store = SqliteStore(path)
    await store.open([NOTES])
    tasks = [asyncio.create_task(store.put(NOTES, note(n))) for n in range(500)]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.gather(*tasks) == [None] * 500
    assert [file.name for file in path.parent.iterdir()] == ["store.db"]
    assert "store-writer" not in {thread.name for thread in threading.enumerate()}
    async with opening() as store:
        assert await numbers(store) == list(range(500))


@pytest.mark.asyncio
async def test_closing_turns_away_who_waits_for_room(opening, path):
    store = SqliteStore(path, bound=10, patience=600)
    await store.open([NOTES])
    tasks = [asyncio.create_task(store.put(NOTES, note(n))) for n in range(100)]
    await asyncio.sleep(0)
    await store.close()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    written = [number for number, outcome in enumerate(outcomes) if outcome is None]
    assert {type(outcome) for outcome in outcomes} == {type(None), StoreUnavailable}
    async with opening() as store:
        assert await numbers(store) == written


@pytest.mark.asyncio
async def test_the_file_is_for_its_owner_only(opening, path):
    async with opening() as store:
        await store.put(NOTES, note(1))
        files = [path, Path(f"{path}-wal"), Path(f"{path}-shm")]
        assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 3


@pytest.mark.asyncio
async def test_a_path_may_have_any_characters(tmp_path):
    path = tmp_path / "a b?mode=memory#%41.db"
    store = SqliteStore(str(path))
    await store.open([NOTES])
    await store.put(NOTES, note(1))
    await store.close()
    assert path.stat().st_size > 0


@pytest.mark.asyncio
async def test_two_stores_may_use_one_file(opening):
    async with opening() as first, opening() as second:
        for number in range(20):
            await (first, second)[number % 2].put(NOTES, note(number))
            assert await numbers(first) == await numbers(second) == list(range(number + 1))

        async def increment(store: SqliteStore) -> None:
            while True:
                old = ((await store.get_static(NOTES, ("a",))) or {"count": None})["count"]
                newer = {"count": (old or 0) + 1}
                if await store.batch(NOTES, ("a",), [], static=newer, expect={"count": old}):
                    return

        await asyncio.gather(*(increment(store) for store in (first, second) * 10))
        assert await first.get_static(NOTES, ("a",)) == {"count": 20}


# trouble


@pytest.mark.asyncio
async def test_a_file_that_cannot_be_opened(tmp_path):
    path = tmp_path / "missing" / "store.db"
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable, match=str(path)):
        await store.open([NOTES])
    with pytest.raises(StoreUnavailable):
        await store.get(NOTES, ("a", 1))
    path.parent.mkdir()
    await store.open([NOTES])
    await store.put(NOTES, note(1))
    assert await numbers(store) == [1]
    await store.close()


@pytest.mark.asyncio
async def test_a_file_of_something_else_is_left_alone(path):
    text = b"This is a diary, and no database at all.\n" * 100
    path.write_bytes(text)
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable, match=r"store\.db is no SQLite database"):
        await store.open([NOTES])
    await store.close()
    assert path.read_bytes() == text


@pytest.mark.asyncio
async def test_a_damaged_file_is_reported(opening, path):
    async with opening() as store:
        await asyncio.gather(*(store.put(NOTES, note(n, os.urandom(1000))) for n in range(500)))
    with path.open("r+b") as file:
        file.seek(8 * 4096)
        file.write(b"\xff" * (path.stat().st_size - 8 * 4096))
    async with opening() as store:
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="damaged"):
                await store.scan(NOTES, ("a",))
        with pytest.raises(StoreUnavailable, match="damaged"):
            await store.delete(NOTES, ("a",))
        await store.put(TOKENS, {"owner": "a", "value": "other tables go on"})
        assert (await store.get(TOKENS, ("a",)))["value"] == "other tables go on"


@pytest.mark.asyncio
async def test_a_locked_file_is_waited_for(opening, path):
    async with opening(patience=0.05) as store:
        await store.put(NOTES, note(1))
        with locked(path):
            with pytest.raises(StoreUnavailable, match="locked by another program"):
                await store.put(NOTES, note(2))
            assert await numbers(store) == [1]
        await store.put(NOTES, note(3))
        assert await numbers(store) == [1, 3]
    async with opening(patience=30) as store:
        with locked(path):
            writing = asyncio.create_task(store.put(NOTES, note(4)))
            await asyncio.sleep(0)
            assert not writing.done()
        await writing
        assert await numbers(store) == [1, 3, 4]


@pytest.mark.asyncio
async def test_a_disk_without_room_loses_nothing_and_heals(opening, path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with opening() as store:
        await store.put(NOTES, note(1, b"kept"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            written = []
            for number in range(2, 100):
                with contextlib.suppress(StoreUnavailable):
                    await store.put(NOTES, note(number, bytes(100_000)))
                    written.append(number)
            outcomes = await asyncio.gather(
                *(store.put(NOTES, note(number, bytes(100_000))) for number in range(100, 140)),
                return_exceptions=True,
            )
            assert await numbers(store) == [1, *written]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert 0 < len(written) < 20
        assert all(isinstance(outcome, StoreError) for outcome in outcomes)
        await store.put(NOTES, note(200, bytes(2_000_000)))
        assert await numbers(store) == [1, *written, 200]
    async with opening() as store:
        assert await numbers(store) == [1, *written, 200]
        assert (await store.get(NOTES, ("a", 1)))["body"] == b"kept"


@pytest.mark.asyncio
async def test_handles_that_went_bad_are_replaced(opening, path):
    async with opening() as store:
        await store.put(NOTES, note(1))
        assert await numbers(store) == [1]
        nothing = os.open("/dev/null", os.O_RDONLY)
        for handle in Path("/proc/self/fd").iterdir():  # noqa: ASYNC240 - no disk is behind it
            with contextlib.suppress(FileNotFoundError):
                if str(handle.readlink()) == f"{path}-wal":
                    os.dup2(nothing, int(handle.name))
        os.close(nothing)
        with pytest.raises(StoreUnavailable):
            await store.put(NOTES, note(2))
        await store.put(NOTES, note(3))
        with pytest.raises(StoreUnavailable):
            await numbers(store)
        assert await numbers(store) == [1, 3]


# expired rows


def rows_in_file(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as other:
        (count,) = other.execute("SELECT count(*) FROM tokens").fetchone()
        return count


@pytest.mark.asyncio
async def test_expired_rows_leave_the_file_bit_by_bit(opening, path, clock):
    async with opening(now=clock) as store:
        await asyncio.gather(*(store.put(TOKENS, {"owner": f"o{n}", "value": ""}) for n in range(1200)))
        await store.put(TOKENS, {"owner": "stays", "value": ""}, ttl=3600)
        clock.advance(61)
        assert rows_in_file(path) == 1201
        await store.put(NOTES, note(1))
        assert 1 < rows_in_file(path) < 1201
        for number in range(5):
            await store.put(NOTES, note(number))
        assert rows_in_file(path) == 1
        assert store.stats.purged == 1200
        assert await store.get(TOKENS, ("stays",)) is not None
