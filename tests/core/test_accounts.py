"""Accounts over the real store: making, changing and removing them, and what may be cached."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
import pytest_asyncio
from stores import new_store

from xmppd.core import accounts as module
from xmppd.core.accounts import ACCOUNT, TABLES, AccountExists, AccountInfo, Accounts, AccountUnknown, derive
from xmppd.errors import JidError, SaslError, StoreTimeout
from xmppd.store.table import Store
from xmppd.stream.lru import Lru
from xmppd.stream.scram import BadPassword, Credentials, derive_keys

ALICE = "alice@example.org"
SALT = b"0123456789abcdef"


@pytest_asyncio.fixture
async def store() -> AsyncIterator[Store]:
    store = new_store()
    await store.open(TABLES)
    yield store
    await store.close()


@pytest_asyncio.fixture
async def accounts(store: Store) -> AsyncIterator[Accounts]:
    accounts = Accounts(store, iterations=20, threads=2, now=lambda: 1_700_000_000.5)
    await accounts.open()
    yield accounts
    accounts.close()


class Gate:
    """A store whose reads can be held up after they were made, and whose writes can be lost."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.opened = asyncio.Event()
        self.opened.set()
        self.reads = 0
        self.arrived: asyncio.Queue[None] = asyncio.Queue()
        self.loses_writes = False

    async def get(self, *args: Any) -> Any:
        self.reads += 1
        row = await self._store.get(*args)
        self.arrived.put_nowait(None)
        await self.opened.wait()
        return row

    async def put(self, *args: Any) -> None:
        await self._store.put(*args)

    async def put_if(self, *args: Any) -> bool:
        written = await self._store.put_if(*args)
        if self.loses_writes:
            raise StoreTimeout("no answer")
        return written

    async def delete(self, *args: Any) -> None:
        await self._store.delete(*args)

    async def delete_if(self, *args: Any) -> bool:
        return await self._store.delete_if(*args)


@pytest_asyncio.fixture
async def gate(store: Store) -> Gate:
    return Gate(store)


@pytest_asyncio.fixture
async def gated(gate: Gate) -> AsyncIterator[Accounts]:
    accounts = Accounts(gate, iterations=20, threads=1)  # type: ignore[arg-type]
    await accounts.open()
    gate.reads = 0
    gate.arrived = asyncio.Queue()
    yield accounts
    accounts.close()


async def finish(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer


# -------------------------------------------------------------------------------- life


@pytest.mark.asyncio
async def test_an_account_is_made_once(accounts: Accounts) -> None:
    assert await finish(accounts.exists(ALICE)) is False
    await accounts.create(ALICE, "pencil")
    assert await finish(accounts.exists(ALICE)) is True
    with pytest.raises(AccountExists, match=ALICE):
        await accounts.create(ALICE, "crayon")
    credentials = await finish(accounts.credentials(ALICE))
    salt = credentials.keys["sha256"].salt
    assert len(salt) == 16
    assert credentials.keys == {
        "sha256": derive_keys("sha256", "pencil", salt, 20),
        "sha1": derive_keys("sha1", "pencil", salt, 20),
    }


@pytest.mark.asyncio
async def test_of_two_creations_at_once_one_wins(accounts: Accounts) -> None:
    results = await asyncio.gather(
        *(accounts.create(ALICE, f"password {number}") for number in range(8)), return_exceptions=True
    )
    assert results.count(None) == 1
    assert [type(result) for result in results if result is not None] == [AccountExists] * 7


@pytest.mark.asyncio
async def test_names_are_normalised(accounts: Accounts) -> None:
    await accounts.create("Alice@EXAMPLE.org", "pencil")
    assert await finish(accounts.exists(ALICE)) is True


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "name", ["example.org", "alice@example.org/phone", "a b@example.org", "@example.org", ""]
)
async def test_what_is_no_account_name(accounts: Accounts, name: str) -> None:
    with pytest.raises(JidError):
        await accounts.create(name, "pencil")


@pytest.mark.asyncio
@pytest.mark.parametrize("password", ["", "bell\a", "nul\0"])
async def test_what_is_no_password(accounts: Accounts, password: str) -> None:
    with pytest.raises(BadPassword):
        await accounts.create(ALICE, password)
    assert await finish(accounts.exists(ALICE)) is False
    await accounts.create(ALICE, "pencil")
    with pytest.raises(BadPassword):
        await accounts.set_password(ALICE, password)


