"""A rolling restart: all nodes one after the other, each back and well before the next one goes.

It is done from outside, by whoever typed the command: so it outlives the node that it asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from xmppd.admin.commands import Description, Parameter
from xmppd.admin.nodes import PACE
from xmppd.errors import CommandError

WELL_SECONDS: Final = 10
"""How long a node has to be up before the next one is restarted."""

WAIT_SECONDS: Final = 120
"""How long a node may take to be so, once its sessions are gone."""

BEFORE_SECONDS: Final = 15
"""How long it is waited for all to be well before anything is done: one that was lost is on the list of nodes
for 10 s.
"""

LOOK_SECONDS: Final = 0.5

RESTART: Final = Description(
    "cluster restart",
    "Restart all nodes, one after the other",
    (
        Parameter("rolling", "bool", "each when the one before is back and well", option=True),
        Parameter(
            "pace",
            "int",
            "how many sessions are ended in a second",
            required=False,
            default=PACE,
            option=True,
        ),
        Parameter(
            "wait",
            "int",
            "seconds that a node may take to come back",
            required=False,
            default=WAIT_SECONDS,
            option=True,
        ),
        Parameter(
            "well",
            "int",
            "seconds that it has to be up before the next one goes",
            required=False,
            default=WELL_SECONDS,
            option=True,
        ),
    ),
)


class Rolling:
    """`call` runs a command in whatever server answers now, `say` tells a person how far it is."""

    def __init__(
        self,
        call: Callable[[str, Mapping[str, Any]], Any],
        say: Callable[[str], None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._call = call
        self._say = say
        self._clock = clock
        self._sleep = sleep
        self._done: list[Mapping[str, Any]] = []

    def run(self, pace: int, wait: float, well: float) -> list[Mapping[str, Any]]:
        """A row for each node that was restarted. CommandError when one is not well before, or does not come
        back: then the rest are left alone.
        """
        began, is_told = self._clock(), False
        while trouble := self._trouble():
            if self._clock() - began >= BEFORE_SECONDS:
                self._abort(trouble)
            if not is_told:
                is_told = True
                self._say(f"{trouble}: waits up to {BEFORE_SECONDS} s for that to change")
            self._sleep(LOOK_SECONDS)
        asked, *others = self._nodes().values()
        for row in (*others, asked):
            self._restart(row["node"], pace, wait, well)
        return self._done

    def _trouble(self) -> str:
        """What is wrong with a node; "": all are well."""
        for name, row in self._nodes().items():
            if not name:
                raise CommandError("this server is one alone, not a node of a cluster")
            if "problem" in row or row["state"] != "up":
                return f"{name} is not well ({row.get('problem', row.get('state'))})"
        return ""

    def _nodes(self) -> dict[str, Mapping[str, Any]]:
        """All nodes by name, first the one that is asked."""
        return {row.get("node", ""): row for row in self._call("node list", {})}

    def _restart(self, node: str, pace: int, wait: float, well: float) -> None:
        [gone] = self._call("node drain", {"node": node, "pace": pace, "restart": True})
        began = self._clock()
        self._say(f"{node}: drains, {gone['sessions']} sessions")
        end = began + gone["sessions"] / pace + wait
        while not self._is_well(node, well, self._clock() - began):
            if self._clock() >= end:
                self._abort(f"{node} did not come back within {wait:.0f} s")
            self._sleep(LOOK_SECONDS)
        seconds = round(self._clock() - began, 1)
        self._say(f"{node}: is back")
        self._done.append({"node": node, "sessions": gone["sessions"], "seconds": seconds})

    def _is_well(self, node: str, well: float, seconds: float) -> bool:
        """Whether it lives anew, begun within so many seconds, and has for a while."""
        try:
            row = self._nodes().get(node, {})
        except CommandError:  # this one is down itself
            return False
        return row.get("state") == "up" and well <= row["age_seconds"] < seconds

    def _abort(self, why: str) -> NoReturn:
        done = ", ".join(row["node"] for row in self._done) or "none"
        raise CommandError(f"{why}; restarted before: {done}; all others were left alone")
