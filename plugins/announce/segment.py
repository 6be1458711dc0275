"""Whom an announcement is for: a part of all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from zlib import crc32

from xmppd.plugin import CommandError, Jid, JidError, Plugin

MOST: Final = 10_000
"""Accounts that one announcement may name."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Of each kind of condition one has to hold, of those that are named. `everyone`: those too who are not
    online. `listed`: of accounts that were named; they are kept apart.
    """

    domains: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    everyone: bool = False
    listed: bool = False

    @classmethod
    def of_text(cls, text: str) -> Segment:
        """What `text` made of one."""
        data: dict[str, Any] = json.loads(text)
        return cls(**{name: tuple(it) if isinstance(it, list) else it for name, it in data.items()})

    @property
    def text(self) -> str:
        """For a row."""
        return json.dumps(asdict(self))

    @property
    def shown(self) -> str:
        """For people."""
        words = ["accounts that were named" if self.listed else "all" if self.everyone else "all online"]
        words += ["online or not"] if self.listed and self.everyone else []
        for about, values in (
            ("on", self.domains),
            ("called", [f"{prefix}*" for prefix in self.prefixes]),
            ("with", self.clients),
            ("at node", self.nodes),
        ):
            words += [f"{about} {' or '.join(values)}"] if values else []
        return ", ".join(words)

    def names(self, account: str) -> bool:
        """Whether an account may be meant by its address."""
        if self.domains and account.rpartition("@")[2] not in self.domains:
            return False
        return not self.prefixes or account.startswith(self.prefixes)

    async def present(self, plugin: Plugin, accounts: Iterable[str]) -> list[str]:
        """Those of the accounts who are meant by the sessions that they have now, in their order."""
        found = [
            one for one in accounts if not self.nodes or not nodes_of(plugin, one).isdisjoint(self.nodes)
        ]
        if not self.clients:
            return found
        those = await plugin.server.with_client(found, self.clients)
        return [one for one in found if one in those]


def nodes_of(plugin: Plugin, account: str) -> set[str]:
    """The nodes where an account has sessions."""
    server = plugin.server
    here = {server.node} if server.sessions(account) else set()
    return here.union(server.nodes_of(account))


def place_of(account: str) -> str:
    """Where an account stands in the order in which those online are told: one that costs little to make."""
    return f"{crc32(account.encode()) & 255:02x} {account}"


def accounts_in(texts: Iterable[str], domains: Iterable[str]) -> list[str]:
    """The accounts that were named, each once; CommandError. Empty texts are passed over."""
    found = dict[str, None]()
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        if len(found) >= MOST:
            raise CommandError(f"at most {MOST} accounts at once", field="accounts")
        try:
            jid = Jid.parse(text.strip())
        except JidError as error:
            raise CommandError(f"account {number}: {text.strip()!r} is no address: {error}") from None
        if not jid.local or jid.resource or jid.domain not in domains:
            raise CommandError(f"account {number}: {jid.full} is no account of this server")
        found[jid.bare] = None
    return list(found)


def checked(segment: Segment, domains: Iterable[str], nodes: Sequence[str]) -> Segment:
    """The segment itself; CommandError where nobody can be meant."""
    for domain in segment.domains:
        if domain not in domains:
            raise CommandError(f"{domain} is not a domain of this server", field="domain")
    for node in segment.nodes:
        if node not in nodes:
            raise CommandError(f"no node {node} is connected (`xmppd node list` shows them)", field="node")
    if segment.everyone and (segment.clients or segment.nodes):
        raise CommandError("who is not online has no client and no node: leave out --all", field="all")
    if "" in (*segment.prefixes, *segment.clients):
        raise CommandError("a prefix, or a part of a client's name, must not be empty")
    return segment
