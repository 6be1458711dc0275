"""Copies of messages for the other devices of an account (XEP-0280, XEP-0297).

A message is wrapped once for all sessions of an account that want copies; each copy is `head`, its
` to='full JID'`, and `tail`. Nobody routes a copy: so none is ever copied, kept, or refused to anybody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from xmppd import ns
from xmppd.core.intake import DELAYS
from xmppd.core.lastseen import delay
from xmppd.core.managed import APART
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

ROOM_USER: Final = ns.MUC_USER.encode()
TELLING: Final = (ns.CARBONS.encode(), ns.HINTS.encode(), ns.MUC_USER.encode(), b"&#")
"""A chat message without any of these is copied: a namespace may be hidden by character references alone."""


class Copies(NamedTuple):
    """A message wrapped for an account: what is before and behind the `to` of each copy. `sender` is the full
    JID of who wrote it, who gets none. `only`: it is for those alone who are in a room by one of these
    addresses; empty: for all.
    """

    sender: str
    head: bytes
    tail: bytes
    only: tuple[str, ...] = ()


class Carbons:
    """Makes copies, and gives them to sessions of this node. `now`: seconds since the epoch."""

    def __init__(self, sessions: Sessions, now: Callable[[], float] = time.time) -> None:
        self._sessions = sessions
        self._now = now

    def sent(self, session: Session, stanza: Stanza, sent_id: str = "") -> None:
        """A message of a session goes out: whoever of its account wants copies is sent one, on all nodes.
        `sent_id` is its id in the archive of that account (XEP-0359), "" where it has none.

        One to the account itself is copied where it is delivered, for those who are not given it.
        """
        account, live = session.account, session.live
        to = bare_of(stanza.to or account)
        if to == account:
            return
        only = nicks_of(session, to) if "/" in (stanza.to or "") and stanza.raw.find(ROOM_USER) >= 0 else ()
        if not is_copied(account, live, stanza, is_sent=True, only=only):
            return
        copies = wrapped(account, stanza, "sent", self._now(), sent_id, only)
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
        only = exchanged_by(account, live, stanza) or () if stanza.type == "error" else ()
        return wrapped(account, stanza, "sent" if is_sent else "received", self._now(), only=only)

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

    def had(self, full: str, stanza: Stanza, second: int) -> bool | None:
        """Whether another session of the account has a copy of a message that was sent to that one in that
        second; None: one of another node may. What came late was not copied.
        """
        if any(child.tag in DELAYS for child in stanza.xml):
            return False
        if stanza.type == "error" or not is_eligible(stanza, is_sent=False):
            return False
        return True if self.have_had(bare_of(full), second, but=full) else None

    def have_had(self, account: str, second: int, but: str = "") -> bool:
        """Whether a session here has the copies of that second; if it is managed, whether its client has."""
        live = self._sessions.accounts.get(account)
        return live is not None and any(
            session.full != but
            and session.copies_since <= second
            and (session.managed is None or session.managed.has_had(second + APART))
            for session in live.carbons
        )


def is_copied(
    account: str,
    live: LiveAccount | None,
    stanza: Stanza,
    *,
    is_sent: bool,
    only: tuple[str, ...] = (),
) -> bool:
    """Whether a message that the account sends or receives is for other devices of it, or `only` for some. An
    error is if the message was that it answers, which is noted where the account has sessions, who may
    answer.
    """
    if stanza.type == "error":
        return exchanged_by(account, live, stanza) is not None
    if not is_eligible(stanza, is_sent=is_sent):
        return False
    if live is not None and stanza.id is not None:
        exchanged = live.exchanged
        if exchanged is None:
            exchanged = live.exchanged = {}
        sender, to = stanza.attrs.get("from", ""), stanza.to or account
        exchanged[sender, bare_of(to), stanza.id] = only
        if len(exchanged) > EXCHANGED:
            del exchanged[next(iter(exchanged))]
    return True


def exchanged_by(account: str, live: LiveAccount | None, error: Stanza) -> tuple[str, ...] | None:
    """For whom alone the message was copied that an error answers; None: it was not, as far as is known."""
    if live is None or live.exchanged is None:
        return None
    return live.exchanged.get((error.to or account, bare_of(error.attrs.get("from", "")), error.id))


def nicks_of(session: Session, room: str) -> tuple[str, ...]:
    """The addresses by which a session is in a room: those there that it sent its presence to (XEP-0045)."""
    return tuple(session.directed.of(room)) if session.directed is not None else ()


def is_eligible(stanza: Stanza, *, is_sent: bool) -> bool:
    """Whether a message that is no error is copied (XEP-0280 6.1: urn:xmpp:carbons:rules:0)."""
    kind = stanza.type
    if kind == "groupchat":
        return False
    if kind == "chat" and (stanza.is_plain or all(stanza.raw.find(name) < 0 for name in TELLING)):
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


def wrapped(
    account: str, stanza: Stanza, way: str, at: float, stanza_id: str = "", only: tuple[str, ...] = ()
) -> Copies:
    """The copies of a message; `way` is "sent" or "received", `at` when that was (XEP-0297 3.2)."""
    attrs = {"from": account} if stanza.type is None else {"type": stanza.type, "from": account}
    raw = stanza.raw
    if stanza_id:
        by, name = build.escape_attribute(account), build.escape_attribute(stanza_id)
        given = f"<stanza-id xmlns='{ns.STANZA_ID}' by='{by}' id='{name}'/>"
        raw = build.insert_child(raw, "message", given.encode())
    return Copies(
        stanza.attrs.get("from", ""),
        build.start_tag("message", attrs),
        b"><%b xmlns='%b'><forwarded xmlns='%b'>%b<message xmlns='%b'%b</forwarded></%b></message>"
        % (
            way.encode(),
            ns.CARBONS.encode(),
            ns.FORWARD.encode(),
            delay(account.rpartition("@")[2], at),
            ns.CLIENT.encode(),
            raw[len("<message") :],
            way.encode(),
        ),
        only,
    )


def give(copies: Copies, live: LiveAccount, but: Collection[Target] = (), *, is_stored: bool = False) -> None:
    """Send copies to the sessions here that want them, but those. `is_stored`: the message is kept for
    whoever is available next, so that only who is available and not given it needs a copy.
    """
    for session in live.carbons:
        if session in but or session.full == copies.sender:
            continue
        if copies.only and set(copies.only).isdisjoint(nicks_of(session, bare_of(copies.only[0]))):
            continue
        if is_stored and (session.presence is None or session.priority >= 0):
            continue
        session.send(copies.head + to_stamp(session.full) + copies.tail)


def bare_of(jid: str) -> str:
    """The account of an address in normal form."""
    return jid.partition("/")[0]


def flushing(live: LiveAccount | None) -> tuple[Session, ...]:
    """Those that are given what is stored: a message that is stored now, too."""
    return tuple(session for session in live.carbons if session.is_flushing) if live is not None else ()
