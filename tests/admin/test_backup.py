"""Backups of the store: made while the server goes on, looked through, put back, compared."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from xmppd.backups import BackupOffice, restore_store, sum_of
from xmppd.config import made_of
from xmppd.errors import CommandError
from xmppd.store.sqlite.snapshot import damage
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Stored, Table
from xmppd.testing import World

NOTES = Table("notes", partition=("account",), cluster=("id",), columns={"id": "int", "text": "text"})


def here(folder, **settings):
    return made_of({"server": {"data_folder": str(folder)}, **settings})


async def filled(path, count):
    """A store of that many notes, still open."""
    store = SqliteStore(path)
    await store.open([NOTES])
    await store.put_many(
        NOTES, [{"account": "a", "id": number, "text": "x" * 100} for number in range(count)]
    )
    return store


async def count(path):
    store = SqliteStore(path)
    await store.open([NOTES])
    rows = (await store.scan(NOTES, ("a",))).rows
    await store.close()
    return len(rows)


async def saved(download):
    return b"".join([piece async for piece in download.pieces])


# making one


@pytest.mark.asyncio
async def test_a_snapshot_is_of_one_moment_while_others_write(tmp_path):
    store = await filled(tmp_path / "live.sqlite", 1000)
    stop = asyncio.Event()

    async def write():
        number = 1000
        while not stop.is_set():
            await store.put(NOTES, {"account": "a", "id": number, "text": "later"})
            number += 1
        return number

    writing = asyncio.create_task(write())
    await store.snapshot(tmp_path / "copy.sqlite")
    stop.set()
    written = await writing
    await store.close()
    assert (tmp_path / "copy.sqlite").stat().st_mode & 0o777 == 0o600
    assert damage(tmp_path / "copy.sqlite") == ""
    assert 1000 <= await count(tmp_path / "copy.sqlite") <= written == await count(tmp_path / "live.sqlite")


@pytest.mark.asyncio
async def test_a_snapshot_that_is_given_up_leaves_nothing(tmp_path):
    store = await filled(tmp_path / "live.sqlite", 20_000)
    taking = asyncio.create_task(store.snapshot(tmp_path / "copy.sqlite"))
    await asyncio.sleep(0.001)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert not (tmp_path / "copy.sqlite").exists()
    assert len((await store.scan(NOTES, ("a",), limit=5)).rows) == 5
    await store.close()


@pytest.mark.asyncio
async def test_what_is_there_is_not_overwritten(tmp_path):
    store = await filled(tmp_path / "live.sqlite", 1)
    (tmp_path / "copy.sqlite").write_text("mine")
    with pytest.raises(Exception, match="File exists"):
        await store.snapshot(tmp_path / "copy.sqlite")
    assert (tmp_path / "copy.sqlite").read_text() == "mine"
    await store.close()


@pytest.mark.asyncio
async def test_the_command_gives_a_whole_database_and_leaves_no_file(tmp_path: Path) -> None:
    async with World(store=SqliteStore(":memory:")) as world:
        folder = world.config.server.data_folder
        (folder / "backup-0.part").write_text("left by who was killed a minute ago")
        download = await world.app.commands.call("store backup", {})
        assert download.name.endswith("Z.sqlite")
        path = tmp_path / "backup.sqlite"
        path.write_bytes(await saved(download))
        assert [file.name for file in folder.glob("backup-*")] == ["backup-0.part"]
        accounts = sqlite3.connect(path).execute("SELECT count(*) FROM account").fetchone()
        assert accounts == (3,)


@pytest.mark.asyncio
async def test_cassandra_has_a_way_of_its_own(tmp_path):
    config = here(tmp_path, store={"engine": "cassandra"})
    office = BackupOffice(lambda: config, SqliteStore(":memory:"), lambda: 0.0)
    with pytest.raises(CommandError, match="nodetool snapshot"):
        await office.backup()


# putting one back


@pytest.mark.asyncio
async def test_a_backup_takes_the_place_of_a_database_that_is_kept(tmp_path):
    target = tmp_path / "xmppd.sqlite"
    store = await filled(target, 3)
    await store.snapshot(tmp_path / "backup.sqlite")
    await store.put(NOTES, {"account": "a", "id": 3, "text": "only in the log of the database"})
    store._reader = None  # as after kill -9: the log is there, and nobody has the files open
    log = target.with_name("xmppd.sqlite-wal").read_bytes()
    await store.close()
    target.with_name("xmppd.sqlite-wal").write_bytes(log)
    done = await asyncio.to_thread(restore_store, here(tmp_path), tmp_path / "backup.sqlite")
    assert done["restored"] == str(target)
    assert target.stat().st_mode & 0o777 == 0o600
    assert await count(target) == 3
    assert await count(done["before"]) == 4
    again = await asyncio.to_thread(restore_store, here(tmp_path), tmp_path / "backup.sqlite")
    assert again["before"] != done["before"]


@pytest.mark.asyncio
async def test_into_an_empty_folder(tmp_path):
    store = await filled(tmp_path / "live.sqlite", 3)
    await store.snapshot(tmp_path / "backup.sqlite")
    await store.close()
    done = restore_store(here(tmp_path / "new"), tmp_path / "backup.sqlite")
    assert done == {"restored": str(tmp_path / "new" / "xmppd.sqlite"), "before": None}
    assert await count(tmp_path / "new" / "xmppd.sqlite") == 3


@pytest.mark.asyncio
async def test_a_damaged_database_is_put_aside_as_it_is(tmp_path):
    def head(path):
        return Path(path).read_bytes()[:14]

    store = await filled(tmp_path / "live.sqlite", 3)
    await store.snapshot(tmp_path / "backup.sqlite")
    await store.close()
    (tmp_path / "xmppd.sqlite").write_bytes(b"not a database at all" * 1000)
    done = restore_store(here(tmp_path), tmp_path / "backup.sqlite")
    assert head(done["before"]) == b"not a database"
    assert await count(tmp_path / "xmppd.sqlite") == 3


@pytest.mark.asyncio
async def test_what_is_no_backup_is_refused_and_nothing_is_touched(tmp_path):
    store = await filled(tmp_path / "xmppd.sqlite", 3)
    whole = tmp_path / "backup.sqlite"
    await store.snapshot(whole)
    await store.close()
    half = tmp_path / "half.sqlite"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    other = tmp_path / "other.sqlite"
    sqlite3.connect(other).execute("CREATE TABLE mine (x)")
    for file, reason in (
        (half, "malformed|damaged"),
        (other, "no database of this server"),
        (tmp_path, "no file"),
    ):
        with pytest.raises(CommandError, match=reason):
            restore_store(here(tmp_path), file)
    with pytest.raises(CommandError, match="store copy"):
        restore_store(here(tmp_path, store={"engine": "cassandra"}), whole)
    assert await count(tmp_path / "xmppd.sqlite") == 3


@pytest.mark.asyncio
async def test_a_database_that_somebody_has_open_is_left_alone(tmp_path):
    store = await filled(tmp_path / "xmppd.sqlite", 3)
    await store.snapshot(tmp_path / "backup.sqlite")
    with pytest.raises(CommandError, match="another program has"):
        await asyncio.to_thread(restore_store, here(tmp_path), tmp_path / "backup.sqlite")
    assert len((await store.scan(NOTES, ("a",))).rows) == 3
    await store.close()
    assert await count(tmp_path / "xmppd.sqlite") == 3


# comparing


async def digested(world):
    rows, after, calls = [], "", 0
    while after is not None:
        page = await world.app.commands.call("store digest", {"after": after})
        rows += page["rows"]
        after = page["after"]
        calls += 1
    return {row["table"]: row for row in rows}, calls


@pytest.mark.asyncio
async def test_a_digest_tells_of_each_table_and_changes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World() as world:
        first, _ = await digested(world)
        assert set(first) == {table.name for table in world.app.tables()}
        assert first["account"]["entries"] == 3
        monkeypatch.setattr("xmppd.backups.SLICE_SECONDS", 0.0)
        monkeypatch.setattr("xmppd.backups.ROWS", 1)
        await world.app.commands.call(
            "roster add", {"account": "alice@localhost", "contact": "bob@localhost"}
        )
        second, calls = await digested(world)
        assert second["account"] == first["account"]
        assert second["roster"] != first["roster"]
        assert calls > 3  # an entry each, at the least


@pytest.mark.asyncio
async def test_a_slice_goes_on_where_the_one_before_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World() as world:
        whole, _ = await digested(world)
        monkeypatch.setattr("xmppd.backups.ROWS", 1)
        sliced, _ = await digested(world)
        assert sliced == whole


@pytest.mark.asyncio
@pytest.mark.parametrize("token", ["x", "e30=", "W10=", "WyJhIiwgbnVsbCwgMCwgMF0="])
async def test_a_token_that_is_none_is_refused(token: str) -> None:
    async with World() as world:
        with pytest.raises(CommandError, match="not a token"):
            await world.app.commands.call("store digest", {"after": token})


def test_a_sum_knows_no_order_and_no_end_of_life():
    one = Stored(("a", 1), {"x": "1", "y": None}, None)
    assert sum_of(one) == sum_of(Stored(("a", 1), {"x": "1"}, 100.0))
    assert sum_of(Stored(("a",), {"x": 1, "y": b"2"})) == sum_of(Stored(("a",), {"y": b"2", "x": 1}))
    assert len({sum_of(one), sum_of(Stored(("a", 2), {"x": "1"})), sum_of(Stored(("a", 1), {"x": "2"}))}) == 3
