"""Each race of docs/design/011-roster-cache.md, step by step on a real Redis."""

import asyncio
import contextlib

import pytest

from xmppd.core.roster.packed import pack
from xmppd.core.roster.rosters import ROSTER, Roster
from xmppd.errors import StoreTimeout, StoreUnavailable

pytestmark = pytest.mark.asyncio

A = "a@x"


class Gate:
    """A point at which work stops until it is let through."""

    def __init__(self):
        self.reached = asyncio.Event()
        self._open = asyncio.Event()

    async def __call__(self):
        self.reached.set()
        await self._open.wait()

    def open(self):
        self._open.set()


@pytest.fixture
def first(nodes):
    return nodes[0]


@pytest.fixture
def second(nodes):
    return nodes[1]


async def truth(node):
    return await node.rosters._fetch(A)


async def assert_all_see_the_truth(*nodes):
    for node in nodes:
        node.rosters.forget_all()
        assert await node.load(A) == await truth(node)


async def test_a_reader_that_is_overtaken_by_a_writer_fills_nothing(first, second, store):
    await first.set(A, "b@x")
    await first.cache.read(A, fresh=True)  # not cached any more, and its lease is wasted
    await asyncio.sleep(0)
    second.rosters.forget_all()
    await drop_lease(second)
    gate = store.after["scan"] = Gate()
    reading = asyncio.ensure_future(second.load(A))
    await gate.reached.wait()
    written = await first.set(A, "c@x")
    await second.until(lambda: ("changed", A, written.version) in second.notices.all)
    gate.open()
    assert await reading == written, "what it had read was told to be old, so it read again"
    assert second.stats.fills_refused == 1
    assert await second.load(A) == written == await truth(first)


async def drop_lease(node):
    await node.cache._link.call("DEL", node.cache._keys(A)[1])


async def test_between_begin_and_finish_nothing_is_served_filled_or_kept(first, second, store):
    old = await first.set(A, "b@x")
    await second.load(A)
    gate = store.before["batch"] = Gate()
    writing = asyncio.ensure_future(first.set(A, "c@x"))
    await gate.reached.wait()
    await second.until(lambda: ("begun", A) in second.notices.all[-1:])
    store.scans = 0
    assert await second.load(A) == old
    assert await second.load(A) == old
    assert store.scans == 2, "neither from Redis nor from memory"
    gate.open()
    new = await writing
    assert await second.load(A) == new


async def test_a_reader_that_read_redis_before_a_write_reads_again(first, second, store):
    """The notice overtakes the answer to the reader."""
    await first.set(A, "b@x")
    second.rosters.forget_all()
    read, answered, go_on = second.cache.read, asyncio.Event(), asyncio.Event()

    async def slow_read(account, *, fresh=False):
        answer = await read(account, fresh=fresh)
        answered.set()
        await go_on.wait()
        return answer

    second.cache.read = slow_read
    reading = asyncio.ensure_future(second.load(A))
    await answered.wait()
    second.cache.read = read
    written = await first.set(A, "c@x")
    await second.until(lambda: ("changed", A, written.version) in second.notices.all)
    go_on.set()
    assert await reading == written
    assert await second.load(A) == written


async def test_of_two_readers_one_has_the_lease(first, second, store):
    await first.set(A, "b@x")
    await first.cache.read(A, fresh=True)
    await drop_lease(first)
    first.rosters.forget_all()
    gate = store.after["scan"] = Gate()
    reading = asyncio.ensure_future(first.load(A))
    await gate.reached.wait()
    assert await second.load(A) == await truth(second)
    assert second.rosters.cached(A) is None
    fills = first.stats.fills
    gate.open()
    await reading
    assert first.rosters.cached(A) is not None
    assert (first.stats.fills, second.stats.fills) == (fills + 1, 0)


async def test_a_reader_that_died_with_its_lease_blocks_for_seconds_only(first, second, shared_server):
    assert (await first.cache.read(A)).lease
    assert not (await second.cache.read(A)).lease
    assert 0 < shared_server.ask("PTTL", second.cache._keys(A)[1]) <= 3_000
    await drop_lease(first)  # as time does
    assert (await second.cache.read(A)).lease


@pytest.mark.parametrize("is_written", [False, True])
async def test_a_writer_that_dies_leaves_nothing_old(first, second, store, shared_server, is_written):
    await first.set(A, "b@x")
    await second.load(A)
    await second.cache.begin(A)  # and never finishes
    if is_written:
        await store.batch(*change_behind_the_cache(), static={"version": 2**41})
    await first.until(lambda: ("begun", A) in first.notices.all)
    second.rosters.forget_all()  # it is started again
    for node in (first, second):
        assert await node.load(A) == await truth(node)
        assert node.rosters.cached(A) is None
    mark = second.cache._keys(A)[2]
    assert 0 < shared_server.ask("PTTL", mark) <= 30_000
    shared_server.ask("DEL", *second.cache._keys(A)[1:])  # as time does
    await assert_all_see_the_truth(first, second)
    assert first.rosters.cached(A) is not None


def change_behind_the_cache():
    return ROSTER, (A,), []


async def test_a_mark_whose_time_has_come_does_not_count(first, second, shared_server):
    """The key lives as long as its newest mark; older ones end by their own time."""
    await first.set(A, "b@x")
    shared_server.ask("ZADD", second.cache._keys(A)[2], 1, "dead")
    await assert_all_see_the_truth(second)
    assert second.stats.hits == 1


async def test_of_two_writers_who_overlap_none_caches_what_may_be_old(first, second):
    """The store took the first one's change, then the second one's; the first finishes last."""
    one = await first.cache.begin(A)
    two = await second.cache.begin(A)
    assert not await second.cache.finish(two, 2, value(2)), "another mark stands"
    assert not await first.cache.finish(one, 1, value(1)), "it did not begin last"
    assert (await first.cache.read(A)).value is None


