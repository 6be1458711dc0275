"""The results as Markdown: ours, the better peer, the ratio, what was asked for, and whether it is held."""

import os
import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scenarios import (
    FEATURES,
    GAMES,
    HISTORY,
    IDLE,
    LEFT_TARGET,
    SCENARIOS,
    START_TARGET,
    TIERED,
    TIERS,
    Beside,
    Scenario,
    Tiered,
)

Row = dict[str, Any]
OURS = "xmppd"
ON_CASSANDRA = "xmppd on Cassandra"
MEASURES: dict[str, tuple[Callable[[Row], float], str]] = {
    "cpu": (lambda row: float(row["server_cpu_us"]), "us CPU"),
    "storm": (lambda row: float(row["storm"]["server_cpu_s_total"]) * 1e6 / row["count"], "us CPU in all"),
    "p99": (lambda row: float(row["latency_ms"]["p99"]), "ms p99"),
}


def number(value: float) -> str:
    """A figure with three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def verdict(value: float, target: float | None, aim: float | None = None) -> tuple[str, str]:
    """What was asked for, and whether it is held."""
    if target is None:
        return "reported only", ""
    asked = f"<= {target:g}" if aim is None else f"<= {target:g} (aim {aim:g})"
    if value > target:
        return asked, "**over**"
    return asked, "ok, aim reached" if aim is not None and value <= aim else "ok"


def spread(rows: Sequence[Row], value: Callable[[Row], float]) -> str:
    """The median, and behind it the least and the most of several rounds."""
    values = [value(row) for row in rows]
    text = number(statistics.median(values))
    return text if len(values) == 1 else f"{text} ({number(min(values))}-{number(max(values))})"


def side_by_side(rows: Sequence[Row], scenario: Scenario) -> Iterator[str]:
    """The line of one scenario."""
    value, unit = MEASURES[scenario.measure]
    by_server = {
        name: [row for row in rows if row["server"] == name] for name in {row["server"] for row in rows}
    }
    ours = by_server.pop(OURS, [])
    if not ours:
        return
    mine = statistics.median(map(value, ours))
    cells = [f"{scenario.key} ({scenario.unit}, {unit})", spread(ours, value)]
    if by_server:
        peer = min(by_server, key=lambda name: statistics.median(map(value, by_server[name])))
        ratio = mine / statistics.median(map(value, by_server[peer]))
        others = ", ".join(f"{name} {spread(by_server[name], value)}" for name in sorted(by_server))
        cells += [others, f"{peer} **{ratio:.2f}**", *verdict(ratio, scenario.target, scenario.aim)]
    else:
        cells += ["", "", *verdict(0, None)]
    rate = spread(ours, lambda row: float(row["throughput"]))
    noise = max(row["noise_cores"] for row in rows)
    yield f"| {' | '.join([*cells, rate, f'{max(noise, 0):.2f}'])} |"


def on_cassandra(rows: Sequence[Row], scenario: Scenario) -> Iterator[str]:
    """The same with our store in Cassandra; CPU is that of the server, without that of Cassandra."""
    ours = [{**row, "server": OURS} for row in rows if row["server"] == ON_CASSANDRA]
    peers = [row for row in rows if row["server"] not in (OURS, ON_CASSANDRA)]
    where = replace(scenario, key=f"{scenario.key} on Cassandra", target=scenario.cassandra)
    yield from side_by_side([*ours, *peers], where)


def against(rows: Sequence[Row], whole: Sequence[Row], scenario: Scenario) -> Iterator[str]:
    """The line of what is to cost a part of something else on the same server; that of a peer beside it."""
    value, unit = MEASURES[scenario.measure]

    def part(server: str) -> tuple[str, float] | None:
        mine = [row for row in rows if row["server"] == server]
        its = [row for row in whole if row["server"] == server]
        if not mine or not its:
            return None
        return spread(mine, value), statistics.median(map(value, mine)) / statistics.median(map(value, its))

    ours = part(OURS)
    if ours is None:
        return
    found = {name: part(name) for name in sorted({row["server"] for row in rows} - {OURS})}
    others = ", ".join(f"{name} {it[0]} ({it[1]:.2f})" for name, it in found.items() if it is not None)
    own = [row for row in rows if row["server"] == OURS]
    cells = [f"{scenario.key} ({scenario.unit}, {unit})", ours[0], others]
    cells += [f"{scenario.against} **{ours[1]:.2f}**", *verdict(ours[1], scenario.target)]
    rate, noise = spread(own, lambda row: float(row["throughput"])), max(row["noise_cores"] for row in rows)
    yield f"| {' | '.join([*cells, rate, f'{max(noise, 0):.2f}'])} |"


def side(plain: Sequence[Row], rich: Sequence[Row], beside: Beside) -> Iterator[str]:
    """What is switched on costs, beside the same without it."""
    value, unit = MEASURES["cpu"]
    if not plain or not rich:
        return
    ratio = statistics.median(map(value, rich)) / statistics.median(map(value, plain))
    cells = [
        f"{beside.key} ({beside.scenario.unit}, {unit})",
        spread(rich, value),
        f"without {spread(plain, value)}",
        f"**{ratio:.2f}**",
    ]
    rate = spread(rich, lambda row: float(row["throughput"]))
    noise = max(row["noise_cores"] for row in (*plain, *rich))
    yield f"| {' | '.join([*cells, *verdict(ratio, beside.target), rate, f'{max(noise, 0):.2f}'])} |"


def idle(rows: Sequence[Row], key: str) -> Iterator[str]:
    """Two lines: what a session holds, and what is left when all have gone."""
    if not rows or "own_left" not in rows[-1]:  # kept since other memory was measured
        return
    case, row = IDLE[key], rows[-1]
    each, left = row["kib_per_session"], row["own_left"] / row["own_start"]
    asked = verdict(each, case.target, case.aim)
    noise = f"{max(row['noise_cores'], 0):.2f}"
    what = f"{key} (KiB for each of {row['sessions']:,})"
    yield f"| {what} | {each:.1f} | | | {' | '.join(asked)} | | {noise} |"
    cells = [
        f"{key}, all left (MiB)",
        f"{row['own_left']:.1f}",
        f"start {row['own_start']:.1f}, online {row['own_online']:.1f}",
    ]
    yield f"| {' | '.join([*cells, f'**{left:.2f}**', *verdict(left, LEFT_TARGET), '', noise])} |"


def tiered(rows: Sequence[Row], case: Tiered) -> Iterator[str]:
    """What a login costs on each engine; ratios are to SQLite."""
    value, unit = MEASURES["cpu"]
    by_tier = {tier: [row for row in rows if row["tier"] == tier] for tier in TIERS}
    ours = by_tier.pop(TIERS[0])
    if not ours:
        return
    found = {tier: its for tier, its in by_tier.items() if its}
    mine = statistics.median(map(value, ours))
    beside = ", ".join(f"{tier} {spread(its, value)}" for tier, its in found.items())
    ratios = ", ".join(f"**{statistics.median(map(value, its)) / mine:.2f}**" for its in found.values())
    rate = spread(ours, lambda row: float(row["throughput"]))
    noise = max(row["noise_cores"] for row in rows)
    what = f"{case.key} ({case.contacts} contacts, all away, {unit})"
    cells = [what, f"{TIERS[0]} {spread(ours, value)}", beside, ratios, *verdict(0, None), rate]
    yield f"| {' | '.join(cells)} | {max(noise, 0):.2f} |"


def start(rows: Sequence[Row]) -> Iterator[str]:
    """The time to the first login."""
    if rows:
        seconds = statistics.median(row["seconds"] for row in rows)
        slowest, first = max(row["slowest"] for row in rows), rows[-1]["first"]
        beside = f"slowest {slowest:.2f}, very first (makes a certificate) {first:.2f}"
        asked = verdict(seconds, START_TARGET)
        what = "start, 10,000 accounts (s to the first login)"
        yield f"| {what} | {seconds:.2f} | {beside} | | {' | '.join(asked)} | | |"


def processor() -> str:
    """The model of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def table(rows: Sequence[Row]) -> str:
    """All that was measured."""
    machine = f"{os.cpu_count()} cores ({processor()}), Linux {platform.release()}"
    pythons = ", ".join(dict.fromkeys(row["python"] for row in rows))
    quick = " Short windows (--quick): not for comparison." if any(row["quick"] for row in rows) else ""
    lines = [f"Machine: {machine}. xmppd on {pythons}.{quick}", ""]
    lines.append("| what | xmppd | beside it | ratio | asked | held | xmppd, units/s | noise, cores |")
    lines.append("|---|---|---|---|---|---|---|---|")

    def of(key: str) -> list[Row]:
        return [row for row in rows if row["key"] == key]

    for scenario in SCENARIOS.values():
        lines += side_by_side(of(scenario.key), scenario)
    for beside in (*FEATURES, *GAMES):
        lines += side(of(f"{beside.key} base"), of(beside.key), beside)
    for scenario in HISTORY.values():
        found = [row for row in of(scenario.key) if row["server"] != ON_CASSANDRA]
        if scenario.against:
            lines += against(found, of(scenario.against), scenario)
        else:
            lines += side_by_side(found, scenario)
        lines += on_cassandra(of(scenario.key), scenario)
    for key in IDLE:
        lines += idle(of(key), key)
    lines += start(of("start"))
    for case in TIERED.values():
        lines += tiered(of(case.key), case)
    return "\n".join(lines)
