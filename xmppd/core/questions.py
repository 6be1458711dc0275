"""Iqs that the server asks, or a service on a host of its own, until they are answered (RFC 6120 8.2.3)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Protocol
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.core.origin import Host
from xmppd.errors import STANZA_ERROR_TYPES, StanzaError
from xmppd.xml.stanza import Stanza, parse

MOST = 10_000
"""Questions that are open at once."""

_ERROR = f"{{{ns.CLIENT}}}error"
_CONDITION = f"{{{ns.STANZA_ERRORS}}}"


class Timer(Protocol):
    """Something that will happen unless it is cancelled."""

    def cancel(self) -> None:
        """Let it not happen."""


CallLater = Callable[[float, Callable[[], None]], Timer]


class Question(Host):
    """One open question, and the origin of its iq: what answers at once answers to it."""

    __slots__ = ("answer", "id", "timer", "to")

    def __init__(self, iq: Stanza) -> None:
        super().__init__(iq.attrs["from"])
        self.to = iq.attrs["to"]
        self.id = iq.attrs["id"]
        self.answer: asyncio.Future[Element | None] = asyncio.get_running_loop().create_future()
        self.timer: Timer | None = None

    def send(self, data: bytes) -> None:
        """Take the answer: the iq of whoever answers in the server's own name."""
        self.take(parse(data))

    def take(self, iq: Element) -> None:
        """Take the answer: the payload of a result, or the StanzaError that it tells of."""
        if self.answer.done():
            return
        if iq.get("type") == "result":
            self.answer.set_result(iq[0] if len(iq) else None)
        else:
            self.refuse(error_of(iq))

    def refuse(self, error: StanzaError) -> None:
        """There will be no answer."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Questions:
    """The open questions of this node. `call_later` has something done after so many seconds; `mark` is what
    the ids of the questions of this node begin with, where there are several.
    """

    def __init__(self, call_later: CallLater) -> None:
        self.mark = ""
        self._call_later = call_later
        self._open: dict[str, Question] = {}
        self._asked: dict[str, set[Question]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def new_id(self) -> str:
        """The id of an iq that this node asks; `mark` tells which one that is."""
        token = secrets.token_urlsafe(9)
        return f"{self.mark}.{token}" if self.mark else token

    def begin(self, iq: Stanza, seconds: float) -> Question:
        """One more, whose answer must come from its `to` within so many seconds; StanzaError
        resource-constraint when there are too many.
        """
        if len(self._open) >= MOST:
            raise StanzaError("resource-constraint", "Too many questions are open.")
        question = Question(iq)
        self._open[question.id] = question
        self._asked.setdefault(question.to, set()).add(question)
        question.timer = self._call_later(
            seconds, lambda: question.refuse(StanzaError("remote-server-timeout"))
        )
        return question

    def end(self, question: Question) -> None:
        """Nobody waits for it any more."""
        del self._open[question.id]
        asked = self._asked[question.to]
        asked.remove(question)
        if not asked:
            del self._asked[question.to]
        if question.timer is not None:
            question.timer.cancel()
        question.answer.cancel()

    def take(self, stanza: Stanza) -> bool:
        """Whether an iq of type result or error answers an open question, and comes from whom that asked."""
        question = self._open.get(stanza.id or "")
        if question is None or stanza.attrs.get("from") != question.to or stanza.to != question.full:
            return False
        question.take(stanza.xml)
        return True

    def gone(self, full: str) -> None:
        """A session is over, and will answer nothing."""
        for question in self._asked.get(full, ()):
            question.refuse(StanzaError("recipient-unavailable"))


def error_of(iq: Element) -> StanzaError:
    """What an iq of type error tells; undefined-condition for what cannot be read."""
    error = iq.find(_ERROR)
    names = [child.tag.removeprefix(_CONDITION) for child in error] if error is not None else []
    condition = next((name for name in names if name in STANZA_ERROR_TYPES), "undefined-condition")
    text = error.findtext(f"{_CONDITION}text") if error is not None else None
    return StanzaError(condition, text or "")
