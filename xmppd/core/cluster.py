"""The other nodes of this server as routing sees them: who has sessions there, and how they are reached.

The core decides by rosters, tables and hooks, on the node of whoever sends; what is for sessions on other
nodes it hands over here. One node alone has the `OneNode`, which knows nobody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from xmppd.core.blocking import BlockChange
    from xmppd.core.carbons import Copies
    from xmppd.core.later import Later
    from xmppd.core.origin import Origin, Target
    from xmppd.core.sessions import Broadcast, Session
    from xmppd.hooks import Drop, Outcome
    from xmppd.jid import Jid
    from xmppd.xml.stanza import Stanza


class RemoteFellow(Protocol):
    """A session of another node that was sent the same messages as one of its account here, or one that was
    sent what another one was that has moved since.
    """

    @property
    def node(self) -> int:
        """The incarnation of the node that has it, or had it when both were sent the same."""

    @property
    def number(self) -> int:
        """What tells it there from others of its account."""


class Cluster(Protocol):
    """The other nodes. Accounts are bare JIDs in normal form. It is true where it may know anybody: what asks
    for many accounts looks first.
    """

    @property
    def expected(self) -> Sized:
        """Sessions that are expected on other nodes in place of such that ended there."""

    @property
    def elsewhere(self) -> Sized:
        """Sessions of other nodes."""

    def __bool__(self) -> bool: ...

    @property
    def has_grace(self) -> bool:
        """Whether a session that ends with its node is expected on another one for a while."""

    # who is there

    def concerns(self, account: str) -> bool:
        """Whether a message to the account is not this node's matter alone: it has sessions elsewhere, or
        what was sent to them is still under way.
        """

    def is_available(self, account: str) -> bool:
        """Whether any session of the account on another node is available."""

    def away(self, accounts: Sequence[str]) -> Sequence[str]:
        """Those of some accounts that have no available session there."""

    def takes_messages(self, account: str) -> bool:
        """Whether any of them has a priority that is not negative."""

    def has(self, full: str) -> bool:
        """Whether a session with this full JID is on another node."""

    def count_beside(self, account: str, resource: str, client: str) -> int:
        """How many sessions the account has on other nodes that one with this resource, of the client with
        this identifier ("": of none), does not replace.
        """

    def names(self) -> Sequence[str]:
        """Those of all other nodes."""

    def hears_all(self) -> bool:
        """Whether all of them are connected and were heard lately."""

    def runs(self, node: str, plugin: str) -> bool:
        """Whether a plugin of this name is at work on one of them, as far as is known."""

    def nodes_of(self, account: str) -> Sequence[str]:
        """The names of those where the account has sessions, available or not."""

    def accounts(self) -> Sequence[str]:
        """All that have sessions there."""

    def targets(self, account: str) -> tuple[Target, ...]:
        """Its available sessions there."""

    def resources(self, account: str) -> Sequence[str]:
        """Those of its sessions there, available or not."""

    def fellows(self, session: Session) -> tuple[RemoteFellow, ...]:
        """The sessions of its account there that have its priority: they are sent what it is sent."""

    def had(self, session: Session, second: int) -> None:
        """A managed session is over, and its client has acknowledged what it was sent before that second."""

    async def see_to_it(self, account: str, fellows: Collection[RemoteFellow]) -> Mapping[RemoteFellow, int]:
        """Which of the fellows of a session that is over have what both were sent before some second, or see
        to it: they may have ended as well, or moved to yet another node. Each node is asked once. It is now
        that the session has ended, if they ask.
        """

    def wants_copies(self, account: str) -> bool:
        """Whether any session of the account there wants copies of its messages (XEP-0280)."""

    def room(self) -> Awaitable[None] | None:
        """What who sends to many waits for before he is read on: room on the way to the other nodes. None
        where there is.
        """

    # what is told of sessions here

    def bound(self, session: Session) -> None:
        """A session is new here."""

    def shifted(self, session: Session) -> None:
        """Whether it is available, or its priority, is another than before."""

    def wanted(self, session: Session) -> None:
        """It wants copies of its account's messages now, or does not any more."""

    def ended(self, session: Session) -> None:
        """It is over, and all that it had to say was said."""

    # messages and iqs

    def message(
        self, origin: Origin, stanza: Stanza, to: Jid, kind: str, *, is_again: bool = False
    ) -> Outcome | Awaitable[Outcome | Drop]:
        """Route a message whose account it `concerns` by RFC 6121 8.5 over all nodes; StanzaError.
        `is_again`: it was copied before (XEP-0280).
        """

    def unclaimed(self, stanza: Stanza, to: Jid) -> Awaitable[Outcome | Drop] | None:
        """The same for one that nobody keeps, though nobody took it before; None where there is nobody
        now.
        """

    def kept(self, account: str, resource: str = "") -> Awaitable[None] | None:
        """A message was stored for the account, or a resource of it. What its sender waits for before he is
        told: that those who came meanwhile will look for it, though this node be lost. None where nobody did.
        """

    def keeping(self, to: Jid, later: Later) -> Later:
        """A message is about to be stored for that address: who comes elsewhere meanwhile is given nothing
        newer before that. What to wait for instead of `later`.
        """

    def copy(self, account: str, copies: Copies) -> None:
        """Send copies of a message to the sessions there that want them; they may be lost on the way."""

    def had_copies(self, account: str, seconds: Collection[int]) -> Awaitable[Collection[int]] | None:
        """Of which of these seconds a session there has the copies, each node asked once; None where nobody
        wants copies.
        """

    def iq(self, origin: Origin, stanza: Stanza, to: Jid) -> Awaitable[None] | None:
        """Hand an iq to a session of another node (`has`); StanzaError, or one when it is awaited."""

    def answer(self, stanza: Stanza) -> None:
        """Hand an iq of type result or error, to a host of ours, to the node that asked."""

    def is_awaited(self, to: str, asked: str, id: str) -> bool:
        """Whether a session here is to be given what another one here answers: it may have been asked on
        another node, and been given up there. From now on nobody answers in its place.
        """

    # presence

    def show(
        self, session: Session, presence: Broadcast, contacts: Sequence[str], *, asks: bool = False
    ) -> int:
        """Show a presence, or its end, to those contacts' sessions there, after those here; how many of them
        have any, each node counted. `asks`: have them show themselves to the session as well.
        """

    def returned(self, session: Session, contacts: Sequence[str]) -> None:
        """These contacts' sessions here were shown one that is available, if they may see it: those in whose
        place it is, which were expected, have ended.
        """

    def probe(self, session: Session, contacts: Sequence[str]) -> None:
        """Have contacts that are there show themselves to a session that became available."""

    def sight(self, account: str, viewer: str, *, is_end: bool) -> None:
        """Have the account's sessions there shown to a follower, wherever he is, or their end."""

    def is_elsewhere(self, full: str) -> bool:
        """Whether an available session with this full JID is on another node, as for a moment there may be
        two.
        """

    def show_other(self, full: str, accounts: Iterable[str]) -> None:
        """A session here has ended that these accounts' sessions here may have been shown: show them the
        other one instead, or the end where there is none after all.
        """

    def withhold(self, full: str, accounts: Iterable[str]) -> None:
        """A session here has ended that is expected elsewhere: do not show these accounts' sessions here its
        end, unless it does not come.
        """

    def withhold_directed(self, full: str, address: str) -> bool:
        """The same for an address here that was sent directed presence. False: it has to be told now."""

    def sent_directed(self, full: str, address: str) -> Collection[str]:
        """The sessions here, of an address, that one with this full JID on another node sent directed
        presence: they are shown that again, and not the end of the one here.
        """

    def direct(
        self, sender: str, address: str, stanza: bytes, *, is_end: bool, is_moved: bool = False
    ) -> None:
        """Hand directed presence to the address, bare or full, where somebody is there. `sender` is the full
        JID of whose availability or end it tells, "" where it tells of neither; `is_moved`: it is expected on
        another node.
        """

    def granted(self, account: str, contact: str) -> None:
        """The contact may see the account's sessions from now on, and those of its own that are known were
        shown them.
        """

    def followed(self, account: str, contacts: Sequence[str]) -> None:
        """The account's sessions here are to see these from now on, by its own roster. Whoever was not shown
        when that was granted, as he was not there then, is asked for.
        """

    def unfollowed(self, account: str, contacts: Iterable[str]) -> None:
        """The account's sessions here are not to see these any more. Those are told, whose sessions show
        their end; it may be lost on the way.
        """

    def seek(self, origin: Origin, to: Jid) -> Awaitable[Sequence[bytes]] | None:
        """What sessions on other nodes show of themselves to whoever probes; None where there are none."""

    def parted(self, account: str) -> None:
        """The last words of the account are others now than before, by what was said here."""

    # contacts

    def deliver(self, account: str, stanza: bytes, *, to_interested: bool) -> None:
        """Hand a subscription stanza to the account's sessions there: those that asked for the roster, or
        those that are available.
        """

    def roster_changed(self, account: str, version: int) -> None:
        """The account's roster is at this version now, by a change made here."""

    # block lists

    def blocks_changed(self, account: str, change: BlockChange) -> Awaitable[None] | None:
        """The account's block list was changed here. What is done when all others act by it, or are given up;
        None where there are none.
        """


