"""What is Cassandra's own: lost answers, bounds, the breaker, migration by several at once."""

import asyncio
import dataclasses
import itertools
import threading
import time
from typing import Any

import pytest
import pytest_asyncio
from cassandra import Unavailable, WriteTimeout
from cassandra.cluster import NoHostAvailable
from faultydriver import LOST, Driver
from patience import PATIENCE

from xmppd.errors import StoreBug, StoreTimeout, StoreUnavailable
from xmppd.store._breaker import FAILURES, PAUSE_SECONDS
from xmppd.store.cassandra.errors import translated
from xmppd.store.cassandra.link import TRIES
from xmppd.store.cassandra.store import CassandraStore
from xmppd.store.table import Put, Table

pytestmark = pytest.mark.asyncio

ITEMS = Table(
    "items",
    partition=("account",),
    cluster=("contact",),
    columns={"name": "text", "rank": "int"},
    static={"version": "int"},
)
PROFILE = Table("profile", partition=("account",), columns={"name": "text", "age": "int"})


@pytest_asyncio.fixture
async def store(keyspace):
    store = CassandraStore(keyspace.options)
    await store.open([ITEMS, PROFILE])
    yield store
    await store.close()


@pytest.fixture
def driver(store):
    driver = Driver(store)
    yield driver
    driver.repair()


# what became of a conditional write


