"""Iqs between sessions of two nodes (RFC 6121 8.5.3): the receiver's node says whether its session may be
reached.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final

from xmppd.cluster.asked import Asked, Request
from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import Iq
from xmppd.core.later import Later
from xmppd.core.origin import Host, Origin
from xmppd.core.questions import Questions
from xmppd.core.router import Router
from xmppd.core.sessions import Sessions
from xmppd.errors import StanzaError
from xmppd.jid import Jid
from xmppd.xml import build
from xmppd.xml.stanza import LANG, Stanza, parse

STEP: Final = 64
"""Requests that are answered before others have their turn."""


def mark_of(incarnation: int) -> str:
    """What the ids of the questions of a node begin with."""
    return f"{incarnation:x}"


class Result:
    """The letter of a result or an error: nobody is told of its fate (RFC 6120 8.3.1). `again` has it go to
    whoever has the name now, if it went to a session that had just ended.
    """

    __slots__ = ("_again",)

    def __init__(self, again: Callable[[], None] | None = None) -> None:
        self._again = again

    def opened(self) -> None:
        """No iq is in a queue."""

    def settled(self) -> None:
        """A session has it."""

    def missed(self, error: StanzaError) -> None:
        """No session has it."""
        if self._again is not None:
            self._again()


RESULT = Result()


class Caller(Host):
    """A session of another node that sent a request to `asked`: what answers it goes there."""

    __slots__ = ("_asked", "_iqs")

    def __init__(self, iqs: RemoteIqs, full: str, asked: str, lang: str) -> None:
        super().__init__(full, lang)
        self._asked = asked
        self._iqs = iqs

    def send(self, data: bytes) -> None:
        """Hand over an answer."""
        self._iqs.send(self.full, self._asked, data)


class RemoteIqs:
    """Hands iqs to the sessions of other nodes, and takes those for sessions here."""

    def __init__(
        self,
        mesh: Mesh,
        sessions: Sessions,
        router: Router,
        questions: Questions,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._mesh = mesh
        self._sessions = sessions
        self._router = router
        self._questions = questions
        self._spawn = spawn
        self.asked = Asked()

    def answer(self, stanza: Stanza) -> None:
        """See `Cluster.answer`: the id of a question says which node asked."""
        mark, dot, _ = (stanza.id or "").partition(".")
        for member in self._mesh.present() if dot else ():
            if mark_of(member.incarnation) == mark:
                self._post(member, stanza.to or "", stanza.attrs["from"], stanza.raw, RESULT)

    def is_awaited(self, to: str, asked: str, id: str) -> bool:
        """See `Cluster.is_awaited`."""
        return self.asked.answer((to, asked, id))

    def has(self, full: str) -> bool:
        """See `Cluster.has`."""
        return self._find(full) is not None

    def _find(self, full: str) -> Member | None:
        """Where the last one came that has this name: the others are about to end."""
        account, _, resource = full.partition("/")
        found = None
        for place in self._mesh.places(account):
            if place.resource == resource:
                found = place
        return self._mesh.member(found.node) if found is not None else None

    def route(self, origin: Origin, stanza: Stanza, to: Jid) -> Awaitable[None] | None:
        """See `Cluster.iq`."""
        member = self._find(to.full)
        assert member is not None, to.full
        if stanza.type in ("result", "error"):
            self._answer(member, to.full, origin.full, stanza.raw)
            return None
        request = self.asked.begin(origin, (origin.full, to.full, stanza.id or ""), member.index)
        self._post(member, to.full, origin.full, stanza.raw, request)
        return request.end if member.trunk.is_full else Later(request.end, len(stanza.raw))

    def send(self, to: str, asked: str, data: bytes) -> None:
        """Hand an answer to the session that asked, if it is there still."""
        session = self._sessions.by_full.get(to)
        if session is not None:
            session.send(data)
        elif (member := self._find(to)) is not None:
            self._answer(member, to, asked, data)

    def _answer(self, member: Member, to: str, sender: str, raw: bytes) -> None:
        def again() -> None:
            session = self._sessions.by_full.get(to)
            if session is not None:
                session.send(raw)
            elif (other := self._find(to)) is not None:
                self._post(other, to, sender, raw, RESULT)

        self._post(member, to, sender, raw, Result(again))

    def _post(self, member: Member, to: str, sender: str, raw: bytes, letter: Request | Result) -> None:
        self._mesh.post(member, Iq(member.trunk.next_id, to, sender, raw), len(raw) + 64, letter)

    def take(self, member: Member, record: Iq) -> None:
        """An iq for a session of this node."""
        session = self._sessions.by_full.get(record.to)
        tree = parse(record.raw)
        is_answer = tree.get("type") in ("result", "error")
        if session is None and is_answer and self._questions.take(build.stanza_of(tree)):
            return
        if session is None:
            member.trunk.miss(record.id, "service-unavailable")
            self._mesh.due(member)
        elif is_answer:
            if self.asked.answer((record.to, record.sender, tree.get("id", ""))) and not session.live.bars(
                tree.get("from", "")
            ):
                session.send(record.raw)
        else:
            caller = Caller(self, record.sender, record.to, tree.get(LANG, ""))
            waiting = self._router.forward(caller, build.stanza_of(tree))
            if waiting is not None:
                self._spawn(_finished(waiting))

    def lost(self, member: Member) -> Iterator[None]:
        """Nobody there answers what was not answered."""
        for number, request in enumerate(self.asked.open.of(member.index)):
            asker = request.asker() if request.asker is not None else None
            if not self.asked.open.has(request):
                continue
            self.asked.refuse(request)
            if request.is_question:
                self._questions.gone(request.name[1])
            elif asker is not None and not asker.is_over:
                asker.send(unanswered(*request.name))
            if number % STEP == STEP - 1:
                yield


def unanswered(sender: str, asked: str, id: str) -> bytes:
    """The error for who asked somebody who is gone."""
    request = Stanza("iq", {"id": id, "from": sender, "to": asked, "type": "get"}, b"")
    return build.error_reply(request, sender, StanzaError("service-unavailable"))


async def _finished(waiting: Awaitable[None]) -> None:
    await waiting
