"""What the server sends by itself, and what plugins send in the name of a host of ours."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Container, Coroutine, Iterable, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.core.origin import Target
from xmppd.core.questions import Questions
from xmppd.core.router import Router
from xmppd.core.services import Guest, Services
from xmppd.core.sessions import LiveAccount, Sessions, to_stamp
from xmppd.errors import JidError, StanzaError
from xmppd.hooks import Hooks
from xmppd.jid import Jid
from xmppd.xml import build
from xmppd.xml.stanza import Stanza

SLICE_SECONDS = 0.0003
"""How long copies for many are handed out in one turn of the loop."""

AWAY = 100
"""How many accounts with sessions on other nodes are sent to side by side."""

IQ = f"{{{ns.CLIENT}}}iq"
KINDS = frozenset((f"{{{ns.CLIENT}}}message", f"{{{ns.CLIENT}}}presence", IQ))


class Sending:
    """Sends in the name of `hosts`; what has no sender comes from the one of our `domains` that its
    receiver is on, or the first.
    """

    def __init__(
        self,
        router: Router,
        sessions: Sessions,
        questions: Questions,
        hooks: Hooks,
        services: Services,
        hosts: Container[str],
        domains: Sequence[str],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._router = router
        self._sessions = sessions
        self._questions = questions
        self._hooks = hooks
        self._services = services
        self._hosts = hosts
        self._domains = domains
        self._clock = clock

    async def send(self, tree: Element) -> None:
        """Send a stanza of any kind by the rules for all others; StanzaError when it is refused."""
        stanza = self._signed(tree, tree.get("to", ""))
        waiting = self._router.send(Guest(stanza.attrs["from"], self._services), stanza)
        if waiting is not None:
            await waiting

    async def send_many(self, accounts: Iterable[str], tree: Element) -> int:
        """Give a message or presence to those of the accounts that are there, serialised once; how many
        copies that were. ValueError for an iq.
        """
        stanza = self._signed(tree, self._domains[0])
        if stanza.kind == "iq":
            raise ValueError("an iq has one receiver")
        attrs = {name: value for name, value in stanza.attrs.items() if name != "to"}
        head, tail = build.start_tag(stanza.kind, attrs), stanza.raw[stanza.tail :]
        copies, end = 0, self._clock() + SLICE_SECONDS
        away: list[Coroutine[Any, Any, int]] = []  # each takes a way to another node and back
        for account in accounts:
            live = self._sessions.accounts.get(account)
            if self._sessions.cluster.concerns(account) and (there := self._count(account, stanza)):
                raw = head + to_stamp(account) + tail
                away.append(self._by_the_rules(account, stanza, raw, there))
                if len(away) >= AWAY:
                    copies, away = copies + sum(await asyncio.gather(*away)), []
            elif live is None or live.bars(stanza.attrs["from"]):
                continue
            elif receivers := receivers_of(live, stanza):
                raw = head + live.to_stamp + tail
                if self._is_watched(stanza.kind):
                    copies += await self._by_the_rules(account, stanza, raw, len(receivers))
                else:
                    copies += give(receivers, raw)
            if self._clock() > end:
                await asyncio.sleep(0)
                end = self._clock() + SLICE_SECONDS
        return copies + sum(await asyncio.gather(*away))

    async def ask(
        self, to: str, payload: Element, *, kind: str, sender: str, seconds: float
    ) -> Element | None:
        """Send an iq and wait for its answer: the payload of the result, or StanzaError as the answer tells;
        remote-server-timeout when there is none in time, recipient-unavailable when its receiver goes.
        """
        attrs = {"type": kind, "id": self._questions.new_id(), **({"from": sender} if sender else {})}
        iq = self._signed(build.element(IQ, attrs, payload), to)
        question = self._questions.begin(iq, seconds)
        try:
            receiver = self._sessions.targets.get(question.to)
            live = self._sessions.accounts.get(question.to.partition("/")[0])
            if live is not None and live.bars(question.full):
                raise StanzaError("service-unavailable")
            if receiver is not None:
                receiver.send(iq.raw)
            elif (waiting := self._router.send(question, iq)) is not None:
                await waiting
            return await question.answer
        finally:
            self._questions.end(question)

    def _signed(self, tree: Element, to: str) -> Stanza:
        """A stanza with its sender and its receiver, both in normal form; ValueError for a sender that is
        not on a host of ours, StanzaError for a receiver that is no address.
        """
        if tree.tag not in KINDS:
            raise ValueError(f"{tree.tag} is no stanza")
        if not to:
            raise StanzaError("bad-request", "What the server sends needs an address.")
        try:
            receiver = Jid.parse(to)
        except JidError as error:
            raise StanzaError("jid-malformed", str(error)) from None
        default = receiver.domain if receiver.domain in self._domains else self._domains[0]
        sender = Jid.parse(tree.get("from") or default)
        if sender.domain not in self._hosts:
            raise ValueError(f"{sender} is on no host of this server")
        attrs = {**tree.attrib, "from": sender.full, "to": receiver.full}
        if tree.tag == IQ:
            attrs.setdefault("id", secrets.token_urlsafe(9))
        whole = build.element(tree.tag, attrs, tree.text)
        whole.extend(tree)
        return build.stanza_of(whole)

    def _is_watched(self, kind: str) -> bool:
        return self._hooks.watches_messages if kind == "message" else bool(self._hooks.presence_for_filter)

    def _count(self, account: str, stanza: Stanza) -> int:
        """How many resources of an account take such a stanza, here and on other nodes."""
        live, there = self._sessions.accounts.get(account), self._sessions.cluster.targets(account)
        everybody: list[Target] = [*(live.available if live is not None else ()), *there]
        if stanza.kind == "presence":
            return len(everybody)
        top = max((target.priority for target in everybody), default=-1)
        least = 0 if stanza.type == "headline" else max(top, 0)
        return sum(target.priority >= least for target in everybody)

    async def _by_the_rules(self, account: str, stanza: Stanza, raw: bytes, count: int) -> int:
        """Let plugins have their part in the copies for one account; how many of `count` were not refused."""
        copy = Stanza(stanza.kind, {**stanza.attrs, "to": account}, raw)
        try:
            waiting = self._router.send(Guest(stanza.attrs["from"], self._services), copy)
            if waiting is not None:
                await waiting
        except StanzaError:
            return 0
        return count


def receivers_of(live: LiveAccount, stanza: Stanza) -> Sequence[Target]:
    """Those resources of an account that take such a stanza (RFC 6121 8.5.2.1)."""
    if stanza.kind == "presence":
        return live.available
    if stanza.type == "headline":
        return tuple(target for target in live.available if target.priority >= 0)
    return live.takers


def give(receivers: Sequence[Target], raw: bytes) -> int:
    """Send each a copy; how many."""
    for receiver in receivers:
        receiver.send_copy(raw)
    return len(receivers)
