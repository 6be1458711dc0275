"""Tables of a plugin that is not loaded any more: the store knows whom they are about, so they are exported,
moved and erased like all others.
"""

import io
import json
import sqlite3
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stores import new_store

from xmppd.admin.commands import Caller, Download
from xmppd.store.sqlite.store import SqliteStore
from xmppd.testing import World

ZOE, ADMIN = "zoe@localhost", Caller("socket", "root")
DIARY = """
from xmppd.plugin import Person, Plugin, Table, Through, nobody

class Diary(Plugin):
    '''Keeps what it is told.'''
    numbers = Table(partition=('account',), columns={'uid': 'int'}, person=Person('account'))
    days = Table(partition=('uid',), cluster=('day',), columns={'uid': 'int', 'day': 'int'},
        person=Person('uid', Through('diary_numbers', ('uid',))))
    lines = Table(partition=('uid', 'day'), cluster=('line',),
        columns={'uid': 'int', 'day': 'int', 'line': 'int', 'text': 'text'},
        person=Person('uid', Through('diary_numbers', ('uid',), 'diary_days')))
    cards = Table(partition=('account',), columns={'text': 'text', 'key': 'text'},
        person=Person('account', secret={'key': 'a key'}))
    seen = Table(partition=('place',), cluster=('moment',), columns={'moment': 'int', 'who': 'text'},
        person=Person(mentions={'who': 'masked'}))
    met = Table(partition=('place',), cluster=('who',), columns={'times': 'int'},
        person=Person(mentions={'who': 'deleted'}))
"""


async def lived(path: Path, folder: Path) -> None:
    """A server that has the plugin, and does something by it."""
    (folder / "diary.py").write_text(DIARY)
    async with World(
        accounts=("zoe", "bob"), plugins=("diary",), plugin_folders=(folder,), store=new_store(path)
    ) as world:
        diary = world.plugin("diary")
        for uid, name in ((7, "zoe"), (8, "bob")):
            account = f"{name}@localhost"
            await diary.numbers.put({"account": account, "uid": uid})
            await diary.days.put({"uid": uid, "day": 1})
            await diary.lines.put({"uid": uid, "day": 1, "line": 1, "text": f"of {name}"})
            await diary.cards.put({"account": account, "text": f"card of {name}", "key": "hidden-key"})
            await diary.seen.put({"place": "inn", "moment": uid, "who": f"{account}, at noon"})
            await diary.met.put({"place": "inn", "who": account, "times": 2})


async def rows_of(world: World, name: str) -> list[dict[str, Any]]:
    """All rows of a table, as it is in the store."""
    store = world.app.store
    table = next(it for it in await store.stored_tables() if it.name == f"diary_{name}")
    found = (await store.dump(table)).entries
    return [{**dict(zip(table.key, it.key, strict=True)), **it.values} for it in found]


@pytest.mark.asyncio
async def test_they_are_in_the_file_of_a_person(tmp_path: Path) -> None:
    await lived(tmp_path / "store", tmp_path)
    async with World(accounts=(), store=new_store(tmp_path / "store")) as world:
        file = await world.app.commands.call("account export", {"account": ZOE})
        assert isinstance(file, Download)
        data = b"".join([piece async for piece in file.pieces])
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            found = {name: json.loads(opened.read(name)) for name in opened.namelist()}
        assert [row["text"] for row in found["tables/diary_lines.json"]] == ["of zoe"]
        assert found["tables/diary_cards.json"] == [{"account": ZOE, "text": "card of zoe"}]
        assert found["schema.json"]["files"]["tables/diary_cards.json"]["not given"] == {"key": "a key"}
        assert [row["moment"] for row in found["mentions/diary_seen.json"]] == [7]
        assert found["manifest.json"]["not looked at"] == []


@pytest.mark.asyncio
async def test_they_are_erased_with_it(tmp_path: Path) -> None:
    await lived(tmp_path / "store", tmp_path)
    async with World(accounts=(), store=new_store(tmp_path / "store")) as world:
        await world.app.commands.call("account erase", {"account": ZOE}, ADMIN)
        await world.settle()
        receipt = await world.app.commands.call("account receipt", {"account": ZOE})
        assert (receipt["state"], receipt["not_looked_at"]) == ("done", [])
        became = {(row["table"], row["became"]): row["rows"] for row in receipt["rows"]}
        for name in ("numbers", "days", "lines", "cards", "met"):
            assert became[f"diary_{name}", "deleted"] == 1
            assert len(await rows_of(world, name)) == 1
        assert became["diary_seen", "masked"] == 1
        texts = [row["who"] for row in await rows_of(world, "seen")]
        assert texts[1] == "bob@localhost, at noon"
        assert texts[0].startswith("erased-") and texts[0].endswith("@localhost, at noon")


@pytest.mark.asyncio
async def test_they_go_when_an_account_is_removed_and_move_when_it_is_renamed(tmp_path: Path) -> None:
    await lived(tmp_path / "store", tmp_path)
    async with World(accounts=(), store=new_store(tmp_path / "store")) as world:
        await world.app.commands.call("user remove", {"account": "bob@localhost"}, ADMIN)
        assert [row["text"] for row in await rows_of(world, "cards")] == ["card of zoe"]
        assert [row["text"] for row in await rows_of(world, "lines")] == ["of zoe"]
        await world.app.commands.call("account rename", {"old": ZOE, "new": "zoey@localhost"}, ADMIN)
        await world.settle()
        assert [row["account"] for row in await rows_of(world, "cards")] == ["zoey@localhost"]
        assert [row["account"] for row in await rows_of(world, "numbers")] == ["zoey@localhost"]


@pytest.mark.asyncio
async def test_a_plugin_that_comes_back_has_its_own_declaration(tmp_path: Path) -> None:
    await lived(tmp_path / "store", tmp_path)
    async with World(accounts=(), store=new_store(tmp_path / "store")) as world:
        store = world.app.store
        await world.app.commands.call("account export", {"account": ZOE})
        old = next(it for it in await store.stored_tables() if it.name == "diary_cards")
        new = replace(old, columns={**old.columns, "new": "text"})
        await store.open([new])
        await store.put(new, {"account": ZOE, "new": "as a later version of the plugin has it"})
        assert new in await store.stored_tables()
        await world.app.commands.call("account erase", {"account": ZOE}, ADMIN)
        await world.settle()
        assert await store.get(new, (ZOE,)) is None


@pytest.mark.asyncio
@pytest.mark.own_engine
async def test_where_nobody_wrote_down_whom_they_are_about_they_are_named(tmp_path: Path) -> None:
    path = tmp_path / "store"
    await lived(path, tmp_path)
    with sqlite3.connect(path) as database:
        database.execute(
            "UPDATE _schema SET declaration = json_remove(declaration, '$.person') WHERE name = 'diary_cards'"
        )
        database.execute('DROP TABLE "diary_met"')
    database.close()
    async with World(accounts=(), store=SqliteStore(path)) as world:
        await world.app.commands.call("account erase", {"account": ZOE}, ADMIN)
        await world.settle()
        receipt = await world.app.commands.call("account receipt", {"account": ZOE})
        assert receipt["not_looked_at"] == ["diary_cards"], "one that was dropped is nobody's trouble"
        assert len(await rows_of(world, "lines")) == 1
