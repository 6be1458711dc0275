"""The list of nodes, and this node's life on it: who may be dialed, by which secret, and that a name lives
once.

Each node says every `BEAT_SECONDS` that it is there. Who lives is decided by trunks, not by the list: while
it is away nodes that know each other notice nothing, and all is written to it again when it is back or
empty. A node that begins meanwhile tries its seeds.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol

from xmppd.cluster.hello import HIGHEST, LOWEST, Hello
from xmppd.errors import CommandError, NodesUnavailable

log = logging.getLogger(__name__)

BEAT_SECONDS: Final = 2.0
"""How often a node says that it is there."""

FRESH_SECONDS: Final = 10.0
"""How long that counts."""

KEPT_SECONDS: Final = 86_400.0
"""How long an entry stays that nobody writes any more."""

LOOK_SECONDS: Final = 1.0
"""How often a node that begins looks whether its name is free by now."""

SECRET_BYTES: Final = 32


class Entry(NamedTuple):
    """A node on the list. `age`: seconds since it said that it is there. `protocols`: the lowest and the
    highest that it speaks. The rest is as in `Hello`.
    """

    name: str
    incarnation: int
    addresses: tuple[str, ...]
    state: str = "up"
    version: str = ""
    protocols: tuple[int, int] = (LOWEST, HIGHEST)
    age: float = 0.0


class Listing(NamedTuple):
    """What the list says. `is_taken`: another incarnation of this node has its name, and this one was
    not written. `others`: all other nodes, whether they are there or were. `secret`: the one that is
    there, if any.
    """

    is_taken: bool
    others: Sequence[Entry]
    secret: bytes


class NodeList(Protocol):
    """One place that all nodes can reach."""

    async def beat(self, own: Entry, secret: bytes, *, is_first: bool) -> Listing:
        """Write this node's entry, and the secret if there is none and this is one, and read all.
        Not while another incarnation with the name is there: any one, if this is a node that begins,
        else a larger one. NodesUnavailable.
        """

    async def leave(self, own: Entry) -> None:
        """Take this node's entry away, if it is of this incarnation; NodesUnavailable."""


class Directory(Protocol):
    """Who is told what the list says."""

    def listed(self, entries: Sequence[Entry]) -> None:
        """All other nodes that are there, each time the list was read."""

    def trusted(self, secrets: Sequence[bytes]) -> None:
        """By which secrets nodes know each other from now on, the newest first."""

    def is_connected(self, name: str) -> bool:
        """Whether there is a connection with the node of this name."""

    def superseded(self) -> None:
        """A larger incarnation has this node's name: this one must stop."""


class Registry:
    """This node on the list. `own` gives its entry. Without a list there are seeds alone.

    `secret`: b"" if it is the list that has it. `knock` finds out who is at an address; `clock` and
    `sleep` count seconds. The owner calls `enter`, then runs `beats` and `search` until the end, and
    calls `leave`.
    """

    def __init__(
        self,
        own: Callable[[], Entry],
        nodes: NodeList | None,
        directory: Directory,
        knock: Callable[[str], Awaitable[Hello | None]],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        *,
        secret: bytes = b"",
        seeds: Sequence[str] = (),
    ) -> None:
        self._own = own
        self._nodes = nodes
        self._directory = directory
        self._knock = knock
        self._clock = clock
        self._sleep = sleep
        self._seeds = tuple(seeds)
        self._found: dict[str, str] = {}
        self._is_given = bool(secret)
        self._secrets: tuple[bytes, ...] = (secret,) if secret else ()
        self._offered = secret or secrets.token_bytes(SECRET_BYTES)
        self._is_listed: bool | None = None
        if secret:
            directory.trusted(self._secrets)

    async def enter(self) -> None:
        """Be put on the list, or find that it is away. CommandError when this node's name stays another's."""
        began = self._clock()
        while not await self._beat(is_first=True):
            if self._clock() - began >= FRESH_SECONDS:
                raise CommandError(
                    f"another node is called {self._own().name}: give each one a host and port of its own "
                    "(cluster.listen, cluster.advertise)"
                )
            await self._sleep(LOOK_SECONDS)

    async def beats(self) -> None:
        """Say that this node is there, for ever."""
        while True:
            await self._sleep(BEAT_SECONDS)
            if not await self._beat(is_first=False):
                log.error("node-superseded", extra={"node": self._own().name})
                self._directory.superseded()

    async def tell(self) -> None:
        """Say now how this node is, and not only at the next beat."""
        await self._beat(is_first=False)

    async def search(self) -> None:
        """Look for nodes at the seeds while the list is away, for ever."""
        is_told = False
        while True:
            if self._is_listed:
                is_told = False
            elif self._secrets:
                for seed in self._seeds:
                    await self._try(seed)
            if not self._is_listed and not is_told:
                is_told = True
                if not any(map(self._directory.is_connected, self._found.values())):
                    log.warning("node-alone", extra={"seeds": len(self._seeds)})
            await self._sleep(BEAT_SECONDS)

    async def leave(self) -> None:
        """Be taken off the list, if it is there."""
        if self._nodes is not None:
            try:
                await self._nodes.leave(self._own())
            except NodesUnavailable as error:
                log.warning("node-list-away", extra={"reason": str(error)})

    async def _beat(self, *, is_first: bool) -> bool:
        """Whether the name is this node's, or nobody can tell."""
        if self._nodes is None:
            self._is_listed = False
            return True
        try:
            listing = await self._nodes.beat(
                self._own(), b"" if self._is_given else (*self._secrets, self._offered)[0], is_first=is_first
            )
        except NodesUnavailable as error:
            if self._is_listed is not False:
                log.warning("node-list-away", extra={"reason": str(error)})
            self._is_listed = False
            return True
        if listing.is_taken:
            if self._is_listed is None and is_first:
                log.warning("node-name-taken", extra={"node": self._own().name, "seconds": FRESH_SECONDS})
            self._is_listed = False
            return False
        if not self._is_listed:
            log.info("node-listed", extra={"node": self._own().name})
        self._is_listed = True
        if listing.secret:
            self._trust(listing.secret)
        self._directory.listed([entry for entry in listing.others if entry.age < FRESH_SECONDS])
        return True

    def _trust(self, secret: bytes) -> None:
        """Take over the secret that is there. The one before counts, too: who did not reach the list
        since has no other.
        """
        if self._secrets[:1] != (secret,):
            self._secrets = (secret, *self._secrets[:1])
            self._directory.trusted(self._secrets)

    async def _try(self, seed: str) -> None:
        """Find out who is there, unless that is known."""
        name = self._found.get(seed, "")
        if name and (name == self._own().name or self._directory.is_connected(name)):
            return
        if (found := await self._knock(seed)) is not None:
            self._found[seed] = found.name


def new_incarnation(now: float) -> int:
    """A number for a node that begins now (seconds since 1970): larger than that of any life of it before."""
    return int(now * 1000) << 16 | secrets.randbits(16)
