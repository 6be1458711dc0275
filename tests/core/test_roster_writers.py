"""Rosters in memory and in the store: small, read once, exact with many writers and failing stores."""

import asyncio
import itertools
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, cast

import pytest
from remembered import load, rosters_on

from xmppd.core.roster.cache import RosterCache
from xmppd.core.roster.rosters import Roster, RosterItem, Rosters, SetRequest
from xmppd.core.roster.shelf import Shelf
from xmppd.errors import StoreConflict, StoreTimeout, StoreUnavailable
from xmppd.store.table import Store

ALICE = "alice@localhost"
BOB = "bob@localhost"
CAROL = "carol@localhost"


@pytest.fixture
def rosters(store: Store) -> Rosters:
    return rosters_on(store)


async def reload(store: Store, account: str = ALICE) -> Roster:
    return await load(rosters_on(store), account)


# memory


@pytest.mark.asyncio
async def test_memory_of_fifty_friends(store: Store) -> None:
    rows = [f"user{number}@localhost" for number in range(50)]
    writer = rosters_on(store)
    for contact in rows:
        await writer.outbound_subscription(ALICE, contact, "subscribe")
        await writer.inbound_subscription(ALICE, contact, "subscribed")
        await writer.inbound_subscription(ALICE, contact, "subscribe")
        await writer.outbound_subscription(ALICE, contact, "subscribed")
        await writer.set_item(ALICE, SetRequest(contact, "Summoner 12345", ("**Default",)))
    roster = await reload(store)
    assert roster.followers is roster.following
    away = (await writer.remove_item(ALICE, "user1@localhost")).roster
    assert away.followers is away.following
    assert all(contact is sys.intern(contact) for contact in roster.followers)
    parts = (roster, roster.followers, roster.shelf, roster.shelf.blocks, *roster.shelf.blocks)
    assert sum(map(sys.getsizeof, parts)) < 1500
    assert sum(map(sys.getsizeof, parts)) <= roster.weight < 2000
    assert roster.packed.count(b"<item ") == roster.size == 50


def shelf(length: int) -> Shelf:
    return Shelf((), (b"x" * length,), 1, length)


def test_cache_keeps_the_rosters_used_last() -> None:
    cache = RosterCache(3500)
    for account in ("a", "b"):
        cache.keep(Roster(account, 1, shelf=shelf(1000)))
    assert cache.get("a") is not None
    cache.keep(Roster("c", 1, shelf=shelf(1000)))
    assert [account for account in "abc" if cache.get(account)] == ["a", "c"]
    assert 2000 < cache.bytes <= 3500
    cache.keep(Roster("huge", 1, shelf=shelf(10_000)))
    assert [account for account in ("a", "c", "huge") if cache.get(account)] == ["huge"]
    cache.drop("huge")
    assert (len(cache), cache.bytes) == (0, 0)


def test_cache_prefers_the_newer_version() -> None:
    cache = RosterCache(3000)
    newer = Roster("a", 2)
    assert cache.keep(newer) is newer
    assert cache.keep(Roster("a", 1)) is newer
    assert cache.get("a") is newer


# loading