class OneNode:
    """There are no other nodes."""

    __slots__ = ()
    has_grace: Final = False

    expected: Final[Sized] = ()
    elsewhere: Final[Sized] = ()

    def __bool__(self) -> bool:
        return False

    def concerns(self, account: str) -> bool:
        """Nobody's."""
        return False

    is_available = takes_messages = wants_copies = has = is_elsewhere = concerns

    def away(self, accounts: Sequence[str]) -> Sequence[str]:
        """All."""
        return accounts

    def count_beside(self, account: str, resource: str, client: str) -> int:
        """None."""
        return 0

    def names(self) -> Sequence[str]:
        """None."""
        return ()

    def hears_all(self) -> bool:
        """There is nobody to hear."""
        return True

    def nodes_of(self, account: str) -> Sequence[str]:
        """None."""
        return ()

    accounts = names

    def runs(self, node: str, plugin: str) -> bool:
        """Nothing is."""
        return False

    def targets(self, account: str) -> tuple[Target, ...]:
        """None."""
        return ()

    def resources(self, account: str) -> Sequence[str]:
        """None."""
        return ()

    def fellows(self, session: Session) -> tuple[RemoteFellow, ...]:
        """None."""
        return ()

    def had(self, session: Session, second: int) -> None:
        """Nobody asks."""

    async def see_to_it(self, account: str, fellows: Collection[RemoteFellow]) -> Mapping[RemoteFellow, int]:
        """There are none."""
        return {}

    def had_copies(self, account: str, seconds: Collection[int]) -> Awaitable[Collection[int]] | None:
        """Nobody wants any."""
        return None

    def room(self) -> Awaitable[None] | None:
        """There is."""
        return None

    def bound(self, session: Session) -> None:
        """Nobody is told."""

    shifted = wanted = ended = bound

    def message(
        self, origin: Origin, stanza: Stanza, to: Jid, kind: str, *, is_again: bool = False
    ) -> Outcome | Awaitable[Outcome | Drop]:
        """It concerns nobody's."""
        raise AssertionError(to.full)

    def unclaimed(self, stanza: Stanza, to: Jid) -> Awaitable[Outcome | Drop] | None:
        """Nobody is there."""
        return None

    def kept(self, account: str, resource: str = "") -> Awaitable[None] | None:
        """Nobody came."""
        return None

    def keeping(self, to: Jid, later: Later) -> Later:
        """Nobody comes."""
        return later

    def copy(self, account: str, copies: Copies) -> None:
        """Nobody wants any."""

    def iq(self, origin: Origin, stanza: Stanza, to: Jid) -> Awaitable[None] | None:
        """It has nobody."""
        raise AssertionError(to.full)

    def answer(self, stanza: Stanza) -> None:
        """Nobody asked."""

    def is_awaited(self, to: str, asked: str, id: str) -> bool:
        """It is."""
        return True

    def show(
        self, session: Session, presence: Broadcast, contacts: Sequence[str], *, asks: bool = False
    ) -> int:
        """Nobody is shown it."""
        return 0

    def returned(self, session: Session, contacts: Sequence[str]) -> None:
        """Nobody was expected."""

    def probe(self, session: Session, contacts: Sequence[str]) -> None:
        """Nobody is there."""

    def sight(self, account: str, viewer: str, *, is_end: bool) -> None:
        """Nobody is there."""

    def show_other(self, full: str, accounts: Iterable[str]) -> None:
        """Nobody is there."""

    def withhold(self, full: str, accounts: Iterable[str]) -> None:
        """Nobody is expected."""

    def withhold_directed(self, full: str, address: str) -> bool:
        """Nobody is expected."""
        return False

    def sent_directed(self, full: str, address: str) -> Collection[str]:
        """Nobody is there."""
        return ()

    def direct(
        self, sender: str, address: str, stanza: bytes, *, is_end: bool, is_moved: bool = False
    ) -> None:
        """Nobody is there."""

    def granted(self, account: str, contact: str) -> None:
        """Nobody is there."""

    def followed(self, account: str, contacts: Sequence[str]) -> None:
        """Nobody is there."""

    def unfollowed(self, account: str, contacts: Iterable[str]) -> None:
        """Nobody is there."""

    def seek(self, origin: Origin, to: Jid) -> Awaitable[Sequence[bytes]] | None:
        """Nobody is there."""
        return None

    def parted(self, account: str) -> None:
        """Nobody is told."""

    def deliver(self, account: str, stanza: bytes, *, to_interested: bool) -> None:
        """Nobody is there."""

    def roster_changed(self, account: str, version: int) -> None:
        """Nobody is told."""

    def blocks_changed(self, account: str, change: BlockChange) -> Awaitable[None] | None:
        """Nobody is told."""
        return None


ONE_NODE = OneNode()
