"""Requests that crossed to another node, until they are answered: so that each is answered once, by whom was
asked or by the node of who asked, but not by both.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict
from typing import Final

from xmppd.core.origin import Origin
from xmppd.core.questions import Question
from xmppd.core.sessions import Session
from xmppd.errors import StanzaError

MOST: Final = 10_000
BYTES: Final = 4_194_304
"""How many are remembered that are not answered, and how long their ids and addresses may be in all; and as
many that were refused. The oldest are forgotten: they may be answered twice, or not at all.
"""

Name = tuple[str, str, str]
"""Who asked, who is asked, both by full JID, and the id of the iq."""


class Request:
    """The letter of a request: its sender is answered where nobody else will. The server learns of what it
    asks itself (`is_question`) that whom it asked has gone. `node`: the index of the one it was sent to;
    `asker`: the session that sent it, if it is one, and there still.
    """

    __slots__ = ("_asked", "asker", "end", "is_answered", "is_question", "name", "node")

    def __init__(self, asked: Asked, origin: Origin, name: Name, node: int) -> None:
        self.name = name
        self.node = node
        self.is_answered = False
        self.asker = weakref.ref(origin) if isinstance(origin, Session) else None
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked = asked
        self.is_question = isinstance(origin, Question)

    def opened(self) -> None:
        """No iq is in a queue."""

    def settled(self) -> None:
        """A session has it, and answers or does not."""
        if not self.end.done():
            self.end.set_result(None)

    def missed(self, error: StanzaError) -> None:
        """No session has it, or it may not be reached."""
        if self.is_answered:  # its node had it all the same
            self.settled()
        elif not self.end.done():
            self._asked.refuse(self)
            self.end.set_exception(StanzaError("recipient-unavailable") if self.is_question else error)


class Names:
    """Requests by name, the oldest first; bounded by `MOST` and `BYTES`."""

    def __init__(self) -> None:
        self._held: OrderedDict[Name, Request] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._held)

    def put(self, request: Request) -> None:
        """Hold it, instead of one with the same name."""
        self.take(request.name)
        self._held[request.name] = request
        self._size += sum(map(len, request.name))
        while len(self._held) > MOST or self._size > BYTES:
            self.take(next(iter(self._held)))

    def take(self, name: Name) -> Request | None:
        """Hold it no more; what it was."""
        request = self._held.pop(name, None)
        if request is not None:
            self._size -= sum(map(len, name))
        return request

    def has(self, request: Request) -> bool:
        """Whether it is held."""
        return self._held.get(request.name) is request

    def of(self, node: int) -> list[Request]:
        """Those that were sent to a node."""
        return [request for request in self._held.values() if request.node == node]


class Asked:
    """The requests that were sent from here to other nodes, while they are `open`; and those that were
    `refused` here, though an answer may come.
    """

    def __init__(self) -> None:
        self.open = Names()
        self.refused = Names()

    def begin(self, origin: Origin, name: Name, node: int) -> Request:
        """One more is sent; the name may be that of an earlier one."""
        request = Request(self, origin, name, node)
        self.refused.take(name)
        self.open.put(request)
        return request

    def answer(self, name: Name) -> bool:
        """An answer came; whether it is to be handed on, as what nobody is known to have asked is."""
        request = self.open.take(name)
        if request is None:
            return self.refused.take(name) is None
        request.is_answered = True
        return True

    def refuse(self, request: Request) -> None:
        """It is answered by an error."""
        if self.open.has(request):
            self.open.take(request.name)
            self.refused.put(request)
