"""Changes of block lists (XEP-0191 3), and what follows from them: on this node, and on all others."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from xmppd.core.barred import NOBODY, bars
from xmppd.core.blocks import Blocks
from xmppd.core.intents import Intent, around
from xmppd.core.presence import STEP, Presences
from xmppd.core.sessions import LiveAccount, Session, Sessions
from xmppd.core.visibility import Visibility
from xmppd.errors import StanzaError, StoreError
from xmppd.hooks import Hooks
from xmppd.jid import domain_of
from xmppd.xml.stanza import parse

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BlockChange:
    """What was asked of a block list: addresses that are blocked from now on, and others that are no more.
    `is_all`: nobody is. Some may have been before.
    """

    blocked: tuple[str, ...] = ()
    unblocked: tuple[str, ...] = ()
    is_all: bool = False

    def of(self, addresses: frozenset[str]) -> frozenset[str]:
        """What it makes of a list."""
        return (NOBODY if self.is_all else addresses.difference(self.unblocked)).union(self.blocked)


@dataclass(frozen=True, slots=True)
class AbuseReport:
    """What `account` says of `reported`, whom it has blocked (XEP-0377): the reason (a URN), what it wrote by
    language, the ids of stanzas, each with the address that gave it, and whether the domain that these came
    from, or others, may be told of it.
    """

    account: str
    reported: str
    reason: str
    texts: tuple[tuple[str, str], ...] = ()
    stanza_ids: tuple[tuple[str, str], ...] = ()
    to_origin: bool = False
    to_others: bool = False


@dataclass(frozen=True, slots=True)
class BlockingRules:
    """The addresses that one account may block, and the bytes that they have together."""

    items: int = 1_000
    bytes: int = 65_536


class Blocking:
    """The one door to block lists. Accounts are bare JIDs, addresses any JIDs, all in normal form. What is
    changed is durable when it returns, and every node acts by it. `on_changed` is told of it at last, for
    those nodes that may not have heard.
    """

    def __init__(
        self,
        *,
        blocks: Blocks,
        sessions: Sessions,
        presences: Presences,
        visibility: Visibility,
        hooks: Hooks,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        now: Callable[[], float],
        rules: BlockingRules,
    ) -> None:
        self._blocks = blocks
        self._sessions = sessions
        self._live = sessions.accounts
        self._presences = presences
        self._visibility = visibility
        self._hooks = hooks
        self._spawn = spawn
        self._now = now
        self.rules = rules
        self.on_changed: Callable[[str], None] = _nobody
        self.intend: Callable[[AbuseReport], Intent | None] = _nothing

    async def of(self, account: str) -> Sequence[str]:
        """Whom the account has blocked, sorted."""
        return await self._blocks.of(account)

    async def bars(self, account: str, address: str) -> bool:
        """Whether the account has blocked an address, by itself or as one of a domain or an account."""
        return await self._blocks.will_bar(account, address)

    async def block(self, account: str, addresses: Iterable[str]) -> None:
        """Block some more; StanzaError resource-constraint when that would be too many."""
        await self.change(account, BlockChange(blocked=tuple(addresses)))

    async def unblock(self, account: str, addresses: Iterable[str]) -> None:
        """Block these no more; some may not have been."""
        await self.change(account, BlockChange(unblocked=tuple(addresses)))

    async def unblock_all(self, account: str) -> None:
        """Block nobody any more."""
        await self.change(account, BlockChange(is_all=True))

    async def replace(self, account: str, addresses: Iterable[str], *, is_bounded: bool = True) -> None:
        """Block these and nobody else; StanzaError as above if it `is_bounded`."""
        before, after = frozenset(await self._blocks.of(account)), frozenset(addresses)
        if is_bounded:
            self._check(before, after)
        if before != after:
            change = BlockChange(tuple(sorted(after - before)), tuple(sorted(before - after)), not after)
            await self._write(account, before, change)

    async def forget(self, account: str) -> None:
        """The list goes with its account."""
        await self._blocks.delete(account)
        self._blocks.doubt(account)

    async def change(self, account: str, change: BlockChange, *, is_theirs: bool = True) -> None:
        """Block some and others no more in one go; StanzaError as for `block`. Not `is_theirs`: addresses are
        others now, and the account has said nothing.
        """
        before = frozenset(await self._blocks.of(account))
        self._check(before, change.of(before))
        await self._write(account, before, change, is_theirs=is_theirs)

    def _check(self, before: frozenset[str], after: frozenset[str]) -> None:
        size = sum(len(address.encode()) for address in after)
        if after - before and (len(after) > self.rules.items or size > self.rules.bytes):
            raise StanzaError("resource-constraint", "More addresses than one account may block.")

    async def _write(
        self, account: str, before: frozenset[str], change: BlockChange, *, is_theirs: bool = True
    ) -> None:
        after = change.of(before)
        await self._blocks.write(account, blocked=after - before, unblocked=before - after, since=self._now())
        if is_theirs:
            self._blocks.moving.heed_blocks(account, change.blocked, (before - after).union(change.unblocked))
        await self.take(account, change)
        told = self._sessions.cluster.blocks_changed(account, change)
        if told is not None:
            await told
        self.on_changed(account)

    # what plugins ask and tell

    def admitted(self, account: str, stanzas: Iterable[bytes]) -> Iterator[bytes]:
        """Of whole stanzas that an account with a session here is about to be given, those whose senders it
        does not bar by then.
        """
        for stanza in stanzas:
            if not (
                self._blocks.known(account) and self._blocks.bars(account, parse(stanza).get("from", ""))
            ):
                yield stanza

    @asynccontextmanager
    async def reporting(self, reports: Sequence[AbuseReport]) -> AsyncIterator[None]:
        """Around a block that comes with reports, and the telling of these: if the block is there they are
        told after a kill, too.
        """
        async with AsyncExitStack() as stack:
            for report in reports:
                await stack.enter_async_context(around(self.intend(report), {}))
            yield

    async def report(self, report: AbuseReport) -> None:
        """Tell plugins what an account says of somebody whom it has blocked; done when they have it safe."""
        await self._hooks.tell_in_order(self._hooks.reported_signal, report)

    # what is done on each node

    async def take(self, account: str, change: BlockChange) -> None:
        """The list of an account was changed, here or elsewhere: act by it when this is done."""
        was_known = self._blocks.doubt(account)
        live = self._live.get(account)
        if live is None:
            if was_known:
                await self.recall(account)
            return
        try:
            after = await self._blocks.read(account)
        except StoreError as error:  # what is known has to do
            log.warning("blocks-not-read", extra={"jid": account, "error": str(error)})
            after = change.of(live.blocks)
        self._hold(account, after)
        self._tell(account, change)

    async def recall(self, account: str) -> None:
        """A list that was remembered here is another one now: what waits to be sent goes by that one."""
        with contextlib.suppress(StoreError):  # who needs it reads it
            await self._blocks.read(account)

    async def look_at(self, account: str) -> None:
        """The list of an account with sessions here may be another one than is known; StoreError."""
        after = await self._blocks.read(account)
        live = self._live.get(account)
        before = live.blocks if live is not None else after
        if before != after:
            self._hold(account, after)
            change = BlockChange(tuple(sorted(after - before)), tuple(sorted(before - after)), not after)
            self._tell(account, change)

    def _tell(self, account: str, change: BlockChange) -> None:
        telling = self._hooks.tell(self._hooks.blocks_changed_signal, account, change)
        if telling is not None:
            self._spawn(_finished(telling))

    def _hold(self, account: str, after: frozenset[str]) -> None:
        """Act by this list. Who is blocked now is shown the end of what he saw, and who is not any more what
        he may see; and so is the account.
        """
        live = self._live.get(account)
        if live is None or live.blocks == after:
            return
        parting, coming = self._parting(live, after - live.blocks), live.blocks - after
        live.guard(after)
        self._do(f"{account}\nblocked", parting)
        if coming:
            self._do(f"{account}\nunblocked", self._returning(live, coming))

    def _do(self, key: str, steps: Sequence[Callable[[], None]]) -> None:
        if steps:
            self._sessions.rounds.do(key, _one_by_one(steps), is_short=len(steps) <= STEP)

    def _parting(self, live: LiveAccount, added: frozenset[str]) -> list[Callable[[], None]]:
        """What shows everybody the end of the account's sessions whom it is about to bar (XEP-0191 3.3)."""
        steps: list[Callable[[], None]] = []
        roster = live.roster
        followers = contacts_in(added, roster.followers) if roster is not None else []
        resources = sorted(address for address in added if "/" in address)
        for session in live.sessions:
            told = [name for name in followers if self._visibility.is_told(session, name)]
            steps += [_step(self._presences.part, session, name) for name in told]
            told = [name for name in resources if self._visibility.is_told(session, _bare(name))]
            steps += [_step(self._presences.part_from, session, name) for name in told]
            shown = _shown(session, live.account, added)
            steps += [_step(self._part_directed, session, address) for address in shown]
        return steps

    def _part_directed(self, session: Session, address: str) -> None:
        """Unless it has heard of that by now."""
        if session.directed is not None and address in session.directed.of(_bare(address)):
            self._presences.part_from(session, address)

    def _returning(self, live: LiveAccount, removed: frozenset[str]) -> list[Callable[[], None]]:
        """What shows the account's sessions and those it barred to each other (XEP-0191 3.4)."""
        roster = live.roster
        if roster is None:
            return []
        names = frozenset(map(_bare, removed))
        followers = [name for name in contacts_in(names, roster.followers) if not live.bars(name)]
        following = [name for name in contacts_in(names, roster.following) if not live.bars(name)]
        steps = [_step(self._presences.show, live.account, contact) for contact in followers]
        if following:
            steps += [_step(self._greet, session, following) for session in live.available]
        return steps

    def _greet(self, session: Session, contacts: Sequence[str]) -> None:
        if session.presence is not None:
            self._sessions.cluster.probe(session, contacts)
            session.give(self._presences.contacts_of(session, contacts))


def contacts_in(addresses: frozenset[str], contacts: Sequence[str]) -> list[str]:
    """Those contacts that are among some addresses, by themselves or by their domain."""
    domains = {address for address in addresses if "@" not in address and "/" not in address}
    if not domains:
        return [contact for contact in contacts if contact in addresses]
    return [contact for contact in contacts if contact in addresses or domain_of(contact) in domains]


def _shown(session: Session, account: str, added: frozenset[str]) -> Iterator[str]:
    """The addresses that a session sent directed presence, of those that are barred now."""
    for _, addresses in session.directed.items() if session.directed is not None else ():
        yield from (address for address in addresses if bars(account, added, address))


def _bare(address: str) -> str:
    return address.partition("/")[0]


def _step(do: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    def step() -> None:
        do(*arguments)

    return step


def _one_by_one(steps: Sequence[Callable[[], None]]) -> Iterator[None]:
    for step in steps:
        step()
        yield


async def _finished(telling: Any) -> None:
    await telling


def _nobody(account: str) -> None:
    """There are no other nodes."""


def _nothing(report: AbuseReport) -> None:
    """Nobody keeps what is about to happen."""
