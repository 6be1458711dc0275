"""Nodes of Cassandra that go and come back, told in the log."""

from __future__ import annotations

import logging
from typing import Any

from cassandra.policies import HostStateListener

log = logging.getLogger(__name__)


class Nodes(HostStateListener):  # type: ignore[misc]  # the driver has no types
    """Listens to a `Cluster`. Its methods are called by threads of the driver."""

    def on_up(self, host: Any) -> None:
        """A node answers again."""
        log.info("cassandra-node-up", extra={"address": str(host.endpoint)})

    def on_down(self, host: Any) -> None:
        """A node does not answer; the driver tries it every second from now on."""
        log.warning("cassandra-node-down", extra={"address": str(host.endpoint)})

    def on_add(self, host: Any) -> None:
        """A node has joined the cluster."""
        log.info("cassandra-node-added", extra={"address": str(host.endpoint)})

    def on_remove(self, host: Any) -> None:
        """A node has left the cluster."""
        log.info("cassandra-node-removed", extra={"address": str(host.endpoint)})
