"""Roster gets with a version (RFC 6121 2.6): nothing, what changed, or everything."""

import asyncio
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from patience import PATIENCE

from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Page
from xmppd.testing import Client, World

ROSTER = "jabber:iq:roster"
ITEM = f"{{{ROSTER}}}item"


class SlowLog(SqliteStore):
    """A store that holds back reads of the log while told to."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.opened = asyncio.Event()
        self.opened.set()
        self.reads = 0
        self.scans = 0

    async def scan(self, table: Any, partition: Any, **options: Any) -> Page:
        self.scans += 1
        if (options.get("start") or ("",))[0] != "log":
            return await super().scan(table, partition, **options)
        page = await super().scan(table, partition, **options)
        self.reads += 1
        await self.opened.wait()
        return page


async def change(client: Client, *contacts: str, name: str = "") -> str:
    """Add the contacts, or name them; the version after that."""
    for contact in contacts:
        item = f"<item jid='{contact}@localhost' name='{name or contact}'/>"
        await client.send(f"<iq type='set' id='c'><query xmlns='{ROSTER}'>{item}</query></iq>")
    version = ""
    for stanza in await client.receive_all():
        if stanza.get("type") == "set":
            version = stanza[0].get("ver", "")
    return version


async def remove(client: Client, contact: str) -> None:
    item = f"<item jid='{contact}@localhost' subscription='remove'/>"
    await client.send(f"<iq type='set' id='c'><query xmlns='{ROSTER}'>{item}</query></iq>")
    await client.receive_all()


def told(stanzas: list[Element]) -> list[tuple[str, str, str]]:
    """For each stanza "push", contact and its name or "remove"; or the id and what is in the result."""
    found = []
    for stanza in stanzas:
        items = stanza.findall(f"*/{ITEM}")
        if stanza.get("type") == "set":
            item = items[0]
            shown = "remove" if item.get("subscription") == "remove" else item.get("name", "")
            found.append(("push", item.get("jid", ""), shown))
        else:
            found.append((stanza.get("id", ""), f"{len(items)} items" if len(stanza) else "nothing", ""))
    return found


async def ask(client: Client, version: str) -> list[tuple[str, str, str]]:
    await client.send(f"<iq type='get' id='roster'><query xmlns='{ROSTER}' ver='{version}'/></iq>")
    return told(await client.receive_all())


FRIENDS = [f"friend{number}" for number in range(20)]


@pytest.mark.asyncio
async def test_a_client_that_lags_is_told_what_changed() -> None:
    async with World() as world:
        alice = await world.login("alice")
        version = await change(alice, *FRIENDS)
        await change(alice, "friend1", "carol", "dave")
        await change(alice, "friend1", name="Fred")
        await remove(alice, "friend2")
        await remove(alice, "dave")
        second = await world.bind("alice", "second")
        assert await ask(second, version) == [
            ("roster", "nothing", ""),
            ("push", "carol@localhost", "carol"),
            ("push", "friend1@localhost", "Fred"),
            ("push", "friend2@localhost", "remove"),
            ("push", "dave@localhost", "remove"),
        ]
        newest = await change(alice, "carol", name="C.")
        assert told(await second.receive_all()) == [("push", "carol@localhost", "C.")]
        assert await ask(second, newest) == [("roster", "nothing", "")]


@pytest.mark.asyncio
async def test_versions_of_pushes_rise_and_lead_on() -> None:
    async with World() as world:
        alice = await world.login("alice")
        version = await change(alice, *FRIENDS)
        newest = await change(alice, "carol", "dave", "eve")
        second = await world.bind("alice", "second")
        await second.send(f"<iq type='get' id='roster'><query xmlns='{ROSTER}' ver='{version}'/></iq>")
        result, *pushes = await second.receive_all()
        assert result.get("id") == "roster"
        versions = [int(push[0].get("ver", "")) for push in pushes]
        assert versions == sorted(versions)
        assert versions[-1] == int(newest)
        assert all(push.get("to") == second.jid and push.get("id") for push in pushes)
        assert len({push.get("id") for push in pushes}) == 3
        third = await world.bind("alice", "third")
        assert await ask(third, str(versions[0])) == [
            ("roster", "nothing", ""),
            ("push", "dave@localhost", "dave"),
            ("push", "eve@localhost", "eve"),
        ]


@pytest.mark.parametrize("asked", ["", "1", "99999999999999", "nonsense"])
@pytest.mark.asyncio
async def test_whose_version_leads_nowhere_is_sent_everything(asked: str) -> None:
    async with World() as world:
        alice = await world.login("alice")
        await change(alice, *FRIENDS)
        assert await ask(alice, asked) == [("roster", "20 items", "")]


@pytest.mark.asyncio
async def test_who_lags_by_much_is_sent_everything() -> None:
    async with World() as world:
        alice = await world.login("alice")
        version = await change(alice, *FRIENDS)
        for number in range(51):
            await change(alice, "friend1", name=f"{number}")
        assert await ask(alice, version) == [("roster", "20 items", "")]


@pytest.mark.asyncio
async def test_what_is_longer_than_the_roster_is_not_told_change_by_change() -> None:
    async with World() as world:
        alice = await world.login("alice")
        version = await change(alice, "bob")
        await change(alice, "carol", "dave")
        assert await ask(alice, version) == [("roster", "3 items", "")]


@pytest.mark.asyncio
async def test_without_a_log_there_is_nothing_in_between() -> None:
    store = SlowLog()
    async with World(store=store, settings={"rosters": {"log_days": 0}}) as world:
        alice = await world.login("alice")
        version = await change(alice, *FRIENDS)
        await change(alice, "carol")
        assert await ask(alice, version) == [("roster", "21 items", "")]
        assert store.reads == 0


@pytest.mark.asyncio
async def test_a_request_that_waits_is_not_told_and_costs_no_proof() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        version = await change(alice, *FRIENDS)
        await bob.send("<presence type='subscribe' to='alice@localhost'/>")
        await change(alice, "carol")
        second = await world.bind("alice", "second")
        assert await ask(second, version) == [
            ("roster", "nothing", ""),
            ("push", "carol@localhost", "carol"),
        ]


@pytest.mark.asyncio
async def test_a_change_while_the_log_is_read_comes_once_and_last() -> None:
    store = SlowLog()
    async with World(store=store) as world:
        alice = await world.login("alice")
        version = await change(alice, *FRIENDS)
        await change(alice, "carol", "dave")
        second = await world.bind("alice", "second")
        store.opened.clear()
        second.write(f"<iq type='get' id='roster'><query xmlns='{ROSTER}' ver='{version}'/></iq>")
        second.pump()
        async with asyncio.timeout(PATIENCE):
            while store.reads == 0:  # noqa: ASYNC110 - the roster is looked for before
                await asyncio.sleep(0.001)
        item = "<item jid='carol@localhost' name='C.'/>"
        alice.write(f"<iq type='set' id='meanwhile'><query xmlns='{ROSTER}'>{item}</query></iq>")
        while b"meanwhile" not in alice.raw:
            alice.pump()
            await asyncio.sleep(0.001)
        second.pump()
        assert b"C." not in second.raw  # a push before the result would hide what it lacks
        store.opened.set()
        await world.settle()
        news = told(await second.receive_all())
        if len(world.apps) > 1:  # its node may not have heard of the change while it reads the log
            news = [each for each in news if each != ("push", "carol@localhost", "carol")]
        assert news == [
            ("roster", "nothing", ""),
            ("push", "dave@localhost", "dave"),
            ("push", "carol@localhost", "C."),
        ]


@pytest.mark.asyncio
async def test_a_version_that_is_current_reads_nothing() -> None:
    store = SlowLog()
    async with World(store=store) as world:
        alice = await world.login("alice")
        version = await change(alice, *FRIENDS)
        scans, store.reads = store.scans, 0
        assert await ask(alice, version) == [("roster", "nothing", "")]
        assert (store.reads, store.scans) == (0, scans)
