"""What other devices are told when one has read: in order, the newest only, and at a bounded rate."""

import asyncio
from collections.abc import Iterable
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from archives import later
from patience import rounds

from plugins.archive.ids import LAST, bound, to_text
from xmppd import ns
from xmppd.plugin import Jid, StanzaError
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

READ = f"{{{ns.CONVERSATIONS}}}read"
STANZA_ID = f"{{{ns.STANZA_ID}}}stanza-id"
LOOKS = 100
"""How often it is looked, on an engine that is slow."""


class Devices:
    """Two of bob, of which `desk` is told what `phone` reads, and the ids of what alice sent to them."""

    def __init__(self, phone: Client, desk: Client, ids: list[str]) -> None:
        self.phone = phone
        self.desk = desk
        self.ids = ids

    @classmethod
    async def of(cls, w: World, texts: Iterable[str]) -> "Devices":
        alice, phone, desk = [await w.login(name) for name in ("alice", "bob", "bob")]
        await desk.ask("get", f"<query xmlns='{ns.CONVERSATIONS}'/>")
        for text in texts:
            await alice.send(
                f"<message to='bob@localhost' id='{text}' type='chat'><body>{text}</body></message>"
            )
        await w.settle()
        stanzas = await phone.receive_all()
        await desk.receive_all()
        marks = [mark for stanza in stanzas if (mark := stanza.find(STANZA_ID)) is not None]
        return cls(phone, desk, [mark.get("id", "") for mark in marks])

    async def read(self, *places: int) -> None:
        for place in places:
            read = f"<read xmlns='{ns.CONVERSATIONS}' with='alice@localhost' id='{self.ids[place]}'/>"
            assert (await self.phone.ask("set", read)).get("type") == "result"

    async def told(self, count: int = 1) -> list[tuple[int, str | None]]:
        """Of which messages the desk was told since, and how many are not read: so many, as soon as an engine
        that may be slow has it, or more.
        """
        reads: list[Element] = []
        async for _ in rounds(0.02):
            await self.desk.world.settle()
            reads += [read for stanza in await self.desk.receive_all() for read in stanza.iterfind(READ)]
            if len(reads) >= count:
                break
        return [(self.ids.index(read.get("id", "")), read.get("unread")) for read in reads]


def world() -> World:
    return World(plugins=("archive",))


async def test_of_many_that_are_read_while_one_is_told_only_the_newest_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world() as w:
        bob = await Devices.of(w, "abcdef")
        gate, waiting = asyncio.Event(), list[str]()
        for archive in w.plugins("archive"):
            listed = archive._list

            async def slow(*about: Any, listed: Any = listed) -> Any:
                waiting.append("one")
                if len(waiting) == 1:
                    await gate.wait()
                return await listed(*about)

            monkeypatch.setattr(archive, "_list", slow)
        await bob.read(0)
        assert await bob.told(0) == []
        await bob.read(1, 2, 3, 4)
        assert await bob.told(0) == [] and len(waiting) == 1
        gate.set()
        assert await bob.told() == [(4, "1")] and len(waiting) == 2


async def test_what_comes_late_of_an_older_one_is_not_told() -> None:
    async with world() as w:
        bob = await Devices.of(w, "abc")
        await bob.read(1)
        assert await bob.told() == [(1, "1")]
        w.plugin("archive").was_read.tell("bob@localhost", "alice@localhost", bob.ids[0], bob.phone.jid)
        assert await bob.told(0) == []


async def test_who_read_the_newest_is_known_though_an_older_one_comes_behind() -> None:
    async with world() as w:
        bob = await Devices.of(w, "abc")
        await bob.read(2)
        assert await bob.told() == [(2, "0")]
        archive = w.plugin("archive")
        archive.was_read.tell("bob@localhost", "alice@localhost", bob.ids[2], bob.phone.jid)
        archive.was_read.tell("bob@localhost", "alice@localhost", bob.ids[0], bob.desk.jid)
        assert await bob.told() == [(2, "0")]
        assert not [read for stanza in await bob.phone.receive_all() for read in stanza.iterfind(READ)]


async def test_where_nobody_can_say_what_is_unread_the_place_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as w:
        bob = await Devices.of(w, "ab")

        async def horizon(account: str) -> bytes:
            raise StanzaError("resource-constraint", "Ask again in a while.", type="wait")

        for archive in w.plugins("archive"):
            monkeypatch.setattr(archive, "horizon", horizon)
            monkeypatch.setattr(archive, "horizon_now", lambda account: None)
        await bob.read(0)
        assert await bob.told() == [(0, None)]


