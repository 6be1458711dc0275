"""What an operator may say about archives."""

from __future__ import annotations

from collections.abc import Mapping

from xmppd.plugin import NonNegativeFloat, PluginConfig, PositiveInt


class ArchiveConfig(PluginConfig):
    """`days`: how long messages are kept (0: for ever), in some `domains` others. `page`: how many a client
    is given that does not say, and `page_most` that does. `searches`: how often an account may search in a
    minute, on one node, and `searched`: how many messages are looked at for one page. `blocked`: what is
    refused since its receiver blocks its sender is in the archive of the latter all the same.
    """

    days: NonNegativeFloat = 0.0
    domains: Mapping[str, NonNegativeFloat] = {}
    page: PositiveInt = 50
    page_most: PositiveInt = 100
    searches: PositiveInt = 5
    searched: PositiveInt = 100_000
    blocked: bool = False
