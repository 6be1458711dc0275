"""Records of this node and of all others, as they are made, in one feed."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from xmppd.errors import CommandError, XmppdError
from xmppd.everywhere import Everywhere
from xmppd.feed import Feed, Record

if TYPE_CHECKING:
    from xmppd.cluster.member import Member

LOOK_SECONDS: Final = 1.0
"""How often it is looked which nodes are there."""
BATCH: Final = 64
"""Records that one node sends another at once; the next ones go when those were taken."""
SILENT_SECONDS: Final = 10.0
"""After how long without records a node asks whether they are still wanted."""
TAKE, BEGIN = "follow take", "follow begin"

Source = Callable[[Mapping[str, Any]], Feed]
"""Opens a feed of what happens on this node, by arguments as JSON has them; CommandError."""
Spawn = Callable[[Coroutine[Any, Any, None]], object]
CallLater = Callable[[float, Callable[[], None]], Any]


class Following:
    """What can be followed on this node, by name, for its own callers and those of others.

    Each node gives its records to the one where the caller is, by the calls of `everywhere`: one batch at a
    time, so what comes faster than it is taken is dropped where it is made. A node that is lost is noted, and
    so is one that comes.
    """

    def __init__(self, everywhere: Everywhere, spawn: Spawn, call_later: CallLater) -> None:
        self._everywhere = everywhere
        self._spawn = spawn
        self._call_later = call_later
        self._sources: dict[str, Source] = {}
        self._here: dict[str, tuple[Feed, dict[str, Any]]] = {}
        self._given: dict[str, _Giving] = {}
        everywhere.serve(BEGIN, self._begin)
        everywhere.serve(TAKE, self._take)

    def serve(self, name: str, source: Source) -> None:
        """Let this be followed."""
        self._sources[name] = source

    def close(self) -> None:
        """The server stops."""
        for giving in [*self._given.values()]:
            giving.feed.close()
        for feed, _ in [*self._here.values()]:
            feed.note("the server stops")
            feed.close()

    def open(self, name: str, arguments: Mapping[str, Any]) -> Feed:
        """A feed of all nodes, with the `node` of each record where there are several; CommandError."""
        ours = self._sources[name](arguments)
        cluster = self._everywhere.cluster
        id = secrets.token_hex(8)
        met: dict[str, Any] = {}
        feed = Feed(lambda: self._left(id, ours))
        self._here[id] = feed, met
        node = "" if cluster is None else cluster.mesh.name

        def pour() -> None:
            while (record := ours.take()) is not None:
                feed.put({"node": node, **record} if node else record, size_of(record))
            if ours.is_over:
                feed.close()

        ours.on_put = pour
        pour()
        if cluster is not None:
            self._look(id, name, arguments)
        return feed

    def _left(self, id: str, ours: Feed) -> None:
        self._here.pop(id, None)
        ours.close()

    # where the caller is

    def _look(self, id: str, name: str, arguments: Mapping[str, Any]) -> None:
        """Ask nodes that came, note those that have gone, and look again later."""
        cluster = self._everywhere.cluster
        if id not in self._here or cluster is None:
            return
        feed, met = self._here[id]
        present = {member.name: member for member in cluster.mesh.present()}
        for node in [node for node, member in met.items() if present.get(node) is not member]:
            del met[node]
            feed.note("the node is lost", node=node)
        for node, member in present.items():
            if node not in met:
                met[node] = member
                asked = {"id": id, "name": name, "arguments": dict(arguments), "to": cluster.mesh.name}
                self._spawn(self._ask(feed, member, asked))
        self._call_later(LOOK_SECONDS, lambda: self._look(id, name, arguments))

    async def _ask(self, feed: Feed, member: Member, asked: Mapping[str, Any]) -> None:
        cluster = self._everywhere.cluster
        assert cluster is not None
        try:
            await cluster.calls.ask(member, BEGIN, asked)
        except XmppdError as error:
            feed.note(str(error), node=member.name)

    async def _take(self, given: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Records of another node; CommandError when nobody wants them any more."""
        here = self._here.get(given["id"])
        if here is None:
            raise CommandError("nobody follows this any more")
        for record in given["records"]:
            here[0].put({"node": given["node"], **record}, size_of(record))
        return []

    # where they are made

    async def _begin(self, asked: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Open a feed here for another node; CommandError."""
        cluster = self._everywhere.cluster
        member = None if cluster is None else cluster.mesh.members.get(asked["to"])
        if cluster is None or member is None:
            raise CommandError("who follows is not connected")
        if asked["name"] not in self._sources:
            raise CommandError(f"{asked['name']} is unknown here")
        id = asked["id"]
        if (before := self._given.pop(id, None)) is not None:
            before.feed.close()
        feed = self._sources[asked["name"]](asked["arguments"])

        async def give(batch: Sequence[Record]) -> None:
            given = {"id": id, "node": cluster.mesh.name, "records": batch}
            await cluster.calls.ask(member, TAKE, given)

        self._given[id] = _Giving(feed, give, self._spawn, self._call_later, lambda: self._gone(id, feed))
        return []

    def _gone(self, id: str, feed: Feed) -> None:
        if (giving := self._given.get(id)) is not None and giving.feed is feed:
            del self._given[id]


class _Giving:
    """A feed of this node that is given to another one."""

    def __init__(
        self,
        feed: Feed,
        give: Callable[[Sequence[Record]], Coroutine[Any, Any, None]],
        spawn: Spawn,
        call_later: CallLater,
        ended: Callable[[], None],
    ) -> None:
        self.feed = feed
        self._give = give
        self._spawn = spawn
        self._call_later = call_later
        self._ended = ended
        self._is_giving = False
        feed.on_put = self._go_on
        self._go_on()
        self._ask_later()

    def _go_on(self) -> None:
        if not self._is_giving:
            self._is_giving = True
            self._spawn(self._all())

    async def _all(self, *, is_asked: bool = False) -> None:
        try:
            while (batch := list(itertools.islice(iter(self.feed.take, None), BATCH))) or is_asked:
                is_asked = False
                await self._give(batch)
        except XmppdError:
            self.feed.on_put = None
            self.feed.close()
            self._ended()
        finally:
            self._is_giving = False
        if self.feed.is_over:
            self._ended()

    def _ask_later(self) -> None:
        """Whether they are still wanted, now and then."""
        if self.feed.is_over:
            return
        if not self._is_giving:
            self._is_giving = True
            self._spawn(self._all(is_asked=True))
        self._call_later(SILENT_SECONDS, self._ask_later)


def size_of(record: Record) -> int:
    """About how many bytes it takes."""
    return sum(map(_size_of, record.values())) + 64


def _size_of(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return size_of(value)
    return sum(map(_size_of, value)) + 16 if isinstance(value, list | tuple) else 16
