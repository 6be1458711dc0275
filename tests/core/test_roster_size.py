"""Large rosters: items on their shelf, the bound in sum, and how long one is worked on at once."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from remembered import load

from xmppd.core.roster.item import row_of
from xmppd.core.roster.rosters import ROSTER, RosterItem, Rosters, SetRequest
from xmppd.core.roster.shelf import BLOCK, EMPTY
from xmppd.errors import StanzaError
from xmppd.store.table import Put, Store
from xmppd.xml.roster import contact_of, roster_item, split_items

ALICE = "alice@localhost"
SUBSCRIBER = RosterItem("bob@localhost", "from")


async def write(store: Store, items: list[RosterItem], version: int = 1) -> None:
    """Items as an import writes them, without a look at any bound."""
    for start in range(0, len(items), 100):
        puts = [Put(row_of(item)) for item in items[start : start + 100]]
        await store.batch(ROSTER, (ALICE,), puts, static={"version": version})


def large(count: int, length: int) -> list[RosterItem]:
    return [RosterItem(f"user{n:05}@localhost", "both", name="n" * length) for n in range(count)]


# items on their shelf

CONTACTS = st.sampled_from(["a@x", "b@x", "b'<&>\"\t@x", "c@x", "d@x/y", "z@x"])
ITEMS = st.integers(0, 2 * BLOCK).map(lambda length: "n" * length) | st.none()


@given(st.lists(st.tuples(CONTACTS, ITEMS), max_size=30))
@settings(max_examples=200, deadline=None)
def test_a_shelf_is_like_a_dict(changes: list[tuple[str, str | None]]) -> None:
    shelf, model = EMPTY, {}
    for contact, name in changes:
        item = "" if name is None else roster_item(contact, "none", name)
        shelf = shelf.put(contact, item)
        model[contact] = item
        expected = sorted(item.encode() for item in model.values() if item)
        assert sorted(split_items(shelf.packed)) == expected
        assert (shelf.count, shelf.length) == (len(expected), sum(map(len, expected)))
        assert list(shelf.starts) == sorted(shelf.starts)
        assert len(shelf.starts) == max(len(shelf.blocks) - 1, 0)


@given(CONTACTS)
def test_the_contact_of_a_packed_item(contact: str) -> None:
    assert contact_of(roster_item(contact, "both", "Bob", ("G",)).encode()) == contact


@pytest.mark.asyncio
async def test_a_change_touches_one_block_however_large_the_roster_is(store: Store) -> None:
    await write(store, large(2000, 200))
    rosters = Rosters(store, max_items=3000, max_bytes=1 << 20)
    before = (await load(rosters)).shelf
    assert all(len(part) <= 2 * BLOCK for part in before.blocks) and len(before.blocks) > 20
    change = await rosters.set_item(ALICE, SetRequest("user00700@localhost", "Bob", ()))
    after = change.roster.shelf
    assert sum(a is not b for a, b in zip(before.blocks, after.blocks, strict=True)) == 1
    assert after.count == 2000


# the bound in sum


@pytest.mark.asyncio
async def test_a_roster_is_bounded_in_sum(store: Store) -> None:
    rosters = Rosters(store, max_bytes=1000)
    await rosters.set_item(ALICE, SetRequest("bob@localhost", "b" * 500, ()))
    for wanted in (SetRequest("carol@localhost", "c" * 500, ()), SetRequest("bob@localhost", "b" * 1000, ())):
        with pytest.raises(StanzaError, match="1000 bytes") as refused:
            await rosters.set_item(ALICE, wanted)
        assert refused.value.condition == "resource-constraint"
    await rosters.set_item(ALICE, SetRequest("bob@localhost", "b" * 400, ()))
    await rosters.set_item(ALICE, SetRequest("carol@localhost", "c", ()))


@pytest.mark.asyncio
async def test_a_roster_beyond_the_bound_is_loaded_and_may_change_but_not_grow(store: Store) -> None:
    await write(store, [*large(100, 100), SUBSCRIBER])
    rosters = Rosters(store, max_items=50, max_bytes=1000)
    assert (await load(rosters)).size == 101
    await rosters.outbound_subscription(ALICE, "user00001@localhost", "unsubscribed")
    await rosters.outbound_subscription(ALICE, "bob@localhost", "subscribe")
    await rosters.set_item(ALICE, SetRequest("user00002@localhost", "shorter", ()))
    await rosters.remove_item(ALICE, "user00003@localhost")
    with pytest.raises(StanzaError, match="bytes"):
        await rosters.set_item(ALICE, SetRequest("user00002@localhost", "longer than before", ()))


@pytest.mark.asyncio
async def test_a_thousand_contacts_with_usual_names_fit(store: Store) -> None:
    names = [f"some.player.{n:04}@games.example.org" for n in range(1000)]
    await write(
        store,
        [RosterItem(n, "both", name=f"Some Player {n[12:16]}", groups=("Guild of Friends",)) for n in names],
    )
    rosters = Rosters(store)
    await rosters.set_item(ALICE, SetRequest(names[0], "Another, somewhat longer name", ("Guild", "Friends")))


# loading


@pytest.mark.asyncio
async def test_others_have_their_turn_while_a_large_roster_is_read(store: Store) -> None:
    await write(store, large(3000, 200))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await asyncio.sleep(0)
    for read in (load(Rosters(store)), Rosters(store).items(ALICE)):
        before = turns
        await read
        assert turns > before + 5
    counting.cancel()


@pytest.mark.asyncio
async def test_a_roster_that_changes_while_it_is_read_is_read_at_one_version(store: Store) -> None:
    await write(store, large(1000, 10))

    async def change() -> None:
        for version in range(2, 40):
            name = f"{version}"
            items = [RosterItem(f"user{n:05}@localhost", "both", name=name) for n in (0, 999)]
            await write(store, items, version)

    changing = asyncio.create_task(change())
    while not changing.done():
        roster = await load(Rosters(store))
        items = split_items(roster.packed)
        assert items[0][-30:] == items[-1][-30:]
    await changing
