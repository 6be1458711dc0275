"""What all declarations by attribute have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xmppd.marks import members_of

if TYPE_CHECKING:
    from xmppd.server import Server


class Part:
    """A declaration by an attribute of a plugin's class, or of a class that it is mixed from."""

    def bind(self, plugin: str, attribute: str, server: Server) -> Any:
        """What stands in its place in an instance at work on one server."""
        raise NotImplementedError


def parts_of(owner: type) -> dict[str, Part]:
    """The parts that a class declares, those of its ancestors included, by attribute."""
    return {name: member for name, member in members_of(owner).items() if isinstance(member, Part)}
