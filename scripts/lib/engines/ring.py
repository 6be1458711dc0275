"""Whether the nodes of a ring know each other."""

import time
from collections.abc import Sequence

from cassandra import ConsistencyLevel, DriverException, OperationTimedOut
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
from cassandra.policies import WhiteListRoundRobinPolicy

from engines.errors import EngineError

LEVELS = {2: ConsistencyLevel.TWO, 3: ConsistencyLevel.ALL}
"""What a coordinator agrees to only if it takes so many replicas for alive."""
QUERY = "SELECT * FROM system_distributed.view_build_status LIMIT 1"
"""Of a keyspace that has three replicas from the start."""


def wait_until_agreed(nodes: Sequence[tuple[str, int]], patience: float) -> None:
    """Return when each of the nodes, all up and of a ring of three, takes all of them for alive.

    An open port does not say so: gossip takes a second or two more. `patience` is in seconds.
    """
    if len(nodes) not in LEVELS:
        return
    deadline = time.monotonic() + patience
    for host, port in nodes:
        profile = ExecutionProfile(
            WhiteListRoundRobinPolicy([host]), consistency_level=LEVELS[len(nodes)], request_timeout=5.0
        )
        while not _agrees(host, port, profile):
            if time.monotonic() > deadline:
                raise EngineError(f"the node {host} does not find the others")
            time.sleep(0.1)


def _agrees(host: str, port: int, profile: ExecutionProfile) -> bool:
    cluster = Cluster(
        [host], port=port, protocol_version=5, execution_profiles={EXEC_PROFILE_DEFAULT: profile}
    )
    try:
        cluster.connect().execute(QUERY)
    except (DriverException, OperationTimedOut, NoHostAvailable):
        return False
    finally:
        cluster.shutdown()
    return True
