"""What was said before somebody was reported, as the server saw it: who reports sends no text of it, and
nobody can change it later without that being seen.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from xmppd import ns
from xmppd.plugin import Lru, Stanza

BODY: Final = f"{{{ns.CLIENT}}}body"
KEPT: Final = 20
"""Messages that are remembered of one account on one node, where no archive has them."""
ACCOUNTS: Final = 20_000
CHARACTERS: Final = 1_000
"""Of one message."""


class Line(NamedTuple):
    """One message: when it was sent, in seconds since the epoch, by whom to whom (full JIDs as they were
    written), what it says, and its id where an archive has it. `source`: "archive" or "memory".
    """

    at: float
    sender: str
    to: str
    text: str
    id: str
    source: str


Said = tuple[float, bytes | tuple[str, str, str]]
"""When by the clock that never jumps, and a short message as it is passed on; or by whom, to whom, and so
many characters of what.
"""


class Memory:
    """The last messages that accounts of this node sent, for who has no archive."""

    def __init__(self) -> None:
        self._said: Lru[str, deque[Said]] = Lru(ACCOUNTS)

    def of(self, account: str) -> deque[Said]:
        """Those of one account, to add another one to: at hand for a moment, they may be forgotten here."""
        said = self._said.get(account)
        if said is None:
            said = deque(maxlen=KEPT)
            self._said.put(account, said)
        return said

    def between(self, one: str, other: str, since: float) -> list[Line]:
        """What these two said to each other, as far as it was sent here. `since` is when the clock that never
        jumps was at 0, in seconds since the epoch.
        """
        lines = [
            (peer, line_in(since + at, said))
            for account, peer in ((one, other), (other, one))
            for at, said in self._said.get(account) or ()
        ]
        return [line for peer, line in lines if line.to.partition("/")[0] == peer]

    def forget(self, account: str) -> None:
        """It is gone, or has another name."""
        if (said := self._said.get(account)) is not None:
            said.clear()
            self._said.drop(account)


def line_in(at: float, said: bytes | tuple[str, str, str]) -> Line:
    """One of a memory."""
    if isinstance(said, bytes):
        return line_of(at, "", said)._replace(source="memory")
    return Line(at, *said, "", "memory")


def line_of(at: float, id: str, raw: bytes) -> Line:
    """One of an archive."""
    tree = Stanza("message", {}, raw).xml
    text = (tree.findtext(BODY) or "")[:CHARACTERS]
    return Line(at, tree.get("from", ""), tree.get("to", ""), text, id, "archive")


def joined(lines: Iterable[Line], most: int) -> list[Line]:
    """The last of them in their order, each once: what an archive has is not taken from a memory."""
    found: dict[tuple[str, str, str], Line] = {}
    for line in sorted(lines, key=lambda it: it.source):
        found.setdefault((line.sender, line.to.partition("/")[0], line.text), line)
    return sorted(found.values(), key=lambda it: it.at)[-most:]


def text_of(lines: Sequence[Line]) -> str:
    """As it is kept."""
    return json.dumps(lines, ensure_ascii=False, separators=(",", ":"))


def lines_from(text: str) -> list[Line]:
    """Those that were kept."""
    return [Line(*line) for line in json.loads(text)]


def seal(key: bytes, case: Mapping[str, Any], evidence: str) -> str:
    """What nobody can make who does not know the key: over the evidence, and whose and whom it is about."""
    about = [case["id"], case["account"], case["reported"], case["kind"], evidence]
    text = json.dumps(about, ensure_ascii=False, separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def is_genuine(key: bytes, case: Mapping[str, Any], evidence: str, sealed: str) -> bool:
    """Whether it is as it was sealed."""
    return hmac.compare_digest(seal(key, case, evidence), sealed)