@pytest.mark.asyncio
async def test_the_password_is_not_in_the_store(accounts: Accounts, store: Store) -> None:
    await accounts.create(ALICE, "pencil")
    row = await store.get(ACCOUNT, (ALICE,))
    assert row is not None
    keys = {"scram_sha_1", "scram_sha_256", "scram_sha_512", "scram_other", "imported"}
    assert set(row) == keys | {"account", "created", "disabled", "changed", "epoch", "leaving"}
    assert [row[column] for column in ("scram_sha_512", "scram_other", "imported")] == [None] * 3
    assert row["scram_sha_256"].startswith("SCRAM-SHA-256$20:")
    assert "pencil" not in repr(row)


@pytest.mark.asyncio
async def test_a_changed_password(accounts: Accounts) -> None:
    await accounts.create(ALICE, "pencil")
    before = await finish(accounts.credentials(ALICE))
    await accounts.set_password(ALICE, "crayon")
    after = await finish(accounts.credentials(ALICE))
    salt = after.keys["sha1"].salt
    assert salt != before.keys["sha1"].salt
    assert after.keys["sha1"] == derive_keys("sha1", "crayon", salt, 20)
    assert (await accounts.info(ALICE)).created == 1_700_000_000.5


@pytest.mark.asyncio
async def test_disabled_accounts_exist(accounts: Accounts) -> None:
    await accounts.create(ALICE, "pencil")
    assert (await finish(accounts.credentials(ALICE))).disabled is False
    await accounts.disable(ALICE)
    assert (await finish(accounts.credentials(ALICE))).disabled is True
    assert await finish(accounts.exists(ALICE)) is True
    await accounts.set_password(ALICE, "crayon")
    assert (await finish(accounts.credentials(ALICE))).disabled is True
    await accounts.enable(ALICE)
    assert (await finish(accounts.credentials(ALICE))).disabled is False


@pytest.mark.asyncio
async def test_a_removed_account_is_gone(accounts: Accounts) -> None:
    await accounts.create(ALICE, "pencil")
    assert await finish(accounts.credentials(ALICE)) is not None
    await accounts.remove(ALICE)
    assert await finish(accounts.credentials(ALICE)) is None
    assert await finish(accounts.exists(ALICE)) is False
    await accounts.create(ALICE, "pencil")
    assert await finish(accounts.exists(ALICE)) is True


@pytest.mark.asyncio
async def test_what_needs_an_account(accounts: Accounts) -> None:
    for attempt in (
        accounts.set_password(ALICE, "pencil"),
        accounts.disable(ALICE),
        accounts.enable(ALICE),
        accounts.remove(ALICE),
        accounts.info(ALICE),
    ):
        with pytest.raises(AccountUnknown, match=ALICE):
            await attempt
    assert await finish(accounts.exists(ALICE)) is False


@pytest.mark.asyncio
async def test_accounts_are_listed_by_pages(accounts: Accounts) -> None:
    names = {f"user{number}@example.org" for number in range(7)}
    for name in names:
        await accounts.create(name, "pencil")
    found = [info async for info in accounts.list(page_size=3)]
    assert {info.account for info in found} == names
    assert len(found) == 7
    assert await accounts.info("user3@example.org") in found
    assert found[0] == AccountInfo(found[0].account, 1_700_000_000.5, False, ("SCRAM-SHA-256", "SCRAM-SHA-1"))


@pytest.mark.asyncio
async def test_a_seeded_row_is_an_account(accounts: Accounts, store: Store) -> None:
    await store.put(ACCOUNT, {"account": ALICE, **derive("pencil", SALT, 4096)})
    credentials = await finish(accounts.credentials(ALICE))
    assert credentials.keys["sha256"] == derive_keys("sha256", "pencil", SALT, 4096)
    assert (await accounts.info(ALICE)).created is None
    await accounts.set_password(ALICE, "crayon")
    assert (await finish(accounts.credentials(ALICE))).keys["sha256"].iterations == 20


