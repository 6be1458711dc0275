"""What a client may ask for together with its login by XEP-0388, and together with its resource by XEP-0386:
marks on methods, and the table they make.

An element of `<authenticate/>` is for one who `takes_inline`, one of the `<bind/>` in it for one who
`takes_at_bind`. What nobody takes is ignored, as both XEPs have it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from xmppd.marks import Method, mark, marked
from xmppd.stream.rows import Negotiable, Offer
from xmppd.stream.sasl import Channel, Login


class Granted(NamedTuple):
    """A login by XEP-0388 that succeeded, on this channel. `elements` are those of its `<authenticate/>` by
    Clark name (the first of a name), `shown` is what it was proved by (`Identity.shown`), `token` what
    the client is to be given in place of the token it was proved by (`Success.token`).
    """

    login: Login
    channel: Channel
    elements: Mapping[str, Element]
    shown: object = None
    token: object = None


class Attached(NamedTuple):
    """The stream is to be that of a session. `answer` goes into `<success/>`. `begin` makes the stream bound,
    and is given what has to be sent before anything else of the session.
    """

    session: Any
    answer: bytes
    begin: Callable[[Sequence[bytes]], None]


Answer = bytes | Attached
InlineTaker = Callable[[Any, Granted], Answer | Awaitable[Answer]]
"""Takes a `Negotiable` that has logged in, and all that came with that; what it answers in `<success/>`."""
BindTaker = Callable[[Any, Element | None], bytes | Awaitable[bytes]]
"""Takes a `Session` to which nothing was sent yet, and the element; what it answers in `<bound/>`."""


@dataclass(frozen=True, slots=True)
class _Inline:
    elements: frozenset[str]
    attaches: bool


@dataclass(frozen=True, slots=True)
class _InlineFeature:
    is_alike: bool


@dataclass(frozen=True, slots=True)
class _AtBind:
    element: str
    var: str


def takes_inline(*elements: str, attaches: bool = False) -> Callable[[Method], Method]:
    """Marks an `InlineTaker`, which is called once if one of these elements (Clark names) has come.

    Those that may return `Attached` say so by `attaches`: they are called after the others, in the order of
    their owners, until one of them did.
    """
    return lambda method: mark(method, _Inline(frozenset(elements), attaches))


def offers_inline(method: Method) -> Method:
    """Marks an `Offer` of what stands in the `<inline/>` of `<authentication/>`."""
    return mark(method, _InlineFeature(is_alike=False))


def offers_inline_alike(method: Method) -> Method:
    """The same for an offer that is asked only once for streams that have the same mechanisms and types of
    channel binding.
    """
    return mark(method, _InlineFeature(is_alike=True))


def takes_at_bind(element: str, var: str) -> Callable[[Method], Method]:
    """Marks a `BindTaker` of an element (its Clark name) in the `<bind/>` of XEP-0386, where it is announced
    as the feature `var` ("": not at all). With "" for the element it is called, with None, whenever a
    resource is bound so.
    """
    return lambda method: mark(method, _AtBind(element, var))


class Inlines:
    """The compiled table."""

    def __init__(self) -> None:
        self._takers: list[tuple[_Inline, InlineTaker]] = []
        self._offers: list[Offer] = []
        self._at_bind: list[tuple[_AtBind, BindTaker]] = []
        self._are_alike = False
        self._known: dict[tuple[tuple[str, ...], tuple[str, ...]], bytes] = {}
        self.vars: tuple[str, ...] = ()
        """The features that can be had with a resource."""

    def compile(self, owners: Iterable[object]) -> None:
        """Replace the table by what these objects bring; ValueError when two take the same element."""
        takers: list[tuple[_Inline, InlineTaker]] = []
        offers: list[Offer] = []
        at_bind: list[tuple[_AtBind, BindTaker]] = []
        are_alike = True
        for owner in owners:
            takers += [(taken, method) for method, taken in marked(owner, _Inline)]
            for method, feature in marked(owner, _InlineFeature):
                offers.append(method)
                are_alike = are_alike and feature.is_alike
            at_bind += [(taken, method) for method, taken in marked(owner, _AtBind)]
        _check_names(name for taken, _ in takers for name in taken.elements)
        _check_names(taken.element for taken, _ in at_bind if taken.element)
        takers.sort(key=lambda taker: taker[0].attaches)
        self._takers, self._offers, self._at_bind = takers, offers, at_bind
        self._are_alike, self._known = are_alike, {}
        self.vars = tuple(dict.fromkeys(taken.var for taken, _ in at_bind if taken.var))

    def features(self, stream: Negotiable, channel: Channel) -> bytes:
        """What is offered to a stream with its login on this channel."""
        kind = channel.offered, tuple(channel.bindings)
        features = self._known.get(kind)
        if features is None:
            features = b"".join([offer(stream) for offer in self._offers])
            if self._are_alike:
                self._known[kind] = features
        return features

    def takers(self, elements: Mapping[str, Element]) -> list[tuple[bool, InlineTaker]]:
        """Who takes any of these elements, in order, each with whether it may attach the stream."""
        return [
            (taken.attaches, method)
            for taken, method in self._takers
            if not taken.elements.isdisjoint(elements)
        ]

    def at_bind(self, bind: Element) -> list[tuple[BindTaker, Element | None]]:
        """Who takes an element of a `<bind/>`, in order, each with the element."""
        found: list[tuple[BindTaker, Element | None]] = []
        for taken, method in self._at_bind:
            element = bind.find(taken.element) if taken.element else None
            if element is not None or not taken.element:
                found.append((method, element))
        return found


def _check_names(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"two take {name} together with a login")
        seen.add(name)
