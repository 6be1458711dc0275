"""How often clients do what: rates by verb, and what of that is at hand of a session."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from xmppd.plugin import Counter, Session, StanzaError, cluster_signal, element, network_of, offered

from .config import Rate
from .evidence import Memory, Said
from .rates import UNCOUNTED, Meter, Rates, Rule
from .sanctions import NS, Sanctions

RETRY: Final = f"{{{NS}}}retry"
VERBS: Final = ("message", "presence", "request", "invite", "iq", "report")
NEWS_SECONDS: Final = 0.5
"""How soon other nodes know what was taken here."""
AT_HAND_SECONDS: Final = 0.5
"""How long a session is taken for what it was: where its account is besides, and what is remembered of it."""
SELDOM: Final = 0.001
"""So often a second somebody writes who may write little, and `limited.per_second` is 0."""
VOICES: Final = 20_000


class Voice:
    """What is at hand of a session that writes messages until a moment (`until`): who remembers what it says
    (`say`), and the meter, with what that has.
    """

    __slots__ = ("meter", "network", "own", "say", "tells", "until")

    def __init__(self, said: deque[Said], until: float, meter: Meter) -> None:
        self.say = said.append
        self.until = until
        self.meter = meter
        self.own = meter.own
        self.network = meter.network
        self.tells = meter.is_told


class Pacing(Sanctions):
    """The part of the plugin that counts."""

    slowed = Counter("Stanzas and requests that came too often.")

    async def start(self) -> None:
        """Nothing was done yet."""
        await super().start()
        self.memory = Memory()
        self.rates = Rates(self._rules(), self.scope.clock, self._has_news)
        self._clock = self.scope.clock
        self._voices: dict[str, Voice] = {}
        self._meters: dict[str, dict[str, tuple[Meter, float]]] = {verb: {} for verb in VERBS}

    def _rules(self) -> dict[str, Rule]:
        given: dict[str, Rate] = {verb: getattr(self.config.rates, verb) for verb in VERBS}
        rules = {verb: Rule(it.per_second, it.burst, it.share) for verb, it in given.items()}
        limited = self.config.limited
        return rules | {"limited": Rule(limited.per_second or SELDOM, limited.burst, limited.share)}

    @offered
    async def take(self, account: str, verb: str, peer: str = "") -> float:
        """An account, at an address, does something once more that there is a rate for: 0.0, or the seconds
        until it may.
        """
        return self._take(account, verb, peer)

    def _take(self, account: str, verb: str, peer: str) -> float:
        wait = self._meter(account, verb, peer).take(self._clock())
        if wait:
            self.slowed.inc()
        return wait

    def _meter(self, account: str, verb: str, peer: str) -> Meter:
        is_alone = not self.server.has_other_nodes
        is_told = not is_alone and bool(self.server.nodes_of(account))
        network = network_of(peer) if peer else ""
        return self.rates.meter(verb, account, network, is_told=is_told, is_alone=is_alone)

    def _has_news(self) -> bool:
        if not self.server.has_other_nodes:
            return False
        self.call_later(NEWS_SECONDS, self._tell_news)
        return True

    def _tell_news(self) -> None:
        self.taken.tell(self.server.node, self.rates.said())

    @cluster_signal
    def taken(self, node: str, news: dict[str, int]) -> None:
        """So much was done on another node."""
        if node != self.server.node:
            self.rates.heard(news)

    def too_often(self, session: Session, wait: float) -> StanzaError:
        """What tells a client when it may try again."""
        seconds = str(max(1, math.ceil(wait)))
        text = self.texts.say("wait", session.lang, seconds=seconds)
        return StanzaError("policy-violation", text, type="wait", detail=element(RETRY, {"seconds": seconds}))

    def _pace(self, session: Session, verb: str) -> None:
        """Count once more of what is no message; StanzaError when it is too early."""
        now, meters = self._clock(), self._meters[verb]
        meter, until = meters.get(session.full) or (UNCOUNTED, 0.0)
        if now >= until:
            if len(meters) >= VOICES:
                meters.clear()
            meter = self._meter(session.account, verb, session.connection.peer)
            meters[session.full] = meter, now + AT_HAND_SECONDS
        if wait := meter.take(now):
            self.slowed.inc()
            raise self.too_often(session, wait)

    def _at_hand(self, session: Session, now: float) -> Voice:
        if len(self._voices) >= VOICES:
            self._voices.clear()
        account = session.account
        meter = self._meter(account, "message", session.connection.peer)
        voice = Voice(self.memory.of(account), now + AT_HAND_SECONDS, meter)
        self._voices[session.full] = voice
        return voice
