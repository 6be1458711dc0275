"""What becomes of a message, and how it is given to several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from xmppd.core.delivery import Action, action_of, kind_of
from xmppd.core.fates import DROPPED, REFUSED, Fates
from xmppd.core.origin import Target
from xmppd.errors import StanzaError
from xmppd.hooks import KEPT, Drop, Outcome
from xmppd.jid import Jid
from xmppd.xml.stanza import Stanza

FEW: Final = 8
"""Sessions that get a message at once; where there are more, they come after those who are alone."""


def copy(receivers: Sequence[Target], data: bytes, *, is_patient: bool = False) -> None:
    """Send each a copy. What is for one may overtake it if there are more than a few, or it `is_patient`."""
    if is_patient or len(receivers) > FEW:
        for receiver in receivers:
            receiver.send_copy(data)
    else:
        for receiver in receivers:
            receiver.send(data)


def outcome_of(became: Outcome | Drop) -> Outcome:
    """What a filter says by ending a stanza."""
    if isinstance(became, Outcome):
        return became
    return Outcome.KEPT if became is KEPT else Outcome.DROPPED


def refused(stanza: Stanza, to: Jid, fates: Fates) -> Outcome:
    """What becomes of a message for an account that bars its sender: what the table says where nobody is, and
    nothing is kept. StanzaError, or it is dropped.
    """
    is_dropped = action_of(to, kind_of(stanza), is_ready=False) is Action.IGNORE
    fates.note(stanza, DROPPED if is_dropped else REFUSED, "blocked", "its receiver has blocked its sender")
    if is_dropped:
        return Outcome.DROPPED
    raise unavailable()


def unavailable() -> StanzaError:
    """What refuses a message; a new one each time, because a raised error keeps every traceback it was
    given.
    """
    return StanzaError("service-unavailable")
