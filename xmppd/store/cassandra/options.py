"""What the store on Cassandra has to be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Compaction = Mapping[str, str]
"""The options of a compaction strategy as CQL has them, `class` among them."""


@dataclass(frozen=True, slots=True)
class CassandraOptions:
    """Where the cluster is, and how it is used. Times are seconds.

    `replication`: data centre -> copies, for a keyspace that is not there yet; empty: up to 3 in `local_dc`.
    `in_flight`: requests under way at once; `waiting`: how many more may wait. `migrate`: make and extend
    tables when opened, or only check them.
    """

    contact_points: tuple[tuple[str, int], ...] = (("127.0.0.1", 9042),)
    keyspace: str = "xmppd"
    local_dc: str = "datacenter1"
    replication: Mapping[str, int] = field(default_factory=dict)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_check_host_name: bool = True
    connect_timeout: float = 5.0
    request_timeout: float = 5.0
    in_flight: int = 512
    waiting: int = 4096
    migrate: Literal["auto", "check"] = "auto"
    compaction: Compaction | None = None
    compaction_expiring: Compaction | None = None
    compaction_tables: Mapping[str, Compaction] = field(default_factory=dict)
