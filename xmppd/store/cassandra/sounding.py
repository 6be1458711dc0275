"""How each node of Cassandra answers, and what time it has."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

from cassandra.cluster import Session
from cassandra.pool import Host

from xmppd.errors import StoreError
from xmppd.store.cassandra.link import Link
from xmppd.store.table import Sounding

MOST = 32
"""So many nodes are asked."""

SECONDS = 2.0
"""How long one may take."""

_EPOCH = datetime(1970, 1, 1)
_ASK = "SELECT toTimestamp(now()) FROM system.local"


async def sounded(link: Link) -> list[Sounding]:
    """One line for each node, in the order of their addresses; StoreUnavailable when not connected."""
    hosts = sorted(link.cluster.metadata.all_hosts(), key=lambda host: str(host.endpoint))[:MOST]
    return [*await asyncio.gather(*(_ask(link, host) for host in hosts))]


async def _ask(link: Link, host: Host) -> Sounding:
    name = f"Cassandra {host.endpoint}"
    if not host.is_up:
        return Sounding(name, problem="it is down, as far as the driver knows")
    try:
        seconds, middle, theirs = await link.in_thread(lambda session: _asked(session, host))
    except StoreError as error:
        return Sounding(name, problem=str(error) or type(error).__name__)
    return Sounding(name, seconds, theirs - middle)


def _asked(session: Session, host: Any) -> tuple[float, float, float]:
    """How long it took, and in the middle of that: our time, and theirs. The second of two answers, since
    the first may have to connect.
    """
    for _ in range(2):
        started, since = time.time(), time.perf_counter()
        [(moment,)] = session.execute(_ASK, timeout=SECONDS, host=host)
        seconds = time.perf_counter() - since
    theirs = (moment - _EPOCH).total_seconds()
    return seconds, started + seconds / 2, theirs