async def test_the_writer_who_began_last_and_is_alone_caches(first, second):
    one = await first.cache.begin(A)
    await second.until(lambda: ("begun", A) in second.notices.all)
    two = await second.cache.begin(A)
    assert not await first.cache.finish(one, 0), "refused by the store"
    assert await second.cache.finish(two, 2, value(2))
    assert (await first.cache.read(A)).value == value(2)


async def test_a_refused_writer_who_began_last_takes_only_its_own_mark_away(first, second):
    one = await first.cache.begin(A)
    two = await second.cache.begin(A)
    await second.cache.finish(two, 0)
    answer = await second.cache.read(A)
    assert (answer.value, answer.lease) == (None, ""), "the first one's mark stands"
    assert not await first.cache.finish(one, 1, value(1))
    assert (await second.cache.read(A)).lease


async def test_a_late_finish_does_not_bring_a_removed_roster_back(first, second):
    late = await first.cache.begin(A)
    removal = await second.cache.begin(A)
    await second.cache.finish(removal, -1)
    assert not await first.cache.finish(late, 5, value(5))
    assert (await second.cache.read(A)).value is None


async def test_a_finish_deletes_an_older_value_that_should_not_be_there(first, second, shared_server):
    """Mark and lease were evicted, and a reader filled meanwhile."""
    write = await first.cache.begin(A)
    shared_server.ask("DEL", *first.cache._keys(A))
    answer = await second.cache.read(A)
    assert await second.cache.fill(A, answer.lease, value(1), empty=False)
    assert not await first.cache.finish(write, 2, value(2))
    assert (await second.cache.read(A)).value is None


async def test_a_finish_leaves_a_newer_value(first, second, shared_server):
    write = await first.cache.begin(A)
    shared_server.ask("DEL", *first.cache._keys(A))
    answer = await second.cache.read(A)
    assert await second.cache.fill(A, answer.lease, value(3), empty=False)
    assert not await first.cache.finish(write, 2, value(2))
    assert (await second.cache.read(A)).value == value(3)


async def test_a_fill_that_comes_late_is_refused(first, second):
    lease = (await first.cache.read(A)).lease
    write = await second.cache.begin(A)
    assert not await first.cache.fill(A, lease, value(1), empty=False)
    assert await second.cache.finish(write, 2, value(2))
    assert not await first.cache.fill(A, lease, value(1), empty=False)
    assert (await first.cache.read(A)).value == value(2)


def value(version):
    return pack(Roster(A, version))


async def test_a_write_of_unknown_outcome_is_not_cached_until_it_is_settled(first, second, store):
    await first.set(A, "b@x")

    async def time_out():
        raise StoreTimeout("no answer")

    store.after["batch"] = time_out  # it was done
    assert (await first.set(A, "c@x")).size == 2
    for _ in range(2):
        assert (await second.load(A)).size == 2
        assert second.rosters.cached(A) is None
    assert (await first.load(A)).size == 2
    await assert_all_see_the_truth(first, second)


async def test_a_cancelled_change_leaves_nothing_old(first, second, store):
    await first.set(A, "b@x")
    await second.load(A)
    gate = store.after["batch"] = Gate()
    writing = asyncio.ensure_future(first.set(A, "c@x"))
    await gate.reached.wait()
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writing
    for node in (second, first):
        assert (await node.load(A)).size == 2
    await assert_all_see_the_truth(first, second)


async def test_a_write_that_the_store_refused_changes_nothing(first, second, store):
    await first.set(A, "b@x")

    async def refuse():
        raise StoreUnavailable("away")

    store.before["batch"] = refuse
    with pytest.raises(StoreUnavailable):
        await first.set(A, "c@x")
    assert (await second.load(A)).size == 1
    assert second.rosters.cached(A) is not None, "nothing stands in the way"
    await assert_all_see_the_truth(first, second)


async def test_another_begin_before_the_roster_is_kept(first, second, store):
    """The other node's notice comes between this one's finish and its keeping the roster."""
    finish = first.cache.finish

    async def slow_finish(write, version, value=b""):
        await second.cache.begin(A)  # and dies
        await first.until(lambda: not write.is_alone)
        return await finish(write, version, value)

    first.cache.finish = slow_finish
    written = await first.set(A, "b@x")
    first.cache.finish = finish
    assert first.rosters.cached(A) is None
    assert await first.load(A) == written


async def test_a_change_on_an_old_roster_reads_past_redis(first, second, store):
    """Redis says what was true before; the store refuses, and Redis is corrected."""
    old = await first.set(A, "b@x")
    await second.load(A)
    new = old.changed("c@x", None, old.version + 1)
    assert await store.batch(*change_behind_the_cache(), static={"version": new.version})
    assert (await second.load(A)).version == old.version
    written = await second.set(A, "d@x")
    assert written.version > new.version
    await first.until(lambda: ("changed", A, written.version) in first.notices.all)
    await assert_all_see_the_truth(first, second)


async def test_joiners_of_an_overtaken_load_do_not_keep_it(first, second, store):
    await first.set(A, "b@x")
    await first.cache.read(A, fresh=True)
    second.rosters.forget_all()
    await drop_lease(second)
    gate = store.after["scan"] = Gate()
    readings = [asyncio.ensure_future(second.load(A)) for _ in range(3)]
    await gate.reached.wait()
    written = await first.set(A, "c@x")
    await second.until(lambda: ("changed", A, written.version) in second.notices.all)
    store.scans = 0
    assert await second.load(A) == written, "who comes now does not wait for the old one"
    gate.open()
    await asyncio.gather(*readings)
    assert await second.load(A) == written
