"""What other servers wrote late for an account that was removed here goes, too, whatever the store does."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from stores import new_store

from xmppd.core.accounts import ACCOUNT, GONE, TABLES, AccountExists, Accounts
from xmppd.errors import StoreTimeout, StoreUnavailable
from xmppd.store.table import Store
from xmppd.testing import World

ALICE = "alice@example.org"


class Failing:
    """A store that fails a call of each of these names, `after` it was done or before."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.fails: list[str] = []
        self.after = False

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **how: Any) -> Any:
            if name not in self.fails:
                return await getattr(self._store, name)(*args, **how)
            self.fails.remove(name)
            if self.after:
                await getattr(self._store, name)(*args, **how)
                raise StoreTimeout("late")
            raise StoreUnavailable("gone")

        return call


class Case:
    """Accounts whose removal was a while ago, and whose late one is due."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.failing = Failing(store)
        self.seconds = 0.0
        self.accounts = Accounts(
            self.failing,  # type: ignore[arg-type]
            iterations=20,
            threads=1,
            clock=lambda: self.seconds,
            gone_seconds=10.0,
        )
        self.wiped: list[str] = []

    async def begin(self) -> None:
        await self.accounts.open()
        await self.accounts.create(ALICE, "pencil")
        await self.accounts.remove(ALICE)
        self.accounts.on_removed.append(self.wipe)
        assert self.accounts.late() == []

    async def wipe(self, account: str) -> None:
        self.wiped.append(account)

    async def turn(self, seconds: float) -> int:
        """Let time pass; how many late removals were due."""
        self.seconds += seconds
        due = self.accounts.late()
        for late in due:
            await self.accounts.delete_late(late)
        return len(due)


@pytest_asyncio.fixture
async def case() -> AsyncIterator[Case]:
    store = new_store()
    await store.open(TABLES)
    case = Case(store)
    await case.begin()
    yield case
    case.accounts.close()
    await store.close()


@pytest.mark.asyncio
async def test_it_is_done_once_and_leaves_the_name_free(case: Case) -> None:
    assert await case.turn(4.0) == 0
    assert await case.turn(1.0) == 1
    assert case.wiped == [ALICE]
    assert await case.turn(100.0) == 0
    assert await case.store.get(ACCOUNT, (ALICE,)) is None


@pytest.mark.asyncio
@pytest.mark.parametrize("after", [False, True], ids=["not-done", "done-and-not-told"])
@pytest.mark.parametrize("call", ["get", "put_if", "delete_if"])
async def test_what_the_store_fails_is_tried_again(
    case: Case, call: str, after: bool, caplog: pytest.LogCaptureFixture
) -> None:
    case.failing.after = after
    case.failing.fails = [call] * 3
    caplog.set_level(logging.WARNING)
    assert await case.turn(5.0) == 1
    pauses = []
    for _ in range(3):
        pauses.append(0.0)
        while not await case.turn(1.0):
            pauses[-1] += 1.0
    assert pauses == [0.0, 1.0, 3.0]
    assert ALICE in case.wiped
    assert await case.turn(100.0) == 0
    assert await case.store.get(ACCOUNT, (ALICE,)) is None
    assert [record.message for record in caplog.records].count("late-removal-put-off") == 1


@pytest.mark.asyncio
async def test_it_is_tried_twice_a_minute_for_as_long_as_it_takes(case: Case) -> None:
    case.failing.fails = ["get"] * 40
    assert await case.turn(5.0) == 1
    for _ in range(40):
        assert await case.turn(30.0) == 1
    assert case.wiped == [ALICE]


@pytest.mark.asyncio
async def test_a_listener_that_the_store_fails_is_told_again_and_the_name_is_taken_until_then(
    case: Case,
) -> None:
    problems = [StoreTimeout("late")]

    async def fail(account: str) -> None:
        if problems:
            raise problems.pop()

    case.accounts.on_removed.append(fail)
    await case.turn(5.0)
    await case.store.delete(GONE, (ALICE,))
    with pytest.raises(AccountExists):
        await case.accounts.create(ALICE, "chalk")
    assert not await case.accounts._is_of(ALICE, None)
    assert await case.turn(1.0) == 1
    assert case.wiped == [ALICE, ALICE]
    await case.accounts.create(ALICE, "chalk")


@pytest.mark.asyncio
async def test_who_has_the_name_by_now_is_spared(case: Case) -> None:
    case.failing.fails = ["get"]
    await case.turn(5.0)
    await case.store.delete(GONE, (ALICE,))
    await case.accounts.create(ALICE, "chalk")
    assert await case.turn(1.0) == 1
    assert case.wiped == []
    assert await case.turn(100.0) == 0
    assert (await case.accounts.info(ALICE)).disabled is False


@pytest.mark.asyncio
async def test_nobody_has_the_name_while_it_is_done(case: Case) -> None:
    begun, opened = asyncio.Event(), asyncio.Event()

    async def slowly(account: str) -> None:
        begun.set()
        await opened.wait()

    case.accounts.on_removed.append(slowly)
    work = asyncio.ensure_future(case.turn(5.0))
    await begun.wait()
    await case.store.delete(GONE, (ALICE,))
    with pytest.raises(AccountExists):
        await case.accounts.create(ALICE, "chalk")
    opened.set()
    await work
    await case.accounts.create(ALICE, "chalk")


@pytest.mark.asyncio
async def test_it_does_not_wait_for_notices_of_others() -> None:
    """The channel they arrive by may be away."""
    async with World() as world:
        accounts = world.app.accounts
        accounts.gone_seconds = 10.0
        await accounts.remove("alice@localhost")
        told: list[str] = []
        accounts.on_removed.append(told.append)
        await world.advance(4)
        assert told == []
        await world.advance(2)
        assert told == ["alice@localhost"]
