"""The negotiation of a client's stream as one table, the sum of the rows that modules and plugins bring (RFC
6120 4.3): what is offered in which phase, and who takes an element that comes in it.

A row is a method marked by `negotiates`, an offer one marked by `offers`. The table
holds no stream and does nothing: a stream asks it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Final, Protocol

from xmppd.errors import StreamError
from xmppd.marks import Method, mark, marked
from xmppd.stream.link import Link
from xmppd.stream.sasl import Login
from xmppd.xml.stanza import Stanza


class Phase(Enum):
    """Where a stream stands."""

    HEADER = "waiting for a stream header"
    LOGIN = "features were offered, nobody is authenticated"
    EXCHANGE = "an exchange that proves who the client is goes on"
    AUTHENTICATE = "the same by XEP-0388, where nothing else may come meanwhile"
    BIND = "authenticated; a resource has to be bound"
    BOUND = "stanzas flow"

    __hash__ = object.__hash__  # that of Enum is a function, and they are looked up by every stanza


Waiting = Awaitable[None] | None


class Negotiable(Protocol):
    """A stream as rows and offers see it."""

    domain: str
    """The domain that the client opened the stream to."""
    lang: str
    """The stream's language (RFC 6120 4.7.4), "" for none."""
    session: Any
    """The `Session` once a resource is bound, else None."""
    mark: int
    """The `Gate.mark` of the moment before which no proof of who the client is can have begun."""

    @property
    def link(self) -> Link:
        """What carries it."""

    @property
    def phase(self) -> Phase:
        """Where it stands."""

    @property
    def sender(self) -> str:
        """The JID that the client opened the stream with, "" for none; nothing is proved by it."""

    @property
    def account(self) -> str:
        """Who has logged in, "" before that."""

    @property
    def login(self) -> Login | None:
        """How, None before that."""

    @property
    def is_exposed(self) -> bool:
        """Whether TLS is required, and not there yet."""

    @property
    def kept(self) -> MutableMapping[str, Any]:
        """What rows remember of the stream until a resource is bound; keys are their namespaces."""

    def write(self, data: bytes) -> None:
        """Send one first-level element."""

    def write_all(self, elements: Sequence[bytes]) -> None:
        """Send several."""

    def exchanging(self, is_going_on: bool, phase: Phase = Phase.EXCHANGE) -> None:
        """An exchange began (phase EXCHANGE or AUTHENTICATE), or ended without success (phase LOGIN)."""

    def encrypt(self) -> None:
        """Begin TLS; the client opens the stream anew (RFC 6120 5.4.3.3)."""

    def authenticated(self, login: Login) -> None:
        """The client was let in by the gate; what is next is a resource (phase BIND)."""

    def reopen(self) -> None:
        """The client opens the stream anew (phase HEADER; RFC 6120 6.4.6)."""

    def ended(self) -> Waiting:
        """The client has ended the stream; so do we, after all that it sent before."""

    def fail(self, error: StreamError | None) -> None:
        """End the stream because of the client, and its session before that."""

    def close(self, error: StreamError | None) -> None:
        """End it from our side."""


Negotiator = Callable[[Any, Stanza], Waiting]
"""Takes a `Negotiable` and the element; StreamError ends the stream, which is not read while this waits."""
Offer = Callable[[Any], bytes]
"""The features for a `Negotiable`, serialised; b"" for none at the moment."""


@dataclass(frozen=True, slots=True)
class Row:
    """Who takes an element in a phase. With `exposed` also where TLS is required and not there yet."""

    phase: Phase
    element: str
    exposed: bool = False


@dataclass(frozen=True, slots=True)
class Feature:
    """That something is offered in a phase. With `exposed` also where TLS is required and not there yet;
    `alike`: see `offers`.
    """

    phase: Phase
    exposed: bool = False
    alike: bool = False


STANZAS: Final = frozenset(("message", "presence", "iq"))
ANY_IQ: Final = "iq"


def negotiates(phase: Phase, *elements: str, exposed: bool = False) -> Callable[[Method], Method]:
    """Marks the `Negotiator` of elements, named by Clark name, `iq_set_of`, or `ANY_IQ` for all other iqs.

    On a bound stream stanzas are not for rows but for the router.
    """

    def add(method: Method) -> Method:
        for name in elements:
            mark(method, Row(phase, name, exposed))
        return method

    return add


