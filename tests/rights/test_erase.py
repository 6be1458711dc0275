"""An account erased: nothing is left of it, nothing comes back, and there is a receipt."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from leftovers import allowed, keys_with, rows_with
from lived import HTTP, PLUGINS, TOKEN, lived
from stores import ON_CASSANDRA, new_store

from xmppd.access.audit import AUDIT_LOG
from xmppd.admin.commands import Caller
from xmppd.core.erased import ERASED
from xmppd.core.roster.item import ITEM, ROSTER, RosterItem, value_of
from xmppd.errors import CommandError, StoreUnavailable
from xmppd.rights.erasing import ROUNDS
from xmppd.store.table import Store
from xmppd.testing import World

NAME = "zoë.q9"
ZOE = f"{NAME}@localhost"
ADMIN = Caller("socket", "root")


def world_of(
    store: Store | None = None,
    rights: Mapping[str, Any] | None = None,
    accounts: tuple[str, ...] | None = None,
) -> World:
    settings = {**HTTP, "rights": dict(rights or {})}
    names = (NAME, "bob", "carol", "dora") if accounts is None else accounts
    return World(accounts=names, plugins=PLUGINS, settings=settings, store=store)


async def erased(world: World, by: Caller = ADMIN) -> dict[str, Any]:
    """Erase, and let it end."""
    await world.app.commands.call("account erase", {"account": ZOE}, by)
    await world.settle()
    receipt: dict[str, Any] = await world.app.commands.call("account receipt", {"account": ZOE})
    return receipt


async def known_everywhere(world: World) -> None:
    """Let other people have the name in their rows, too."""
    call = world.app.commands.call
    bob, dora = await world.login("bob", "second"), await world.login("dora")
    body = json.dumps({"account": "bob@localhost", "contact": ZOE, "group": ["best"]}).encode()
    await world.http("POST", "/api/v1/roster/add", token=TOKEN, body=body, headers={"Idempotency-Key": "k1"})
    await call("roster add", {"account": "dora@localhost", "contact": ZOE, "name": "nobody knows"}, ADMIN)
    await call("user show", {"account": ZOE}, Caller("adhoc", ZOE))
    await call("user enable", {"account": ZOE}, Caller("adhoc", ZOE))
    report = (
        f"<block xmlns='urn:xmpp:blocking'><item jid='{ZOE}'>"
        "<report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'/></item></block>"
    )
    await dora.ask("set", report)
    await bob.receive_all()


async def left(world: World) -> list[tuple[str, str, Any]]:
    may = allowed(world)
    return [it for it in await rows_with(world, NAME) if it[:2] not in may]


@pytest.mark.asyncio
async def test_nothing_is_left_in_any_table_or_in_redis() -> None:
    async with world_of() as world:
        await lived(world, NAME)
        await known_everywhere(world)
        before = {(table, column) for table, column, _ in await rows_with(world, NAME)}
        assert len({table for table, _ in before}) >= 18
        receipt = await erased(world)
        assert receipt["state"] == "done"
        assert await left(world) == []
        rows = {(row["table"], row["became"]): row["rows"] for row in receipt["rows"]}
        assert rows["archive_messages", "deleted"] == 6
        assert rows["roster", "deleted"] >= 2 + 2
        assert rows["blocks", "deleted"] >= 2
        assert rows["blocking_reports", "masked"] == 2
        assert rows["audit_log", "masked"] >= 3
        assert rows["api_replays", "masked"] == 1
        if world.app.cache is not None:
            cache = world.config.cache
            found = await keys_with(cache.redis, cache.prefix, NAME)
            assert not [
                key for key in found if b":roster:" not in key
            ]  # that there is none, for half a minute
        friends = {it for it, _, key in await rows_with(world, NAME) if it == "archive_messages"}
        assert friends == {"archive_messages"}, "what was said to others is theirs"


@pytest.mark.asyncio
async def test_the_name_is_not_in_the_log_of_what_was_done_and_the_receipt_is() -> None:
    async with world_of() as world:
        await lived(world, NAME)
        await erased(world)
        rows = (await world.app.store.scan_all(AUDIT_LOG)).rows
        mine = [row for row in rows if row["command"] == "account erase"]
        assert len(mine) == 2
        mask = world.app.accounts.erased.mask(ZOE)
        assert {json.loads(row["arguments"])["account"] for row in mine} == {mask}
        [receipt] = [row["receipt"] for row in mine if row["receipt"]]
        assert json.loads(receipt)["deleted"]["account"] == 1
        assert NAME not in json.dumps([dict(row) for row in rows], default=str)
        with pytest.raises(CommandError, match="there is no account"):
            await world.app.commands.call("account erase", {"account": "Nobody@LOCALHOST"}, ADMIN)
        await world.settle()
        rows = (await world.app.store.scan_all(AUDIT_LOG)).rows
        assert "nobody" not in json.dumps([dict(row) for row in rows], default=str).lower()


@pytest.mark.asyncio
async def test_sessions_end_on_all_nodes_and_contacts_see_it() -> None:
    async with world_of() as world:
        call = world.app.commands.call
        await call("roster befriend", {"one": ZOE, "other": "bob@localhost"})
        bob = await world.login("bob")
        await bob.ask("get", "<query xmlns='jabber:iq:roster'/>")
        phone, tablet = await world.login(NAME, "phone"), await world.login(NAME, "tablet")
        await bob.receive_all()
        for client in (phone, tablet):
            await client.receive_all()
        await erased(world)
        await phone.expect_closed("not-authorized")
        await tablet.expect_closed("not-authorized")
        told = await bob.receive_all()
        gone = [it.get("from") for it in told if it.get("type") == "unavailable"]
        assert {f"{ZOE}/phone", f"{ZOE}/tablet"} <= set(gone)
        items = [it for stanza in told for it in stanza.iterfind("{*}query/{*}item")]
        assert items[-1].get("subscription") == "remove"
        assert await call("roster show", {"account": "bob@localhost"}) == []


@pytest.mark.asyncio
async def test_what_comes_late_is_cleaned() -> None:
    async with world_of() as world:
        await lived(world, NAME)
        await erased(world)
        store, offline = world.app.store, world.plugin("offline")
        late = {"account": ZOE, "id": "1", "stanza": b"<message/>", "messages": 1, "bytes": 1}
        for number, seconds in enumerate(ROUNDS):
            await store.put(offline.queue.declaration, late)
            await store.put(world.plugin("vcard").cards.declaration, {"account": ZOE, "card": b"late"})
            if number == len(ROUNDS) - 1:
                value = value_of(RosterItem(ZOE, "both"))
                item = {"account": "dora@localhost", "part": ITEM, "name": ZOE, "value": value}
                await store.put(ROSTER, item)
            world.clock.seconds += seconds
            await world.advance(35)
            assert (await store.scan(offline.queue.declaration, (ZOE,))).rows == []
            assert await store.get(world.plugin("vcard").cards.declaration, (ZOE,)) is None
        assert await store.get(ROSTER, ("dora@localhost", ITEM, ZOE)) is None
        row = await world.app.accounts.erased.get(ZOE)
        assert row is not None
        assert (row["state"], row["account"]) == ("done", None)
        found = await rows_with(world, NAME)
        assert {it[0] for it in found} <= {
            "archive_messages",
            "archive_days",
            "archive_shown",
            "offline_queue",
        }


@pytest.mark.asyncio
async def test_the_name_is_not_given_out_again_unless_that_is_wanted() -> None:
    async with world_of() as world:
        await erased(world)
        with pytest.raises(CommandError, match="was erased; its name is free on"):
            await world.app.commands.call("user add", {"account": ZOE, "password": "secret"})
        world.clock.seconds += 366 * 86_400
        if not ON_CASSANDRA:
            await world.app.commands.call("user add", {"account": ZOE, "password": "secret"})
    async with world_of(rights={"erased_days": 0}) as world:
        await erased(world)
        await world.app.commands.call("user add", {"account": ZOE, "password": "secret"})
        await world.app.store.put(world.plugin("vcard").cards.declaration, {"account": ZOE, "card": b"new"})
        for seconds in ROUNDS:
            world.clock.seconds += seconds
            await world.advance(35)
        found = await world.app.store.get(world.plugin("vcard").cards.declaration, (ZOE,))
        assert found is not None, "who has the name now is spared"
        again = await erased(world)
        assert {row["table"] for row in again["rows"]} >= {"account", "vcard_cards"}


@pytest.mark.asyncio
@pytest.mark.parametrize("step", ["remove", "sweep", "cache", "note"])
async def test_what_a_kill_cut_short_is_finished_by_whoever_starts_next(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.sqlite3"
    async with world_of(new_store(path)) as world:
        await lived(world, NAME)
        await known_everywhere(world)
        erasing = world.app.rights._erasing

        async def die(*about: Any, **more: Any) -> Any:
            raise StoreUnavailable("killed here")

        places = {
            "remove": (world.app.accounts, "_delete_owned"),
            "sweep": (erasing, "_sweep"),
            "cache": (world.app.accounts.erased, "put"),
            "note": (world.app.doors.audit, "note"),
        }
        if step == "cache":
            await erasing._begin(ZOE, "root")
        monkeypatch.setattr(*places[step], die)
        if step == "cache":
            row = await world.app.accounts.erased.get(ZOE)
            assert row is not None
            await erasing._go_on(row)
        else:
            receipt = await world.app.commands.call("account erase", {"account": ZOE}, ADMIN)
            assert receipt["state"] == "under way"
        monkeypatch.undo()
    async with world_of(new_store(path), accounts=()) as world:
        await world.advance(70)
        await asyncio.sleep(0)
        await world.settle()
        receipt = await world.app.commands.call("account receipt", {"account": ZOE})
        assert receipt["state"] == "done"
        assert await left(world) == []
        assert {row["table"]: row["rows"] for row in receipt["rows"]}["archive_owners"] == 1


@pytest.mark.asyncio
async def test_removal_is_the_same_machinery(tmp_path: Path) -> None:
    (tmp_path / "forgetful.py").write_text(
        "from xmppd.plugin import Person, Plugin, Table\n\n"
        "class Forgetful(Plugin):\n"
        "    '''Does not listen to removals.'''\n"
        "    notes = Table(partition=('account',), cluster=('id',), columns={'text': 'text'},"
        " person=Person('account'))\n"
    )
    async with World(plugins=("forgetful",), plugin_folders=(tmp_path,)) as world:
        notes = world.plugin("forgetful").notes
        for name in ("alice", "bob"):
            await notes.put({"account": f"{name}@localhost", "id": "1", "text": "x"})
        await world.app.commands.call("user remove", {"account": "alice@localhost"})
        assert (await notes.scan("alice@localhost")).rows == []
        assert len((await notes.scan("bob@localhost")).rows) == 1
        assert (await world.app.store.scan_all(ERASED)).rows == []
