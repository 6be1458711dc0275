"""Sessions of one account on several nodes that were sent the same messages: of those that ended and had not
acknowledged them, the last one sees to them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple

from xmppd.cluster.calls import Calls
from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.core.cluster import RemoteFellow
from xmppd.core.managed import APART, NEVER, Managed
from xmppd.core.outstanding import Former
from xmppd.core.sessions import Session, Sessions

ASK: Final = "session fellows"
HAD: Final = "session had"

ENDED: Final = 10_000
"""Of so many sessions it is remembered when they ended."""

End = list[Any]
"""When a session ended, by the clock that all nodes follow, and on which node: no two are the same."""

BEFORE: Final[End] = [0, ""]
"""Of one that leaves nothing to anybody."""


Found = list[tuple[RemoteFellow, int]]
"""Fellows, and before which second each has what both were sent, or sees to it."""

Asking = Coroutine[Any, Any, Found]


class Fellow(NamedTuple):
    """Implements `RemoteFellow`: a session with this `number`, that was sent what `own` was sent, too."""

    member: Member
    number: int
    own: int

    @property
    def node(self) -> int:
        """See `RemoteFellow.node`."""
        return self.member.incarnation


class Fellows:
    """Knows them, and asks. A session that is over leaves what it had to those that are not, and to those
    that ended later; none leaves it to one that ended before. So there is always one who sees to it.
    """

    def __init__(self, mesh: Mesh, sessions: Sessions, calls: Calls) -> None:
        self.mesh = mesh
        self.was_given: Callable[[str, int], bool] = lambda account, number: False
        """Whether a session of this node has moved to another one: that sees to what it had."""
        self._sessions = sessions
        self._calls = calls
        self._ended: OrderedDict[tuple[str, int | Former], tuple[End, int]] = OrderedDict()
        calls.serve(ASK, self._answer)
        calls.serve(HAD, self._answer_had)

    def of(self, session: Session) -> tuple[RemoteFellow, ...]:
        """See `Cluster.fellows`."""
        return tuple(
            Fellow(self.mesh.member(place.node), place.number, session.number)
            for place in self.mesh.places(session.account)
            if place.priority == session.priority
        )

    def had(self, session: Session, second: int) -> None:
        """See `Cluster.had`."""
        managed: Managed | None = session.managed
        former = (managed.former if managed is not None else None) or ()
        if former or self.mesh.places(session.account):
            self._note((session.account, session.number), BEFORE, second)
        for name in former:
            self._note((session.account, self._known(name)), BEFORE, second)

    def _known(self, name: Former) -> int | Former:
        """By what it is remembered here when a session of that name ended."""
        return name.number if name.node == self.mesh.incarnation else name

    def _note(self, key: tuple[str, int | Former], end: End, second: int) -> None:
        self._ended[key] = end, second
        if len(self._ended) > ENDED:
            self._ended.popitem(last=False)

    async def ask(self, account: str, fellows: Collection[Any]) -> Mapping[RemoteFellow, int]:
        """See `Cluster.see_to_it`."""
        present = [fellow for fellow in fellows if isinstance(fellow, Fellow)]
        asking = self._asking(account, present) if present else []
        elsewhere = [one for one in fellows if not isinstance(one, Fellow) or one.member.is_gone]
        if elsewhere:
            asking.append(self._ask_had(account, elsewhere))
        answers = await asyncio.gather(*asking, return_exceptions=True)
        return {
            fellow: second
            for answer in answers
            if not isinstance(answer, BaseException)
            for fellow, second in answer
        }

    def _asking(self, account: str, fellows: Collection[Fellow]) -> list[Asking]:
        [own] = {fellow.own for fellow in fellows}
        end = [self.mesh.time.next(), self.mesh.name]
        self._note((account, own), end, self._ended.get((account, own), (BEFORE, 0))[1])
        by_member: dict[Member, list[Fellow]] = {}
        for fellow in fellows:
            if not fellow.member.is_gone:
                by_member.setdefault(fellow.member, []).append(fellow)
        return [self._ask(member, account, some, end) for member, some in by_member.items()]

    async def _ask(self, member: Member, account: str, fellows: list[Fellow], end: End) -> Found:
        numbers = [fellow.number for fellow in fellows]
        found = await self._calls.ask(member, ASK, {"account": account, "numbers": numbers, "end": end})
        return [(fellow, second) for fellow, second in zip(fellows, found, strict=True) if second > 0]

    async def _answer(self, asked: Mapping[str, Any]) -> list[int]:
        account, end = asked["account"], asked["end"]
        return [self._sees_to_it(account, number, end) for number in asked["numbers"]]

    def _sees_to_it(self, account: str, number: int, end: End) -> int:
        """Before which second; 0: not to anything."""
        is_here = any(session.number == number for session in self._sessions.of(account))
        if is_here or self.was_given(account, number):
            return NEVER
        ended, second = self._ended.get((account, number), (BEFORE, 0))
        return NEVER if ended > end else second - APART

    # what they had under any name

    async def _ask_had(self, account: str, fellows: Sequence[RemoteFellow]) -> Found:
        names = [[fellow.node, fellow.number] for fellow in fellows]
        about, nodes = {"account": account, "names": names}, {fellow.node for fellow in fellows}
        asked = {self.mesh.member(place.node): None for place in self.mesh.places(account)}
        asked.update({member: None for member in self.mesh.present() if member.incarnation in nodes})
        answers = await asyncio.gather(
            self._answer_had(about),
            *(self._calls.ask(member, HAD, about) for member in asked),
            return_exceptions=True,
        )
        found = [answer for answer in answers if not isinstance(answer, BaseException)]
        return [*zip(fellows, map(max, zip(*found, strict=True)), strict=True)]

    async def _answer_had(self, asked: Mapping[str, Any]) -> list[int]:
        return [self._had_until(asked["account"], Former(*name)) - APART for name in asked["names"]]

    def _had_until(self, account: str, name: Former) -> int:
        """Before which second a client has acknowledged all; whoever cannot is believed while it is there."""
        for session in self._sessions.of(account):
            managed: Managed | None = session.managed
            if name == (self.mesh.incarnation, session.number):
                return NEVER if managed is None else managed.had_until
            if managed is not None and managed.former is not None and name in managed.former:
                return managed.had_until
        return self._ended.get((account, self._known(name)), (BEFORE, 0))[1]
