"""What can happen to one roster item, as pure functions, and the record of what did happen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from xmppd.core.roster.cache import Roster
from xmppd.core.roster.item import RosterItem
from xmppd.core.roster.subscription import Inbound, Kind, Outbound, State, inbound, outbound
from xmppd.xml.roster import roster_item, roster_query

TransitionT = TypeVar("TransitionT", Outbound, Inbound)


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one item, and the roster after it. Where `old` equals `new` nothing was written."""

    contact: str
    old: RosterItem | None
    new: RosterItem | None
    roster: Roster

    @property
    def version(self) -> int:
        """The version that this change made; pushes go out in the order of versions."""
        return self.roster.version

    @property
    def is_visible(self) -> bool:
        """Whether clients see a difference, so that a push is due (RFC 6121 2.1.6)."""
        return seen(self.old) != seen(self.new)

    @property
    def push(self) -> bytes:
        """The payload of the push that tells clients how the item stands now."""
        return push_of(self.contact, self.new, self.version)


@dataclass(frozen=True, slots=True)
class SubscriptionChange(Generic[TransitionT]):
    """What one subscription stanza did to a roster, and what the tables say must follow."""

    change: Change
    transition: TransitionT


class Sent:
    """The edit that makes the item what it is after its owner sent `kind` to the contact (RFC 6121 A.2).

    `step`: what the tables said of the item that was edited last.
    """

    step: Outbound

    def __init__(self, contact: str, kind: Kind) -> None:
        self._contact = contact
        self._kind = kind

    def __call__(self, item: RosterItem | None) -> RosterItem | None:
        before = item or RosterItem(self._contact)
        self.step = step = outbound(before.state, self._kind, approved=before.approved)
        return _kept(item, before.moved(step.state, approved=step.approved))


class Received:
    """The edit that makes it what it is after the contact's `kind` arrived (RFC 6121 A.3).

    `request` is a whole `subscribe`; `step` as of `Sent`.
    """

    step: Inbound

    def __init__(self, contact: str, kind: Kind, request: bytes) -> None:
        self._contact = contact
        self._kind = kind
        self._request = request

    def __call__(self, item: RosterItem | None) -> RosterItem | None:
        before = item or RosterItem(self._contact, hidden=True)
        self.step = step = inbound(before.state, self._kind, approved=before.approved)
        return _kept(item, before.moved(step.state, approved=before.approved, request=self._request))


def _kept(old: RosterItem | None, new: RosterItem) -> RosterItem | None:
    """The new item, or None where it says nothing: no stanza leaves an empty item where none was."""
    is_empty = new.state is State.NONE and not new.approved
    return None if is_empty and (old is None or old.hidden) else new


def is_richer(old: RosterItem | None, new: RosterItem) -> bool:
    """Whether the owner put more into the item, so that it may be refused: a subscription never is."""
    if old is None or old.hidden:
        return not new.hidden
    return len(new.packed) > len(old.packed) and (old.name, old.groups) != (new.name, new.groups)


def seen(item: RosterItem | None) -> str:
    """What clients see of an item, as XML; "" for nothing."""
    return item.packed if item is not None else ""


def push_of(contact: str, item: RosterItem | None, version: int) -> bytes:
    """The payload of a push: how the contact's item stands at that version (RFC 6121 2.1.6)."""
    return roster_query((seen(item) or roster_item(contact, "remove")).encode(), str(version))
