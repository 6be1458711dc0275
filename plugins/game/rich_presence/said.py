"""What is shown of what a session says of its games."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from xmppd import ns
from xmppd.plugin import element, escape_attribute, serialize

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
    about as JSON and signed (b"": no key), and which accounts are in the party; of two the newer one has the
    larger version.
    """

    fields: str = ""
    claims: str = ""
    signature: str = ""
    party: tuple[str, ...] = ()
    version: int = 0


NOTHING: Final = Sure()
Part = Mapping[str, Any]
"""What a session says of one game: `state` as JSON, `since` when (a stamp), and where it may be joined
`secret` and `for`, the policy.
"""


def game_of(id: str, part: Part, sure: Sure) -> str:
    """A part as all who see it are shown it, never the secret. It is shown by the thousand: text is escaped
    as attributes are, which is right anywhere.
    """
    state, name = escape_attribute(part["state"]), escape_attribute(id)
    found = f"<game id='{name}' since='{part['since']}'><state>{state}</state>"
    if sure.claims:
        signature = f" signature='{escape_attribute(sure.signature)}'" if sure.signature else ""
        found += f"<sure{signature}>{escape_attribute(sure.claims)}</sure>"
    if "secret" in part:
        found += f"<join for='{part['for']}'/>"
    return f"{found}</game>"


@cache
def gaming_of(name: str, uri: str) -> bytes:
    """The same for standard clients (XEP-0196). Names are those of the configuration."""
    children = [element(f"{{{ns.GAMING}}}name", None, name)]
    if uri:
        children.append(element(f"{{{ns.GAMING}}}uri", None, uri))
    return serialize(element(f"{{{ns.GAMING}}}game", None, *children))


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
    known = [id for id in parts if id in games]
    if not known:
        return EMPTY
    whole = "".join([game_of(id, parts[id], sure[id]) for id in known])
    shown = [f"<games xmlns='{NS}'>{whole}</games>".encode()]
    status = show = b""
    for id in known:
        game = games[id]
        shown.append(gaming_of(game.name or id, game.uri))
        if text := parts[id].get("status"):
            status = f"<status>{escape_attribute(text)}</status>".encode()
        show = f"<show>{game.show}</show>".encode() if game.show else b""
    return Annex(b"".join(shown), status, show)
