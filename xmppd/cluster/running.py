"""Which plugins are at work on which node: so nobody waits for an answer of one that is not there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import Running


class Plugins:
    """Knows what runs on the other nodes, and tells them what runs `here`: before all else on a new trunk.
    `told` is called with the name of a node, all that run there, and which of them began since it said so
    last: those know nothing of what was told before.
    """

    def __init__(
        self,
        mesh: Mesh,
        here: Callable[[], Collection[str]],
        told: Callable[[str, Collection[str], Collection[str]], None],
    ) -> None:
        self._mesh = mesh
        self._here = here
        self._told = told
        self._there: dict[str, frozenset[str]] = {}

    def runs(self, node: str, plugin: str) -> bool:
        """Whether a plugin is at work on another node; it may be as long as that has not said."""
        there = self._there.get(node)
        return there is None or plugin in there

    def changed(self, anew: Collection[str]) -> None:
        """Others are at work here; these went to work now."""
        here = [*self._here()]
        self._mesh.send_all(Running(here, [*anew]), 32 * len(here) + 16)

    def take(self, member: Member, record: Running) -> None:
        """A node says what runs there."""
        there = self._there[member.name] = frozenset(record.plugins)
        self._told(member.name, there, frozenset(record.anew))

    def met(self, member: Member) -> None:
        """Tell it what runs here."""
        self._there.pop(member.name, None)
        here = [*self._here()]
        self._mesh.send(member, Running(here, []), 32 * len(here) + 16)

    def joined(self, member: Member) -> None:
        """Nothing more."""

    def lost(self, member: Member) -> Iterator[None]:
        """What comes after it says so itself."""
        if member.name not in self._mesh.members:
            self._there.pop(member.name, None)
        return iter(())
