"""What nodes tell each other: records, and frames of them, packed as MessagePack.

A record is an array whose first element is its tag. Accounts are bare JIDs in their normal form, numbers of
sessions are counted by the node they are on. A tag from `OPTIONAL` on may be skipped by who does not know it;
an array may have more elements than are known here. Nobody changes a record that was made.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from xmppd.core.brake import Counted
from xmppd.errors import TrunkError

OPTIONAL: Final = 1000
"""The first of the tags that may be skipped."""

TOP: Final = 0
ALL: Final = 1
FULL: Final = 2
ANYWAY: Final = 3
"""For whom a message is: sessions of the highest priority, all that are available, the one with this full
JID; whichever is addressed, though messages that may be kept are held back from it.
"""

Count = Annotated[int, Meta(ge=0)]
Number = Annotated[int, Meta(ge=0, lt=2**32)]
Priority = Annotated[int, Meta(ge=-128, le=127)] | None
"""None: bound, and not available."""
Resource = Annotated[str, Meta(min_length=1, max_length=1023)]


class Place(Struct, array_like=True, tag=1, frozen=True, gc=False):
    """A session was bound, became available or not, changed its priority, or whether it wants copies of
    messages (XEP-0280). `seen`: the last frame of the receiver that the sender had taken by then.
    """

    account: str
    resource: Resource
    priority: Priority
    number: Number
    seen: Count
    wants_copies: bool = False


class Gone(Struct, array_like=True, tag=2, frozen=True, gc=False):
    """A session ended."""

    account: str
    resource: Resource
    number: Number


class Snapshot(Struct, array_like=True, tag=3, frozen=True, gc=False):
    """Some of the sessions that are on the sender, as account, resource, priority and number; numbers of
    those that want copies of messages.
    """

    places: list[tuple[str, Resource, Priority, Number]]
    is_last: bool
    copied: list[Number] = []


class Presence(Struct, array_like=True, tag=4, frozen=True, gc=False):
    """A broadcast of `sender`, a full JID, for the sessions of these accounts: bytes before and behind their
    `to`. `is_end`: it is unavailable now; `is_moved`: it is expected elsewhere, as its node has to stop.
    `asks`: which sessions of these accounts may the sender see? Answered by `Shown`.
    """

    sender: str
    head: bytes
    tail: bytes
    is_end: bool
    receivers: list[str]
    is_moved: bool = False
    asks: bool = False


class Directed(Struct, array_like=True, tag=5, frozen=True, gc=False):
    """Presence to one address, bare or full (RFC 6121 4.6). `sender` is the full JID of whose availability or
    `is_end` it tells, "" where it tells of neither. `is_moved`: see `Presence`. `is_again`: it was
    sent before, and sessions that were shown it see it again, but none that has the name of such a one.
    """

    sender: str
    to: str
    raw: bytes
    is_end: bool
    is_moved: bool = False
    is_again: bool = False


class Probe(Struct, array_like=True, tag=6, frozen=True, gc=False):
    """Which sessions of these accounts may `viewer`, a full JID, see? Answered by `Shown`. `is_late`: it is
    known there only now that it may; who was shown to it for that reason is left out.
    """

    viewer: str
    accounts: list[str]
    is_late: bool = False


class Shown(Struct, array_like=True, tag=7, frozen=True, gc=False):
    """Presence for one session, `viewer`, a full JID: whole stanzas, and the full JIDs they are of, one a
    line. A stanza is empty where there is nothing to be seen. Of those that are
    `is_listed` the viewer's node has asked by his roster; others see him in theirs alone.
    """

    viewer: str
    names: str
    stanzas: list[bytes]
    is_listed: bool = True


class Ask(Struct, array_like=True, tag=8, frozen=True, gc=False):
    """How is the session `full` shown to `viewer`? Answered by `Shown`, or `Directed` where it sent that."""

    viewer: str
    full: str


class Have(Struct, array_like=True, tag=9, frozen=True, gc=False):
    """The sender has this full JID, too, or this one of a client that has another with the receiver. `stamp`:
    when it was bound, in ms of the wall clock, and the name of the node; `knew`: the number of the receiver's
    session it replaced, or 0.
    """

    account: str
    resource: Resource
    number: Number
    stamp: tuple[int, str]
    knew: Number


class Message(Struct, array_like=True, tag=10, frozen=True, gc=False):
    """A message of `sender`, a full JID. `mode` is TOP, ALL, FULL or ANYWAY; `id` is the trunk's."""

    id: int
    to: str
    sender: str
    mode: Annotated[int, Meta(ge=TOP, le=ANYWAY)]
    is_one_of_several: bool
    raw: bytes


class Iq(Struct, array_like=True, tag=11, frozen=True, gc=False):
    """An iq of `sender`, a full JID, to another; `id` is the trunk's."""

    id: int
    to: str
    sender: str
    raw: bytes


class Late(Struct, array_like=True, tag=12, frozen=True, gc=False):
    """Nobody took what was open with these ids."""

    ids: list[int]


class Settled(Struct, array_like=True, tag=13, frozen=True, gc=False):
    """What was open with these ids was taken, or is stored."""

    ids: list[int]


class Hint(Struct, array_like=True, tag=14, frozen=True, gc=False):
    """Something is stored for an account that has a session on the receiver."""

    account: str


class Stanza(Struct, array_like=True, tag=15, frozen=True, gc=False):
    """A stanza about subscriptions for the available sessions of an account, or those that asked for the
    roster.
    """

    account: str
    is_interested: bool
    raw: bytes


