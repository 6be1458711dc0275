"""Presence as it is shown: what a session says of itself with what is said of it besides, its end, and
subscriptions.
"""

from __future__ import annotations

from typing import Final

from xmppd.core.sessions import Broadcast, Session
from xmppd.errors import JidError, StanzaError
from xmppd.hooks import Hooks
from xmppd.jid import Jid
from xmppd.xml import build
from xmppd.xml.stanza import Stanza

UNAVAILABLE: Final = b" type='unavailable'"

Late = dict[tuple[str, str], None]
"""Accounts, and contacts who may see them since a moment ago: those are shown them when something else is
done.
"""


def annexed(hooks: Hooks, session: Session, said: Broadcast) -> Broadcast:
    """An available presence of a session with what plugins add to it."""
    session.said = said
    more = b""
    for add in hooks.presence_annexed_recall:
        try:
            more += add(session, said.tail)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            hooks.failed(add, error)
    return Broadcast(said.head, build.insert_child(said.tail, "presence", more)) if more else said


def end_of(session: Session) -> Broadcast:
    """The presence that tells of a session's end."""
    return Broadcast(session.presence_head + UNAVAILABLE, b"/>")


def subscription_stanza(kind: str, sender: str, to: str, kept: bytes = b"") -> bytes:
    """A presence stanza that manages a subscription, between bare JIDs (RFC 6121 3): the whole one that was
    kept, or else one around its content.
    """
    if kept.startswith(b"<presence"):
        return kept
    head = build.start_tag("presence", {"type": kind, "from": sender, "to": to})
    return head + (b">" + kept + b"</presence>" if kept else b"/>")


def address_of(stanza: Stanza) -> Jid:
    """The parsed `to` of a stanza that has one; StanzaError jid-malformed."""
    try:
        return Jid.parse(stanza.to or "")
    except JidError as error:
        raise StanzaError("jid-malformed", str(error)) from None
