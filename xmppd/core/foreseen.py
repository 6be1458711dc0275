"""Messages of which is written down that they are about to be routed, before they are (`Intent`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from xmppd.core.intents import Intent
from xmppd.core.later import Pending, watched
from xmppd.core.origin import Origin
from xmppd.core.sessions import Session
from xmppd.xml.stanza import Stanza

Route = Callable[[Origin, Stanza], Awaitable[None] | None]
Foresee = Callable[[Origin, Stanza, str], Intent | None]
"""(origin, message, account): what is to be written of a message before it is routed; None: nothing."""


def foreseen(origin: Origin, stanza: Stanza, intent: Intent, route: Route) -> Pending:
    """Route a message when its event is written down, after those that its sender sent before."""
    writing = intent.foresee({})
    act = partial(_routed, origin, stanza, intent, writing, route)
    line = origin.line if isinstance(origin, Session) else None
    pending = (
        Pending(lambda _: act(), len(stanza.raw)) if line is None else line.in_turn(act, len(stanza.raw))
    )
    pending.is_ready = False
    writing.add_done_callback(lambda _: pending.go_on())
    return pending


def _routed(
    origin: Origin, stanza: Stanza, intent: Intent, writing: asyncio.Future[Any], route: Route
) -> Awaitable[None] | None:
    """It is its turn; StoreError where nothing is written, and nothing is done then."""
    try:
        writing.result()
        waiting = route(origin, stanza)
    except BaseException:
        intent.drop()
        raise
    return _ending(intent, waiting)


def _ending(intent: Intent, waiting: Awaitable[Any] | None) -> Awaitable[Any] | None:
    """What was told by its end is not about to happen any more; the rest does not."""
    if waiting is None:
        intent.drop()
        return None
    if isinstance(waiting, Pending):
        waiting.then(partial(_ending, intent))
        return waiting
    return watched(waiting, lambda _: intent.drop())
