"""What is under way into archives: messages of this node and of others, and each archive's way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from xmppd.plugin import Recorded, Stanza

from .ids import to_text

if TYPE_CHECKING:
    from .order import Order

NOBODY: Final[Mapping[tuple[str, str], bytes]] = MappingProxyType({})


class Entry(Recorded):
    """One message under way into the archives of `accounts`. `file` is called as soon as it has its `id` for
    good (`is_final`), and has it written. It is ready when it may be handed on, or has the error why it was
    not written. `written` is told what became of it, `shown` that it was handed on or came to nothing, and
    `ended` that whoever was to be given it was. `is_sent`: its sender is to know its id.
    """

    __slots__ = (
        "_order",
        "accounts",
        "agreeing",
        "discharged",
        "file",
        "guards",
        "held",
        "id",
        "is_final",
        "is_sent",
        "is_shown",
        "is_written",
        "sender",
        "since",
    )

    def __init__(
        self, order: Order, id: bytes, accounts: Sequence[str], sender: str, message: Stanza
    ) -> None:
        self._order = order
        self.id = id
        self.accounts = accounts
        self.sender = sender
        self.message = message
        self.size = len(message.raw)
        self.told = self.error = None
        self.is_ready = self.is_followed = self.is_sent = self.is_half = False
        self.is_final = self.is_written = self.is_shown = False
        self.guards: dict[tuple[str, str], bytes] | None = None
        """By account and node: by which id it has its place there. None while there is one node."""

    def share(self, file: Callable[[], None], since: float) -> None:
        """Other nodes may have a say in its id; so it began then, and is filed later."""
        self.file: Callable[[], None] | None = file
        self.since = since
        self.guards = {}
        self.is_followed = True
        self.agreeing: set[tuple[str, str]] = set()
        """Those that have not given it its place."""
        self.held: set[tuple[str, str]] = set()
        """Those where something else comes first."""
        self.discharged: Mapping[tuple[str, str], bytes] = NOBODY
        """Those that are asked no more, unless they ask: nobody was there, or they did not answer in time."""

    @property
    def sent_id(self) -> str:
        """See `Recorded`."""
        return to_text(self.id) if self.is_sent else ""

    @property
    def keys(self) -> Sequence[str]:
        """What it shares with others whose order is its own: archives, and the line of its sender."""
        return self.accounts if self.sender in self.accounts else (*self.accounts, self.sender)

    def written(self, error: BaseException | None = None) -> None:
        """It is in all of the archives, or in none."""
        self.is_written = True
        self.error = error
        self._order.look(self)

    def shown(self) -> None:
        """It was handed on, or never will be."""
        self._order.shown(self)

    def discharge(self, guards: Collection[tuple[str, str]]) -> None:
        """These have no say any more, and are not asked again by ourselves."""
        assert self.guards is not None
        self.discharged = {**self.discharged, **{guard: self.guards.pop(guard) for guard in guards}}
        self.agreeing.difference_update(guards)
        self.held.difference_update(guards)

    def ended(self, is_well: bool = True) -> None:
        """Whoever was to be given it was, unless it was refused."""
        self._order.ended(self, is_well=is_well)

    def held_up(self) -> bool:
        """Whether it has to wait though it was ready: somebody has come who is to see others first."""
        return self._order.held_up(self)


class Known(Entry):
    """One that is in its archives already, by the `id` that it has there, and whose turn that was."""

    __slots__ = ()

    def written(self, error: BaseException | None = None) -> None:
        """It is there once more, as it was."""
        self.error = error
        self.go_on()

    def shown(self) -> None:
        """Nobody waits for it."""


class Foreign:
    """One of another node, which asked for its place by the id `asked`. `is_let`: it may go."""

    __slots__ = ("asked", "id", "is_let", "node", "since")

    def __init__(self, id: bytes, asked: bytes, node: str, since: float) -> None:
        self.id = id
        self.asked = asked
        self.node = node
        self.since = since
        self.is_let = False


class Way:
    """What is under way into one archive, each list in the order of ids: `own` is what was not shown yet,
    `unended` what has not ended (where there are other nodes), `foreign` what those have. Nothing new may be
    smaller than `passed`. `missing`: the nodes that have not said what is under way there, since `asked_at`,
    when they were asked by the id `question`; what they said counts while the session `witness` is here, and
    no node came (`met`). `waiting` are told when something is not under way any more. `left_at`: when the
    last session went, 0: there was none.
    """

    __slots__ = (
        "asked_at",
        "foreign",
        "left_at",
        "met",
        "missing",
        "own",
        "passed",
        "question",
        "unended",
        "waiting",
        "witness",
    )

    def __init__(self, passed: bytes = b"") -> None:
        self.own: list[Entry] = []
        self.unended: list[Entry] = []
        self.foreign: list[Foreign] = []
        self.passed = passed
        self.missing: Collection[str] = ()
        self.question = b""
        self.witness: object = None
        self.met = 0
        self.asked_at = 0.0
        self.left_at = 0.0
        self.waiting: list[asyncio.Future[None]] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing is under way."""
        return not (self.own or self.unended or self.foreign)

    @property
    def is_busy(self) -> bool:
        """Whether anything here may hang, or is to be forgotten."""
        return bool(self.foreign or self.missing or self.waiting or self.left_at)

    def has_before(self, end: bytes) -> bool:
        """Whether anything before an id is under way."""
        return any(some and some[0].id < end for some in (self.own, self.foreign))

    def drop(self, node: str, id: bytes) -> None:
        """One of another node is not under way with this id any more; harmless if it is not known."""
        self.foreign = [held for held in self.foreign if held.node != node or id not in (held.id, held.asked)]

    def said(self, node: str) -> None:
        """A node has said what is under way there, or is not there any more."""
        if self.missing:
            self.missing = frozenset(self.missing) - {node}

    def wake(self) -> None:
        """Something is not under way any more."""
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
