"""Who guesses passwords is slowed down by all nodes, whichever he guesses at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import Guesses
from xmppd.core.brake import Brake

TELL_SECONDS: Final = 0.2
"""How long what was counted is gathered before the others are told; no login waits for that."""


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

    def take(self, member: Member, record: Guesses) -> None:
        """It counts here, too."""
        self._brake.heard(record.counted)
