"""An account of another server with all that it owns, as its source has it: nothing normalised, nothing cut.

XML is held as `Element` in Clark names, so that prefixes and quotes of the source are gone; a stanza and its
children are in `jabber:client`, whatever namespace the source gave them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.etree.ElementTree import Element

from xmppd.core.roster.subscription import Subscription


class Keys(NamedTuple):
    """What a server keeps of a password for one hash (RFC 5802 3), decoded: `salt` is what goes into Hi()."""

    salt: bytes
    iterations: int
    stored: bytes
    server: bytes


@dataclass(slots=True)
class Contact:
    """One contact of a roster: its address as written there, maybe with a resource.

    `subscription`, `ask` and `pending` are the nine states of RFC 6121 A.1; a request for what is granted
    already may be there and does not count. `name` is None where there is none. `request` is the whole
    presence stanza of a request that waits (`pending`), None where the source keeps no more than that there
    is one. `listed` is False for a contact that is nothing but a request: its owner never listed it.
    """

    jid: str
    subscription: Subscription = "none"
    ask: bool = False
    pending: bool = False
    approved: bool = False
    name: str | None = None
    groups: list[str] = field(default_factory=list)
    request: Element | None = None
    listed: bool = True


@dataclass(slots=True)
class Offline:
    """A message that waits, and when it was taken in, in seconds since the epoch (None: not known, or said by
    a `<delay/>` within that the server added).
    """

    message: Element
    at: float | None = None


@dataclass(slots=True)
class Account:
    """One account. `local` and `domain` are as stored there; `where` says where in the source it is.

    `password` is plain and a secret, `keys` are by hashlib's name of their hash (sha1, sha256, sha512 and so
    on). Neither: nobody can log in. `created`, `modified` (the last change of anything that the source can
    date) and `last` (the last logout) are in seconds since the epoch. `private` are XEP-0049 elements, each
    under its own name. `blocks` are addresses (XEP-0191), whoever they are. What the source has beside all
    this was told to `Losses`.
    """

    local: str
    domain: str
    where: str = ""
    password: str | None = field(default=None, repr=False)
    keys: dict[str, Keys] = field(default_factory=dict, repr=False)
    disabled: bool = False
    created: float | None = None
    modified: float | None = None
    last: float | None = None
    last_status: str = ""
    roster: list[Contact] = field(default_factory=list)
    vcard: Element | None = None
    private: list[Element] = field(default_factory=list)
    offline: list[Offline] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """`local@domain` as stored there."""
        return f"{self.local}@{self.domain}"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something that should have been an account and cannot be read: `name` is as much as is known of it."""

    name: str
    why: str
    where: str = ""


SAMPLES = 20
"""How many cases of one kind of loss are kept."""


@dataclass(slots=True)
class Loss:
    """So many cases of one kind, and the first of them as (account, detail)."""

    count: int = 0
    samples: list[tuple[str, str]] = field(default_factory=list)


class Losses:
    """What a source has and this server cannot take over, by kind: counted, and some of it shown.

    Kinds are short words that stay the same from run to run, such as `privacy-list`, `pep-node`.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, Loss] = {}

    def add(self, kind: str, account: str, detail: str = "", count: int = 1) -> None:
        """`count` cases of `account` ("" where it is nobody's); `detail` says which, and holds no secret."""
        loss = self.kinds.setdefault(kind, Loss())
        loss.count += count
        if len(loss.samples) < SAMPLES:
            loss.samples.append((account, detail[:200]))

    def summary(self) -> Mapping[str, int]:
        """How many of each kind."""
        return {kind: loss.count for kind, loss in sorted(self.kinds.items())}
