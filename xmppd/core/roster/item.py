"""One contact of one account as a value, and its row in the table of rosters (RFC 6121 2.1.2).

A roster is one partition: a row per contact in the part `item`, a row per change in the part `log`, and a
static `version` that every change moves on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import get_args

from xmppd.core.roster.subscription import Kind, State, Subscription
from xmppd.errors import StoreBug
from xmppd.store.person import Person
from xmppd.store.table import Row, Store, Table, Value
from xmppd.xml.roster import roster_item

ROSTER = Table(
    "roster",
    partition=("account",),
    cluster=("part", "name"),
    columns={"value": "text"},
    static={"version": "int"},
    person=Person("account", mentions={"name": "deleted", "value": "masked"}, stays=True),
)
"""`name` is the contact of an item, or the version that a log entry made; `value` is what `value_of` packs,
or an entry of `xmppd.core.roster.log`.
"""

ITEM, LOG = "item", "log"
"""The parts of a roster: who reads one never reads the other."""

SEPARATOR = "\x1f"
"""Joins the fields of a packed item: a character that no XML document can hold."""


@dataclass(frozen=True, slots=True)
class RosterItem:
    """What an account knows about one contact.

    `pending_in` and `request` (its whole presence stanza) are a subscription request that waits. A
    `hidden` item is nothing but such a request: clients do not see it (RFC 6121 A.1, "None + Pending In").
    """

    contact: str
    subscription: Subscription = "none"
    ask: bool = False
    pending_in: bool = False
    approved: bool = False
    name: str = ""
    groups: tuple[str, ...] = ()
    request: bytes = b""
    hidden: bool = False

    @property
    def state(self) -> State:
        """The subscription's state by RFC 6121 A.1."""
        return State.of(self.subscription, self.ask, self.pending_in)

    @property
    def farewell(self) -> tuple[Kind, ...]:
        """What the server tells the contact when the item is removed (RFC 6121 2.5.2), requests included."""
        state = self.state
        take: tuple[Kind, ...] = ("unsubscribe",) if state.is_following or state.ask else ()
        return (*take, "unsubscribed") if state.is_followed or state.pending_in else take

    @property
    def packed(self) -> str:
        """The item as `<item/>`, "" for a hidden one."""
        if self.hidden:
            return ""
        return roster_item(
            self.contact, self.subscription, self.name, self.groups, ask=self.ask, approved=self.approved
        )

    def moved(self, state: State, *, approved: bool, request: bytes = b"") -> RosterItem:
        """The item in another state. `request` is what a request holds; the first one is kept (3.1.3)."""
        return replace(
            self,
            subscription=state.subscription,
            ask=state.ask,
            pending_in=state.pending_in,
            approved=approved,
            request=b"" if not state.pending_in else self.request if self.pending_in else request,
            hidden=self.hidden and state in (State.NONE, State.NONE_IN),
        )


def item_key(account: str, contact: str) -> tuple[str, str, str]:
    """The key of an item's row."""
    return (account, ITEM, contact)


def row_of(item: RosterItem) -> dict[str, Value]:
    """The columns of an item's row, without its account."""
    return {"part": ITEM, "name": item.contact, "value": value_of(item)}


def item_of(row: Row) -> RosterItem:
    """The item in a row of `ROSTER`."""
    return item_from(row["name"], row["value"])


def value_of(item: RosterItem) -> str:
    """The item but for its contact as one text: words for its state, name, request, and each group.

    StoreBug for a text with the separator in it, which comes from no client.
    """
    flags = (" approved" if item.approved else "") + (" hidden" if item.hidden else "")
    words = _WORDS[item.state] + flags
    value = SEPARATOR.join((words, item.name, item.request.decode(), *item.groups))
    if value.count(SEPARATOR) != 2 + len(item.groups):
        raise StoreBug(f"the roster item of {item.contact} holds a control character")
    return value


def plain_value(
    subscription: Subscription, ask: bool, approved: bool, name: str, groups: Sequence[str]
) -> str:
    """What `value_of` makes of an item without a request, whose texts hold no separator."""
    return SEPARATOR.join((_PLAIN_WORDS[subscription, ask, approved], name, "", *groups))


def item_from(contact: str, value: str) -> RosterItem:
    """The item that `value_of` packed."""
    words, name, request, *groups = value.split(SEPARATOR)
    state, approved, hidden = flags_of(words)
    return RosterItem(
        contact=contact,
        subscription=state.subscription,
        ask=state.ask,
        pending_in=state.pending_in,
        approved=approved,
        name=name,
        groups=tuple(groups),
        request=request.encode(),
        hidden=hidden,
    )


def is_hidden(value: str) -> bool:
    """Whether a packed item is nothing but a request."""
    return flags_of(value.partition(SEPARATOR)[0])[2]


def flags_of(words: str) -> tuple[State, bool, bool]:
    """State, approved and hidden, of the first field of a packed item; StoreBug for words nobody wrote."""
    flags = _FLAGS.get(words)
    if flags is None:
        raise StoreBug(f"a roster item begins with {words!r}: it was not written by this version")
    return flags


def _words_of(state: State) -> str:
    return state.subscription + (" ask" if state.ask else "") + (" pending" if state.pending_in else "")


_WORDS: Mapping[State, str] = MappingProxyType({state: _words_of(state) for state in State})

_PLAIN_WORDS: Mapping[tuple[Subscription, bool, bool], str] = MappingProxyType(
    {
        (subscription, ask, approved): _WORDS[State.of(subscription, ask, False)]
        + (" approved" if approved else "")
        for subscription in get_args(Subscription)
        for ask in (False, True)
        for approved in (False, True)
    }
)

_FLAGS: Mapping[str, tuple[State, bool, bool]] = MappingProxyType(
    {
        words + (" approved" if approved else "") + (" hidden" if hidden else ""): (state, approved, hidden)
        for state, words in _WORDS.items()
        for approved in (False, True)
        for hidden in (False, True)
    }
)
"""Looked up for each item of each roster read, so it is a table."""


async def settled_version(store: Store, account: str) -> int:
    """The version of a roster when no change that was begun before can come to be any more; 0: none."""
    await store.batch(ROSTER, (account,), [], static={"version": -1}, expect={"version": -1})  # it never is
    static = await store.get_static(ROSTER, (account,))
    return int(static["version"] or 0) if static is not None else 0
