"""The other nodes, put together: the port of the core on one side, the mesh on the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from xmppd.cluster.budgets import SharedBudgets
from xmppd.cluster.calls import Calls
from xmppd.cluster.copies import RemoteCopies
from xmppd.cluster.fellows import Fellows
from xmppd.cluster.guesses import SharedBrake
from xmppd.cluster.hints import Hints
from xmppd.cluster.iqs import RemoteIqs, mark_of
from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.messages import RemoteMessages
from xmppd.cluster.places import Places
from xmppd.cluster.presence import RemotePresence
from xmppd.cluster.records import (
    Ask,
    Bye,
    Call,
    Copy,
    Directed,
    Doubted,
    Gone,
    Guesses,
    Have,
    Hint,
    Iq,
    Message,
    Place,
    Presence,
    Probe,
    Reply,
    Roster,
    Running,
    Shown,
    Sight,
    Signal,
    Snapshot,
    Spent,
    Stanza,
    Words,
)
from xmppd.cluster.running import Plugins
from xmppd.core.binding import is_of
from xmppd.core.blocking import BlockChange
from xmppd.core.origin import Host, Origin, Target
from xmppd.jid import Jid

if TYPE_CHECKING:
    from xmppd.core.binding import Binding
    from xmppd.core.blocking import Blocking
    from xmppd.core.brake import Brake
    from xmppd.core.contacts import Contacts
    from xmppd.core.elsewhere import Elsewhere
    from xmppd.core.lastseen import LastSeen
    from xmppd.core.messages import Messages
    from xmppd.core.presence import Presences
    from xmppd.core.probes import Probes
    from xmppd.core.questions import Questions
    from xmppd.core.roster.budget import DailyBudget
    from xmppd.core.router import Router
    from xmppd.core.sessions import Session, Sessions
    from xmppd.core.visibility import Visibility


class RemoteSession:
    """An available session of another node, as who asks where somebody is is told of it."""

    __slots__ = ("full", "is_open", "node", "presence", "priority", "takes_messages")

    def __init__(self, full: str, node: str, priority: int) -> None:
        self.full = full
        self.node = node
        self.priority = priority
        self.presence = full
        self.takes_messages = True
        self.is_open = False

    def send(self, data: bytes) -> None:
        """What is for it goes the way of its stanza."""
        raise NotImplementedError(self.full)

    send_copy = send


class OtherNodes:
    """Implements `xmppd.core.cluster.Cluster`. `hint`: something is stored for an account that is here;
    `came` and `gone`: a node of this name, and whether it has said that it goes; `lost`: whose sessions went
    with one that had not said so; `plugins`: those at work here, and `told` of those elsewhere; `grace`: how
    many seconds a session is expected on another node when its own stops.
    """

    def __init__(
        self,
        mesh: Mesh,
        *,
        sessions: Sessions,
        messages: Messages,
        presences: Presences,
        probes: Probes,
        contacts: Contacts,
        binding: Binding,
        router: Router,
        questions: Questions,
        elsewhere: Elsewhere,
        visibility: Visibility,
        last_seen: LastSeen,
        blocking: Blocking,
        brake: Brake,
        additions: DailyBudget,
        log_budget: DailyBudget,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        call_later: Callable[[float, Callable[[], None]], Any],
        signal: Callable[[str, str, str], None],
        hint: Callable[[str], None],
        came: Callable[[str], None],
        gone: Callable[[str, bool], None],
        lost: Callable[[str, Collection[str]], None],
        plugins: Callable[[], Collection[str]],
        told: Callable[[str, Collection[str], Collection[str]], None],
        grace: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.has_grace = True
        self.mesh = mesh
        self._sessions = sessions
        self._contacts = contacts
        self._elsewhere = elsewhere
        self._last_seen = last_seen
        self._blocking = blocking
        self._probes = probes
        self._visibility = visibility
        self._questions = questions
        self._came = came
        self.hints = Hints(mesh, sessions, hint, mesh.clock, call_later, now)
        self.calls = Calls(mesh, spawn, call_later, signal)
        self.copies = RemoteCopies(mesh, sessions, messages.carbons, self.calls)
        self.messages = RemoteMessages(
            mesh,
            sessions,
            visibility.blocks,
            self.copies,
            messages.keep_in_order,
            self.hints.kept,
            spawn,
            now,
            messages.fates,
        )
        self.presence = RemotePresence(mesh, sessions, presences, visibility, call_later, grace)
        self.iqs = RemoteIqs(mesh, sessions, router, questions, spawn)
        self.plugins = Plugins(mesh, plugins, told)
        self.runs = self.plugins.runs
        self.brake = SharedBrake(mesh, brake, call_later)
        self.budgets = SharedBudgets(mesh, additions, log_budget, now)
        self.places = Places(
            mesh,
            sessions,
            moved=self.messages.moved,
            came=self.presence.came,
            is_open=self.hints.is_open,
            ceded=self.hints.ceded,
            went=self._went,
            appeared=self.presence.appeared,
            left=self.presence.left,
            end=binding.end,
            lost_all=self._lost_all,
            now=now,
        )
        self.known_fellows = Fellows(mesh, sessions, self.calls)
        self.fellows = self.known_fellows.of
        self.see_to_it, self.had = self.known_fellows.ask, self.known_fellows.had
        self.room, self.hears_all = mesh.room, mesh.hears_all
        mesh.on_gone = self._gone
        self._tell_gone = gone
        self._tell_lost = lost
        self.concerns = self.messages.concerns
        self.message = self.messages.route
        self.wants_copies = self.copies.wants
        self.copy = self.copies.send
        self.had_copies = self.copies.had
        self.unclaimed = self.messages.unclaimed
        self.kept = self.hints.kept
        self.keeping = self.messages.keeping
        self.takes_messages = self.messages.takes
        self.is_available = self.presence.is_available
        self.away = self.presence.away
        self.show = self.presence.show
        self.returned = self.presence.returned
        self.expected = self.presence.grace.sessions
        self.elsewhere = mesh.whereabouts
        self.probe = self.presence.probe
        self.sight = self.presence.sight
        self.is_elsewhere = self.presence.is_elsewhere
        self.show_other = self.presence.show_other
        self.withhold = self.presence.withhold
        self.withhold_directed = self.presence.withhold_directed
        self.sent_directed = self.presence.sent_directed
        self.direct = self.presence.direct
        self.unfollowed = self.presence.unfollowed
        self.granted = self.presence.followers.granted
        self.followed = self.presence.followers.followed
        self.has = self.iqs.has
        self.iq = self.iqs.route
        self.answer = self.iqs.answer
        self.is_awaited = self.iqs.is_awaited
        questions.mark = mark_of(mesh.incarnation)
        self.bound = self.places.bound
        self.shifted = self.places.shifted
        self.wanted = self.places.wanted
        mesh.compile(
            {
                Place: self.places.take,
                Gone: self.places.take_gone,
                Snapshot: self.places.take_snapshot,
                Have: self.places.take_have,
                Presence: self.presence.take,
                Directed: self.presence.take_directed,
                Probe: self.presence.take_probe,
                Shown: self.presence.take_shown,
                Sight: self.presence.take_sight,
                Ask: self.presence.take_ask,
                Message: self.messages.take,
                Copy: self.copies.take,
                Hint: self.hints.take,
                Iq: self.iqs.take,
                Stanza: self._take_stanza,
                Roster: self._take_roster,
                Words: self._take_words,
                Doubted: self._take_doubted,
                Call: self.calls.take_call,
                Reply: self.calls.take_reply,
                Signal: self.calls.take_signal,
                Running: self.plugins.take,
                Guesses: self.brake.take,
                Spent: self.budgets.take,
                Bye: mesh.take_bye,
            },
            (self.plugins, self.presence, self.hints, self.places, self),
        )
        self.calls.serve("seek", self._sought)
        self.calls.serve("blocks", self._take_blocks)

    def __bool__(self) -> bool:
        return True

    def _gone(self, member: Member) -> None:
        self.messages.returning(member)
        self._tell_gone(member.name, member.has_left)

    def _lost_all(self, member: Member, accounts: Collection[str]) -> None:
        self._tell_lost(member.name, accounts)

    def count_beside(self, account: str, resource: str, client: str) -> int:
        """See `Cluster.count_beside`."""
        places = self.mesh.places(account)
        return sum(place.resource != resource and not is_of(client, place.resource) for place in places)

    def names(self) -> Sequence[str]:
        """See `Cluster.names`."""
        return [*self.mesh.members]

    def nodes_of(self, account: str) -> Sequence[str]:
        """See `Cluster.nodes_of`."""
        places = self.mesh.places(account)
        return [*{self.mesh.member(place.node).name: None for place in places}] if places else ()

    def accounts(self) -> Sequence[str]:
        """See `Cluster.accounts`."""
        return self.mesh.whereabouts.accounts()

    def targets(self, account: str) -> tuple[Target, ...]:
        """See `Cluster.targets`."""
        return tuple(
            RemoteSession(f"{account}/{place.resource}", self.mesh.member(place.node).name, place.priority)
            for place in self.mesh.places(account)
            if place.priority is not None
        )

    def resources(self, account: str) -> Sequence[str]:
        """See `Cluster.resources`."""
        return [place.resource for place in self.mesh.places(account)]

    def ended(self, session: Session) -> None:
        """See `Cluster.ended`."""
        self.presence.ended(session)
        self.places.ended(session)

    # subscriptions

    def deliver(self, account: str, stanza: bytes, *, to_interested: bool) -> None:
        """See `Cluster.deliver`."""
        for node in {place.node for place in self.mesh.places(account)}:
            record = Stanza(account, to_interested, stanza)
            self.mesh.send(self.mesh.member(node), record, len(stanza) + 64)

    def _take_stanza(self, member: Member, record: Stanza) -> None:
        self._contacts.deliver_here(record.account, record.raw, to_interested=record.is_interested)

    def roster_changed(self, account: str, version: int) -> None:
        """See `Cluster.roster_changed`."""
        for node in {place.node for place in self.mesh.places(account)}:
            self.mesh.send(self.mesh.member(node), Roster(account, version))

    def _take_roster(self, member: Member, record: Roster) -> None:
        self._elsewhere.roster_changed(record.account, record.version, "")

    def account_doubted(self, account: str) -> None:
        """Have the sessions of an account looked at that was changed here, also where the shared cache tells
        nothing; and the streams that have logged in and have no session yet.
        """
        self.mesh.send_all(Doubted(account), len(account) + 16)

    def _take_doubted(self, member: Member, record: Doubted) -> None:
        self._elsewhere.account_changed(record.account)

    def blocks_changed(self, account: str, change: BlockChange) -> Awaitable[None] | None:
        """See `Cluster.blocks_changed`."""
        members = [*self.mesh.present()]
        return self._tell_blocks(members, {"account": account, "change": asdict(change)}) if members else None

    async def _tell_blocks(self, members: Sequence[Member], what: Mapping[str, Any]) -> None:
        asked = [self.calls.ask(member, "blocks", what) for member in members]
        await asyncio.gather(*asked, return_exceptions=True)  # who is given up acts by nothing any more

    async def _take_blocks(self, arguments: Mapping[str, Any]) -> None:
        change = arguments["change"]
        blocked, unblocked = tuple(change["blocked"]), tuple(change["unblocked"])
        await self._blocking.take(arguments["account"], BlockChange(blocked, unblocked, change["is_all"]))

    def parted(self, account: str) -> None:
        """See `Cluster.parted`."""
        self.mesh.send_all(Words(account), len(account) + 16)

    def _take_words(self, member: Member, record: Words) -> None:
        self._last_seen.overtaken(record.account)

    # probes

    def seek(self, origin: Origin, to: Jid) -> Awaitable[Sequence[bytes]] | None:
        """See `Cluster.seek`."""
        nodes = {place.node for place in self.mesh.places(to.bare)}
        return self._seek(nodes, origin, to) if nodes else None

    async def _seek(self, nodes: set[int], origin: Origin, to: Jid) -> Sequence[bytes]:
        asked = [
            self.calls.ask(self.mesh.member(node), "seek", {"viewer": origin.full, "to": to.full})
            for node in nodes
        ]
        found = await asyncio.gather(*asked, return_exceptions=True)
        return [text.encode() for texts in found if isinstance(texts, list) for text in texts]

    async def _sought(self, arguments: Any) -> list[str]:
        to = Jid.parse(arguments["to"])
        roster = await self._visibility.roster(to.bare)
        shown = self._probes.shown(Host(arguments["viewer"]), to, roster)
        return [stanza.decode() for stanza in shown or ()]

    # coming and going

    def _went(self, member: Member, full: str) -> None:
        self.presence.went(member, full)
        self._questions.gone(full)

    def met(self, member: Member) -> None:
        """What was said there so far is not known here."""
        self._last_seen.overtaken()
        self._came(member.name)

    def joined(self, member: Member) -> None:
        """What is counted here counts there."""
        self._sessions.rounds.do(f"\ncounts {member.index}", self._counts(member), is_short=False)

    def _counts(self, member: Member) -> Iterator[None]:
        for steps in (self.brake.share(member), self.budgets.share(member)):
            for _ in steps:
                yield
                if member.is_gone:
                    return

    def lost(self, member: Member) -> Iterator[None]:
        """It answers nothing more."""
        self.calls.lost(member)
        yield from self.iqs.lost(member)
