"""The commands about messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

from xmppd.admin.commands import USAGE, command
from xmppd.errors import CommandError
from xmppd.jid import Jid

MOST_CHARACTERS = 300
"""Of an id."""


class Messages(Protocol):
    """What `message` commands need."""

    async def fates(self, id: str, sender: str, to: str) -> Sequence[Mapping[str, Any]]:
        """A row for all that any node knows of messages with this id, from this address and to that one
        ("": any), in the order of time, and one for each node that knows of none.
        """


class MessageCommands:
    """`message ...`: what became of them."""

    def __init__(self, messages: Messages) -> None:
        self.messages = messages

    @command("Say why a message was not delivered", name="message why-not-delivered", reads=True)
    async def why_not_delivered(
        self,
        id: Annotated[str, "of the stanza, of its sender (origin-id), or of an archive (stanza-id)"],
        *,
        sender: Annotated[Jid | None, "only if it is from there"] = None,
        to: Annotated[Jid | None, "only if it is for this address"] = None,
    ) -> list[dict[str, Any]]:
        """One row for each thing that befell it in the last hour, as far as any node remembers."""
        if not 0 < len(id) <= MOST_CHARACTERS:
            raise CommandError(
                f"id must have 1 to {MOST_CHARACTERS} characters", USAGE, field="id", rule="parameter"
            )
        addresses = ("" if address is None else address.full for address in (sender, to))
        return [dict(row) for row in await self.messages.fates(id, *addresses)]