class Roster(Struct, array_like=True, tag=16, frozen=True, gc=False):
    """The roster of an account that has sessions on the receiver is at this version now."""

    account: str
    version: Count


class Words(Struct, array_like=True, tag=17, frozen=True, gc=False):
    """What the account said when it left is stored now, or that it said nothing."""

    account: str


class Signal(Struct, array_like=True, tag=18, frozen=True, gc=False):
    """What a plugin tells all nodes."""

    plugin: str
    method: str
    data: str


class Call(Struct, array_like=True, tag=19, frozen=True, gc=False):
    """A command of an operator; the arguments are JSON. Answered by `Reply`."""

    id: int
    name: str
    arguments: str


class Reply(Struct, array_like=True, tag=20, frozen=True, gc=False):
    """What a command gave: JSON, or why there is nothing."""

    id: int
    result: str
    error: str


class Bye(Struct, array_like=True, tag=21, frozen=True, gc=False):
    """The sender leaves; nothing comes behind this."""


class Sight(Struct, array_like=True, tag=OPTIONAL + 1, frozen=True, gc=False):
    """A plugin lets a follower see the sessions of an account that are on the receiver, or their end."""

    account: str
    viewer: str
    is_end: bool


class Guesses(Struct, array_like=True, tag=OPTIONAL, frozen=True, gc=False):
    """What was counted of who guesses passwords since the sender told it last; `is_all`: ever, for a node
    that came, each with the seconds since it was counted last.
    """

    counted: list[Counted]
    is_all: bool = False
    ages: list[float] = []


class Spent(Struct, array_like=True, tag=OPTIONAL + 2, frozen=True, gc=False):
    """One more of what a roster may have in a day: a new item, or an entry of its log; done by its owner or
    by others. Told to a node that came, it is `all` of them since then, in seconds since the epoch.
    """

    account: str
    is_logged: bool
    is_own: bool
    all: Count = 0
    since: float = 0.0


class Copy(Struct, array_like=True, tag=OPTIONAL + 3, frozen=True, gc=False):
    """Copies of a message of `sender`, a full JID, for the sessions of an account that want such (XEP-0280):
    bytes before and behind their `to`. `is_stored`: it was not delivered, but stored. `only`: for those who
    are in a room by one of these addresses.
    """

    account: str
    sender: str
    head: bytes
    tail: bytes
    is_stored: bool
    only: tuple[str, ...] = ()


class Running(Struct, array_like=True, tag=OPTIONAL + 4, frozen=True, gc=False):
    """The plugins at work on the sender, and those of them that went to work since it said so last."""

    plugins: list[str]
    anew: list[str]


class Doubted(Struct, array_like=True, tag=OPTIONAL + 5, frozen=True, gc=False):
    """An account was changed or removed, or may have been: whether its sessions may go on is in the store."""

    account: str


Record = (
    Place | Gone | Snapshot
    | Presence | Directed | Probe | Shown | Ask | Have
    | Message | Iq | Late | Settled | Hint
    | Stanza | Roster | Words
    | Signal | Call | Reply | Bye
    | Guesses | Sight | Spent | Copy | Running | Doubted
)  # fmt: skip


QUIET: Final[frozenset[type[Record]]] = frozenset((Place, Gone, Presence, Probe, Shown, Words))
"""Nobody waits until these are taken."""


class Frame(Struct, array_like=True, frozen=True, gc=False):
    """What goes out at once. `seq`: its number; not above 0: an acknowledgement alone, behind the frame of
    that number without its sign. `ack`: the last frame that was taken from the receiver. `missed`: what
    nobody took of what is acknowledged, by id, and why; `open`: what is not settled by being acknowledged.
    `time`: the last that the sender knew of of its hybrid clock (`xmppd.core.ids`).
    """

    seq: int
    ack: Count
    missed: list[tuple[int, str]]
    open: list[int]
    records: list[Record]
    time: Count = 0


class _Loose(Struct, array_like=True, frozen=True, gc=False):
    """A frame whose records are looked at one by one."""

    seq: int
    ack: Count
    missed: list[tuple[int, str]]
    open: list[int]
    records: list[msgspec.Raw]
    time: Count = 0


class _Tagged(Struct, array_like=True, frozen=True, gc=False):
    """The start of any record."""

    tag: int


REFUSALS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode
_decode_loose = msgspec.msgpack.Decoder(_Loose).decode
_decode_tagged = msgspec.msgpack.Decoder(_Tagged).decode
_records: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
_decode_record = _records.decode


def encode(frame: Frame) -> bytes:
    """A frame as it is sent: its length in 4 bytes, the highest first, and then the array."""
    packed = _encode(frame)
    return len(packed).to_bytes(4, "big") + packed


def decode(data: bytes | bytearray | memoryview) -> Frame:
    """The frame in what came behind a length. TrunkError: it is none, or has a record that must not be
    skipped.
    """
    try:
        return _decode(data)
    except REFUSALS:
        pass  # or it has a record that may be skipped
    try:
        return _decode_by_records(data)
    except REFUSALS as error:
        raise TrunkError(f"no frame: {error}") from error


def _decode_by_records(data: bytes | bytearray | memoryview) -> Frame:
    frame = _decode_loose(data)
    records = []
    for raw in frame.records:
        try:
            records.append(_decode_record(raw))
        except REFUSALS:
            if _decode_tagged(raw).tag < OPTIONAL:
                raise
    return Frame(frame.seq, frame.ack, frame.missed, frame.open, records, frame.time)
