"""What a client sends again: of that what it sent first is begun no more (XEP-0198 5)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from xmppd.core.managed import Managed

T = TypeVar("T")


def era_of(origin: object) -> int:
    """What tells later whether somebody sends again what he has sent by now (`is_sent_again`)."""
    managed: Managed | None = getattr(origin, "managed", None)
    return 0 if managed is None else managed.era


def is_sent_again(origin: object, era: int) -> bool:
    """Whether who sent something in an era of his session sends it again, if it was not handled: another node
    has the session now, or he was told of each stanza that is not. What nobody has begun of it is begun no
    more.
    """
    managed: Managed | None = getattr(origin, "managed", None)
    return managed is not None and (managed.is_given or managed.era != era)


def unless_sent_again(origin: object, act: Callable[..., T], instead: Any = None) -> Callable[..., T]:
    """The same for later, where something has to be waited for before it is begun: `act` is called with the
    origin first. `instead` is what comes of it if it is sent again by then.
    """
    return partial(_unless, era_of(origin), instead, act)


def _unless(era: int, instead: Any, act: Callable[..., T], origin: object, *about: Any) -> T:
    return instead if is_sent_again(origin, era) else act(origin, *about)
