"""Settings of the plugin."""

from __future__ import annotations

from typing import Annotated

from xmppd.plugin import NonNegativeFloat, PluginConfig, PositiveFloat, PositiveInt, at_most


class GameEventsConfig(PluginConfig):
    """`keep_hours`: how long the last version of a resource is kept for a player who is away; `resources`:
    how many a player is shown at a login, the last ones. `payload_bytes` of one event. `rate`: recipients a
    second on each node, all callers together (0: no limit), `burst` at once. `answer` seconds are waited for
    what other nodes reached. `members`: players of a group.
    """

    keep_hours: Annotated[PositiveFloat, at_most(24 * 365)] = 24.0
    resources: Annotated[PositiveInt, at_most(1000)] = 100
    payload_bytes: Annotated[PositiveInt, at_most(65_536)] = 4_096
    rate: NonNegativeFloat = 50_000.0
    burst: PositiveInt = 100_000
    answer: PositiveFloat = 2.0
    members: Annotated[PositiveInt, at_most(10_000)] = 10_000
