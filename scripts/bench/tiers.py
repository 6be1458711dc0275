"""What a login costs on each engine, by what the server and its cache remember of the account.

The contacts of all who log in are away, so a login is what it reads and nothing that it tells others; each
account's contacts are its own, so that no account finds anything that another one left in memory.
"""

import contextlib
import json
import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cassandra.cluster import Cluster
from scenarios import COLD, SQLITE, TIERS, WARM, Tiered
from servers import HERE, Bench, Running, Server, say

from engines import Engines

HEAP = 512
TTL = 3600


@dataclass(frozen=True, slots=True)
class Places:
    """Where the engines are, and what is ours there."""

    points: list[tuple[str, int]]
    redis: str
    name: str

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """What the configuration says on each tier."""
        contact_points = [f"{host}:{port}" for host, port in self.points]
        cassandra = {"contact_points": contact_points, "keyspace": self.name, "request_timeout": 20}
        store = {"store": {"engine": "cassandra", "cassandra": cassandra}}
        cache = {"cache": {"redis": self.redis, "prefix": self.name, "ttl": TTL}}
        return {SQLITE: {}, COLD: store, WARM: {**store, **cache}}

    def drop(self) -> None:
        """Delete what is ours; the cached rosters end by themselves."""
        cluster = Cluster(self.points)
        cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {self.name}", timeout=60)
        cluster.shutdown()


@contextlib.contextmanager
def places(folder: Path) -> Iterator[Places]:
    """The engines that the environment names, else own ones that are gone afterwards."""
    name = f"xmppd_bench_{uuid.uuid4().hex[:8]}"
    if named := os.environ.get("XMPPD_TEST_CASSANDRA"):
        pairs = [point.rpartition(":") for point in named.split(",")]
        found = Places([(host, int(port)) for host, _, port in pairs], os.environ["XMPPD_TEST_REDIS"], name)
        try:
            yield found
        finally:
            found.drop()
        return
    engines = Engines(folder / "engines", 1, heap=HEAP, tied=True)
    engines.start()
    try:
        yield Places(engines.contact_points, engines.redis_url, name)
    finally:
        engines.remove()


def seed_on_cassandra(folder: Path, where: Places, port: int, accounts: int) -> Path:
    """A data folder whose store is in Cassandra, with so many accounts in it."""
    seed = folder / "cassandra" / "seed"
    seed.mkdir(parents=True)
    write_engines(seed, where.settings[COLD])
    command = [HERE / "seed", seed, str(port), "localhost", str(accounts), ""]
    subprocess.run(command, check=True, timeout=600, stdout=subprocess.DEVNULL)
    return seed


def write_engines(folder: Path, settings: Mapping[str, Any]) -> None:
    """Have the server of a data folder use these engines."""
    lines = [f"{section}: {json.dumps(values)}\n" for section, values in settings.items()]
    (folder / "engines.yaml").write_text("".join(lines))


class Logins:
    """Seeds the engines once, and measures logins as often as asked."""

    def __init__(
        self, bench: Bench, server: Server, folder: Path, where: Places, cases: Sequence[Tiered]
    ) -> None:
        self._bench = bench
        self._server = server
        self._cases = cases
        self._seeds = {tier: folder / str(number) / "seed" for number, tier in enumerate(where.settings)}
        for tier, settings in where.settings.items():
            self._seeds[tier].mkdir(parents=True)
            write_engines(self._seeds[tier], settings)
            if tier != WARM:  # which shares the keyspace
                self._fill(self._seeds[tier])
                say(f"seeded {tier.partition(' ')[0]}")

    def _fill(self, seed: Path) -> None:
        last = max(case.first + case.accounts for case in self._cases)
        rings = ",".join(case.ring for case in self._cases)
        command = [HERE / "seed", seed, str(self._server.port), "localhost", str(last), rings]
        subprocess.run(command, check=True, timeout=600, stdout=subprocess.DEVNULL)

    def measure(self, *, backwards: bool) -> Iterator[dict[str, Any]]:
        """Rows of one round."""
        for case in self._cases:
            yield from self._measure(case, backwards=backwards)

    def _measure(self, case: Tiered, *, backwards: bool) -> Iterator[dict[str, Any]]:
        for tier in TIERS[:: -1 if backwards else 1]:
            if tier == WARM:
                with self._fresh(tier) as earlier:
                    self._bench.measure(earlier, case.arguments)
            with self._fresh(tier) as running:
                found = self._bench.measure(running, case.arguments)
            if found is not None:
                yield {**found, "key": case.key, "tier": tier}

    def _fresh(self, tier: str) -> contextlib.AbstractContextManager[Running]:
        return self._bench.fresh(self._server, self._seeds[tier], "bare")