def test_derived_columns_are_those_of_rfc_5803() -> None:
    # The salt and keys of the exchange in RFC 5802 5.
    columns = derive("pencil", bytes.fromhex("4125c247e43ab1e93c6dff76"), 4096)
    assert columns["scram_sha_1"] == (
        "SCRAM-SHA-1$4096:QSXCR+Q6sek8bf92$6dlGYMOdZcOPutkcNY8U2g7vK9Y=:D+CSWLOshSulAsxiupA+qs2/fTE="
    )
    assert list(columns) == ["scram_sha_256", "scram_sha_1"]


# -------------------------------------------------------------------------------- caches


@pytest.mark.asyncio
async def test_answers_come_from_the_cache_the_second_time(gated: Accounts, gate: Gate) -> None:
    await gated.create(ALICE, "pencil")
    assert await finish(gated.credentials(ALICE)) is not None
    assert await finish(gated.credentials("nobody@example.org")) is None
    assert gate.reads == 2
    assert isinstance(gated.credentials(ALICE), Credentials)
    assert gated.credentials("nobody@example.org") is None
    assert gated.exists(ALICE) is True
    assert gated.exists("nobody@example.org") is False
    assert gate.reads == 2


@pytest.mark.asyncio
async def test_caches_are_bounded(store: Store) -> None:
    accounts = Accounts(store, iterations=20, cached_credentials=1, cached_names=2)
    for name in ("a@example.org", "b@example.org", "c@example.org"):
        await accounts.create(name, "pencil")
        assert await finish(accounts.credentials(name)) is not None
    assert isinstance(accounts.credentials("c@example.org"), Credentials)
    assert accounts.exists("b@example.org") is True
    reads = store.stats.reads
    assert await finish(accounts.credentials("b@example.org"))
    assert await finish(accounts.exists("a@example.org"))
    assert store.stats.reads == reads + 2
    assert accounts.cached == {"credentials": 1, "account_names": 2}
    accounts.close()


@pytest.mark.asyncio
async def test_an_old_read_that_ends_after_a_change_is_not_cached(gated: Accounts, gate: Gate) -> None:
    await gated.create(ALICE, "pencil")
    gate.opened.clear()
    slow = asyncio.ensure_future(gated.credentials(ALICE))  # type: ignore[arg-type]
    await gate.arrived.get()
    changing = asyncio.ensure_future(gated.set_password(ALICE, "crayon"))
    await gate.arrived.get()
    gate.opened.set()
    old, _ = await asyncio.gather(slow, changing)
    new = await finish(gated.credentials(ALICE))
    assert old.keys["sha1"] != new.keys["sha1"]
    assert new.keys["sha1"] == derive_keys("sha1", "crayon", new.keys["sha1"].salt, 20)


@pytest.mark.asyncio
async def test_a_read_before_a_removal_that_ends_after_it_is_not_cached(gated: Accounts, gate: Gate) -> None:
    await gated.create(ALICE, "pencil")
    gate.opened.clear()
    slow = asyncio.ensure_future(gated.exists(ALICE))  # type: ignore[arg-type]
    await gate.arrived.get()
    gated.forget(ALICE)
    gate.opened.set()
    assert await slow is True
    reads = gate.reads
    assert await finish(gated.exists(ALICE))
    assert gate.reads == reads + 1


@pytest.mark.asyncio
async def test_a_write_with_unknown_outcome_leaves_no_cache(gated: Accounts, gate: Gate) -> None:
    await gated.create(ALICE, "pencil")
    before = await finish(gated.credentials(ALICE))
    gate.loses_writes = True
    with pytest.raises(StoreTimeout):
        await gated.set_password(ALICE, "crayon")
    assert await finish(gated.credentials(ALICE)) != before


@pytest.mark.asyncio
async def test_a_removal_with_unknown_outcome_has_its_streams_looked_at(gated: Accounts, gate: Gate) -> None:
    await gated.create(ALICE, "pencil")
    unsure: list[str] = []
    gated.on_unsure = unsure.append
    gate.loses_writes = True
    with pytest.raises(StoreTimeout):
        await gated.remove(ALICE)
    assert unsure == [ALICE]
    assert await finish(gated.credentials(ALICE)) is None


