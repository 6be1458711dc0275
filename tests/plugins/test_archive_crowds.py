"""Archives with very many messages a day: those with one peer are found by rows of their own."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from archives import DAY, Found, chat, field, find, form, later, page, put, world

from plugins.archive.crowds import Crowds, spans_of
from plugins.archive.filing import Folder
from plugins.archive.ids import Pool, bound, day_of, month_of
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

BOB, CAROL = "bob@localhost", "carol@localhost"
Few = Callable[[World], None]
PEERS = (BOB, CAROL, "nobody@localhost")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Few:
    """Has ten messages be many."""

    def patch(w: World) -> None:
        about = type(w.plugin("archive").crowds).wrote.__globals__
        monkeypatch.setitem(about, "MANY", 10)
        monkeypatch.setitem(about, "SAMPLED", 1)

    return patch


async def all_with(client: Client, peer: str, size: int, *, back: bool) -> list[Any]:
    """The texts of all messages with a peer, by pages of `size` in one direction."""
    found, step = list[list[Any]](), "<before/>" if back else ""
    for _ in range(100):
        asked = form(field("with", peer)) + page(f"<max>{size}</max>{step}")
        one: Found = await find(client, asked)
        found.append(one.texts)
        if one.is_complete:
            return [text for each in (found[::-1] if back else found) for text in each]
        step = f"<before>{one.first}</before>" if back else f"<after>{one.last}</after>"
    raise AssertionError("there is no end")


async def is_as(client: Client, said: dict[str, list[str]]) -> None:
    for peer in PEERS:
        for size in (1, 3, 50):
            for back in (False, True):
                assert await all_with(client, peer, size, back=back) == said.get(peer, [])


async def rows(w: World, name: str) -> list[Any]:
    return [row async for row in getattr(w.plugin("archive"), name).everything()]


async def crowded(w: World, few: Few) -> tuple[Client, Client, Client, dict[str, list[str]]]:
    """Alice, whose archive has got many, bob and carol; and what was said to each of them."""
    few(w)
    alice, bob, carol = await w.login("alice"), await w.login("bob"), await w.login("carol")
    said: dict[str, list[str]] = {BOB: [], CAROL: []}
    for number in range(12):
        await say(alice, said, CAROL if number == 5 else BOB, f"a{number}")
    await w.settle()
    return alice, bob, carol, said


async def say(client: Client, said: dict[str, list[str]], to: str, text: str) -> None:
    await chat(client, to, text)
    said[to].append(text)


async def test_from_soon_on_each_message_has_a_row_by_its_peer(few: Few) -> None:
    async with world() as w:
        alice, _, _, said = await crowded(w, few)
        uid = await w.plugin("archive").uid_of("alice@localhost")
        assert w.plugin("archive").since(uid) and not await rows(w, "by_peer")
        await say(alice, said, CAROL, "too soon")
        await is_as(alice, said)
        await w.advance(30)
        for number in range(8):
            await say(alice, said, CAROL if number % 4 == 1 else BOB, f"b{number}")
        await is_as(alice, said)
        owners = {row["owner"] for row in await rows(w, "by_peer")}
        assert uid in owners and len([r for r in await rows(w, "by_peer") if r["owner"] == uid]) == 8
        later(w, days=40)
        noted = len([row for row in await rows(w, "days") if row["owner"] == uid])
        for number in range(4):
            await say(alice, said, CAROL if number == 2 else BOB, f"c{number}")
        assert len([row for row in await rows(w, "days") if row["owner"] == uid]) == noted
        assert len({row["month"] for row in await rows(w, "months") if row["owner"] == uid}) == 2
        await is_as(alice, said)


async def test_the_other_side_of_a_dialogue_is_found_as_before(few: Few) -> None:
    async with world() as w:
        alice, _, carol, said = await crowded(w, few)
        uid = await w.plugin("archive").uid_of(CAROL)
        await w.advance(30)
        await say(alice, said, CAROL, "hi")
        assert not [row for row in await rows(w, "by_peer") if row["owner"] == uid]
        assert await all_with(carol, "alice@localhost", 2, back=True) == said[CAROL]


async def filled(w: World, count: int) -> int:
    """The archive of alice has so many of today with bob, and one with carol before and one behind them."""
    plugin = w.plugin("archive")
    uid = await plugin.uid_of("alice@localhost")
    begin, end = plugin.now() - 3600, plugin.now() - 60
    plugin.crowd.tell(uid, int((begin - 1) * 1e6))
    moments = [begin + (end - begin) * place / count for place in range(count)]
    for place, moment in enumerate(moments):
        id, peer = Pool().new_id(int(moment * 1e6)), CAROL if place in (0, count - 1) else BOB
        stanza = f"<message from='{peer}'><body>{place}</body></message>".encode()
        row = {"owner": uid, "month": month_of(id), "id": id, "peer": peer, "stanza": stanza}
        await plugin.messages.put(row)
        await plugin.by_peer.put({"owner": uid, "month": month_of(id), "peer": peer, "id": id})
        await plugin.months.put({"owner": uid, "month": month_of(id)})
    return uid


@pytest.mark.parametrize("back", [False, True])
async def test_a_page_looks_at_no_more_rows_than_it_has(back: bool) -> None:
    async with world() as w:
        alice, looked = await w.login("alice"), list[int]()
        await filled(w, 400)
        for name in ("messages", "by_peer", "days"):
            watch(getattr(w.plugin("archive"), name), looked)
        for peer, count in ((CAROL, 2), (BOB, 51), ("nobody@localhost", 0)):
            looked.clear()
            found = await find(alice, form(field("with", peer)) + page(f"<max>50</max>{'<before/>' * back}"))
            assert len(found.texts) == min(count, 50)
            assert sum(looked) <= 2 * count + 1, "the row by its peer, and the message"
        assert await all_with(alice, CAROL, 1, back=back) == ["0", "399"]


def watch(table: Any, looked: list[int]) -> None:
    """Note how many rows each read of a table looks at."""
    scan, get = table.scan_columns, table.get_rows

    async def scanned(*place: Any, **more: Any) -> Any:
        found = await scan(*place, **more)
        looked.append(more.get("examine") or len(found.rows))
        return found

    async def got(*place: Any, **more: Any) -> Any:
        found = await get(*place, **more)
        looked.append(len(found))
        return found

    table.scan_columns, table.get_rows = scanned, got


async def test_what_has_a_row_of_its_day_alone_is_found_too(few: Few) -> None:
    """A node did not know of rows by peer, or a file brought it."""
    async with world() as w:
        alice, _, _, said = await crowded(w, few)
        uid = await w.plugin("archive").uid_of("alice@localhost")
        await w.advance(30)
        await say(alice, said, CAROL, "before")
        later(w, days=3)
        await say(alice, said, CAROL, "that day")
        later(w, days=1)
        await put(w, uid, 0.9, 1.1, peer=CAROL)
        later(w, days=3)
        await say(alice, said, CAROL, "after")
        said[CAROL][-2:] = ["1.1", "that day", "0.9", "after"]
        await is_as(alice, said)


async def test_a_row_without_its_message_is_passed_over(few: Few) -> None:
    """The node was killed between the two, and nobody was told that it was written."""
    async with world() as w:
        alice, _, _, said = await crowded(w, few)
        plugin = w.plugin("archive")
        uid = await plugin.uid_of("alice@localhost")
        await w.advance(30)
        for number in range(4):
            await say(alice, said, CAROL, f"b{number}")
            id = Pool().new_id(int(plugin.now() * 1e6) + number)
            await plugin.by_peer.put({"owner": uid, "month": month_of(id), "peer": CAROL, "id": id})
            await w.advance(1)
        await is_as(alice, said)


async def test_what_is_deleted_leaves_no_row_by_peer(few: Few) -> None:
    async with world() as w:
        alice, _, _, said = await crowded(w, few)
        plugin = w.plugin("archive")
        uid = await plugin.uid_of("alice@localhost")
        await w.advance(30)
        await say(alice, said, CAROL, "one")
        later(w, days=2)
        await say(alice, said, CAROL, "two")
        later(w, days=0.5)
        await plugin.keeper.prune(uid, int((plugin.now() - DAY) * 1e6))
        assert len([row for row in await rows(w, "by_peer") if row["owner"] == uid]) == 1
        await is_as(alice, {CAROL: ["two"]})
        later(w, days=70)
        await say(alice, said, CAROL, "three")
        await plugin.keeper.prune(uid, int((plugin.now() - DAY) * 1e6))
        assert len([row for row in await rows(w, "by_peer") if row["owner"] == uid]) == 1
        await is_as(alice, {CAROL: ["three"]})
        await w.app.commands.call("archive erase", {"account": "alice@localhost"})
        assert not [row for row in await rows(w, "by_peer") if row["owner"] == uid]
        said = {BOB: [], CAROL: []}
        await say(alice, said, CAROL, "anew")
        await is_as(alice, said)


async def test_nodes_tell_each_other(few: Few) -> None:
    async with world(nodes=2) as w:
        alice, _, _, said = await crowded(w, few)
        there = await w.login("alice", node=1)
        await w.advance(30)
        await say(there, said, CAROL, "there")
        await say(alice, said, CAROL, "here")
        uid = await w.plugin("archive").uid_of("alice@localhost")
        assert len([row for row in await rows(w, "by_peer") if row["owner"] == uid]) == 2
        await is_as(alice, said)
        await is_as(there, said)


async def test_spans_have_each_moment_once() -> None:
    chance = random.Random(7)
    for _ in range(500):
        days = sorted(chance.sample(range(100, 120), chance.randrange(8)))
        began = chance.choice([b"", bound(chance.randrange(99, 121) * DAY * 10**6 + chance.randrange(10**9))])
        after, before = sorted(bound(chance.randrange(98 * DAY, 122 * DAY) * 10**6) for _ in range(2))
        spans = spans_of(days, began, after, before)
        ends = [edge for span in spans for edge in (span.after, span.before)]
        assert ends == sorted(ends) and all(after <= edge <= before for edge in ends)
        for _ in range(20):
            id = bound(chance.randrange(98 * DAY, 122 * DAY) * 10**6) + b"\0\0\0\1"
            found = [span for span in spans if span.after < id < span.before]
            is_later = bool(began) and id > began
            is_wanted = after < id < before and (is_later or day_of(id) in days)
            assert len(found) == is_wanted
            if found and not found[0].is_listed:
                assert day_of(id) in days and found[0].month == month_of(id)


async def test_a_file_is_read_back_as_it_was(few: Few, tmp_path: Path) -> None:
    async with world() as w:
        alice, _, _, said = await crowded(w, few)
        await w.advance(30)
        for number in range(4):
            await say(alice, said, CAROL, f"b{number}")
            later(w, days=1)
        file = str(tmp_path / "archive")
        await w.app.commands.call("archive export", {"file": file, "account": "alice@localhost"})
        await w.app.commands.call("archive erase", {"account": "alice@localhost"})
        await is_as(alice, {})
        await w.app.commands.call("archive import", {"file": file})
        uid = await w.plugin("archive").uid_of("alice@localhost")
        assert len([row for row in await rows(w, "by_peer") if row["owner"] == uid]) == 4
        await is_as(alice, said)


async def test_who_walks_back_from_the_newest_meets_each_once(few: Few, monkeypatch: Any) -> None:
    async with world() as w:
        alice, _, _, said = await crowded(w, few)
        plugin = w.plugin("archive")
        uid = await plugin.uid_of("alice@localhost")
        later(w, days=-6)
        for _ in range(6):
            await put(w, uid, 0, peer=CAROL)
            later(w, days=1)
        await w.advance(30)
        for number in range(4):
            await say(alice, said, CAROL, f"b{number}")
            later(w, days=1)
        await put(w, uid, 0, peer=CAROL)
        seeker = plugin._seeker(uid)
        monkeypatch.setitem(type(seeker).newest.__globals__, "DAYS", 2)
        end = bound(int((plugin.now() + DAY) * 1e6))
        found = [one.id async for some in seeker.newest(CAROL, b"", end) for one in some]
        assert len(found) == len(said[CAROL]) + 7 and found == sorted({*found}, reverse=True)


async def test_what_is_written_is_counted_now_and_then() -> None:
    begun = list[tuple[str, int]]()
    counted = Crowds(lambda account, owner: begun.append((account, owner)))

    def wrote(owner: int, messages: int, *, day: int) -> None:
        folder = Folder(f"{owner}@b", owner, BOB, None)
        dialogue = SimpleNamespace(folders=[folder])
        id = bound(day * DAY * 10**6) + b"\0\0\0\0"
        for number in range(messages):
            entry = SimpleNamespace(id=id)
            counted.wrote([(entry, dialogue, b"")] * (1 + number % 2))  # type: ignore[list-item]

    wrote(1, 600, day=20_000)
    assert not begun
    wrote(1, 600, day=20_001)
    assert not begun, "a day of its own"
    wrote(1, 900, day=20_001)
    assert begun == [("1@b", 1)], "as many again, and nobody knows of it"
    wrote(1, 1400, day=20_001)
    assert begun == [("1@b", 1)] * 2
    counted.since[1] = bound(0)
    wrote(1, 3000, day=20_001)
    assert len(begun) == 2
