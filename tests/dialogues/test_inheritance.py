"""Whoever takes a name next finds nothing of the account that had it, also not what was being written for it
while it was removed. Nor does anybody find anything of who was anonymous.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from patience import rounds

from xmppd import ns
from xmppd.core.accounts import ACCOUNT, GONE
from xmppd.core.lastseen import LAST_PRESENCE
from xmppd.core.roster.rosters import ROSTER
from xmppd.errors import StanzaError
from xmppd.store.table import Row, Table
from xmppd.testing import Client, World, refusal

ALICE = "alice@localhost"
PLUGINS = ("last", "vcard", "private", "offline", "announce", "register")
PRIVATE = f"<query xmlns='{ns.PRIVATE}'><secret xmlns='urn:example:mine'>word</secret></query>"
VCARD = f"<vCard xmlns='{ns.VCARD}'><FN>Alice</FN></vCard>"
ITEM = f"<query xmlns='{ns.ROSTER}'><item jid='carol@localhost'/></query>"

OWNED = ("by_peer", "days", "messages", "months", "shown")
"""What an archive keeps by the number of its owner."""

SLOW = """
'A policy that takes its time.'
import asyncio
from xmppd import hooks
from xmppd.plugin import Plugin


class Slow(Plugin):
    async def start(self):
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    @hooks.iq_sent.at(hooks.POLICY)
    async def wait(self, session, iq):
        self.reached.set()
        await self.opened.wait()
"""

pytestmark = pytest.mark.asyncio


async def subscribe(world: World, alice: Client, bob: Client) -> None:
    bob.write(f"<presence type='subscribe' to='{ALICE}'/>")


async def subscribe_when_asked_back(world: World, alice: Client, bob: Client) -> None:
    bob.write(f"<presence type='subscribed' to='{ALICE}'/><presence type='subscribe' to='{ALICE}'/>")


async def add_contact(world: World, alice: Client, bob: Client) -> None:
    alice.write(f"<iq type='set' id='x'>{ITEM}</iq>")


async def store_private(world: World, alice: Client, bob: Client) -> None:
    alice.write(f"<iq type='set' id='x'>{PRIVATE}</iq>")


async def store_vcard(world: World, alice: Client, bob: Client) -> None:
    alice.write(f"<iq type='set' id='x'>{VCARD}</iq>")


async def leave(world: World, alice: Client, bob: Client) -> None:
    alice.transport.close()


async def say_goodbye(world: World, alice: Client, bob: Client) -> None:
    alice.write("<presence type='unavailable'><status>home</status></presence>")


async def write_to_her_away(world: World, alice: Client, bob: Client) -> None:
    alice.write("<presence type='unavailable'/>")
    bob.write(f"<message to='{ALICE}'><body>hi</body></message>")


async def see_the_message_of_the_day(world: World, alice: Client, bob: Client) -> None:
    alice.write("<presence type='unavailable'/>")
    alice.write("<presence/>")


WRITERS = {
    subscribe: "roster",
    subscribe_when_asked_back: "roster",
    add_contact: "roster",
    store_private: "private_elements",
    store_vcard: "vcard_cards",
    leave: "last_logouts",
    say_goodbye: "last_presence",
    write_to_her_away: "offline_queue",
    see_the_message_of_the_day: "announce_seen",
}
Writer = Callable[[World, Client, Client], Awaitable[None]]


class Gate:
    """The first write to one table waits before the store is told of it, until it is opened."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch, table: str) -> None:
        self.table = table
        self.opened, self.reached = asyncio.Event(), asyncio.Event()
        for name in ("put", "put_if", "batch"):
            monkeypatch.setattr(world.app.store, name, self.before(getattr(world.app.store, name)))

    def before(self, call: Any) -> Any:
        async def passing(table: Table, key: Any, *rest: Any, **how: Any) -> Any:
            about = key[0] if isinstance(key, tuple) else key.get("account")
            if table.name == self.table and about == ALICE and not self.reached.is_set():
                self.reached.set()
                await self.opened.wait()
            return await call(table, key, *rest, **how)

        return passing


async def left(world: World) -> list[Row]:
    """Everything the store has for the account, by tables."""
    tables = [table for table in world.app.tables() if table.partition == ("account",)]
    assert ROSTER in tables and LAST_PRESENCE in tables and len(tables) == 14
    rows: list[Row] = []
    for table in tables:
        if table not in (ACCOUNT, GONE):
            rows += (await world.app.store.scan(table, (ALICE,))).rows
    return rows


@pytest.mark.one_node("what another node wrote meanwhile is deleted some seconds later: test_late_removals")
@pytest.mark.parametrize("writer", WRITERS, ids=[writer.__name__ for writer in WRITERS])
async def test_what_is_written_while_the_account_goes(
    monkeypatch: pytest.MonkeyPatch, writer: Writer
) -> None:
    async with World(plugins=PLUGINS) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        if writer is subscribe_when_asked_back:
            await alice.send("<presence type='subscribe' to='bob@localhost'/>")
        if writer is see_the_message_of_the_day:
            await world.plugin("announce")._update_motd("", "hear, hear")
        gate = Gate(world, monkeypatch, WRITERS[writer])
        await writer(world, alice, bob)
        async with asyncio.timeout(10):
            await gate.reached.wait()
            removal = asyncio.ensure_future(world.app.server.remove_account(ALICE))
            for _ in range(50):
                await asyncio.sleep(0.001)
            gate.opened.set()
            await removal
        await world.settle()
        assert await left(world) == []
        await world.app.accounts.create(ALICE, "secret")
        assert not await world.app.rosters.items(ALICE)


OWN = {add_contact: "roster", store_private: "private_elements", store_vcard: "vcard_cards"}


