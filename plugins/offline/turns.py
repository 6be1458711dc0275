"""How sessions of one account take turns with what is stored for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from enum import Enum
from typing import Any

from xmppd.plugin import Session

Look = Awaitable[Any] | None
"""A read of the first message of a queue that has begun, whose end is to be awaited."""


class Turn(Enum):
    """How it ended that a session was given what is stored."""

    DONE = "nothing is left for it"
    OVER = "others may go on; it comes again when it has read what it drew"
    LEFT = "it takes no more"
    OTHERS = "what is left is for other resources"
    FAILED = "the store cannot be asked"


def let_go(waiting: asyncio.Future[None]) -> None:
    """Nobody waits for this any more; harmless if repeated."""
    if not waiting.done():
        waiting.set_result(None)


def takes_messages(session: Session) -> bool:
    """Whether the session is there still, available, and not by a negative priority out of the way."""
    return not session.is_over and session.presence is not None and session.priority >= 0