def offers(phase: Phase, *, exposed: bool = False, alike: bool = False) -> Callable[[Method], Method]:
    """Marks an `Offer`: features that are announced whenever the stream enters this phase. One that says the
    same to all streams that have TLS, or may begin it, is `alike` and asked only once, until anything is
    loaded or configured anew.
    """
    return lambda method: mark(method, Feature(phase, exposed, alike))


def iq_set_of(payload: str) -> str:
    """The name for `negotiates` of an iq set with this payload (a Clark name)."""
    return f"iq set {payload}"


Composed = tuple[tuple[bytes, ...], tuple[Offer, ...]]


@lru_cache(maxsize=64)
def _joined(pieces: tuple[bytes, ...], *between: bytes) -> bytes:
    """Nearly all streams are offered the same, and a kilobyte of memory is dear when all come at once."""
    parts = [part for pair in zip(pieces, between, strict=False) for part in pair]
    return b"".join([*parts, pieces[-1]])


class Rows:
    """The compiled table."""

    def __init__(self) -> None:
        self._rows: dict[tuple[Phase, str], tuple[Row, Negotiator]] = {}
        self._offers: dict[Phase, list[tuple[Feature, Offer]]] = {}
        self._known: frozenset[str] = frozenset()
        self._composed: dict[tuple[Phase, bool, bool, bool], Composed] = {}
        self.bound: dict[str, Negotiator] = {}
        """What may come on a bound stream besides stanzas."""

    def compile(self, owners: Iterable[object]) -> None:
        """Replace the table by the rows of these objects; ValueError when two claim the same, or one what is
        the router's.
        """
        rows: dict[tuple[Phase, str], tuple[Row, Negotiator]] = {}
        offered: dict[Phase, list[tuple[Feature, Offer]]] = {phase: [] for phase in Phase}
        for owner in owners:
            for method, row in marked(owner, Row):
                if row.phase is Phase.BOUND and row.element.partition(" ")[0] in STANZAS:
                    raise ValueError(f"on a bound stream nobody takes {row.element}")
                if (key := (row.phase, row.element)) in rows:
                    raise ValueError(f"two take {row.element} in the phase {row.phase.name}")
                rows[key] = row, method
            for method, feature in marked(owner, Feature):
                offered[feature.phase].append((feature, method))
        self._rows, self._offers = rows, offered
        self.forget()
        self._known = frozenset(name for _, name in rows)
        self.bound = {name: taker for (phase, name), (_, taker) in rows.items() if phase is Phase.BOUND}

    def features(self, stream: Negotiable, phase: Phase | None = None) -> bytes:
        """`<stream:features/>` for the phase of a stream (RFC 6120 4.3.2), or for one that it is about to
        enter.
        """
        link = stream.link
        kind = phase or stream.phase, stream.is_exposed, link.can_encrypt, link.secure
        composed = self._composed.get(kind)
        if composed is None:
            composed = self._composed[kind] = self._compose(stream, kind[0], exposed=kind[1])
        alike, offers = composed
        return _joined(alike, *[offer(stream) for offer in offers])

    def _compose(self, stream: Negotiable, phase: Phase, *, exposed: bool) -> Composed:
        """The features of all streams of a kind, and the offers that each is to be asked, one between every
        two pieces of these.
        """
        pieces: list[bytes] = []
        offers: list[Offer] = []
        alike = b"<stream:features>"
        for feature, offer in self._offers[phase]:
            if exposed and not feature.exposed:
                continue
            if feature.alike:
                alike += offer(stream)
            else:
                pieces.append(alike)
                offers.append(offer)
                alike = b""
        return (*pieces, alike + b"</stream:features>"), tuple(offers)

    def forget(self) -> None:
        """What is offered may be something else now."""
        self._composed.clear()

    def negotiator(self, stream: Negotiable, stanza: Stanza) -> Negotiator:
        """Who takes an element of a stream that is not bound; StreamError for what nobody does."""
        phase, name = stream.phase, stanza.kind
        found = self._rows.get((phase, name))
        if name == "iq" and stanza.type == "set":
            found = self._rows.get((phase, iq_set_of(stanza.payload)), found)
        if found is not None and (found[0].exposed or not stream.is_exposed):
            return found[1]
        raise self._unclaimed(name)

    def _unclaimed(self, name: str) -> StreamError:
        """Stanzas too early are not-authorized (RFC 6120 4.9.3.12), what is for another time breaks the
        policy, the rest is unsupported.
        """
        if name in STANZAS:
            return StreamError("not-authorized")
        if name in self._known:
            return StreamError("policy-violation", "This is not the time for it.")
        return StreamError("unsupported-stanza-type")
