"""Clients that nobody looks at (XEP-0352): what need not come now waits, the last of each contact, until
anything comes that matters, or somebody looks again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.core.output import Connection
from xmppd.core.sessions import Session
from xmppd.errors import StreamError
from xmppd.hooks import Hooks
from xmppd.xml.build import escape_attribute
from xmppd.xml.stanza import parse

MOST: Final = 500
BYTES: Final = 65_536
"""How much waits for one client; beyond that all goes out."""

STATES: Final = ns.CHAT_STATES.encode()
ROOM: Final = f"{ns.MUC}#user".encode()

_BESIDE: Final = (f"{{{ns.CHAT_STATES}}}", f"{{{ns.HINTS}}}", f"{{{ns.CLIENT}}}thread")
"""What a message has that tells a chat state and nothing else (XEP-0085 5.1)."""
_COPIES: Final = {f"{{{ns.CARBONS}}}received": b"state ", f"{{{ns.CARBONS}}}sent": b"sent "}
"""How the key of a copy begins by what is around it (XEP-0280); of a received one as that of the original."""
_COPIED: Final = f"{{{ns.FORWARD}}}forwarded/{{{ns.CLIENT}}}message"

_TAG: Final = re.compile(rb"<(?:presence|message)\s[^>]*?\bfrom='([^']*)'[^>]*")
_TYPE: Final = re.compile(rb"\stype\s*=\s*['\"]([a-z]+)['\"]")


class Quiet:
    """The connection of a session whose client said that it is inactive; it stands before the one that it
    had. What waits is not on its way: it is neither counted nor kept to be acknowledged.
    """

    __slots__ = ("_hooks", "_session", "_size", "_waiting", "inner")

    def __init__(self, session: Session, hooks: Hooks) -> None:
        self.inner = session.connection
        self._hooks = hooks
        self._session = session
        self._waiting: dict[bytes, bytes] = {}
        self._size = 0

    def __len__(self) -> int:
        """How many stanzas wait."""
        return len(self._waiting)

    @property
    def peer(self) -> str:
        """See `Connection.peer`."""
        return self.inner.peer

    @property
    def secure(self) -> bool:
        """See `Connection.secure`."""
        return self.inner.secure

    @property
    def clogged(self) -> bool:
        """See `Connection.clogged`."""
        return self.inner.clogged

    def write(self, data: bytes) -> None:
        """Send one stanza, or let it wait."""
        self.write_all((data,))

    def write_all(self, stanzas: Sequence[bytes]) -> None:
        """Send several, behind what waits, unless all may wait."""
        for number, stanza in enumerate(stanzas):
            key = key_of(stanza, self._session.account)
            if not key or key.endswith(self._session.full.encode()):
                self._write([*self._waiting.values(), *stanzas[number:]])
                return
            before = self._waiting.pop(key, b"")
            self._waiting[key] = stanza
            self._size += len(stanza) - len(before)
        if len(self._waiting) > MOST or self._size > BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        if self._waiting:
            self._write([*self._waiting.values()])

    def _write(self, stanzas: Sequence[bytes]) -> None:
        self._waiting.clear()
        self._size = 0
        self.inner.write_all(stanzas)
        signals = self._hooks.stanzas_waiting_signal
        if signals and self.inner.peer:  # of one that is detached it is told behind this
            self._hooks.tell(signals, self._session, stanzas)

    def close(self, error: StreamError | None) -> None:
        """The session is over; who was shown to it, and who typed, does not matter any more."""
        self._waiting.clear()
        self.inner.close(error)


def quiet(session: Session, hooks: Hooks) -> None:
    """Nobody looks at its client."""
    if not isinstance(session.connection, Quiet):
        session.flush()
        session.connection = Quiet(session, hooks)


def wake(session: Session) -> None:
    """Somebody does: what waited is on its way before anything else."""
    session.flush()
    connection = session.connection
    if isinstance(connection, Quiet):
        connection.flush()
        session.connection = connection.inner


def beneath(session: Session, connection: Connection) -> None:
    """Have what is written to a session, at once or when it has waited, go to another connection."""
    if isinstance(session.connection, Quiet):
        session.connection.inner = connection
    else:
        session.connection = connection


def key_of(stanza: bytes, account: str) -> bytes:
    """Of what a stanza for an account tells the state, by kind and sender: only the last of these matters.
    b"" for what does not wait: all but presence that shows somebody or his end, and chat states alone, be
    they copies. That a room was entered or left matters.
    """
    tag = _TAG.match(stanza)
    if tag is None:
        return b""
    found = _TYPE.search(tag[0])
    type = b"" if found is None else found[1]
    if stanza.startswith(b"<presence"):
        is_room = stanza.find(ROOM) >= 0 and stanza.find(b"110") >= 0
        return b"presence " + tag[1] if type in (b"", b"unavailable") and not is_room else b""
    if type not in (b"", b"normal", b"chat", b"groupchat") or STATES not in stanza or b"<body" in stanza:
        return b""
    message = parse(stanza)
    if _tells_state(message):
        return b"state " + tag[1]
    return _key_of_copy(message, account)


def _tells_state(message: Element) -> bool:
    return all(child.tag.startswith(_BESIDE) for child in message)


def _key_of_copy(message: Element, account: str) -> bytes:
    if len(message) != 1 or message.get("from") != account:
        return b""
    kind, copied = _COPIES.get(message[0].tag), message[0].find(_COPIED)
    if kind is None or copied is None or copied.get("type") == "error" or not _tells_state(copied):
        return b""
    sender = copied.get("from", "")
    names = (sender,) if kind == b"state " else (copied.get("to", ""), sender)
    return kind + " ".join(map(escape_attribute, names)).encode()
