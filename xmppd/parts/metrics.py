"""Numbers for operators: what `xmppd status` shows of plugins, and what measures are read from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from xmppd.core.tally import SECONDS, Spread
from xmppd.parts.part import Part

if TYPE_CHECKING:
    from xmppd.server import Server

MOST_BUCKETS: Final = 32


class Metric(Part):
    """A number with a name, `<plugin>_<attribute>`, and a sentence about it. It goes on over reloads."""

    kind: ClassVar[str]

    def __init__(self, help: str) -> None:
        self.help = help

    def bind(self, plugin: str, attribute: str, server: Server) -> Self:
        """The one of this name that the server has, unless it was declared otherwise before."""
        name = f"{plugin}_{attribute}"
        found = server.metrics.get(name)
        if not (isinstance(found, type(self)) and self.goes_on(found)):
            found = server.metrics[name] = self.fresh()
        found.help = self.help
        return found

    def fresh(self) -> Self:
        """One that has counted nothing."""
        return type(self)(self.help)

    def goes_on(self, before: Self) -> bool:
        """Whether what was counted by `before` means the same."""
        return True

    @property
    def shown(self) -> Any:
        """What operators are shown: plain data."""
        raise NotImplementedError


class Counter(Metric):
    """A number that only rises."""

    kind = "counter"

    def __init__(self, help: str) -> None:
        super().__init__(help)
        self.value = 0

    def inc(self, by: int = 1) -> None:
        """Count."""
        self.value += by

    @property
    def shown(self) -> int:
        """Its value."""
        return self.value


class Gauge(Metric):
    """A number that rises and falls: how much there is of something."""

    kind = "gauge"

    def __init__(self, help: str) -> None:
        super().__init__(help)
        self.value: float = 0

    def set(self, value: float) -> None:
        """There is so much now."""
        self.value = value

    def inc(self, by: float = 1) -> None:
        """There is more, or by a negative number less."""
        self.value += by

    @property
    def shown(self) -> float:
        """Its value."""
        return self.value


class Histogram(Metric, Spread):
    """How values are spread: how many there were up to each of the `buckets`, in all, and their sum.

    `buckets` are upper bounds that rise, at most 32, unless told for times; ValueError for others.
    """

    kind = "histogram"

    def __init__(self, help: str, buckets: Sequence[float] = SECONDS) -> None:
        Metric.__init__(self, help)
        Spread.__init__(self, buckets)
        if not 0 < len(self.buckets) <= MOST_BUCKETS or list(self.buckets) != sorted(set(self.buckets)):
            raise ValueError(f"buckets are 1 to {MOST_BUCKETS} numbers, each greater than the one before")

    def fresh(self) -> Self:
        """One with the same buckets, and nothing in them."""
        return type(self)(self.help, self.buckets)

    def goes_on(self, before: Self) -> bool:
        """Whether the buckets are the same."""
        return self.buckets == before.buckets

    @property
    def shown(self) -> dict[str, Any]:
        """How many there were, their sum, and how many up to each bound."""
        upto, total = {}, 0
        for bound, count in zip(self.buckets, self.counts, strict=False):
            total += count
            upto[f"{bound:g}"] = total
        return {"count": sum(self.counts), "sum": round(self.sum, 6), "up_to": upto}
