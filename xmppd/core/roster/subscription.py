"""Presence subscriptions as RFC 6121 appendix A has them: nine states, a table per direction and stanza type.

Everything here is seen from the owner of a roster item. Pre-approval (3.4) is not one of the nine states:
it is a flag beside them, handled by `outbound` and `inbound`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Literal, NamedTuple, get_args

Kind = Literal["subscribe", "unsubscribe", "subscribed", "unsubscribed"]
"""Type of a presence stanza that manages a subscription."""

Subscription = Literal["none", "to", "from", "both"]
"""`to`: the owner sees the contact's presence; `from`: the contact sees the owner's."""


class State(Enum):
    """One state of appendix A.1: the subscription, and who of owner and contact asks for (more of) one."""

    _value_: tuple[Subscription, bool, bool]

    NONE = ("none", False, False)
    NONE_OUT = ("none", True, False)
    NONE_IN = ("none", False, True)
    NONE_OUT_IN = ("none", True, True)
    TO = ("to", False, False)
    TO_IN = ("to", False, True)
    FROM = ("from", False, False)
    FROM_OUT = ("from", True, False)
    BOTH = ("both", False, False)

    @staticmethod
    def of(subscription: Subscription, ask: bool, pending_in: bool) -> State:
        """The state with these parts; a request for what is granted already does not count."""
        return _STATES[subscription, ask, pending_in]

    @property
    def parts(self) -> tuple[Subscription, bool, bool]:
        """`subscription`, `ask` and `pending_in`."""
        return self._value_

    @property
    def subscription(self) -> Subscription:
        """What is granted."""
        return self._value_[0]

    @property
    def ask(self) -> bool:
        """Whether the owner's request waits for an answer ("Pending Out")."""
        return self._value_[1]

    @property
    def pending_in(self) -> bool:
        """Whether the contact's request waits for an answer ("Pending In")."""
        return self._value_[2]

    @property
    def is_following(self) -> bool:
        """Whether the owner sees the contact's presence."""
        return self.subscription in ("to", "both")

    @property
    def is_followed(self) -> bool:
        """Whether the contact sees the owner's presence."""
        return self.subscription in ("from", "both")


_STATES: Mapping[tuple[Subscription, bool, bool], State] = {
    (subscription, ask, pending): State(
        (subscription, ask and subscription in ("none", "from"), pending and subscription in ("none", "to"))
    )
    for subscription in get_args(Subscription)
    for ask in (False, True)
    for pending in (False, True)
}
"""Looked up for each item that is packed, so it is a table."""

N, N_O, N_I, N_OI, T, T_I, F, F_O, B = State
MUST, MUST_NOT = True, False
Table = Mapping[Kind, Mapping[State, tuple[bool, State]]]

OUTBOUND: Table = {
    "subscribe": {
        N: (MUST, N_O),
        N_O: (MUST, N_O),
        N_I: (MUST, N_OI),
        N_OI: (MUST, N_OI),
        T: (MUST, T),
        T_I: (MUST, T_I),
        F: (MUST, F_O),
        F_O: (MUST, F_O),
        B: (MUST, B),
    },
    "unsubscribe": {
        N: (MUST, N),
        N_O: (MUST, N),
        N_I: (MUST, N_I),
        N_OI: (MUST, N_I),
        T: (MUST, N),
        T_I: (MUST, N_I),
        F: (MUST, F),
        F_O: (MUST, F),
        B: (MUST, F),
    },
    "subscribed": {
        N: (MUST_NOT, N),
        N_O: (MUST_NOT, N_O),
        N_I: (MUST, F),
        N_OI: (MUST, F_O),
        T: (MUST_NOT, T),
        T_I: (MUST, B),
        F: (MUST_NOT, F),
        F_O: (MUST_NOT, F_O),
        B: (MUST_NOT, B),
    },
    "unsubscribed": {
        N: (MUST_NOT, N),
        N_O: (MUST_NOT, N_O),
        N_I: (MUST, N),
        N_OI: (MUST, N_O),
        T: (MUST_NOT, T),
        T_I: (MUST, T),
        F: (MUST, N),
        F_O: (MUST, N_O),
        B: (MUST, T),
    },
}
"""Appendix A.2, what the owner's clients send: existing state -> (route to the contact?, new state)."""

INBOUND: Table = {
    "subscribe": {
        N: (MUST, N_I),
        N_O: (MUST, N_OI),
        N_I: (MUST_NOT, N_I),
        N_OI: (MUST_NOT, N_OI),
        T: (MUST, T_I),
        T_I: (MUST_NOT, T_I),
        F: (MUST_NOT, F),
        F_O: (MUST_NOT, F_O),
        B: (MUST_NOT, B),
    },
    "unsubscribe": {
        N: (MUST_NOT, N),
        N_O: (MUST_NOT, N_O),
        N_I: (MUST, N),
        N_OI: (MUST, N_O),
        T: (MUST_NOT, T),
        T_I: (MUST, T),
        F: (MUST, N),
        F_O: (MUST, N_O),
        B: (MUST, T),
    },
    "subscribed": {
        N: (MUST_NOT, N),
        N_O: (MUST, T),
        N_I: (MUST_NOT, N_I),
        N_OI: (MUST, T_I),
        T: (MUST_NOT, T),
        T_I: (MUST_NOT, T_I),
        F: (MUST_NOT, F),
        F_O: (MUST, B),
        B: (MUST_NOT, B),
    },
    "unsubscribed": {
        N: (MUST_NOT, N),
        N_O: (MUST, N),
        N_I: (MUST_NOT, N_I),
        N_OI: (MUST, N_I),
        T: (MUST, N),
        T_I: (MUST, N_I),
        F: (MUST_NOT, F),
        F_O: (MUST, F),
        B: (MUST, F),
    },
}
"""Appendix A.3, what the contact sends: existing state -> (deliver to the owner's clients?, new state)."""


class Outbound(NamedTuple):
    """What follows when the owner sends a subscription stanza to the contact."""

    route: bool
    state: State
    approved: bool


class Inbound(NamedTuple):
    """What follows when one from the contact arrives; `reply` is the server's answer in the owner's name."""

    deliver: bool
    state: State
    reply: Kind | None = None


def outbound(state: State, kind: Kind, *, approved: bool = False) -> Outbound:
    """The owner sends `kind` (RFC 6121 A.2); `approved` tells whether the contact is pre-approved (3.4).

    `subscribed` without a request pre-approves, `unsubscribed` takes that back; neither is routed then.
    """
    route, after = OUTBOUND[kind][state]
    if kind == "unsubscribed":
        approved = False
    elif kind == "subscribed" and not after.is_followed:
        approved = True
    return Outbound(route, after, approved)


def inbound(state: State, kind: Kind, *, approved: bool = False) -> Inbound:
    """The contact's `kind` arrives (RFC 6121 A.3); one granted or pre-approved is answered (3.1.3)."""
    deliver, after = INBOUND[kind][state]
    if kind != "subscribe":
        return Inbound(deliver, after)
    if after.is_followed:
        return Inbound(False, after, "subscribed")
    if approved:
        return Inbound(False, OUTBOUND["subscribed"][after][1], "subscribed")
    return Inbound(deliver, after)
