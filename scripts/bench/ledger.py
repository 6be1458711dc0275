"""The client's side of stream management (XEP-0198), over all connections of one client; for `phones.py` and
`counted.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from xmppd import ns

ABOUT = TypeVar("ABOUT")
"""What a client remembers a stanza by; false for one that is not sent again by another session."""


class Ledger(Generic[ABOUT]):
    """`id`: by which the session is resumed, "" for none; `h`: how many stanzas came in it, `out`: how many
    were sent. `sent` are those that the server may not have, each with its number, as it was, and what it
    is remembered by; `unsure` those of a session that is gone, to be sent again. `seen`: the ids of messages
    that came (XEP-0359).
    """

    def __init__(self) -> None:
        self.id = ""
        self.h = 0
        self.out = 0
        self.sent: deque[tuple[int, str, ABOUT]] = deque()
        self.unsure: list[tuple[str, ABOUT]] = []
        self.seen: set[str] = set()

    def asking(self) -> str:
        """The request to resume it."""
        return f"<resume xmlns='{ns.SM}' previd='{self.id}' h='{self.h}'/>"

    def telling(self) -> str:
        """The acknowledgement of all that came."""
        return f"<a xmlns='{ns.SM}' h='{self.h}'/>"

    def note(self, xml: str, about: ABOUT) -> None:
        """A stanza is sent."""
        self.out += 1
        self.sent.append((self.out, xml, about))

    def had(self, h: int) -> Iterator[ABOUT]:
        """The server has so many: what those were that it may not have had until now."""
        while self.sent and self.sent[0][0] <= h:
            yield self.sent.popleft()[2]

    def end(self) -> None:
        """The session is gone: what it had not acknowledged may be there or not. Its id is what the next one
        comes with until that has begun.
        """
        self.unsure += [(xml, about) for _, xml, about in self.sent if about]
        self.sent.clear()

    def begin(self, id: str) -> None:
        """Another one has begun."""
        self.id = id
        self.h = self.out = 0

    def after(self) -> Ledger[ABOUT]:
        """That of the next session, where this one is ended properly."""
        ledger: Ledger[ABOUT] = Ledger()
        ledger.seen, ledger.unsure = self.seen, self.unsure
        return ledger

    def is_new(self, id: str) -> bool:
        """Whether a message came for the first time."""
        if id in self.seen:
            return False
        self.seen.add(id)
        return True
