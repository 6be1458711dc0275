"""Copies of messages for the other devices of an account (XEP-0280, XEP-0297).

A message is wrapped once for all sessions of an account that want copies; each copy is `head`, its
` to='full JID'`, and `tail`. Nobody routes a copy: so none is ever copied, kept, or refused to anybody.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from xmppd import ns
from xmppd.core.intake import DELAYS
from xmppd.core.origin import Target
from xmppd.core.sessions import LiveAccount, Session, Sessions, to_stamp
from xmppd.xml import build
from xmppd.xml.stanza import Stanza

EXCHANGED: Final = 200
"""Of so many of its last messages an account with copies remembers who may answer with an error."""

PRIVATE: Final = f"{{{ns.CARBONS}}}private"
NO_COPY: Final = f"{{{ns.HINTS}}}no-copy"
WRAPPED: Final = frozenset((f"{{{ns.CARBONS}}}sent", f"{{{ns.CARBONS}}}received"))
NEVER: Final = WRAPPED | {PRIVATE, NO_COPY}
BODY: Final = f"{{{ns.CLIENT}}}body"
ROOM: Final = f"{{{ns.MUC_USER}}}x"
DIRECT_INVITATION: Final = f"{{{ns.CONFERENCE}}}x"
MEDIATED: Final = frozenset((f"{{{ns.MUC_USER}}}invite", f"{{{ns.MUC_USER}}}decline"))
TALK: Final = tuple(f"{{{name}}}" for name in (ns.RECEIPTS, ns.CHAT_STATES, ns.CHAT_MARKERS))
"""Namespaces of what is said in a conversation without a body (XEP-0184, XEP-0085, XEP-0333)."""

TELLING: Final = (ns.CARBONS.encode(), ns.HINTS.encode(), ns.MUC_USER.encode(), b"&#")
"""A chat message without any of these is copied: a namespace may be hidden by character references alone."""


class Copies(NamedTuple):
    """A message wrapped for an account: what is before and behind the `to` of each copy. `sender` is the full
    JID of who wrote it, who gets none.
    """

    sender: str
    head: bytes
    tail: bytes


class Carbons:
    """Makes copies, and gives them to sessions of this node."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def sent(self, session: Session, stanza: Stanza, sent_id: str = "") -> None:
        """A message of a session goes out: whoever of its account wants copies is sent one, on all nodes.
        `sent_id` is its id in the archive of that account (XEP-0359), "" where it has none.

        One to the account itself is copied where it is delivered, for those who are not given it.
        """
        account, live = session.account, session.live
        if bare_of(stanza.to or account) == account or not is_copied(account, live, stanza, is_sent=True):
            return
        copies = wrapped(account, stanza, "sent", sent_id)
        give(copies, live)
        if live.is_copied_elsewhere:
            self._sessions.cluster.copy(account, copies)

    def received(self, account: str, live: LiveAccount | None, stanza: Stanza) -> Copies | None:
        """What is for those of an account who are not given a message that it receives, None: it is not
        copied. `live`: the account as it is on this node.
        """
        is_sent = bare_of(stanza.attrs.get("from", "")) == account
        if not is_copied(account, live, stanza, is_sent=is_sent):
            return None
        return wrapped(account, stanza, "sent" if is_sent else "received")

    def refused(self, session: Session, stanza: Stanza, reply: bytes) -> None:
        """A message of a session was answered with an error: whoever has a copy of it is told, too."""
        live, attrs = (
            session.live,
            {"type": "error", "from": stanza.to or session.account, "to": session.full},
        )
        if stanza.id is not None:
            attrs["id"] = stanza.id
        copies = self.received(session.account, live, Stanza("message", attrs, reply))
        if copies is None:
            return
        give(copies, live, but=(session,))
        if live.is_copied_elsewhere:
            self._sessions.cluster.copy(session.account, copies)

    def had(self, full: str, stanza: Stanza, second: int) -> bool:
        """Whether another session here has a copy of a message that was sent to that one in that second; if
        it is managed, whether its client has it. What came late was not copied.
        """
        live = self._sessions.accounts.get(bare_of(full))
        if live is None or any(child.tag in DELAYS for child in stanza.xml):
            return False
        if stanza.type == "error" or not is_eligible(stanza, is_sent=False):
            return False
        return any(
            session.full != full
            and session.copies_since <= second
            and (session.managed is None or session.managed.has_had(second))
            for session in live.carbons
        )


