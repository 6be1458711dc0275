"""One contact of one account as a value, and its row in the table of rosters (RFC 6121 2.1.2).

A roster is one partition: a row per contact, and a static `version` that every change moves on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from xmppd.core.subscription import Kind, State, Subscription
from xmppd.store.table import Row, Table, Value
from xmppd.xml.roster import roster_item

ROSTER = Table(
    "roster",
    partition=("account",),
    cluster=("contact",),
    columns={
        "name": "text",
        "subscription": "text",
        "ask": "bool",
        "pending_in": "bool",
        "approved": "bool",
        "hidden": "bool",
        "groups": "text",
        "request": "blob",
    },
    static={"version": "int"},
)

_SEPARATOR = "\x1f"
"""Joins groups in their column: a character that no XML document can hold."""


@dataclass(frozen=True, slots=True)
class RosterItem:
    """What an account knows about one contact.

    `pending_in` and `request` (what its presence stanza holds) are a subscription request that waits. A
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


def pack_groups(groups: tuple[str, ...]) -> str:
    """The groups as one column."""
    return _SEPARATOR.join(groups)


def unpack_groups(packed: str | None) -> tuple[str, ...]:
    """The groups of a column written by `pack_groups`, or of one never written."""
    return tuple(packed.split(_SEPARATOR)) if packed else ()


def item_of(row: Row) -> RosterItem:
    """The item in a row of `ROSTER`."""
    state = State.of(row["subscription"] or "none", bool(row["ask"]), bool(row["pending_in"]))
    return RosterItem(
        contact=row["contact"],
        subscription=state.subscription,
        ask=state.ask,
        pending_in=state.pending_in,
        approved=bool(row["approved"]),
        name=row["name"] or "",
        groups=unpack_groups(row["groups"]),
        request=row["request"] or b"",
        hidden=bool(row["hidden"]),
    )


def row_of(item: RosterItem) -> dict[str, Value]:
    """The columns of an item's row, its contact included."""
    return {
        "contact": item.contact,
        "name": item.name,
        "subscription": item.subscription,
        "ask": item.ask,
        "pending_in": item.pending_in,
        "approved": item.approved,
        "hidden": item.hidden,
        "groups": pack_groups(item.groups),
        "request": item.request,
    }