class Wrapped:
    """A store between us and the real one: counts, holds back and breaks calls."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.scans = 0
        self.has_read = asyncio.Event()
        self.hold: asyncio.Event | None = None
        self.fail: Callable[[], BaseException] | None = None
        self.refuse = False
        self.late: Callable[[], Awaitable[bool]] | None = None
        self.meanwhile: Callable[[], Awaitable[Any]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def scan(self, *args: Any, **options: Any) -> Any:
        self.scans += 1
        page = await self.store.scan(*args, **options)
        self.has_read.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.fail is not None:
            raise self.fail()
        return page

    async def get_static(self, *args: Any) -> Any:
        if self.meanwhile is not None:
            await self.meanwhile()
        return await self.store.get_static(*args)

    async def batch(self, *args: Any, **options: Any) -> bool:
        if self.refuse:
            return False
        if self.fail is not None:
            self.late = self.late or (lambda: self.store.batch(*args, **options))
            raise self.fail()
        return await self.store.batch(*args, **options)


@pytest.fixture
def wrapped(store: Store) -> Wrapped:
    return Wrapped(store)


@pytest.mark.asyncio
async def test_a_roster_is_read_once(wrapped: Wrapped) -> None:
    rosters = rosters_on(wrapped)
    assert rosters.cached(ALICE) is None
    loaded = await asyncio.gather(*(load(rosters) for _ in range(10)))
    assert all(roster is loaded[0] for roster in loaded)
    assert rosters.load(ALICE) is rosters.cached(ALICE) is loaded[0]
    assert wrapped.scans == 1
    rosters.forget(ALICE)
    assert rosters.cached(ALICE) is None


@pytest.mark.asyncio
async def test_if_the_reader_is_cancelled_another_reads(wrapped: Wrapped) -> None:
    rosters = rosters_on(wrapped)
    wrapped.hold = asyncio.Event()
    first, second, third = (asyncio.ensure_future(load(rosters)) for _ in range(3))
    await asyncio.sleep(0)
    first.cancel()
    wrapped.hold.set()
    assert (await second).version == (await third).version == 0
    assert first.cancelled()
    assert wrapped.scans == 2


@pytest.mark.asyncio
async def test_all_who_wait_learn_of_a_failure(wrapped: Wrapped) -> None:
    rosters = rosters_on(wrapped)
    wrapped.fail = StoreUnavailable
    wrapped.hold = asyncio.Event()
    loads = [asyncio.ensure_future(load(rosters)) for _ in range(3)]
    await asyncio.sleep(0)
    wrapped.hold.set()
    failures = await asyncio.gather(*loads, return_exceptions=True)
    assert [type(error) for error in failures] == [StoreUnavailable] * 3
    assert wrapped.scans == 1
    wrapped.fail = None
    assert (await load(rosters)).version == 0


@pytest.mark.asyncio
async def test_a_change_during_a_load_is_not_missed(wrapped: Wrapped) -> None:
    rosters = rosters_on(wrapped)
    await rosters.set_item(ALICE, SetRequest(BOB, "", ()))
    rosters.forget(ALICE)
    wrapped.hold = asyncio.Event()
    loads = [asyncio.ensure_future(load(rosters)) for _ in range(2)]
    await asyncio.sleep(0)
    change = asyncio.ensure_future(rosters.set_item(ALICE, SetRequest(CAROL, "", ())))
    wrapped.hold.set()
    newest = (await change).roster
    assert {roster.version for roster in await asyncio.gather(*loads)} <= {1, 2}
    assert rosters.cached(ALICE) is newest
    assert newest.size == 2


@pytest.mark.asyncio
async def test_what_is_forgotten_during_a_load_is_read_again(wrapped: Wrapped, store: Store) -> None:
    """A session that logs in has no roster yet, so the notice that came meanwhile told it nothing."""
    rosters = rosters_on(wrapped)
    await rosters_on(store).set_item(ALICE, SetRequest(BOB, "", ()))
    wrapped.hold = asyncio.Event()
    loading = asyncio.ensure_future(load(rosters))
    await wrapped.has_read.wait()
    await rosters_on(store).set_item(ALICE, SetRequest(CAROL, "", ()))
    rosters.forget(ALICE)
    wrapped.hold.set()
    assert (await loading).size == 2
    assert rosters.cached(ALICE) is await loading
    assert wrapped.scans == 2


@pytest.mark.asyncio
async def test_a_roster_that_never_stands_still_is_read_a_few_times(wrapped: Wrapped) -> None:
    rosters = rosters_on(wrapped)

    async def forget() -> None:
        rosters.forget(ALICE)

    wrapped.meanwhile = forget
    assert (await load(rosters)).version == 0
    assert wrapped.scans == 3
    assert rosters.cached(ALICE) is None


@pytest.mark.asyncio
async def test_an_item_that_comes_between_two_reads_is_seen(wrapped: Wrapped, store: Store) -> None:
    wrapped.meanwhile = lambda: rosters_on(store).set_item(ALICE, SetRequest(BOB, "", ()))
    roster = await load(rosters_on(wrapped))
    assert (roster.version, roster.size) == (1, 1)


class Unquiet:
    """A store in which an item comes and goes, so many times before each of the next reads."""

    def __init__(self, store: Store, account: str, times: Iterable[int]) -> None:
        self._store = store
        self._account = account
        self._times = iter(times)
        self._writer = rosters_on(store)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def scan(self, *args: Any, **options: Any) -> Any:
        await self._change()
        return await self._store.scan(*args, **options)

    async def get_static(self, *args: Any) -> Any:
        await self._change()
        return await self._store.get_static(*args)

    async def _change(self) -> None:
        for _ in range(next(self._times, 0)):
            if (await load(self._writer, self._account)).size:
                await self._writer.remove_item(self._account, BOB)
            else:
                await self._writer.set_item(self._account, SetRequest(BOB, "", ()))


@pytest.mark.asyncio
async def test_what_is_read_is_never_taken_for_something_newer(store: Store) -> None:
    """Of an empty roster the version is read by itself: it must not be one at which an item was there."""
    for number, times in enumerate(itertools.product(range(3), repeat=4)):
        account = f"a{number}@localhost"
        await rosters_on(store).set_item(account, SetRequest(BOB, "", ()))
        await rosters_on(store).remove_item(account, BOB)
        roster = await load(rosters_on(cast("Store", Unquiet(store, account, times))), account)
        now = await reload(store, account)
        assert roster.version < now.version or roster.packed == now.packed, times


@pytest.mark.asyncio
async def test_what_came_while_an_empty_roster_was_read_is_rewritten_too(
    wrapped: Wrapped, store: Store
) -> None:
    wrapped.meanwhile = lambda: rosters_on(store).set_item(ALICE, SetRequest(BOB, "", ()))
    rewrite = await rosters_on(wrapped).rewrite(ALICE, lambda old: {}, by="test", what="test")
    assert [*rewrite.old] == [BOB]
    assert (await reload(store)).size == 0


# many writers


@pytest.mark.asyncio
async def test_two_writers_lose_nothing(store: Store) -> None:
    ours, theirs = rosters_on(store), rosters_on(store)
    versions: list[int] = []

    async def write(rosters: Rosters, name: str) -> None:
        for number in range(10):
            change = await rosters.set_item(ALICE, SetRequest(f"{name}{number}@x", "", ()))
            versions.append(change.version)

    await asyncio.gather(
        *(write(rosters, f"{name}{side}") for side, rosters in enumerate((ours, theirs)) for name in "ab")
    )
    assert sorted(versions) == list(range(1, 41))
    assert (await reload(store)).size == 40


@pytest.mark.asyncio
async def test_a_read_modify_write_is_atomic(store: Store) -> None:
    def count(item: RosterItem | None) -> RosterItem:
        item = item or RosterItem(BOB, name="0")
        return replace(item, name=str(int(item.name) + 1))

    both = [rosters_on(store), rosters_on(store)]
    await asyncio.gather(*(both[turn % 2].change(ALICE, BOB, count) for turn in range(30)))
    item = await both[0].get_item(ALICE, BOB)
    assert item is not None
    assert item.name == "30"


@pytest.mark.asyncio
async def test_changes_return_in_the_order_of_their_versions(rosters: Rosters) -> None:
    pushed: list[int] = []

    async def change(number: int) -> None:
        pushed.append((await rosters.set_item(ALICE, SetRequest(BOB, str(number), ()))).version)

    await asyncio.gather(*map(change, range(50)))
    assert pushed == list(range(1, 51))


@pytest.mark.asyncio
async def test_a_crowd_asks_at_once(rosters: Rosters) -> None:
    crowd = [f"fan{number:03}@x" for number in range(100)]
    await asyncio.gather(
        *(rosters.inbound_subscription(ALICE, fan, "subscribe", b"<nick/>") for fan in crowd)
    )
    assert (await load(rosters)).requests == tuple((fan, b"<nick/>") for fan in crowd)


@pytest.mark.asyncio
async def test_what_another_process_wrote_is_seen_by_the_next_change(store: Store) -> None:
    ours, theirs = rosters_on(store), rosters_on(store)
    await ours.set_item(ALICE, SetRequest(BOB, "", ()))
    await theirs.remove_item(ALICE, BOB)
    await theirs.set_item(ALICE, SetRequest(CAROL, "Carol", ()))
    change = await ours.set_item(ALICE, SetRequest(CAROL, "C.", ()))
    assert change.old == RosterItem(CAROL, name="Carol")
    assert change.version == 4
    assert change.roster.packed == (await reload(store)).packed
    await theirs.set_item(ALICE, SetRequest(CAROL, "Carol", ()))
    unchanged = await ours.set_item(ALICE, SetRequest(CAROL, "Carol", ()))
    assert unchanged.version == 5


@pytest.mark.asyncio
async def test_endless_conflict_is_given_up(wrapped: Wrapped) -> None:
    rosters = rosters_on(wrapped)
    wrapped.refuse = True
    with pytest.raises(StoreConflict):
        await rosters.set_item(ALICE, SetRequest(BOB, "", ()))
    wrapped.refuse = False
    assert (await rosters.set_item(ALICE, SetRequest(BOB, "", ()))).version == 1


@pytest.mark.parametrize("failure", [StoreTimeout, asyncio.CancelledError])
@pytest.mark.parametrize("items", [0, 1])
@pytest.mark.asyncio
async def test_a_write_of_unknown_outcome_cannot_happen_later(
    wrapped: Wrapped, failure: Callable[[], BaseException], items: int
) -> None:
    rosters = rosters_on(wrapped)
    for number in range(items):
        await rosters.set_item(ALICE, SetRequest(f"x{number}@x", "", ()))
    await load(rosters)
    wrapped.fail = failure
    with pytest.raises((StoreTimeout, asyncio.CancelledError)):
        await rosters.set_item(ALICE, SetRequest(BOB, "", ()))
    wrapped.fail = None
    seen = await load(rosters)
    assert wrapped.late is not None
    assert not await wrapped.late()  # the slow write arrives now: too late
    assert seen.packed == (await reload(wrapped.store)).packed
    assert (await rosters.set_item(ALICE, SetRequest(BOB, "", ()))).roster.size == items + 1


@pytest.mark.asyncio
async def test_a_removal_that_comes_late_takes_nothing_that_was_written_since(
    wrapped: Wrapped, store: Store
) -> None:
    rosters = rosters_on(wrapped)
    await rosters.set_item(ALICE, SetRequest(BOB, "", ()))
    wrapped.fail = StoreTimeout
    with pytest.raises(StoreTimeout):
        await rosters.remove_account(ALICE)
    wrapped.fail = None
    await rosters.remove_account(ALICE)
    await rosters_on(store, now=lambda: 9.0).set_item(ALICE, SetRequest(CAROL, "", ()))
    assert wrapped.late is not None
    assert not await wrapped.late()
    assert [item.contact for item in await rosters.items(ALICE)] == [CAROL]


@pytest.mark.asyncio
async def test_a_removal_wins_over_changes_in_between(wrapped: Wrapped, store: Store) -> None:
    rosters, others = rosters_on(wrapped), rosters_on(store)
    await others.set_item(ALICE, SetRequest(BOB, "", ()))
    read = wrapped.store.get_static

    async def read_and_be_late(*args: Any) -> Any:
        row = await read(*args)
        if (await others.items(ALICE))[-1].contact != CAROL:
            await others.set_item(ALICE, SetRequest(CAROL, "", ()))
        return row

    wrapped.get_static = read_and_be_late  # type: ignore[method-assign]
    await rosters.remove_account(ALICE)
    assert await rosters.items(ALICE) == []


async def with_a_first_write_unheard(wrapped: Wrapped) -> Rosters:
    """Rosters whose first change may be made yet: by `wrapped.late`."""
    rosters = rosters_on(wrapped)
    await load(rosters)
    wrapped.fail = StoreTimeout
    with pytest.raises(StoreTimeout):
        await rosters.set_item(ALICE, SetRequest(BOB, "", ()))
    wrapped.fail = None
    return rosters


@pytest.mark.asyncio
async def test_the_first_write_of_a_roster_does_not_come_after_its_removal(wrapped: Wrapped) -> None:
    rosters = await with_a_first_write_unheard(wrapped)
    await rosters.remove_account(ALICE)
    assert wrapped.late is not None
    assert not await wrapped.late()
    assert await rosters.items(ALICE) == []


@pytest.mark.asyncio
async def test_a_write_that_happened_after_all_is_seen(wrapped: Wrapped) -> None:
    rosters = await with_a_first_write_unheard(wrapped)
    assert wrapped.late is not None
    assert await wrapped.late()
    assert (await load(rosters)).size == 1


class OneTimeout(Wrapped):
    """A store that does not say what became of one batch."""

    def __init__(self, store: Store, *, happens: bool) -> None:
        super().__init__(store)
        self.happens: bool | None = happens

    async def batch(self, *args: Any, **options: Any) -> bool:
        happens, self.happens = self.happens, None
        if happens is not None:
            if happens:
                await self.store.batch(*args, **options)
            raise StoreTimeout("who knows")
        return await self.store.batch(*args, **options)


@pytest.mark.parametrize("happens", [False, True])
@pytest.mark.asyncio
async def test_a_write_of_unknown_outcome_is_made_if_it_was_not(store: Store, happens: bool) -> None:
    """Nodes that change one roster at once leave each other such outcomes."""
    await rosters_on(store).set_item(ALICE, SetRequest(CAROL, "Carol", ()))
    rosters = rosters_on(OneTimeout(store, happens=happens))
    change = await rosters.set_item(ALICE, SetRequest(BOB, "Bob", ()))
    assert (change.old, change.new) == (None, RosterItem(BOB, name="Bob"))
    assert (await reload(store)).size == change.roster.size == 2
    assert [entry.contact for entry in await rosters.log(ALICE)] == [CAROL, BOB]
    rosters = rosters_on(OneTimeout(store, happens=happens))
    assert (await rosters.remove_item(ALICE, BOB)).new is None
    assert (await reload(store)).size == 1