@pytest.mark.asyncio
async def test_the_line_of_proofs_is_bounded(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PROOFS", 3)
    waiting = [accounts.salted_password("sha1", "pencil", SALT, 4096) for _ in range(3)]
    with pytest.raises(SaslError) as refusal:
        accounts.salted_password("sha1", "pencil", SALT, 4096)
    assert refusal.value.condition == "temporary-auth-failure"
    await asyncio.gather(*waiting)
    assert await accounts.salted_password("sha1", "pencil", SALT, 4096)


@pytest.mark.asyncio
@pytest.mark.parametrize("is_seeded", [False, True], ids=["made", "seeded"])
async def test_changing_a_password_does_not_bring_a_removed_account_back(
    gated: Accounts, gate: Gate, is_seeded: bool
) -> None:
    if is_seeded:  # by a tool that writes no more than the keys
        await gate.put(ACCOUNT, {"account": ALICE, **derive("pencil", SALT, 4096)})
    else:
        await gated.create(ALICE, "pencil")
    gate.opened.clear()
    changing = asyncio.ensure_future(gated.set_password(ALICE, "crayon"))
    await gate.arrived.get()
    await gate.delete(ACCOUNT, (ALICE,))
    gate.opened.set()
    with pytest.raises(AccountUnknown):
        await changing
    assert await finish(gated.exists(ALICE)) is False


@pytest.mark.asyncio
async def test_changing_a_password_spares_the_next_account_of_that_name(gated: Accounts, gate: Gate) -> None:
    await gated.create(ALICE, "pencil")
    gate.opened.clear()
    changing = asyncio.ensure_future(gated.set_password(ALICE, "crayon"))
    await gate.arrived.get()
    await gate.delete(ACCOUNT, (ALICE,))
    await gated.create(ALICE, "chalk")
    gate.opened.set()
    with pytest.raises(AccountUnknown):
        await changing
    keys = (await finish(gated.credentials(ALICE))).keys["sha1"]
    assert keys == derive_keys("sha1", "chalk", keys.salt, 20)


@pytest.mark.asyncio
@pytest.mark.parametrize("late", ["enable", "set_password"])
async def test_a_change_that_comes_late_does_not_undo_a_later_one(
    accounts: Accounts, store: Store, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    """As a coordinator of Cassandra does that was frozen: its answer was given up long ago."""
    await accounts.create(ALICE, "pencil")
    put_if, held = store.put_if, []

    async def hold(*args: Any, **how: Any) -> bool:
        held.append((args, how))
        raise StoreTimeout("frozen")

    monkeypatch.setattr(store, "put_if", hold)
    with pytest.raises(StoreTimeout):
        await (accounts.enable(ALICE) if late == "enable" else accounts.set_password(ALICE, "chalk"))
    monkeypatch.setattr(store, "put_if", put_if)
    await accounts.set_password(ALICE, "crayon")
    await accounts.disable(ALICE)
    ((args, how),) = held
    assert await put_if(*args, **how) is False
    found = await finish(accounts.credentials(ALICE))
    assert found.disabled
    assert found.keys["sha1"] == derive_keys("sha1", "crayon", found.keys["sha1"].salt, 20)


@pytest.mark.asyncio
async def test_a_late_removal_spares_the_next_account_of_that_name(gated: Accounts, gate: Gate) -> None:
    await gated.create(ALICE, "pencil")
    gate.opened.clear()
    removing = asyncio.ensure_future(gated.remove(ALICE))
    await gate.arrived.get()
    await gate.delete(ACCOUNT, (ALICE,))
    await gated.create(ALICE, "chalk")
    gate.opened.set()
    await removing  # the account that was meant is gone
    keys = (await finish(gated.credentials(ALICE))).keys["sha1"]
    assert keys == derive_keys("sha1", "chalk", keys.salt, 20)


@pytest.mark.asyncio
async def test_a_removal_that_somebody_else_finished_is_done(gated: Accounts, gate: Gate) -> None:
    await gated.create(ALICE, "pencil")
    gate.opened.clear()
    removing = asyncio.ensure_future(gated.remove(ALICE))
    await gate.arrived.get()
    await gate.delete(ACCOUNT, (ALICE,))
    gate.opened.set()
    await removing
    with pytest.raises(AccountUnknown):
        await gated.remove(ALICE)


@pytest.mark.asyncio
async def test_what_is_meant_for_one_account_spares_the_next(accounts: Accounts, store: Store) -> None:
    await accounts.create(ALICE, "pencil")
    created = (await accounts.info(ALICE)).created
    assert created is not None
    told: list[str] = []
    accounts.on_removed.append(told.append)
    for attempt in (accounts.remove(ALICE, created - 1.0), accounts.disable(ALICE, created + 1.0)):
        with pytest.raises(AccountUnknown):
            await attempt
    assert (await accounts.info(ALICE)).disabled is False
    assert told == []
    await accounts.disable(ALICE, created)
    await accounts.remove(ALICE, created)
    assert told == [ALICE]
    assert await store.get(ACCOUNT, (ALICE,)) is None


# accounts of which nobody wrote down when they were made


@pytest.mark.asyncio
async def test_a_seeded_account_is_removed_though_it_is_changed_meanwhile(
    accounts: Accounts, store: Store
) -> None:
    await store.put(ACCOUNT, {"account": ALICE, **derive("pencil", SALT, 4096)})
    accounts.on_removed.append(accounts.disable)
    accounts.on_removed.append(lambda account: accounts.set_password(account, "crayon"))
    await accounts.remove(ALICE)
    assert await store.get(ACCOUNT, (ALICE,)) is None


@pytest.mark.asyncio
async def test_a_late_removal_of_a_seeded_account_spares_the_next(gated: Accounts, gate: Gate) -> None:
    await gate.put(ACCOUNT, {"account": ALICE, **derive("pencil", SALT, 4096)})
    gate.opened.clear()
    removing = asyncio.ensure_future(gated.remove(ALICE))
    await gate.arrived.get()
    await gate.delete(ACCOUNT, (ALICE,))
    await gated.create(ALICE, "chalk")
    gate.opened.set()
    await removing
    assert await finish(gated.exists(ALICE)) is True


@pytest.mark.asyncio
async def test_decoys_are_stable_and_differ_by_name(accounts: Accounts, store: Store) -> None:
    again = Accounts(store, iterations=20)
    await again.open()
    assert accounts.decoy(ALICE) == again.decoy(ALICE) != accounts.decoy("bob@example.org")
    assert accounts.decoy(ALICE).decoy
    keys = accounts.decoy(ALICE).keys
    assert [(name, len(key.salt), len(key.stored)) for name, key in keys.items()] == [
        ("sha256", 16, 32),
        ("sha1", 16, 20),
        ("sha512", 16, 64),
    ]
    assert keys["sha256"].salt == keys["sha1"].salt != keys["sha512"].salt
    again.close()


def test_lru_forgets_what_was_not_used() -> None:
    lru: Lru[str, int] = Lru(2)
    lru.put("a", 1)
    lru.put("b", 2)
    assert lru.get("a") == 1
    lru.put("c", 3)
    assert [lru.get(key) for key in "abc"] == [1, None, 3]
    lru.drop("a")
    lru.drop("a")
    assert len(lru) == 1


def test_lru_keeps_what_it_is_told_to() -> None:
    lru: Lru[str, int] = Lru(3)
    for number, key in enumerate("abc"):
        lru.put(key, number)
    lru.retain({"c", "a", "x"})
    assert [lru.get(key) for key in "abc"] == [0, None, 2]
    lru.put("d", 3)
    lru.put("e", 4)
    assert len(lru) == 3


# -------------------------------------------------------------------------------- listeners


@pytest.mark.asyncio
async def test_listeners_are_told_afterwards_in_order(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, object]] = []

    def broken(account: str) -> None:
        raise ValueError("a plugin's mistake")

    def plainly(account: str) -> None:
        told.append(("plain", account))

    async def waiting(account: str) -> None:
        told.append(("waiting", await finish(accounts.exists(account))))

    def removed(account: str) -> Awaitable[None]:
        return waiting(account)

    accounts = Accounts(store, iterations=20, on_created=[broken, plainly, waiting], on_removed=[removed])
    await accounts.create(ALICE, "pencil")
    assert told == [("plain", ALICE), ("waiting", True)]
    assert "a plugin's mistake" in caplog.text
    with pytest.raises(AccountExists):
        await accounts.create(ALICE, "pencil")
    accounts.on_removed.append(plainly)
    await accounts.remove(ALICE)
    assert told[2:] == [("waiting", False), ("plain", ALICE)]
    accounts.close()
