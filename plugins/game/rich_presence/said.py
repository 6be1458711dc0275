"""What is shown of what a session says of its games."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from xmppd import ns
from xmppd.plugin import Element, element, serialize

from .config import Game

NS: Final = "urn:xmppd:rich-presence:0"
GAMES: Final = f"{{{NS}}}games"
GAME: Final = f"{{{NS}}}game"
STATE: Final = f"{{{NS}}}state"
SURE: Final = f"{{{NS}}}sure"
JOIN: Final = f"{{{NS}}}join"
STATUS_CHARACTERS: Final = 200

_FIELD: Final = re.compile(r"\{([\w./-]+)\}")


class Sure(NamedTuple):
    """What the back end says of an account and a game: its fields as JSON, the same with whom and what it is
    about as JSON and signed (b"": no key), and which accounts are in the party.
    """

    fields: str = ""
    claims: str = ""
    signature: str = ""
    party: tuple[str, ...] = ()


NOTHING: Final = Sure()
Part = Mapping[str, Any]
"""What a session says of one game: `state` as JSON, `since` (seconds since the epoch), and where it may be
joined `secret` and `for`, the policy.
"""


def game_of(id: str, part: Part, sure: Sure) -> Element:
    """A part as all who see it are shown it: never the secret."""
    since = datetime.fromtimestamp(int(part["since"]), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    tree = element(GAME, {"id": id, "since": since}, element(STATE, None, part["state"]))
    if sure.claims:
        attrs = {"signature": sure.signature} if sure.signature else {}
        tree.append(element(SURE, attrs, sure.claims))
    if part.get("secret"):
        tree.append(element(JOIN, {"for": part["for"]}))
    return tree


def gaming_of(id: str, game: Game) -> Element:
    """The same for standard clients (XEP-0196)."""
    children = [element(f"{{{ns.GAMING}}}name", None, game.name or id)]
    if game.uri:
        children.append(element(f"{{{ns.GAMING}}}uri", None, game.uri))
    return element(f"{{{ns.GAMING}}}game", None, *children)


def status_of(game: Game, values: Mapping[str, Any]) -> str:
    """What standard clients show of it."""

    def value(found: re.Match[str]) -> str:
        here: Any = values
        for name in found[1].split("."):
            here = here.get(name) if isinstance(here, dict) else None
        return "" if here is None or isinstance(here, dict | list) else str(here)

    return " ".join(_FIELD.sub(value, game.status).split())[:STATUS_CHARACTERS]


class Annex(NamedTuple):
    """What a session's presence has besides what it says itself: `games`, and `status` and `show` where it
    has none.
    """

    games: bytes = b""
    status: bytes = b""
    show: bytes = b""

    def beside(self, said: bytes) -> bytes:
        """What is added to a presence, of which `said` is what stands in it."""
        if not self.games:
            return b""
        found = self.games
        if self.status and said.find(b"<status") < 0:
            found += self.status
        if self.show and said.find(b"<show") < 0:
            found += self.show
        return found


EMPTY: Final = Annex()


def annex_of(parts: Mapping[str, Part], games: Mapping[str, Game], sure: Mapping[str, Sure]) -> Annex:
    """What is shown of all parts of a session. Those of games that are configured no more are left out."""
    known = {id: part for id, part in parts.items() if id in games}
    if not known:
        return EMPTY
    whole = element(GAMES, None, *(game_of(id, part, sure.get(id, NOTHING)) for id, part in known.items()))
    shown = [serialize(whole), *(serialize(gaming_of(id, games[id])) for id in known)]
    last = games[next(reversed(known))]
    status = next((part["status"] for part in reversed(known.values()) if part.get("status")), "")
    return Annex(
        b"".join(shown),
        serialize(element(f"{{{ns.CLIENT}}}status", None, status)) if status else b"",
        serialize(element(f"{{{ns.CLIENT}}}show", None, last.show)) if last.show else b"",
    )
