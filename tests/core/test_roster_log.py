"""The operation log of rosters: what an entry says, how long it lives, how large it grows."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import stores

from xmppd.core.roster.item import item_from, value_of
from xmppd.core.roster.log import ENTRIES_A_DAY, ENTRY_LETTERS, LogEntry, entry_of, version_name
from xmppd.core.roster.rosters import ROSTER, Roster, RosterItem, Rosters, SetRequest
from xmppd.core.roster.subscription import State
from xmppd.errors import StoreBug
from xmppd.store.table import Store

ALICE = "alice@localhost"
BOB = "bob@localhost"
CAROL = "carol@localhost"
NOW = 1_700_000_000.0


class Clock:
    """Seconds since the epoch that move when told."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> float:
        return self.time


async def load(rosters: Rosters) -> Roster:
    found = rosters.load(ALICE)
    return found if isinstance(found, Roster) else await found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def store(clock: Clock) -> AsyncIterator[Store]:
    store = stores.new_store(now=clock)
    await store.open([ROSTER])
    yield store
    await store.close()


def rosters_on(store: Any, clock: Clock, **options: Any) -> Rosters:
    return Rosters(store, now=clock, **options)


def every_item() -> list[RosterItem]:
    texts = (("", (), b""), ("Bob & 'Co' <3", ("one", "zwei \U0001f600"), "<nick>ü</nick>".encode()))
    return [
        RosterItem(BOB, name=name, groups=groups, hidden=hidden).moved(
            state, approved=approved, request=request
        )
        for state in State
        for approved in (False, True)
        for hidden in (False, True)
        for name, groups, request in texts
    ]


@pytest.mark.parametrize("item", every_item(), ids=str)
def test_an_item_comes_back_from_its_row(item: RosterItem) -> None:
    assert item_from(BOB, value_of(item)) == item


@pytest.mark.parametrize(
    "item", [RosterItem(BOB, name="a\x1fb"), RosterItem(BOB, groups=("a\x1fb",))], ids=["name", "group"]
)
def test_the_separator_is_refused(item: RosterItem) -> None:
    with pytest.raises(StoreBug, match="control character"):
        value_of(item)


def test_words_that_nobody_wrote_are_refused() -> None:
    with pytest.raises(StoreBug, match="blocked"):
        item_from(BOB, "blocked\x1f\x1f")


def test_versions_sort_as_text() -> None:
    versions = [1, 9, 10, 999, 1_000_000, 1_700_000_000_000, 10**15]
    assert sorted(map(version_name, versions)) == [version_name(version) for version in versions]


@pytest.mark.asyncio
async def test_every_change_is_logged(store: Store, clock: Clock) -> None:
    rosters = rosters_on(store, clock)
    phone = f"{ALICE}/phone"
    one = await rosters.set_item(ALICE, SetRequest(BOB, "Bob", ("g",)), by=phone)
    clock.time += 1
    two = (await rosters.inbound_subscription(ALICE, BOB, "subscribe", b"<nick/>")).change
    three = (await rosters.outbound_subscription(ALICE, BOB, "subscribed")).change
    four = await rosters.remove_item(ALICE, BOB, by="admin")
    await rosters.inbound_subscription(ALICE, BOB, "unsubscribe")  # changes nothing
    expected = [
        LogEntry(one.version, 0, NOW, phone, "set", BOB, None, one.new),
        LogEntry(two.version, one.version, NOW + 1, BOB, "received subscribe", BOB, one.new, two.new),
        LogEntry(three.version, two.version, NOW + 1, ALICE, "sent subscribed", BOB, two.new, three.new),
        LogEntry(four.version, three.version, NOW + 1, "admin", "remove", BOB, three.new, None),
    ]
    assert await rosters.log(ALICE) == expected
    assert await rosters.log(ALICE, after=two.version) == expected[2:]
    assert await rosters.log(ALICE, after=one.version, limit=1) == expected[1:2]
    assert await rosters.log(BOB) == []
    assert [entry async for entry in rosters.log_backwards(ALICE)] == expected[::-1]


@pytest.mark.asyncio
async def test_the_log_is_no_part_of_the_roster(store: Store, clock: Clock) -> None:
    rosters = rosters_on(store, clock)
    for number in range(5):
        await rosters.set_item(ALICE, SetRequest(BOB, str(number), ()))
    fresh = rosters_on(store, clock)
    assert await fresh.items(ALICE) == [RosterItem(BOB, name="4")]
    roster = await load(fresh)
    assert roster == rosters.cached(ALICE)
    await fresh.remove_account(ALICE)
    assert await fresh.log(ALICE) == []


@pytest.mark.own_engine
@pytest.mark.asyncio
async def test_entries_expire_and_the_roster_does_not(store: Store, clock: Clock) -> None:
    rosters = rosters_on(store, clock, log_days=2)
    await rosters.set_item(ALICE, SetRequest(BOB, "", ()))
    clock.time += 86_400
    change = await rosters.set_item(ALICE, SetRequest(CAROL, "", ()))
    assert len(await rosters.log(ALICE)) == 2
    clock.time += 86_401
    assert [entry.contact for entry in await rosters.log(ALICE)] == [CAROL]
    clock.time += 1e9
    assert await rosters.log(ALICE) == []
    fresh = rosters_on(store, clock)
    assert [item.contact for item in await fresh.items(ALICE)] == [BOB, CAROL]
    assert await load(fresh) == change.roster


@pytest.mark.asyncio
async def test_without_a_log_nothing_is_logged(store: Store, clock: Clock) -> None:
    rosters = rosters_on(store, clock, log_days=0)
    await rosters.set_item(ALICE, SetRequest(BOB, "", ()))
    assert await rosters.log(ALICE) == []


@pytest.mark.asyncio
async def test_a_flood_of_changes_does_not_fill_the_log(store: Store, clock: Clock) -> None:
    rosters = rosters_on(store, clock)
    for _ in range(ENTRIES_A_DAY):
        await rosters.inbound_subscription(ALICE, BOB, "subscribe")
        await rosters.inbound_subscription(ALICE, BOB, "unsubscribe")
    assert len(await rosters.log(ALICE)) == ENTRIES_A_DAY
    backwards = [entry async for entry in rosters.log_backwards(ALICE)]  # more than one page
    assert backwards == (await rosters.log(ALICE))[::-1]
    own = await rosters.set_item(ALICE, SetRequest(CAROL, "", ()))  # has a budget of its own
    assert (await rosters.log(ALICE))[-1].version == own.version
    clock.time += 86_400
    await rosters.inbound_subscription(ALICE, BOB, "subscribe")
    assert len(await rosters.log(ALICE)) == ENTRIES_A_DAY + 2


@pytest.mark.asyncio
async def test_an_entry_is_never_long(store: Store, clock: Clock) -> None:
    rosters = rosters_on(store, clock)
    await rosters.inbound_subscription(ALICE, BOB, "subscribe", b"x" * 10_000)
    groups = tuple(f"{number}{'g' * 1000}" for number in range(10))
    await rosters.set_item(ALICE, SetRequest(CAROL, "n" * 1000, groups))
    request, item = await rosters.log(ALICE)
    assert request.is_whole
    assert request.new == RosterItem(BOB, pending_in=True, hidden=True)
    assert (item.is_whole, item.old, item.new) == (False, None, None)
    assert (item.contact, item.what) == (CAROL, "set")
    rows = (await store.scan(ROSTER, (ALICE,), start=("log",), end=("log",))).rows
    assert all(len(row["value"]) <= ENTRY_LETTERS for row in rows)
    assert [entry_of(row) for row in rows] == [request, item]
