"""An account renamed: all it has moves, its contacts follow, and nothing is lost on the way."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from leftovers import allowed, rows_with
from lived import HTTP, PLUGINS, lived
from stores import new_store

from xmppd.admin.commands import Caller
from xmppd.errors import CommandError, StoreUnavailable
from xmppd.rights.renaming import ROUNDS
from xmppd.store.table import Store
from xmppd.testing import Client, World

OLD, NEW = "zoe@localhost", "zoé.neu@localhost"
ADMIN = Caller("socket", "root")
MOVED = "{urn:xmpp:moved:1}moved"


def world_of(
    store: Store | None = None,
    rights: Mapping[str, Any] | None = None,
    accounts: tuple[str, ...] | None = None,
) -> World:
    settings = {**HTTP, "rights": dict(rights or {})}
    names = ("zoe", "bob", "carol", "dora") if accounts is None else accounts
    return World(accounts=names, plugins=PLUGINS, settings=settings, store=store)


async def renamed(world: World, old: str = OLD, new: str = NEW, **more: Any) -> dict[str, Any]:
    """Rename, and let it end."""
    found: dict[str, Any] = await world.app.commands.call(
        "account rename", {"old": old, "new": new, **more}, ADMIN
    )
    await world.settle()
    return found


async def all_rows(world: World, account: str) -> dict[str, int]:
    """How many rows an account has in each table."""
    persons = world.app.rights._persons
    counts = {table.name: await persons.count(table, account) for table in persons.owned}
    for name in ("account", "account_moved", "account_gone"):
        counts.pop(name)
    return {name: count for name, count in counts.items() if count}


async def roster_of(world: World, account: str) -> dict[str, str]:
    rows = await world.app.commands.call("roster show", {"account": account})
    return {row["contact"]: row["subscription"] for row in rows}


async def texts_in_archive(client: Client) -> list[str | None]:
    await client.send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>")
    found = await client.receive_all()
    return [it.text for stanza in found for it in stanza.iterfind(".//{jabber:client}body")]


@pytest.mark.asyncio
async def test_all_rows_move_and_contacts_follow() -> None:
    async with world_of() as world:
        await lived(world)
        await world.app.commands.call("roster add", {"account": "dora@localhost", "contact": OLD})
        before = await all_rows(world, OLD)
        assert len(before) > 14
        done = await renamed(world)
        assert (done["state"], done["rosters"]) == ("done", 3)
        assert await all_rows(world, OLD) == {}
        assert await all_rows(world, NEW) == before
        assert await roster_of(world, NEW) == {"bob@localhost": "both", "carol@localhost": "both"}
        assert await roster_of(world, "bob@localhost") == {NEW: "both"}
        assert await roster_of(world, "dora@localhost") == {NEW: "none"}
        blocked = await world.app.commands.call("block list", {"account": "bob@localhost"})
        assert [row["address"] for row in blocked] == [f"{NEW}/x"]
        zoe = world.connect()
        await zoe.open()
        assert (await zoe.authenticate("zoe")).tag.endswith("failure")
        zoe = await world.bind("zoé.neu")
        await zoe.send("<presence/>")
        told = await zoe.receive_all()
        assert [it.text for stanza in told for it in stanza.iterfind("{*}body")].count("waits") == 1
        assert {"from zoe", "to zoe", "waits"} <= set(await texts_in_archive(zoe))


@pytest.mark.asyncio
async def test_contacts_who_are_there_see_it_at_once() -> None:
    async with world_of() as world:
        call = world.app.commands.call
        await call("roster befriend", {"one": OLD, "other": "bob@localhost"})
        bob = await world.login("bob")
        await bob.ask("get", "<query xmlns='jabber:iq:roster'/>")
        zoe = await world.login("zoe", "phone")
        await bob.receive_all()
        await zoe.receive_all()
        await renamed(world)
        await zoe.expect_closed("conflict")
        told = await bob.receive_all()
        assert f"{OLD}/phone" in {it.get("from") for it in told if it.get("type") == "unavailable"}
        items = [
            (it.get("jid"), it.get("subscription")) for s in told for it in s.iterfind("{*}query/{*}item")
        ]
        assert sorted(items) == [(OLD, "remove"), (NEW, "both")]
        [statement] = [stanza for stanza in told if stanza.find(MOVED) is not None]
        assert (statement.get("type"), statement.get("from")) == ("unsubscribed", OLD)
        assert [it.text for it in statement.iter("{urn:xmpp:moved:1}new-jid")] == [NEW]
        again = await world.bind("zoé.neu", "phone")
        await again.send("<presence/>")
        shown = [it.get("from") for it in await bob.receive_all() if it.tag.endswith("presence")]
        assert f"{NEW}/phone" in shown
        assert bob.jid in {it.get("from") for it in await again.receive_all()}
        await again.send("<message to='bob@localhost' type='chat'><body>me again</body></message>")
        [message] = await bob.receive_all()
        assert message.get("from") == again.jid


@pytest.mark.asyncio
async def test_what_a_session_had_not_acknowledged_comes_under_the_new_name() -> None:
    async with world_of() as world:
        zoe, bob = await world.login("zoe", "phone"), await world.login("bob")
        await zoe.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        await zoe.receive_all()
        await bob.send(f"<message to='{OLD}' type='chat'><body>not acknowledged</body></message>")
        await renamed(world)
        assert [it for it in await bob.receive_all() if it.get("type") == "error"] == []
        again = await world.bind("zoé.neu")
        await again.send("<presence/>")
        told = [it.text for stanza in await again.receive_all() for it in stanza.iterfind("{*}body")]
        assert told.count("not acknowledged") == 1


@pytest.mark.asyncio
async def test_who_writes_to_the_old_address_is_told_the_new_one_if_he_is_a_contact() -> None:
    async with world_of(rights={"moved_days": 10}) as world:
        await world.app.commands.call("roster befriend", {"one": OLD, "other": "bob@localhost"})
        await renamed(world)
        bob, dora = await world.login("bob"), await world.login("dora")
        await bob.receive_all()
        uri = "xmpp:zo%C3%A9.neu@localhost"
        for client, is_told in ((bob, True), (dora, False)):
            for stanza in (
                f"<message to='{OLD}' type='chat' id='1'><body>hi</body></message>",
                f"<iq to='{OLD}' type='get' id='2'><query xmlns='jabber:iq:version'/></iq>",
            ):
                await client.send(stanza)
                answers = await client.receive_all()
                [answer] = [it for it in answers if it.get("id") in ("1", "2")]
                gone = answer.find("{*}error/{*}gone")
                assert (gone is not None and gone.text == uri) is is_told
                assert (answer.find("{*}error/{*}service-unavailable") is None) is is_told
        with pytest.raises(CommandError, match="its old name is not free yet"):
            await world.app.commands.call("user add", {"account": OLD, "password": "secret"})
        world.clock.seconds += 11 * 86_400
        await world.advance(31)
        bob = await world.login("bob", "later")
        await bob.send(f"<message to='{OLD}' type='chat' id='1'><body>hi</body></message>")
        [answer] = [it for it in await bob.receive_all() if it.get("id") == "1"]
        assert answer.find("{*}error/{*}gone") is None


@pytest.mark.asyncio
async def test_it_is_undone() -> None:
    async with world_of() as world:
        await lived(world)
        before = await all_rows(world, OLD)
        await renamed(world)
        with pytest.raises(CommandError, match="was not renamed"):
            await renamed(world, new="other@localhost", undo=True)
        await renamed(world, undo=True)
        assert await all_rows(world, NEW) == {}
        assert await all_rows(world, OLD) == before
        assert await roster_of(world, "bob@localhost") == {OLD: "both"}
        assert [row["account"] for row in await world.app.commands.call("account renamed", {})] == [NEW]
        zoe = await world.login("zoe")
        assert {"from zoe", "to zoe"} <= set(await texts_in_archive(zoe))
        bob = await world.login("bob", "third")
        await bob.receive_all()
        await zoe.receive_all()
        await bob.send(f"<message to='{OLD}' type='chat'><body>back</body></message>")
        assert "back" in [it.text for s in await zoe.receive_all() for it in s.iterfind("{*}body")]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (OLD, "bob@localhost", "exists already"),
        (OLD, OLD, "the same"),
        (OLD, "zoe@elsewhere.example", "is not a domain"),
        ("nobody@localhost", NEW, "there is no account"),
        (OLD, "localhost", "is not the address of an account"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(old: str, new: str, why: str) -> None:
    async with world_of() as world:
        with pytest.raises(CommandError, match=why):
            await renamed(world, old, new)
        assert await world.app.commands.call("account renamed", {}) == []
        await world.login("zoe")


STEPS = (
    "reserve",
    "sessions",
    "first table",
    "middle of the tables",
    "account",
    "written down",
    "contacts",
    "end",
)


@pytest.mark.asyncio
@pytest.mark.parametrize("step", STEPS)
async def test_what_a_kill_cut_short_is_finished_by_whoever_starts_next(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.sqlite3"
    async with world_of(new_store(path)) as world:
        await lived(world)
        before = await all_rows(world, OLD)
        renaming = world.app.rights._renaming
        left = {"first table": 0, "middle of the tables": 9, "written down": 1, "end": 2}.get(step, 0)
        places = {
            "reserve": (renaming, "_reserve"),
            "sessions": (world.app.everywhere, "rows"),
            "account": (renaming, "_make_live"),
            "written down": (renaming._moved, "put"),
            "contacts": (renaming, "_change_roster"),
            "end": (renaming._moved, "put"),
        }
        target, name = places.get(step, (renaming, "_move_table"))
        real = getattr(target, name)

        async def die(*about: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise StoreUnavailable("killed here")
            return await real(*about, **more)

        monkeypatch.setattr(target, name, die)
        with pytest.raises(CommandError, match="killed here"):
            await world.app.commands.call("account rename", {"old": OLD, "new": NEW}, ADMIN)
        monkeypatch.undo()
    async with world_of(new_store(path), accounts=()) as world:
        await world.advance(65)
        [row] = await world.app.commands.call("account renamed", {})
        assert (row["new"], row["state"]) == (NEW, "done")
        assert await all_rows(world, OLD) == {}
        after = await all_rows(world, NEW)
        assert {name: count for name, count in after.items() if name != "announce_seen"} == {
            name: count for name, count in before.items() if name != "announce_seen"
        }
        assert await roster_of(world, "bob@localhost") == {NEW: "both"}
        await world.login("zoé.neu")


@pytest.mark.asyncio
async def test_what_comes_late_under_the_old_name_is_not_lost() -> None:
    async with world_of() as world:
        await world.app.commands.call("roster befriend", {"one": OLD, "other": "bob@localhost"})
        await renamed(world)
        queue, cards = world.plugin("offline").queue.declaration, world.plugin("vcard").cards.declaration
        await world.app.store.put(cards, {"account": NEW, "card": b"newer"})
        stanza = b"<message from='bob@localhost' to='zoe@localhost'><body>late</body></message>"
        for number, seconds in enumerate(ROUNDS):
            late = {"account": OLD, "id": f"{number:016x}", "stanza": stanza, "messages": 1, "bytes": 9}
            await world.app.store.put(queue, late)
            await world.app.store.put(cards, {"account": OLD, "card": b"older"})
            world.clock.seconds += seconds
            await world.advance(35)
        assert await all_rows(world, OLD) == {}
        assert len((await world.app.store.scan(queue, (NEW,))).rows) == len(ROUNDS)
        found = await world.app.store.get(cards, (NEW,))
        assert found is not None
        assert found["card"] == b"newer"


@pytest.mark.asyncio
async def test_a_name_goes_on_over_several_and_an_erasure_takes_all() -> None:
    async with world_of() as world:
        await world.app.commands.call("roster befriend", {"one": OLD, "other": "bob@localhost"})
        await renamed(world)
        await renamed(world, NEW, "third@localhost")
        found = {row["account"]: row["new"] for row in await world.app.commands.call("account renamed", {})}
        assert found == {OLD: "third@localhost", NEW: "third@localhost"}
        bob = await world.login("bob")
        await bob.receive_all()
        await bob.send(f"<message to='{OLD}' type='chat' id='1'><body>hi</body></message>")
        [answer] = await bob.receive_all()
        assert [it.text for it in answer.iterfind("{*}error/{*}gone")] == ["xmpp:third@localhost"]
        await world.app.commands.call("account erase", {"account": "third@localhost"}, ADMIN)
        await world.settle()
        assert await world.app.commands.call("account renamed", {}) == []
        may = allowed(world)
        for name in (OLD, NEW, "third@localhost"):
            assert [it for it in await rows_with(world, name) if it[:2] not in may] == []


@pytest.mark.asyncio
async def test_a_large_archive_stays_where_it_is_and_many_rows_go_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "notes.py").write_text(
        "from xmppd.plugin import Person, Plugin, Table\n\n"
        "class Notes(Plugin):\n"
        "    '''Keeps much for an account.'''\n"
        "    lines = Table(partition=('account',), cluster=('id',), columns={'text': 'text'},"
        " person=Person('account'))\n"
    )
    async with World(accounts=("zoe",), plugins=("archive", "notes"), plugin_folders=(tmp_path,)) as world:
        archive, lines = world.plugin("archive"), world.plugin("notes").lines
        uid = await archive.uid_of(OLD)
        for start in range(0, 2000, 500):
            rows = [
                {"account": OLD, "id": f"{number:06}", "text": "x"} for number in range(start, start + 500)
            ]
            await world.app.store.put_many(lines.declaration, rows)
        done = await renamed(world)
        assert done["moved"] >= 2001
        assert await archive.uid_of(NEW) == uid
        assert len((await lines.scan(NEW)).rows) == 2000