ERRORS = [
    LOST,
    WriteTimeout("cas", consistency=8, required_responses=2, received_responses=1, write_type=5),
    Unavailable("dead", consistency=6, required_replicas=2, alive_replicas=1),
    ConnectionError("gone"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_conditional_write_whose_answer_is_lost_was_applied(store, driver, error):
    for version, expect in ((1, None), (2, 1)):
        driver.script = [("lost", error)]
        done = await store.batch(
            ITEMS, ("a",), [Put({"contact": "b"})], static={"version": version}, expect={"version": expect}
        )
        assert done is True
    driver.script = [("lost", error)]
    assert await store.put_if(PROFILE, {"account": "a", "age": 1}, None) is True
    driver.script = [("lost", error)]
    assert await store.put_if(PROFILE, {"account": "a", "age": 2}, {"age": 1}) is True
    assert (await store.get(PROFILE, ("a",)))["age"] == 2
    assert (store.stats.unknown, store.stats.resolved) == (4, 4)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_conditional_write_that_was_not_applied_is_done_again(store, driver, error):
    await store.batch(ITEMS, ("a",), [], static={"version": 1}, expect={"version": None})
    driver.script = [("refused", error)]
    assert await store.batch(ITEMS, ("a",), [], static={"version": 2}, expect={"version": 1}) is True
    await store.put_if(PROFILE, {"account": "a", "age": 1}, None)
    driver.script = [("refused", error), None, ("refused", error)]
    assert await store.put_if(PROFILE, {"account": "a", "age": 2}, {"age": 1}) is True
    assert (await store.get(PROFILE, ("a",)))["age"] == 2
    assert await store.get_static(ITEMS, ("a",)) == {"version": 2}


@pytest.mark.parametrize("fault", ["refused", "lost"])
async def test_that_nothing_is_there_does_not_show_that_nothing_was_written(store, driver, keyspace, fault):
    """Somebody may have deleted it since: it must not come back."""

    def delete() -> None:
        for table in ("items", "profile"):
            keyspace.execute(f"DELETE FROM {keyspace.name}.{table} WHERE account = 'a'")

    driver.meanwhile = delete
    driver.script = [(fault, LOST)]
    with pytest.raises(StoreTimeout):
        await store.put_if(PROFILE, {"account": "a", "age": 1}, None)
    assert await store.get(PROFILE, ("a",)) is None
    driver.script = [(fault, LOST)]
    with pytest.raises(StoreTimeout):
        await store.batch(
            ITEMS, ("a",), [Put({"contact": "b"})], static={"version": 1}, expect={"version": None}
        )
    assert (await store.scan(ITEMS, ("a",))).rows == []


async def test_nobody_elses_write_is_taken_for_ours(store, driver, keyspace):
    """Another one writes the very same values in between: only the mark tells that ours was not applied."""
    driver.script = [("lost", LOST)]
    driver.meanwhile = lambda: keyspace.execute(
        f"UPDATE {keyspace.name}.items SET version = 1, \"batch:\" = 7 WHERE account = 'a'"
    )
    with pytest.raises(StoreTimeout):
        await store.batch(ITEMS, ("a",), [], static={"version": 1}, expect={"version": None})


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_conditional_deletion_whose_answer_is_lost_took_place(store, driver, error):
    await store.batch(ITEMS, ("a",), [Put({"contact": "b", "rank": 1})], static={"version": 1})
    driver.script = [("lost", error)]
    assert await store.delete_if(ITEMS, ("a", "b"), {"rank": 1}) is True
    assert (await store.scan(ITEMS, ("a",))).rows == []
    assert await store.get_static(ITEMS, ("a",)) == {"version": 1}
    assert (store.stats.unknown, store.stats.resolved, store.stats.not_applied) == (1, 1, 0)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_conditional_deletion_that_did_not_take_place_is_done_again(store, driver, error):
    assert await store.put_if(PROFILE, {"account": "a", "age": 1}, None)
    driver.script = [("refused", error), None, ("refused", error)]
    assert await store.delete_if(PROFILE, ("a",), {"age": 1, "name": None}) is True
    assert await store.get(PROFILE, ("a",)) is None
    assert (store.stats.unknown, store.stats.resolved) == (2, 2)


@pytest.mark.parametrize("fault", ["lost", "refused"])
async def test_who_took_the_place_of_a_deleted_row_is_spared_and_no_proof(store, driver, keyspace, fault):
    """The row may have been deleted and made anew, or changed before: that cannot be told."""
    await store.put(PROFILE, {"account": "a", "age": 1})
    driver.script = [(fault, LOST)]
    put = f"INSERT INTO {keyspace.name}.profile (account, age) VALUES ('a', 2)"
    driver.meanwhile = lambda: keyspace.execute(put)
    if fault == "refused":
        driver.meanwhile()
    with pytest.raises(StoreTimeout, match="has changed since"):
        await store.delete_if(PROFILE, ("a",), {"age": 1})
    assert (await store.get(PROFILE, ("a",)))["age"] == 2


async def test_another_one_s_deletion_counts_when_the_answer_is_lost(store, driver):
    driver.script = [("refused", LOST)]
    assert await store.delete_if(PROFILE, ("a",), {"age": 1}) is True
    assert await store.delete_if(PROFILE, ("a",), {"age": 1}) is False


async def test_no_answer_to_a_deletion_is_a_timeout_and_no_guess(store, driver):
    await store.put(PROFILE, {"account": "a", "age": 1})
    store._link._options = dataclasses.replace(store._link._options, request_timeout=0.5)
    driver.script = [("lost", LOST)] * 20
    with pytest.raises(StoreTimeout):
        await store.delete_if(PROFILE, ("a",), {"age": 1})
    driver.script = []
    assert await store.get(PROFILE, ("a",)) is None


async def test_no_answer_at_all_is_a_timeout_and_no_guess(store, driver):
    store._link._options = dataclasses.replace(store._link._options, request_timeout=0.5)
    driver.script = [("lost", LOST)] * 20
    with pytest.raises(StoreTimeout):
        await store.put_if(PROFILE, {"account": "a", "age": 1}, None)
    driver.script = []
    assert await store.put_if(PROFILE, {"account": "a", "age": 1}, None) is False


async def test_what_was_never_sent_is_unavailable(store, driver):
    nobody = NoHostAvailable("nobody", {"node": ConnectionError("refused")})
    driver.script = [("refused", nobody)]
    with pytest.raises(StoreUnavailable, match=r"node.*refused"):
        await store.put_if(PROFILE, {"account": "a", "age": 1}, None)
    assert driver.asked == 1  # and nothing was asked about


async def test_harmless_requests_are_repeated(store, driver):
    for error in (LOST, Unavailable("dead", required_replicas=2, alive_replicas=1)):
        driver.script = [("refused", error), ("lost", error)]
        await store.put(PROFILE, {"account": "a", "age": 1})
        driver.script = [("refused", error), ("lost", error)]
        assert (await store.get(PROFILE, ("a",)))["age"] == 1
    assert store.stats.retried == 8


async def test_a_write_that_may_be_done_is_never_called_refused(store, driver):
    nobody = NoHostAvailable("nobody", {"node": ConnectionError("refused")})
    driver.script = [("lost", LOST), *[("refused", nobody)] * TRIES]
    with pytest.raises(StoreTimeout):
        await store.put(PROFILE, {"account": "a", "age": 1})
    driver.script = [("refused", nobody)] * TRIES
    with pytest.raises(StoreUnavailable):
        await store.put(PROFILE, {"account": "a", "age": 1})


async def test_a_statement_that_is_not_taken_in_holds_up_nobody_beyond_the_deadline(store, driver):
    """The driver's own patience for that is ten seconds, and each of its threads has it."""
    store._link._options = dataclasses.replace(store._link._options, request_timeout=0.2)
    go_on, prepare = threading.Event(), driver.prepare

    def hang(text: str) -> Any:
        go_on.wait(2 * PATIENCE)
        return prepare(text)

    driver.prepare = hang
    begun = time.monotonic()
    calls = [
        store.get(PROFILE, ("a",)),
        store.put(PROFILE, {"account": "a", "age": 1}),
        store.put_if(PROFILE, {"account": "a", "age": 1}, None),
        store.batch(ITEMS, ("a",), [], static={"version": 1}, expect={"version": None}),
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 4
    assert time.monotonic() - begun < PATIENCE
    assert driver.asked == 0
    go_on.set()
    store._link._options = dataclasses.replace(store._link._options, request_timeout=5.0)
    assert await store.get(PROFILE, ("a",)) is None


async def test_a_statement_that_was_not_taken_in_is_tried_anew(store, driver):
    prepare = driver.prepare
    driver.prepare = lambda text: (_ for _ in ()).throw(ConnectionError("broken"))
    asking = asyncio.create_task(store.get(PROFILE, ("a",)))
    await asyncio.sleep(0)
    asking.cancel()  # and nobody waits for how it ends
    await asyncio.sleep(0.05)
    driver.prepare = prepare
    assert await store.get(PROFILE, ("a",)) is None


async def test_nothing_is_sent_when_the_time_is_up(store, driver):
    await store.get(PROFILE, ("a",))
    asked = driver.asked
    store._link._options = dataclasses.replace(store._link._options, request_timeout=0.0)
    with pytest.raises(StoreUnavailable):
        await store.put(PROFILE, {"account": "a", "age": 1})
    assert driver.asked == asked


async def test_a_request_that_is_wrong_is_not_repeated(store, driver):
    driver.script = [("refused", ValueError("wrong"))]
    with pytest.raises(StoreBug, match="wrong"):
        await store.get(PROFILE, ("a",))
    assert driver.asked == 1


async def test_errors_of_which_nothing_is_known_leave_the_outcome_unknown():
    class Novel(Exception):
        pass

    assert isinstance(translated(Novel()), StoreTimeout)
    assert isinstance(translated(Unavailable("x", required_replicas=2, alive_replicas=0)), StoreUnavailable)
    unsure = translated(Unavailable("x", required_replicas=2, alive_replicas=0), conditional=True)
    assert isinstance(unsure, StoreTimeout)


# what is under way


async def test_a_dead_store_is_not_asked_and_comes_back(store, driver):
    await store.get(PROFILE, ("a",))  # the statement is taken in
    store._link._options = dataclasses.replace(store._link._options, request_timeout=0.04)
    driver.script = [("refused", LOST)] * 1000
    for _ in range(FAILURES):
        with pytest.raises(StoreTimeout):
            await store.get(PROFILE, ("a",))
    asked = driver.asked
    begun = time.monotonic()
    for _ in range(1000):
        with pytest.raises(StoreUnavailable):
            await store.put(PROFILE, {"account": "a"})
    assert (driver.asked, store.stats.refused, store.stats.breaker_opened) == (asked, 1000, 1)
    assert time.monotonic() - begun < PAUSE_SECONDS
    store._link._options = dataclasses.replace(store._link._options, request_timeout=5.0)
    driver.script = []
    await asyncio.sleep(PAUSE_SECONDS + 0.05)
    await store.put(PROFILE, {"account": "a", "age": 5})
    assert (await store.get(PROFILE, ("a",)))["age"] == 5


async def test_one_request_at_a_time_tries_a_dead_store(store, driver):
    await store.get(PROFILE, ("a",))  # the statement is taken in
    store._link._options = dataclasses.replace(store._link._options, request_timeout=0.04)
    driver.script = [("refused", LOST)] * 1000
    for _ in range(FAILURES):
        with pytest.raises(StoreTimeout):
            await store.get(PROFILE, ("a",))
    await asyncio.sleep(PAUSE_SECONDS + 0.05)
    asked = driver.asked
    outcomes = await asyncio.gather(*(store.get(PROFILE, ("a",)) for _ in range(50)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(StoreTimeout) == 1
    assert [type(outcome) for outcome in outcomes].count(StoreUnavailable) == 49
    assert driver.asked == asked + 1


async def test_what_waits_is_bounded(keyspace):
    store = CassandraStore(dataclasses.replace(keyspace.options, in_flight=2, waiting=3))
    await store.open([PROFILE])
    await store.get(PROFILE, ("a",))
    driver = Driver(store)
    driver.silent = []
    asking = [asyncio.create_task(store.get(PROFILE, ("a",))) for _ in range(8)]
    await asyncio.sleep(0.05)
    assert (len(driver.silent), store.stats.in_flight, store.stats.waiting) == (2, 2, 3)
    refused = [task for task in asking if task.done()]
    assert [type(task.exception()) for task in refused] == [StoreUnavailable] * 3
    silent, driver.silent = driver.silent, None
    for each in silent:
        each.answer()
    assert [await task for task in asking if task not in refused] == [None] * 5
    driver.repair()
    await store.close()


async def test_who_is_cancelled_leaves_no_request_uncounted(store, driver):
    await store.get(PROFILE, ("a",))
    driver.silent = []
    asking = [asyncio.create_task(store.get(PROFILE, ("a",))) for _ in range(5)]
    await asyncio.sleep(0.05)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    assert store.stats.in_flight == 5  # Cassandra still works on them
    for each in driver.silent:
        each.answer()
    await asyncio.sleep(0.05)
    assert store.stats.in_flight == 0
    driver.silent = None


async def test_close_waits_for_every_accepted_write(keyspace):
    store = CassandraStore(dataclasses.replace(keyspace.options, in_flight=8))
    await store.open([ITEMS])
    writes = [
        asyncio.create_task(store.put(ITEMS, {"account": str(n % 7), "contact": f"{n:03}", "rank": n}))
        for n in range(300)
    ]
    writes += [
        asyncio.create_task(store.batch(ITEMS, ("c",), [], static={"version": 1}, expect={"version": None}))
    ]
    await asyncio.sleep(0)
    await store.close()
    assert all(task.done() for task in writes)
    assert [task.exception() for task in writes] == [None] * 301
    store = CassandraStore(keyspace.options)
    await store.open([ITEMS])
    rows = (await store.scan_all(ITEMS)).rows
    assert sorted(row["rank"] for row in rows) == list(range(300))
    await store.close()


async def test_answers_come_on_the_loop_and_no_thread_of_the_driver_reads(store):
    seen = set()
    complete = store._link._complete

    def watched(*outcome):
        seen.add(threading.get_ident())
        complete(*outcome)

    store._link._complete = watched
    await asyncio.gather(*(store.get(PROFILE, (str(n),)) for n in range(400)))
    assert seen == {threading.get_ident()}
    assert store.stats.completions >= 400


async def test_a_loop_that_is_held_up_takes_what_has_come_and_no_deadline_before(store):
    await store.get(PROFILE, ("a",))
    asking = [asyncio.create_task(store.get(PROFILE, (str(n),))) for n in range(400)]
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251 - the loop is held up while answers come in
    await asyncio.gather(*asking)
    assert store.stats.retried == 0


# several servers


async def test_servers_that_count_together_lose_nothing(keyspace):
    """Each success is one step of one history, also when answers are lost: every value is one's, once."""
    stores = [CassandraStore(keyspace.options) for _ in range(3)]
    for each in stores:
        await each.open([ITEMS, PROFILE])
    drivers = [Driver(each) for each in stores]
    taken: list[int] = []
    unknown: list[int] = []
    numbers = itertools.count()

    async def count(store: CassandraStore, driver: Driver) -> None:
        for _ in range(8):
            version = ((await store.get_static(ITEMS, ("a",))) or {"version": None})["version"]
            if next(numbers) % 5 == 0:
                driver.script = [("lost", LOST)]
            try:
                done = await store.batch(
                    ITEMS, ("a",), [], static={"version": (version or 0) + 1}, expect={"version": version}
                )
            except StoreTimeout:
                unknown.append((version or 0) + 1)
            else:
                taken.extend([(version or 0) + 1] * done)

    await asyncio.gather(*(count(*pair) for pair in zip(stores, drivers, strict=True) for _ in range(4)))
    final = (await stores[0].get_static(ITEMS, ("a",)))["version"]
    assert len(set(taken)) == len(taken)
    assert set(taken) <= set(range(1, final + 1))
    assert set(range(1, final + 1)) - set(taken) <= set(unknown)
    for each, driver in zip(stores, drivers, strict=True):
        driver.repair()
        await each.close()


async def test_servers_that_make_and_delete_one_row_delete_only_their_own(keyspace):
    """Also when answers are lost: no moment is made twice, so what a deletion meant never comes back."""
    stores = [CassandraStore(keyspace.options) for _ in range(3)]
    for each in stores:
        await each.open([PROFILE])
    drivers = [Driver(each) for each in stores]
    moments, deletions = itertools.count(1), itertools.count()
    taken: list[int] = []

    async def make_and_delete(store: CassandraStore, driver: Driver) -> None:
        for _ in range(10):
            age = next(moments)
            if not await store.put_if(PROFILE, {"account": "a", "age": age}, None):
                continue
            assert (await store.get(PROFILE, ("a",)))["age"] == age  # nobody else deletes it
            if next(deletions) % 3 == 0:
                driver.script = [("lost" if age % 2 else "refused", LOST)]
            try:
                assert await store.delete_if(PROFILE, ("a",), {"age": age})
            except StoreTimeout:
                assert (await store.get(PROFILE, ("a",)) or {"age": None})["age"] != age
            taken.append(age)

    await asyncio.gather(*map(make_and_delete, stores, drivers))
    assert len(taken) == next(deletions) > 3
    assert await stores[0].get(PROFILE, ("a",)) is None
    for each, driver in zip(stores, drivers, strict=True):
        driver.repair()
        await each.close()
