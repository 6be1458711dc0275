"""By which software clients are connected, on whatever node, as far as they say it; none of it is proved."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from xmppd.core.sessions import Broadcast, Session, Sessions
from xmppd.everywhere import Everywhere
from xmppd.net.pace import Slice, breathe

_CAPS: Final = re.compile(rb"<(?:[^<>\s:]+:)?c\s[^<>]*['\"]http://jabber\.org/protocol/caps['\"][^<>]*>")
_NODE: Final = re.compile(rb"\snode\s*=\s*(?:'([^']*)'|\"([^\"]*)\")")

MOST_CHARACTERS: Final = 200
"""Of what a client says of itself."""
CALL: Final = "session clients"


class Software:
    """What is known of it on all nodes."""

    def __init__(self, sessions: Sessions, everywhere: Everywhere) -> None:
        self._sessions = sessions
        self._everywhere = everywhere
        everywhere.serve(CALL, self._here)

    async def whose(self, accounts: Collection[str], texts: Sequence[str]) -> set[str]:
        """Those of the accounts that have an available session by a client of which one of the texts is in a
        name. What a node does not say in time is not so.
        """
        cluster = self._everywhere.cluster
        here = {"accounts": [one for one in accounts if one in self._sessions.accounts], "texts": [*texts]}
        asked = [self._here(here)]
        if cluster is not None:
            by_node: dict[int, list[str]] = {}
            for account in accounts:
                for node in {place.node for place in cluster.mesh.places(account)}:
                    by_node.setdefault(node, []).append(account)
            asked += [
                cluster.calls.ask(cluster.mesh.member(node), CALL, {**here, "accounts": some})
                for node, some in by_node.items()
            ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return {row["account"] for rows in answers if not isinstance(rows, BaseException) for row in rows}

    async def _here(self, arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        rows = []
        slice = Slice()
        for account in arguments["accounts"]:
            sessions = [one for one in self._sessions.of(account) if one.presence is not None]
            if any(is_by(one, text) for one in sessions for text in arguments["texts"]):
                rows.append({"account": account})
            if slice.spent():
                await breathe()
                slice.begin()
        return rows


def is_by(session: Session, text: str) -> bool:
    """Whether these letters, large or small, are in a name of its client: of software, device, resource, or
    the node of its capabilities.
    """
    folded = text.casefold()
    return any(folded in name.casefold() for name in (*names_of(session), session.resource))


def names_of(session: Session) -> Iterator[str]:
    """What is known of its client's software, by what it says of itself: XEP-0388 2.3, XEP-0115."""
    agent = session.login.agent
    said = (agent.software, agent.device) if agent is not None else ()
    for name in (*said, caps_of(session.presence)):
        if name:
            yield name[:MOST_CHARACTERS]


def caps_of(presence: Broadcast | None) -> str:
    """The node of the entity capabilities in a presence."""
    found = None if presence is None else _CAPS.search(presence.tail)
    node = None if found is None else _NODE.search(found[0])
    return "" if node is None else html.unescape((node[1] or node[2] or b"").decode())[:MOST_CHARACTERS]
