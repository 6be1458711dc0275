"""Two pieces of knowledge about one contact become one, whoever comes first and however often.

Each field is the join of a lattice, so merging is associative, commutative and idempotent: see design 016
(`docs/design/016-moving-accounts.md`).
"""

from __future__ import annotations

from collections.abc import Iterable

from xmppd.core.roster.item import RosterItem
from xmppd.core.roster.subscription import State, Subscription

_GRANTED: dict[tuple[bool, bool], Subscription] = {
    (False, False): "none",
    (True, False): "to",
    (False, True): "from",
    (True, True): "both",
}


def item_of(
    contact: str,
    state: State,
    *,
    approved: bool = False,
    name: str = "",
    groups: Iterable[str] = (),
    request: bytes = b"",
    listed: bool = True,
) -> RosterItem:
    """An item in the form in which two of them can be compared: groups sorted, each once; no request where
    none waits; hidden only while it is nothing but a request.
    """
    hidden = not listed and state in (State.NONE, State.NONE_IN) and not approved
    return RosterItem(
        contact,
        state.subscription,
        state.ask,
        state.pending_in,
        approved,
        "" if hidden else name,
        () if hidden else tuple(sorted(set(groups))),
        request if state.pending_in else b"",
        hidden,
    )


def merged(one: RosterItem, other: RosterItem) -> RosterItem:
    """What both items of one contact say together: the union of groups and of what is granted; a request
    only where it is not granted; the longer name (of two as long, the greater); the same of two requests.
    """
    a, b = one.state, other.state
    granted = _GRANTED[a.is_following or b.is_following, a.is_followed or b.is_followed]
    state = State.of(granted, a.ask or b.ask, a.pending_in or b.pending_in)
    return item_of(
        one.contact,
        state,
        approved=one.approved or other.approved,
        name=max((one.name, other.name), key=lambda name: (len(name), name)),
        groups=(*one.groups, *other.groups),
        request=max((one.request, other.request), key=lambda request: (len(request), request)),
        listed=not (one.hidden and other.hidden),
    )
