"""Deltas of rosters (RFC 6121 2.6.3): exact, in order, and only where the log proves them."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.core.test_roster import ALICE, BOB, CAROL, load, new_store, rosters_on
from tests.core.test_roster_model import OPERATIONS, apply
from xmppd.core.roster.delta import MAX_CHANGES, deltas, lag
from xmppd.core.roster.rosters import LogEntry, RosterItem, Rosters

BOB_ITEM, CAROL_ITEM = RosterItem(BOB), RosterItem(CAROL)
HIDDEN = RosterItem(BOB, pending_in=True, hidden=True)


def entry(version: int, old: RosterItem | None, new: RosterItem | None) -> LogEntry:
    contact = (old or new or BOB_ITEM).contact
    return LogEntry(version, version - 1, 0.0, ALICE, "set", contact, old, new)


def pushed(entries: Sequence[LogEntry], since: int = 0) -> list[tuple[str, str, str]] | None:
    """Version, contact and subscription of each push."""
    pushes = deltas(entries, since, entries[-1].version)
    if pushes is None:
        return None
    queries = [fromstring(push) for push in pushes]
    return [
        (query.get("ver", ""), query[0].get("jid", ""), query[0].get("subscription", "")) for query in queries
    ]


@pytest.mark.parametrize(
    ("asked", "since"),
    [
        ("0", 0),
        ("9", 9),
        ("10", None),
        ("11", None),
        ("09", None),
        ("-1", None),
        ("+1", None),
        (" 1", None),
        ("1.0", None),
        ("½", None),
        ("٣", None),
        ("x", None),
        ("9" * 5000, None),
    ],
)
def test_who_lags(asked: str, since: int | None) -> None:
    assert lag(asked, 10) == since


def test_one_push_for_each_item_in_the_order_of_last_changes() -> None:
    friend = replace(BOB_ITEM, subscription="to")
    entries = [
        entry(1, None, BOB_ITEM),
        entry(2, None, CAROL_ITEM),
        entry(3, BOB_ITEM, replace(BOB_ITEM, ask=True)),
        entry(4, replace(BOB_ITEM, ask=True), friend),
    ]
    assert pushed(entries) == [("2", CAROL, "none"), ("4", BOB, "to")]
    assert pushed(entries[2:], 2) == [("4", BOB, "to")]


def test_what_came_and_went_is_told_too() -> None:
    """The client may have seen it come, and its stream broke before it was told the version."""
    named = replace(CAROL_ITEM, name="C.")
    entries = [
        entry(1, None, BOB_ITEM),
        entry(2, BOB_ITEM, None),
        entry(3, named, CAROL_ITEM),
        entry(4, CAROL_ITEM, named),
    ]
    assert pushed(entries) == [("2", BOB, "remove"), ("4", CAROL, "none")]
    assert pushed(entries[3:], 3) == [("4", CAROL, "none")]


def test_hidden_items_are_not_shown() -> None:
    assert pushed([entry(1, None, HIDDEN)]) == []
    assert pushed([entry(1, None, HIDDEN), entry(2, HIDDEN, replace(BOB_ITEM, subscription="from"))]) == [
        ("2", BOB, "from")
    ]


def test_nothing_without_proof() -> None:
    chain = [entry(version, None, BOB_ITEM) for version in (1, 2, 3)]
    assert deltas([], 0, 1) is None
    assert deltas(chain, 0, 3) is not None
    assert deltas(chain, 0, 4) is None  # the last change was not logged
    assert deltas(chain[1:], 0, 3) is None  # the first entry has expired
    assert deltas([chain[0], chain[2]], 0, 3) is None
    assert deltas([chain[0], replace(chain[1], is_whole=False), chain[2]], 0, 3) is None
    long = [entry(version, None, BOB_ITEM) for version in range(1, MAX_CHANGES + 2)]
    assert deltas(long[:-1], 0, MAX_CHANGES) is not None
    assert deltas(long, 0, MAX_CHANGES + 1) is None


class ModelClient:
    """A client that keeps its roster: items by contact, as XML, and the version."""

    def __init__(self) -> None:
        self.version = ""
        self.items: dict[str, str] = {}

    def read(self, payload: bytes) -> None:
        """A roster push."""
        query = fromstring(payload)
        item = query[0]
        self.version = query.get("ver", "")
        if item.get("subscription") == "remove":
            self.items.pop(item.get("jid", ""), None)  # a push may come again after the stream broke
        else:
            self.items[item.get("jid", "")] = payload.partition(b">")[2].decode()

    def replace(self, payload: bytes) -> None:
        """A whole roster."""
        query = fromstring(payload)
        self.version = query.get("ver", "")
        packed = payload.partition(b">")[2].decode().removesuffix("</query>")
        items = [f"<item {item}</query>" for item in packed.split("<item ")[1:]]
        self.items = {item.get("jid", ""): text for item, text in zip(query, items, strict=True)}

    async def ask(self, rosters: Rosters, lost: int = 0) -> bool:
        """A roster get with the version that is known; the last pushes may get lost with the stream. Whether
        all arrived.
        """
        roster = await load(rosters)
        since = rosters.lag(roster, self.version) if self.version else None
        entries = [] if since is None else await rosters.log(ALICE, after=since, limit=MAX_CHANGES + 1)
        pushes = None if since is None else deltas(entries, since, roster.version)
        result = rosters.result(roster, self.version or None)
        if pushes is not None:
            for push in pushes[: max(len(pushes) - lost, 0)]:
                self.read(push)
            return not (lost and pushes)
        if result is not None:
            self.replace(result)
        return True


def shown(rosters_result: bytes | None) -> dict[str, str]:
    client = ModelClient()
    assert rosters_result is not None
    client.replace(rosters_result)
    return client.items


ADD_A = ("set", "a@x", "0", ())
REMOVE_A = ("remove", "a@x")


@given(st.lists(st.tuples(st.integers(0, 3), OPERATIONS, st.integers(0, 2)), max_size=40))
@example(
    [
        *((2, REMOVE_A, 0), (0, ADD_A, 0), (0, ("out", "b@x", "subscribe"), 0), (2, REMOVE_A, 0)),
        *((0, REMOVE_A, 0), (0, ADD_A, 0), (2, ("remove", "b@x"), 0)),
    ]
)
@example(
    [
        *((2, REMOVE_A, 0), (0, ADD_A, 0), (0, ("set", "b@x", "0", ()), 0), (2, REMOVE_A, 1)),
        *((0, ADD_A, 0), (0, REMOVE_A, 0), (2, ADD_A, 0)),
    ]
)
@example(
    [
        *((0, ADD_A, 0), (2, ("set", "z@x", "", ()), 0), (0, REMOVE_A, 0), (0, ADD_A, 0), (0, REMOVE_A, 0)),
        *((0, ADD_A, 0), (0, ("remove", "z@x"), 0), (0, REMOVE_A, 0), (0, REMOVE_A, 0), (0, REMOVE_A, 0)),
        *((2, ("into", "z@x", "subscribe", b""), 1), (0, ADD_A, 0), (0, REMOVE_A, 0)),
        (2, ("remove", "z@x"), 0),
    ]
)
@settings(max_examples=80)
def test_a_client_that_asks_now_and_then_always_has_the_whole_roster(
    operations: list[tuple[int, tuple[Any, ...], int]],
) -> None:
    async def play() -> None:
        store = await new_store()
        both = (rosters_on(store), rosters_on(store))
        clients = [ModelClient() for _ in range(3)]
        for number, (who, operation, lost) in enumerate(operations):
            await apply(both[who % 2], operation)
            if who >= 2:
                client = clients[number % 3]
                fresh = rosters_on(store)
                if await client.ask(fresh, lost):
                    assert client.items == shown(fresh.result(await load(fresh), None))
        await store.close()

    asyncio.run(play())


@given(st.lists(OPERATIONS, min_size=2, max_size=30))
@settings(max_examples=40)
def test_two_nodes_at_once_leave_a_whole_chain(operations: list[tuple[Any, ...]]) -> None:
    async def play() -> None:
        store = await new_store()
        both = (rosters_on(store), rosters_on(store))
        await asyncio.gather(*(apply(both[n % 2], operation) for n, operation in enumerate(operations)))
        fresh = rosters_on(store)
        roster = await load(fresh)
        entries = await fresh.log(ALICE)
        assert [entry.before for entry in entries] == [0, *(entry.version for entry in entries)][:-1]
        assert roster.version == (entries[-1].version if entries else 0)
        items: dict[str, RosterItem | None] = {}
        for entry in entries:
            assert items.get(entry.contact) == entry.old
            items[entry.contact] = entry.new
        assert {item.contact: item for item in await fresh.items(ALICE)} == {
            contact: item for contact, item in items.items() if item is not None
        }
        await store.close()

    asyncio.run(play())
