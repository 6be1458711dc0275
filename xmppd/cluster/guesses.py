"""Who guesses passwords is slowed down by all nodes, whichever he guesses at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import Guesses
from xmppd.core.brake import Brake

TELL_SECONDS: Final = 0.2
"""How long what was counted is gathered before the others are told; no login waits for that."""

STEP: Final = 64
"""How much is told before others have their turn."""


class SharedBrake:
    """Tells other nodes what the brake of this one counts, and has it count what they tell."""

    def __init__(
        self, mesh: Mesh, brake: Brake, call_later: Callable[[float, Callable[[], None]], Any]
    ) -> None:
        self._mesh = mesh
        self._brake = brake
        brake.on_news = lambda: call_later(TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        news = [*self._brake.take_news()]
        size = sum(len(counted.network) + len(counted.account) for counted in news)
        self._mesh.send_all(Guesses(news), size + 32 * len(news))

    def share(self, member: Member) -> Iterator[None]:
        """Tell a node that came all that is counted here, step by step."""
        known = self._brake.known()
        while some := [*islice(known, STEP)]:
            size = sum(len(counted.network) + len(counted.account) + 48 for counted, _ in some)
            counted, ages = [one for one, _ in some], [age for _, age in some]
            self._mesh.send(member, Guesses(counted, True, ages), size)
            yield

    def take(self, member: Member, record: Guesses) -> None:
        """It counts here, too."""
        if record.is_all:
            for counted, age in zip(record.counted, record.ages, strict=True):
                self._brake.learn(counted, age)
        else:
            self._brake.heard(record.counted)
