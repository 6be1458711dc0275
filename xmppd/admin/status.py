"""What `status` answers, for people: in groups, with units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xmppd.admin.render import cell

GROUPS: Mapping[str, tuple[str, ...]] = {
    "server": ("version", "pid", "uptime_seconds", "config"),
    "sessions": ("sessions", "accounts_online", "connections", "connections_before_login"),
    "process": (
        "cpu_seconds",
        "memory_mib",
        "memory_peak_mib",
        "heap_used_bytes",
        "heap_free_bytes",
        "descriptors",
        "tasks",
        "jobs",
    ),
    "mistakes": ("jobs_failed", "stanza_errors", "hook_failures"),
}
"""Where the single figures belong; those that come as mappings are groups of their own."""

UNITS = ("seconds", "microseconds", "mib", "bytes")


def status_text(status: Mapping[str, Any]) -> str:
    """The whole, without a line end; what has no group comes last."""
    heap = {f"heap_{name}_bytes": value for name, value in status.get("heap", {}).items()}
    flat = {name: value for name, value in status.items() if not isinstance(value, Mapping)} | heap
    grouped = {name for names in GROUPS.values() for name in names}
    groups: dict[str, Mapping[str, Any]] = {
        headline: {name: flat[name] for name in names if name in flat} for headline, names in GROUPS.items()
    }
    groups |= {name: value for name, value in status.items() if isinstance(value, Mapping) and name != "heap"}
    groups["other"] = {name: value for name, value in flat.items() if name not in grouped}
    return "\n\n".join(_group(headline, figures) for headline, figures in groups.items() if figures)


def _group(headline: str, figures: Mapping[str, Any]) -> str:
    rows = [_row(name, value) for name, value in figures.items()]
    width = max(len(label) for label, _ in rows)
    return "\n".join([headline, *(f"  {label:<{width}}  {value}" for label, value in rows)])


def _row(name: str, value: Any) -> tuple[str, str]:
    """A figure's label and its value with the unit that its name ends with."""
    label, _, unit = name.rpartition("_")
    if unit not in UNITS or isinstance(value, bool) or not isinstance(value, int | float):
        return name.replace("_", " "), f"{value:,}" if type(value) is int and unit != "pid" else cell(value)
    shown = {
        "seconds": duration,
        "microseconds": lambda number: f"{number:,} \u00b5s",
        "mib": lambda number: size(number * 2**20),
        "bytes": size,
    }[unit](value)
    return label.replace("_", " "), shown


def duration(seconds: float) -> str:
    """Seconds as people say them: `1.4 s`, `12 min 30 s`, `3 d 4 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    first = next(index for index, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2])


def size(number: float) -> str:
    """Bytes in the largest unit of which there is one."""
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:,.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} GiB"
