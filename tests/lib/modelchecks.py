"""What has to be true when all is quiet in `nodesmodel`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from modelclients import NUMBER, STATUS, Client, Parting, Sent
from modelnodes import Node

if TYPE_CHECKING:
    from nodesmodel import Model

UNSURE_SECONDS = 0.5
"""Who leaves within so long after he was given what was stored is not counted as having read it."""

STUBBORN_SECONDS = 10.0
"""For how long who cannot be given what is stored is given nothing newer."""

TRAVEL_SECONDS = 5.0
"""How long word of what was sent is under way at most, where nothing is hurt: a place, and a hint."""

KNOWN_SECONDS = 3.0
"""How long a session has to be there until all nodes know it for sure, while all reach each other."""


class Checks:
    """One look at a world."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._there = [client for client in model.clients if not client.is_over]
        rosters = {name: model.shelf.roster(name) for name in model.accounts}
        self._follows = {
            (viewer, seen)
            for seen in model.accounts
            for viewer, item in rosters[seen].items()
            if item.state.is_followed
        }
        self._unsure = self._follows ^ {
            (viewer, seen)
            for viewer in model.accounts
            for seen, item in rosters[viewer].items()
            if item.state.is_following
        }
        self._untold = model.cache.untold
        self._unsure |= {
            (viewer, seen)
            for viewer in model.accounts
            for seen in model.accounts
            if viewer in self._untold or seen in self._untold
        }
        self._rosters = {
            name: {contact: item.subscription for contact, item in items.items() if not item.hidden}
            for name, items in rosters.items()
        }
        self._is_whole = not model.faults - {"slow", "bus", "move"}

    def wrong(self) -> Iterator[str]:
        """All that is wrong."""
        yield from (f"failed: {error}" for error in self._model.failures)
        yield from self._wrong_places()
        for node in self._model.nodes.values():
            yield from (f"left on {node.name}: {what}" for what in left_on(node))
        if self._model.cache.locks:
            yield f"left locks: {sorted(self._model.cache.locks)}"
        for viewer in self._there:
            if viewer.session.presence is not None:
                yield from self._wrong_view(viewer)
            yield from self._wrong_roster(viewer)
        yield from self._wrong_words()
        yield from self._wrong_answers()
        yield from self._wrong_messages()

    def _wrong_places(self) -> Iterator[str]:
        yield from (f"owners of the name {name}" for name in self._model.namesakes())
        owners: dict[str, list[str]] = defaultdict(list)
        for client in self._there:
            owners[client.session.full].append(client.node.name)
        yield from (f"owners {full}: {names}" for full, names in owners.items() if len(names) > 1)
        for node in self._model.nodes.values():
            wanted = {
                (c.session.full, c.node.name, c.session.priority if c.session.presence else None)
                for c in self._there
                if c.node is not node
            }
            found = set()
            for account in self._model.accounts:
                for place in node.mesh.whereabouts.of(account):
                    at = node.mesh.member(place.node).name
                    found.add((f"{account}/{place.resource}", at, place.priority))
            if found != wanted:
                yield f"places of {node.name}: {sorted(found ^ wanted, key=str)}"

    # presence

    def _wrong_view(self, viewer: Client) -> Iterator[str]:
        """Of contacts exactly what they say; of others what they sent and did not take back."""
        session, view = viewer.session, dict(viewer.view)
        view.pop(session.full, None)
        for seen in self._there:
            account, full = seen.session.account, seen.session.full
            if full == session.full:
                continue
            found = view.pop(full, None)
            wanted = seen.status if seen.session.presence is not None else None
            told = {seen.directed[to] for to in (session.account, session.full) if to in seen.directed}
            was_ended = seen.undirected & {session.account, session.full}
            is_seen = account == session.account or (session.account, account) in self._follows
            if found is not None and found in {status for status, _ in told}:
                continue
            if (session.account, account) in self._unsure or (found is None and was_ended):
                continue
            due = wanted if is_seen else None
            if due is None and found is None and self._is_whole:
                late = max((at for _, at in told), default=0.0)
                if late > viewer.viewed_since + KNOWN_SECONDS:
                    yield f"directed: {session.full} on {viewer.node.name} does not see {full}"
            elif found != due:
                yield f"view of {session.full} on {viewer.node.name}: {full} is {found}, and says {due}"
        for full, status in view.items():
            yield f"ghost: {session.full} on {viewer.node.name} sees {full}, {status}"

    # last words

    def _wrong_words(self) -> Iterator[str]:
        """Who is away said last what is stored, nobody remembers anything else, and who saw him go was shown
        that.
        """
        model = self._model
        stored = {name: said(tail) for name, tail in model.shelf.words().items()}
        for node in model.nodes.values() if "namesake" not in model.faults else ():  # as `_wrong_messages`
            for account in model.accounts:
                known = node.last_seen._known.get(account)
                if known is not None and said(known.tail) != stored.get(account, ""):
                    yield (
                        f"words of {account}: {node.name} knows {said(known.tail)!r}, and "
                        f"{stored.get(account)!r} is stored"
                    )
        for account in model.accounts if self._is_whole else ():
            last = self._last_parting(account)
            if last is not None and stored.get(account, "") != last.words:
                yield f"words of {account}: {stored.get(account)!r} is stored, {last.words!r} was said"
            for viewer in self._there if last is not None else ():
                yield from self._wrong_hearing(viewer, last)

    def _last_parting(self, account: str) -> Parting | None:
        """The last one of an account that is away, if it is sure which of its sessions was the last."""
        partings = [p for p in self._model.partings if p.client.session.account == account]
        is_there = any(c.session.account == account and c.session.presence is not None for c in self._there)
        if is_there or not partings:
            return None
        last = partings[-1]
        since = last.at - KNOWN_SECONDS
        came = [at for at, full in self._model.arrivals if full.startswith(f"{account}/") and at > since]
        return last if not came and all(p is last or p.at < since for p in partings) else None

    def _wrong_hearing(self, viewer: Client, last: Parting) -> Iterator[str]:
        seen = last.client.session
        pair = viewer.session.account, seen.account
        is_sure = pair in self._follows and pair not in self._unsure and pair not in self._model.changed
        if is_sure and viewer.session.presence and viewer.viewed_since < last.at - KNOWN_SECONDS:
            heard = viewer.heard.get(seen.full)
            if heard != last.words:
                yield f"words to {viewer.session.full}: {seen.full} said {last.words!r}, and not {heard!r}"

    def _wrong_roster(self, client: Client) -> Iterator[str]:
        wanted = self._rosters[client.session.account]
        is_sure = client.session.account not in self._untold
        if is_sure and client.roster is not None and client.roster != wanted:
            differing = sorted(client.roster.items() ^ wanted.items())
            yield f"roster of {client.session.full} on {client.node.name}: {differing}"

    # iqs

    def _wrong_answers(self) -> Iterator[str]:
        model = self._model
        times = Counter(number for client, number in model.answers if model.asked[number].client is client)
        yield from (f"answered twice: {number}" for number, count in times.items() if count > 1)
        answered = {number for _, number in model.answers}  # for a moment two may have one name
        for number, (client, _, to, _) in model.asked.items():
            if number in answered or client.is_over or not self._is_whole:
                continue
            if not any(number in c.asked and c.is_over for c in model.clients):
                yield f"not answered: {number} of {client.session.full} to {to}"

    # messages

    def _wrong_messages(self) -> Iterator[str]:
        model = self._model
        rows = model.shelf.stored()
        stored = {
            int(match[1])
            for stanzas in rows.values()
            for stanza in stanzas
            if (match := NUMBER.search(stanza)) is not None
        }
        arrived = {number for _, number, _, _ in model.log}
        lost = sorted(model.acked.keys() - model.was_refused - arrived - stored)
        if lost:
            yield f"lost {lost}"
        if model.was_refused and "store" not in model.faults:  # whoever it is for takes it, or it is stored
            yield f"refused {sorted(model.was_refused)}"
        yield from self._wrong_order()
        willing = {c.session.account for c in self._there if c.session.presence and c.session.priority >= 0}
        if "namesake" not in model.faults:  # such a node stores behind everybody's back, and ends
            yield from (f"left stored for {a}: {len(rows[a])}" for a in sorted(willing) if rows.get(a))

    def _wrong_order(self) -> Iterator[str]:
        model = self._model
        flushed: dict[int, int] = defaultdict(int)
        order: dict[tuple[int, int, str], list[int]] = defaultdict(list)
        seen: set[tuple[int, int]] = set()
        for client, number, was_stored, at in model.log:
            if number in model.was_refused or self._is_stubborn(client, at):
                continue  # it may be there all the same; or chat goes on without what cannot be read
            has_stayed = not any(at <= left < at + UNSURE_SECONDS for left in client.left)
            flushed[number] += was_stored and has_stayed
            key = id(client), number
            if key in seen:
                if self._is_whole and has_stayed:
                    yield f"twice {number} to {client.session.full}"
                continue
            seen.add(key)
            sent = model.sent[number]
            if "/" in sent.to and (sent.to != client.session.full or sent.client.node is client.node):
                continue  # to one session of several, of which one is nearer than the others
            if "/" not in sent.to or was_stored:
                order[id(client), id(sent.client), "as to the account"].append(number)
            if not was_stored:
                order[id(client), id(sent.client), "at once"].append(number)
        if self._is_whole:
            yield from (f"flushed twice: {number}" for number, count in flushed.items() if count > 1)
        times = Counter(number for _, number, _, _ in model.log)
        for (receiver, _, _), all_numbers in order.items():
            is_unsure = bool(model.faults & {"cut", "freeze", "namesake", "alone"})
            numbers = [number for number in all_numbers if not is_unsure or times[number] == 1]
            if numbers != sorted(numbers):
                full = next(c.session.full for c in model.clients if id(c) == receiver)
                yield f"order at {full}: {numbers}"
        if "move" in model.faults:
            yield from self._wrong_moving(times)

    def _is_stubborn(self, client: Client, at: float) -> bool:
        """Whether a client's node did not reach the store for so long that newer messages did not wait."""
        return "store" in self._model.faults and any(
            hurt.node is client.node
            and hurt.until - hurt.since > STUBBORN_SECONDS
            and hurt.since <= at <= hurt.until + TRAVEL_SECONDS
            for hurt in self._model.hurt
        )

    def _wrong_moving(self, times: Counter[int]) -> Iterator[str]:
        """Of who wrote on from another node: what he had sent, and what was acknowledged long enough before
        for the word to travel, comes first.
        """
        model = self._model
        came: dict[tuple[Client, str], list[Sent]] = defaultdict(list)
        for client, number, _, _ in model.log:
            sent = model.sent[number]
            if times[number] == 1 and "/" not in sent.to and number not in model.was_refused:
                came[client, sent.client.session.account].append(sent)
        for (client, sender), all_sent in came.items():
            for index, later in enumerate(all_sent):
                for sent in all_sent[index + 1 :]:
                    if sent.number < later.number and self._has_travelled(sent, later, client):
                        full = client.session.full
                        yield f"order at {full} of who moved: {sent.number} of {sender} after {later.number}"

    def _has_travelled(self, sent: Sent, later: Sent, receiver: Client) -> bool:
        acked = self._model.acked.get(sent.number)
        if sent.client.node is later.client.node or acked is None or acked + TRAVEL_SECONDS > later.at:
            return False
        nodes = sent.client.node, later.client.node, receiver.node
        return not any(
            hurt.node in nodes and hurt.since <= later.at + TRAVEL_SECONDS and sent.at <= hurt.until
            for hurt in self._model.hurt
        )


