"""Who is told what became of an account."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence

from xmppd.errors import StoreError
from xmppd.stream.sasl import Tenure

Listener = Callable[[str], Awaitable[None] | None]
Revoke = Callable[[str, Tenure | None, bool], None]
"""Told of an account whose streams may have to end: which account has the name now (None: none has), and
whether it is disabled.
"""

log = logging.getLogger(__name__)


async def tell(listeners: Sequence[Listener], account: str) -> StoreError | None:
    """Tell all of them; the first StoreError there was. What else they raise is logged."""
    problem: StoreError | None = None
    for listener in listeners:
        try:
            waiting = listener(account)
            if inspect.isawaitable(waiting):
                await waiting
        except StoreError as error:
            log.warning("store-failed", extra={"kind": "listener", "error": str(error)})
            problem = problem or error
        except Exception:
            log.exception("a listener failed for the account %s", account)
    return problem


def untold(*about: object) -> None:
    """Who is told as long as nobody else is."""
