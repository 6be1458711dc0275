"""Messages that are written down for nobody who is to have them: kept until they are acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from xmppd.core.delivery import KEEPABLE, kind_of
from xmppd.core.sessions import LiveAccount, Session
from xmppd.hooks import Recorded, Unrecorded
from xmppd.jid import Jid
from xmppd.xml.stanza import Stanza

Takers = Callable[[], Sequence[Session]]
Ask = Callable[[Stanza, Jid, Takers], Unrecorded | None]


def takers_of(live: LiveAccount, to: Jid) -> Sequence[Session]:
    """Who of an account would be given a message now and acknowledges."""
    one = next((session for session in live.sessions if session.resource == to.resource), None)
    if one is not None:
        return (one,) if one.managed is not None and one.takes_messages else ()
    return [session for session in live.takers if session.managed is not None]


def asked(
    asks: Sequence[Ask], live: LiveAccount, sent: Stanza, to: Jid, recorded: Recorded | None
) -> Unrecorded | None:
    """What the hook `message_unrecorded` makes of a message for an account where somebody acknowledges, which
    is `recorded` for its sender alone, or not at all.
    """
    if kind_of(sent) not in KEEPABLE or (recorded is not None and recorded.error is not None):
        return None
    made = asks[0](sent if recorded is None else recorded.message, to, partial(takers_of, live, to))
    if made is not None:
        made.before = recorded
    return made
