"""What breaks a node of the model: each rule of nodes may be switched off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xmppd.cluster.member import Marks, Member
from xmppd.cluster.records import Have, Roster, Words

if TYPE_CHECKING:
    from modelnodes import Node


def switch_off(node: Node, off: frozenset[str]) -> None:
    """Break a node as `off` says."""
    others, mesh = node.others, node.mesh
    welcome, takes = mesh._welcome, dict(mesh._takes)
    mesh._welcome = lambda met: broken(welcome(met), off)  # type: ignore[method-assign]
    if "R3" in off:
        others.presence._show_other = lambda *_: False  # type: ignore[method-assign]
        others.is_elsewhere = lambda full: False
    if "R4" in off:
        others.places._came = lambda *_: None
    if "R5" in off:
        others.places._moved = others.messages._split
    if "R7" in off:
        others.places._is_open = lambda *_: None
    others.has_grace = "grace" not in off
    if "end of grace" in off:
        others.presence.grace._over = lambda _: None
    if "HAVE" in off:
        others.places._have = lambda *_: None  # type: ignore[method-assign]
        takes[Have] = lambda *_: None
    if "beyond" in off:
        others.hints._between = lambda: ()  # type: ignore[method-assign]
    if "words" in off:
        takes[Words] = lambda *_: None
    if "debts" in off:
        node.cache.has_debts = False
    if "back" in off:
        takes[Roster] = lambda *_: None
        node.elsewhere.everything_changed = lambda: None  # type: ignore[method-assign]
    if "one name" in off:
        node.superseded = lambda: None  # type: ignore[method-assign]
    mesh._takes = takes


def broken(member: Member, off: frozenset[str]) -> Member:
    """A member that was met by such a node."""
    if "R1" in off:
        member.trunk._part = lambda: None  # type: ignore[method-assign]
    if "trust" in off:
        member.trunk._check_trust = lambda _: None  # type: ignore[method-assign]
    if "R2" in off:
        member.young = Unmarked()
    if "R6" in off:
        member.missing = Unmarked()
    return member


class Unmarked(Marks):
    """Forgets at once."""

    def put(self, name: str, frame: int) -> None:
        """It is not marked."""