def said(tail: bytes) -> str:
    """The status of the last words that are kept."""
    found = STATUS.search(tail)
    return found[1].decode() if found is not None else ""


def wrongly_split(nodes: Iterable[Node]) -> Iterator[str]:
    """Accounts with sessions on a node that do not say whether others have a say, at any moment: who is not
    split is not looked for elsewhere.
    """
    for node in nodes:
        for account, live in node.sessions.accounts.items():
            if live.is_split != node.others.concerns(account):
                yield f"{account} on {node.name} is split: {live.is_split}"


def left_on(node: Node) -> Iterator[str]:
    """What should be over on a node when all is quiet."""
    others = node.others
    if others.messages._under_way or others.messages._waiting:
        yield f"under way to {[*others.messages._under_way]}"
    if others.presence._asked:
        yield "questions for who has the same full JID"
    if others.presence.grace or others.presence.followers.awaited:
        yield "sessions that are expected"
    if node.offline._flushing:
        yield "sessions that wait for a flush"
    for session in node.sessions.by_full.values():
        if session._in_the_way:
            yield f"something is in the way of messages of {session.full}"
    directed = 0
    for member in node.mesh.members.values():
        marks = {name: getattr(member, name).frames for name in ("young", "fresh", "missing")}
        yield from (f"{name} of {member.name}: {[*frames]}" for name, frames in marks.items() if frames)
        if member.trunk._letters:
            yield f"letters to {member.name}"
        there = {
            f"{account}/{place.resource}"
            for account in node.mesh.whereabouts.accounts()
            for place in node.mesh.whereabouts.of(account)
            if place.node == member.index
        }
        if gone := member.directed.keys() - there:
            yield f"directed presence of {sorted(gone)}"
        directed += sum(map(len, member.directed.values()))
    if directed != others.presence.directed.size:
        yield f"{others.presence.directed.size} pairs of directed presence are counted, {directed} are there"
