"""Settings of the plugin."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from xmppd.plugin import PluginConfig, PositiveFloat, PositiveInt, at_least, at_most


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"must be a network as 10.0.0.0/8 ({error})") from None


class WebhooksConfig(PluginConfig):
    """`allowed`: networks besides public addresses that receivers may be in; only there plain HTTP is
    allowed, too. `seconds`: how long a receiver may take; `ca_file`: whose certificates it may have in place
    of the system's. `batch` events or `batch_bytes` are sent at once, `parallel` requests of a subscription
    at a time, and one with fewer no sooner than `gather` seconds after the last.
    A refused event is sent again after `pause` seconds, then twice as long, up to `pause_most`;
    after `attempts`, or when it is `give_up_hours` old, it is a dead letter, for `dead_days`, up to
    `dead_letters` of a subscription. `open_after`: so many requests that fail in a row open the circuit. A
    subscription may have `waiting` events or `waiting_bytes` of each process undelivered, for `keep_days`;
    beyond are lost. `rotate_hours`: how long an old key signs, too. `subscriptions`: how many there may be.
    `settle`: where there are several nodes events wait so many seconds for older ones of others. `lease`
    seconds after a node died another one delivers.
    """

    allowed: tuple[Annotated[str, _network], ...] = ()
    seconds: PositiveFloat = 10.0
    ca_file: str = ""
    batch: Annotated[PositiveInt, at_most(1000)] = 100
    batch_bytes: Annotated[PositiveInt, at_most(4_194_304)] = 262_144
    parallel: Annotated[PositiveInt, at_most(32)] = 4
    gather: Annotated[float, at_least(0), at_most(10)] = 0.05
    pause: PositiveFloat = 0.5
    pause_most: PositiveFloat = 300.0
    attempts: PositiveInt = 12
    give_up_hours: PositiveFloat = 24.0
    dead_days: Annotated[PositiveInt, at_most(365)] = 30
    dead_letters: PositiveInt = 10_000
    open_after: PositiveInt = 5
    waiting: PositiveInt = 100_000
    waiting_bytes: PositiveInt = 67_108_864
    keep_days: Annotated[PositiveFloat, at_most(365)] = 7.0
    rotate_hours: PositiveFloat = 24.0
    subscriptions: Annotated[PositiveInt, at_most(100)] = 50
    settle: PositiveFloat = 0.25
    lease: PositiveFloat = 10.0
