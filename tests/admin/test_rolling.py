"""All nodes are restarted one after the other, and the rest are left alone when one does not come back."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from xmppd.admin.rolling import Rolling
from xmppd.errors import CommandError


class Nodes:
    """Nodes in a time of their own: each is away for `away` seconds when it is restarted. The first is asked,
    and nobody answers while it is away.
    """

    def __init__(self, *names: str, away: float = 5.0) -> None:
        self.now = 1000.0
        self.began = dict.fromkeys(names, 0.0)
        self.away = dict.fromkeys(names, away)
        self.broken: dict[str, Mapping[str, Any]] = {}
        self.drained: list[tuple[str, float]] = []
        self.said: list[str] = []

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        names = [*self.began]
        if self.now < self.began[names[0]]:
            raise CommandError("nobody answers")
        if name == "node drain":
            node = arguments["node"]
            assert arguments == {"node": node, "pace": 100, "restart": True}
            self.drained.append((node, self.now))
            self.began[node] = self.now + self.away[node]
            return [{"node": node, "sessions": 200}]
        assert name == "node list"
        rows = [
            {"node": node, "state": "up", "age_seconds": self.now - began}
            for node, began in self.began.items()
            if began <= self.now
        ]
        return [{**row, **self.broken.get(row["node"], {})} for row in rows]

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self, well: float = 10.0) -> list[Mapping[str, Any]]:
        return Rolling(self.call, self.said.append, lambda: self.now, self.sleep).run(100, 60, well)


@pytest.mark.parametrize("well", [2.0, 10.0])
def test_each_is_back_and_well_before_the_next_one_goes(well: float) -> None:
    nodes = Nodes("asked", "b", "c")
    rows = nodes.run(well)
    assert [row["node"] for row in rows] == ["b", "c", "asked"]
    times = [at for _, at in nodes.drained]
    for gone, next_gone in pairwise(times):
        assert 5 + well <= next_gone - gone < 5 + well + 1, "away, and then up"
    assert nodes.said == [
        line for node in ("b", "c", "asked") for line in (f"{node}: drains, 200 sessions", f"{node}: is back")
    ]


def test_the_rest_are_left_alone_when_one_does_not_come_back() -> None:
    nodes = Nodes("asked", "b", "c")
    nodes.away["c"] = 1e9
    with pytest.raises(
        CommandError, match=r"c did not come back within 60 s; restarted before: b; all others"
    ):
        nodes.run()
    assert [node for node, _ in nodes.drained] == ["b", "c"]
    assert nodes.now < 1000 + 20 + 2 + 60 + 2


@pytest.mark.parametrize("wrong", [{"state": "draining"}, {"problem": "it is silent"}])
def test_nothing_is_done_where_one_is_not_well(wrong: Mapping[str, Any]) -> None:
    nodes = Nodes("asked", "b")
    nodes.broken["b"] = wrong
    with pytest.raises(CommandError, match="b is not well"):
        nodes.run()
    assert nodes.drained == []
    assert nodes.now == 1015.0


def test_one_that_was_lost_just_now_is_waited_for() -> None:
    nodes = Nodes("asked", "b", "lost")
    nodes.broken["lost"] = {"problem": "asked is not connected to it"}
    forget = nodes.sleep

    def sleep(seconds: float) -> None:
        forget(seconds)
        if nodes.now >= 1010 and "lost" in nodes.began:
            del nodes.began["lost"]

    nodes.sleep = sleep  # type: ignore[method-assign]
    assert [row["node"] for row in nodes.run()] == ["b", "asked"]
    assert "lost is not well (asked is not connected to it): waits up to 15 s" in nodes.said[0]


def test_a_server_alone_is_no_cluster() -> None:
    with pytest.raises(CommandError, match="not a node of a cluster"):
        Rolling(lambda name, arguments: [{"state": "up"}], print, lambda: 0.0, lambda seconds: None).run(
            1, 1, 1
        )