@pytest.mark.parametrize("writer", OWN, ids=[writer.__name__ for writer in OWN])
async def test_a_request_of_the_former_owner_that_waited_all_the_time(tmp_path: Path, writer: Writer) -> None:
    """A plugin looked at it while the account was removed and somebody else took its name."""
    (tmp_path / "slow.py").write_text(SLOW)
    async with World(plugins=(*PLUGINS, "slow"), plugin_folders=(tmp_path,)) as world:
        alice, bob = await world.bind("alice"), await world.bind("bob")
        slow = world.plugin("slow")
        await writer(world, alice, bob)
        async with asyncio.timeout(10):
            await slow.reached.wait()
        await world.app.server.remove_account(ALICE)
        world.clock.seconds += 1
        await world.app.accounts.create(ALICE, "secret")
        slow.opened.set()
        await world.settle()
        assert await left(world) == []


async def test_nobody_begins_to_write_while_the_account_goes() -> None:
    """A subscription request that comes in the middle of the removal."""
    async with World(plugins=PLUGINS) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)

        async def meanwhile(account: str) -> None:
            await bob.send(f"<presence type='subscribe' to='{ALICE}'/>")
            await bob.send(f"<message to='{ALICE}'><body>hi</body></message>")

        world.app.accounts.on_leaving.append(meanwhile)
        await world.app.server.remove_account(ALICE)
        assert await left(world) == []
        await world.app.accounts.create(ALICE, "secret")
        again = await world.login("alice")
        await again.expect_nothing()


async def test_a_contact_that_cannot_keep_its_part_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with World(plugins=PLUGINS) as world:
        alice, bob, carol = [await world.login(name) for name in ("alice", "bob", "carol")]
        await world.befriend(alice, bob)
        await world.befriend(alice, carol)
        inbound = world.app.rosters.inbound_subscription

        async def refuse(account: str, *args: Any, **how: Any) -> Any:
            if account == "bob@localhost":
                raise StanzaError("resource-constraint", "full")
            return await inbound(account, *args, **how)

        monkeypatch.setattr(world.app.rosters, "inbound_subscription", refuse)
        await world.app.server.remove_account(ALICE)
        assert await left(world) == []
        assert {stanza.get("type") for stanza in await carol.receive_all()} >= {"unsubscribe"}


# who is anonymous


async def test_an_anonymous_session_leaves_nothing_behind() -> None:
    settings = {"auth": {"anonymous": True}}
    async with World(plugins=PLUGINS, settings=settings) as world:
        await world.plugin("announce")._update_motd("", "hear, hear")
        bob = await world.login("bob")
        guest = await world.guest()
        await guest.send("<presence/>")
        await guest.receive_all()
        for payload in (ITEM, PRIVATE, VCARD):
            assert refusal(await guest.ask("set", payload)) == "cancel not-allowed"
        for kind in ("subscribe", "subscribed", "unsubscribe", "unsubscribed"):
            await guest.send(f"<presence type='{kind}' id='s' to='bob@localhost'/>")
            assert refusal(await guest.receive()) == "cancel not-allowed"
        await bob.send(f"<presence type='subscribe' to='{guest.bare}'/>")
        await guest.expect_nothing()
        await guest.send("<presence type='unavailable'><status>bye</status></presence></stream:stream>")
        await bob.send(f"<message type='chat' to='{guest.bare}'><body>hi</body></message>")
        assert refusal((await bob.receive_all())[-1]) == "cancel service-unavailable"
        for table in world.app.tables():
            rows = (await world.app.store.scan_all(table)).rows
            assert not [row for row in rows if row.get("account") == guest.bare], table.name
        assert not world.app.rosters._cache.get("bob@localhost").requests
        await world.bind("bob")


async def test_nothing_of_an_archive_is_left_nor_what_was_read_and_taken_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with World(plugins=("archive",)) as world:
        crowds = type(world.plugin("archive").crowds).wrote.__globals__
        monkeypatch.setitem(crowds, "MANY", 2)  # so many that they have rows by their peers, somewhat later
        monkeypatch.setitem(crowds, "SAMPLED", 1)
        alice, bob = await world.login("alice"), await world.login("bob")
        for id, inner in (
            ("m", "<body>secret</body>"),
            ("n", "<body>other</body>"),
            ("r", f"<retract xmlns='{ns.RETRACTION}' id='m'/>"),
        ):
            await alice.send(f"<message to='bob@localhost' type='chat' id='{id}'>{inner}</message>")
        await world.advance(30)
        await alice.send("<message to='bob@localhost' type='chat' id='l'><body>later</body></message>")
        mark = f"<displayed xmlns='{ns.CHAT_MARKERS}' id='n'/>"
        await bob.send(f"<message to='{ALICE}' type='chat' id='d'>{mark}</message>")
        archive, tables = world.plugin("archive"), world.app.tables()
        owner = (await archive.owners.get(ALICE))["uid"]
        owned = [table for table in tables if table.partition[0] == "owner"]
        assert sorted(table.name for table in owned) == [f"archive_{name}" for name in OWNED]

        async def rows() -> list[str]:
            """The tables that have any of the account."""
            months = [row["month"] for row in (await archive.months.scan(owner)).rows] or [646]
            keys = [(table, (owner, *months[: len(table.partition) - 1])) for table in owned]
            return [table.name for table, key in keys if (await world.app.store.scan(table, key)).rows]

        async for _ in rounds():  # a marker is followed up behind it, and Cassandra answers late
            if len(await rows()) == len(owned):
                break
        else:
            raise AssertionError(await rows())
        await world.app.server.remove_account(ALICE)
        await world.settle()
        assert await rows() == []
        await bob.send(f"<message to='{ALICE}' type='chat' id='d'>{mark}</message>")
        assert await rows() == []
