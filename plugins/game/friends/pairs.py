"""What is between two players: nothing, a request of one of them, or friendship. One row for each pair,
changed by compare-and-set, is the truth of it; rosters and lists of both follow it, again and again until it
stands still. So the two always agree in the end, whoever does what at once, and on whatever nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from xmppd.plugin import StanzaError

NONE, ASKED, FRIENDS = "none", "asked", "friends"

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """`one` is the smaller account. `by` has asked, until `expires`; `since` they are friends. `names` are
    those of the two, where somebody has looked.
    """

    one: str
    other: str
    state: str = NONE
    by: str = ""
    text: str = ""
    since: float | None = None
    expires: float | None = None
    version: int = 0
    names: Mapping[str, str] | None = field(default=None, compare=False)

    def of(self, account: str) -> str:
        """The other one of the two."""
        return self.other if account == self.one else self.one

    def seen_by(self, account: str) -> Literal["none", "asking", "asked", "both"]:
        """What it is for one of them: `none`, `asking`, `asked` or `both`, as rosters have it."""
        if self.state == ASKED:
            return "asking" if self.by == account else "asked"
        return "both" if self.state == FRIENDS else "none"

    def at(self, now: float) -> Pair:
        """The same at a moment: a request that has expired is none."""
        if self.state == ASKED and self.expires is not None and self.expires <= now:
            return replace(self, state=NONE, by="", text="", expires=None)
        return self


Deed = Callable[[Pair, str, float], Pair]
"""Makes the new pair of the old one, whose doer and moment are given; StanzaError where it cannot be done."""


def pair_of(one: str, other: str, row: Row | None) -> Pair:
    """The pair of two accounts, as its row has it."""
    first, second = sorted((one, other))
    if row is None:
        return Pair(first, second)
    return Pair(
        first,
        second,
        row["state"],
        row["by"] or "",
        row["text"] or "",
        row["since"],
        row["expires"],
        row["version"],
    )


def row_of(pair: Pair) -> dict[str, Any]:
    """The whole row of a pair."""
    return {
        "one": pair.one,
        "other": pair.other,
        "state": pair.state,
        "by": pair.by,
        "text": pair.text,
        "since": pair.since,
        "expires": pair.expires,
        "version": pair.version,
    }


def befriend(pair: Pair, doer: str, now: float) -> Pair:
    """They are friends, whatever was before."""
    if pair.state == FRIENDS:
        return pair
    return replace(pair, state=FRIENDS, by="", text="", since=now, expires=None)


def request(text: str, seconds: float) -> Deed:
    """Asks, for so long; who was asked by the other already makes them friends."""

    def asking(pair: Pair, doer: str, now: float) -> Pair:
        if pair.state == ASKED and pair.by != doer:
            return befriend(pair, doer, now)
        if pair.state != NONE:
            return pair
        expires = now + seconds if seconds else None
        return replace(pair, state=ASKED, by=doer, text=text, since=None, expires=expires)

    return asking


def accept(pair: Pair, doer: str, now: float) -> Pair:
    """The other one's request is granted; item-not-found without one."""
    if pair.state == FRIENDS:
        return pair
    if pair.state != ASKED or pair.by == doer:
        raise StanzaError("item-not-found", "This player has not asked to be your friend.")
    return befriend(pair, doer, now)


def decline(pair: Pair, doer: str, now: float) -> Pair:
    """The other one's request is refused."""
    if pair.state != ASKED or pair.by == doer:
        raise StanzaError("item-not-found", "This player has not asked to be your friend.")
    return part(pair, doer, now)


def cancel(pair: Pair, doer: str, now: float) -> Pair:
    """One's own request is taken back."""
    if pair.state != ASKED or pair.by != doer:
        raise StanzaError("item-not-found", "You have not asked this player to be your friend.")
    return part(pair, doer, now)


def remove(pair: Pair, doer: str, now: float) -> Pair:
    """Friends no more; item-not-found where they were not."""
    if pair.state != FRIENDS:
        raise StanzaError("item-not-found", "This player is not your friend.")
    return part(pair, doer, now)


def part(pair: Pair, doer: str, now: float) -> Pair:
    """Nothing is between them any more, whatever was."""
    if pair.state == NONE:
        return pair
    return replace(pair, state=NONE, by="", text="", since=None, expires=None)


def grant(pair: Pair, doer: str, now: float) -> Pair:
    """What it means by `subscribed`: accepts where it was asked, and is nothing otherwise."""
    if pair.state == ASKED and pair.by != doer:
        return befriend(pair, doer, now)
    return pair


def expire(pair: Pair, doer: str, now: float) -> Pair:
    """Nothing but the time goes on."""
    return pair


DEEDS: Final[Mapping[str, Deed]] = {"accept": accept, "decline": decline, "cancel": cancel, "remove": remove}
"""What clients do by name."""


def half(item: Any) -> str:
    """What a roster says of a contact: as `Pair.seen_by`, or anything else that does not fit."""
    if item is None:
        return NONE
    if item.subscription == "none":
        return "asking" if item.ask else "asked" if item.pending_in else NONE
    return str(item.subscription)
