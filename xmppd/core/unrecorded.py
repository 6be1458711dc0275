"""Messages that are written down for nobody who is to have them: kept until they are acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xmppd.core.delivery import KEEPABLE, kind_of
from xmppd.core.sessions import LiveAccount, Session
from xmppd.hooks import Recorded, Unrecorded
from xmppd.jid import Jid
from xmppd.xml.stanza import Stanza

Takers = Callable[[], Sequence[Session]]
Ask = Callable[[Stanza, Jid, Takers], Unrecorded | None]


def asked(
    asks: Sequence[Ask], live: LiveAccount | None, sent: Stanza, to: Jid, recorded: Recorded | None
) -> Unrecorded | None:
    """What the hook `message_unrecorded` makes of a message for an account, which is `recorded` for its
    sender alone, or not at all; None if none of those who get it here acknowledges.
    """
    if not asks or live is None or kind_of(sent) not in KEEPABLE:
        return None
    if recorded is not None and recorded.error is not None:
        return None

    def takers() -> Sequence[Session]:
        one = live.sessions.get(to.resource) if to.resource else None
        receivers = live.takers if one is None else (one,) if one.takes_messages else ()
        return [session for session in receivers if session.managed is not None]

    made = asks[0](sent if recorded is None else recorded.message, to, takers) if takers() else None
    if made is not None:
        made.before = recorded
    return made