async def test_what_waits_for_messages_under_way_holds_up_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world() as w:
        bob = await Devices.of(w, "abc")
        gate = asyncio.Event()
        for archive in w.plugins("archive"):
            horizon = archive.horizon

            async def slow(account: str, horizon: Any = horizon) -> Any:
                await gate.wait()
                return await horizon(account)

            monkeypatch.setattr(archive, "horizon", slow)
            monkeypatch.setattr(archive, "horizon_now", lambda account: None)
        await bob.read(0)
        assert await bob.told(0) == []
        await marked(bob, "b", "")
        await bob.phone.world.settle()
        archive = w.plugins("archive")[w.apps.index(bob.phone.app)]
        owner = (await archive._owner("bob@localhost")).uid
        async for _ in rounds(0.02):
            row = await archive.shown.get(owner, "alice@localhost", "own")
            if to_text(row["id"]) == bob.ids[1]:
                break
        assert to_text(row["id"]) == bob.ids[1]
        assert await bob.told(0) == []
        gate.set()
        assert await bob.told() == [(1, "1")]


async def test_too_many_that_wait_for_messages_under_way_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world() as w:
        bob = await Devices.of(w, "a")
        archive = w.plugins("archive")[w.apps.index(bob.desk.app)]
        gate = asyncio.Event()

        async def slow(account: str) -> bytes:
            await gate.wait()
            return bound(LAST)

        monkeypatch.setattr(archive, "horizon", slow)
        monkeypatch.setattr(archive, "horizon_now", lambda account: None)
        monkeypatch.setitem(archive._tell_when_settled.__func__.__globals__, "MOST", 3)
        for number in range(8):
            archive.was_read("bob@localhost", f"peer{number}@localhost", bob.ids[0], bob.phone.jid)
            await w.settle()
        assert len(archive._to_tell) == 3 and archive.ignored.value == 5
        gate.set()
        await w.advance(10)
        assert not archive._to_tell and not archive._unsettled


async def test_what_is_gone_through_for_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as w:
        bob = await Devices.of(w, "abcdef")
        for archive in w.plugins("archive"):
            errands = archive._errands
            monkeypatch.setitem(errands._run.__func__.__globals__, "FREE", 4)
            monkeypatch.setitem(errands._run.__func__.__globals__, "rest_after", lambda rows: 5.0)
        await bob.read(0)
        assert await bob.told() == [(0, "5")]
        await bob.read(1, 2)
        assert await bob.told(0) == []
        await w.advance(5)
        assert await bob.told() == [(2, "3")]


async def marked(bob: Devices, about: str, place: str) -> None:
    """A marker about a message, and, where there is a place, what was read for the own server (XEP-0490)."""
    mark = f"<displayed xmlns='{ns.CHAT_MARKERS}' id='{about}'/>"
    if place:
        stanza_id = f"<stanza-id xmlns='{ns.STANZA_ID}' by='bob@localhost' id='{place}'/>"
        mark += f"<displayed xmlns='{ns.DISPLAYED}'>{stanza_id}</displayed>"
    await bob.phone.send(f"<message to='alice@localhost' type='chat'>{mark}</message>")


@pytest.mark.parametrize("later", ["a", "unknown"])
@pytest.mark.parametrize("is_for_server", [False, True])
async def test_a_marker_that_says_nothing_new_does_not_hide_the_one_before(
    later: str, is_for_server: bool
) -> None:
    async with world() as w:
        bob = await Devices.of(w, "abc")
        gate = asyncio.Event()

        async def busy() -> int:
            await gate.wait()
            return 1

        for archive in w.plugins("archive"):
            archive._errands.add("bob@localhost", ("busy",), busy)
        places = dict(zip("abc", bob.ids, strict=True)) | {"unknown": "A" * 16}
        for about in ("c", later):
            await marked(bob, "none" if is_for_server else about, places[about] if is_for_server else "")
        assert await bob.told(0) == []
        gate.set()
        assert await bob.told() == [(2, "0")]


async def test_of_more_markers_than_may_wait_the_last_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as w:
        bob = await Devices.of(w, "abcdefgh")
        gate = asyncio.Event()

        async def busy() -> int:
            await gate.wait()
            return 1

        for archive in w.plugins("archive"):
            monkeypatch.setitem(archive._errands.add.__func__.__globals__, "MOST", 4)
            archive._errands.add("bob@localhost", ("busy",), busy)
        for about in "abcdefgh":
            await marked(bob, about, "")
        gate.set()
        assert (await bob.told())[-1] == (7, "0")


async def test_how_far_was_read_stays_when_the_message_is_pruned_and_goes_with_the_archive() -> None:
    async with world() as w:
        bob = await Devices.of(w, "ab")
        await bob.read(0)
        later(w, days=40)
        archive, account = w.plugin("archive"), Jid.parse("bob@localhost")
        assert (await archive.prune(before="2023-12-01", account=account))["messages"] == 2
        owner = (await archive._owner("bob@localhost")).uid
        assert await archive.shown.get(owner, "alice@localhost", "own") is not None
        await archive.erase(account)
        assert await archive.shown.get(owner, "alice@localhost", "own") is None