def is_copied(account: str, live: LiveAccount | None, stanza: Stanza, *, is_sent: bool) -> bool:
    """Whether a message that the account sends or receives is for all its devices. An error is if the message
    was that it answers, which is noted where the account has sessions, who may answer.
    """
    sender, to = stanza.attrs.get("from", ""), stanza.to or account
    exchanged = live.exchanged if live is not None else None
    if stanza.type == "error":
        return exchanged is not None and (to, bare_of(sender), stanza.id) in exchanged
    if not is_eligible(stanza, is_sent=is_sent):
        return False
    if live is not None and stanza.id is not None:
        if exchanged is None:
            exchanged = live.exchanged = {}
        exchanged[sender, bare_of(to), stanza.id] = None
        if len(exchanged) > EXCHANGED:
            del exchanged[next(iter(exchanged))]
    return True


def is_eligible(stanza: Stanza, *, is_sent: bool) -> bool:
    """Whether a message that is no error is copied (XEP-0280 6.1: urn:xmpp:carbons:rules:0)."""
    kind = stanza.type
    if kind == "groupchat":
        return False
    if kind == "chat" and not any(name in stanza.raw for name in TELLING):
        return True
    children = {child.tag: child for child in stanza.xml}
    if not NEVER.isdisjoint(children):
        return False
    room = children.get(ROOM)
    if room is not None:
        if any(child.tag in MEDIATED for child in room):
            return True
        if not is_sent and "/" in stanza.attrs.get("from", ""):
            return False  # somebody in a room says it in private, and that sends it to all who are there
    if kind == "chat" or DIRECT_INVITATION in children:
        return True
    if kind != "headline" and BODY in children:
        return True
    return any(name.startswith(TALK) for name in children)


def wrapped(account: str, stanza: Stanza, way: str, stanza_id: str = "") -> Copies:
    """The copies of a message; `way` is "sent" or "received"."""
    attrs = {"from": account} if stanza.type is None else {"type": stanza.type, "from": account}
    raw = stanza.raw
    if stanza_id:
        by, name = build.escape_attribute(account), build.escape_attribute(stanza_id)
        given = f"<stanza-id xmlns='{ns.STANZA_ID}' by='{by}' id='{name}'/>"
        raw = build.insert_child(raw, "message", given.encode())
    return Copies(
        stanza.attrs.get("from", ""),
        build.start_tag("message", attrs),
        b"><%b xmlns='%b'><forwarded xmlns='%b'><message xmlns='%b'%b</forwarded></%b></message>"
        % (
            way.encode(),
            ns.CARBONS.encode(),
            ns.FORWARD.encode(),
            ns.CLIENT.encode(),
            raw[len("<message") :],
            way.encode(),
        ),
    )


def give(copies: Copies, live: LiveAccount, but: Collection[Target] = (), *, is_stored: bool = False) -> None:
    """Send copies to the sessions here that want them, but those. `is_stored`: the message is kept for
    whoever is available next, so that only who is available and not given it needs a copy.
    """
    for session in live.carbons:
        if session in but or session.full == copies.sender:
            continue
        if is_stored and (session.presence is None or session.priority >= 0):
            continue
        session.send(copies.head + to_stamp(session.full) + copies.tail)


def bare_of(jid: str) -> str:
    """The account of an address in normal form."""
    return jid.partition("/")[0]
