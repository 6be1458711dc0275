"""The `migrate` commands that are done by the command line, with the commands of a server behind them."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from xmppd.admin.commands import FAILED, USAGE
from xmppd.admin.migration import (
    ARCHIVES,
    CONFLICTS,
    EXPORT,
    FORMATS,
    IMPORT,
    REHEARSE,
    SHADOW,
    SWITCH,
    UNDER_WAY,
    VERIFY,
)
from xmppd.config import Config
from xmppd.errors import CommandError
from xmppd.migrate.archives import convert
from xmppd.migrate.detect import LOOKS
from xmppd.migrate.prepare import Limits
from xmppd.migrate.record import Losses
from xmppd.migrate.sql.live import is_url
from xmppd.migrating import rehearsal, shadowing, verifying
from xmppd.migrating.exporting import export
from xmppd.migrating.feed import MOST_ACCOUNTS, Wanted
from xmppd.migrating.importing import Door, Import, Plan, limits_of, new_name, source_mark
from xmppd.migrating.report import Report
from xmppd.migrating.switching import switch
from xmppd.migrating.times import moment
from xmppd.seeing.spans import traced_run

Reach = Callable[[], AbstractContextManager[Door]]


def migrate(
    name: str, arguments: Mapping[str, Any], load: Callable[[], Config], reach: Reach
) -> tuple[Any, int]:
    """Run one of them; its result and exit code."""
    if name == FORMATS.name:
        return [{"format": name, "is": look} for name, look in sorted(LOOKS.items())], 0
    if name == ARCHIVES.name:
        return convert_archives(arguments)
    if name == SWITCH.name:
        return switch(arguments, reach)
    config = load()
    with traced_run(name, config, reach) as reached:
        if name == IMPORT.name:
            return import_source(arguments, config, reached)
        if name == EXPORT.name:
            return export(arguments, config, reached)
        if name == SHADOW.name:
            return shadow_source(arguments, config, reached)
        if name == REHEARSE.name:
            return rehearse_source(arguments, config)
        assert name == VERIFY.name, name
        return verify_source(arguments, config, reached)


def import_source(arguments: Mapping[str, Any], config: Config, reach: Reach) -> tuple[Any, int]:
    """`migrate import`."""
    resumed = arguments.get("resume")
    source = source_of(arguments)
    asked = {**arguments, "source": named(source), "mark": source_mark(Path(source))}
    plan_of(asked, config)  # what is wrong with it is said before anything is begun
    with reach() as door:
        folder = Path(door.call("migrate folder", {})) / (resumed or new_name(time.time()))
        folder = Path(arguments["report"]) if "report" in arguments else folder
        if resumed:
            report = Report(folder)
            check_same(arguments, report.asked)
            asked = {**report.asked, **limiting(arguments)}
        else:
            report = Report.begin(folder, asked)
        try:
            plan = plan_of({**asked, "source": source}, config)
            summary = Import(report, plan, door, sys.stderr).run()
        except BaseException:
            sys.stderr.write(f"xmppd: interrupted; go on with --resume {report.folder.name}\n")
            raise
    return summary, 0 if report.is_clean else FAILED


def convert_archives(arguments: Mapping[str, Any]) -> tuple[Any, int]:
    """`migrate archives`."""
    losses = Losses()
    source, target = Path(arguments["source"]), Path(arguments["target"])
    with tempfile.TemporaryDirectory() as scratch:
        counts = convert(source, target, losses, Path(scratch))
    return {**counts, "lost": dict(losses.summary()), "written": str(target)}, FAILED if losses.kinds else 0


def shadow_source(arguments: Mapping[str, Any], config: Config, reach: Reach) -> tuple[Any, int]:
    """`migrate shadow`."""
    every = float(arguments.get("every", 60.0))
    if every <= 0:
        raise CommandError("--every must be above 0", USAGE)
    asked = {**arguments, "source": source_of(arguments)}
    pace = shadowing.Pace(every, arguments.get("once", False))
    kept = {**asked, "source": named(asked["source"])}
    return shadowing.run(plan_of(asked, config), new_name(time.time()), kept, pace, reach, sys.stderr)


def rehearse_source(arguments: Mapping[str, Any], config: Config) -> tuple[Any, int]:
    """`migrate rehearse`."""
    sample = arguments.get("sample")
    if sample is not None and sample < 1:
        raise CommandError("--sample must be above 0", USAGE)
    given = rehearsal.read_passwords(Path(arguments["passwords"]))
    names = rehearsal.sampled([*given], sample, arguments.get("seed", 0))
    asked = {**arguments, "source": source_of(arguments)}
    wanted = wanted_of(asked, config, limits_of(config, arguments.get("over_limit", "keep")))
    return rehearsal.run(
        wanted,
        config,
        {name: given[name] for name in names},
        config.server.data_folder.absolute() / "migrations",
        report=Path(arguments["report"]) if "report" in arguments else None,
        out=sys.stderr,
    )


def source_of(arguments: Mapping[str, Any]) -> str:
    """The source as a later part of the run finds it: an absolute path, or the address of a database."""
    source = str(arguments["source"])
    return source if is_url(source) else str(Path(source).absolute())


def named(source: str) -> str:
    """A source as it may be kept and shown: without the password of a database."""
    if not is_url(source):
        return source
    parts = urlsplit(source)
    host = parts.netloc.rpartition("@")[2]
    user = parts.username or ""
    return parts._replace(netloc=f"{user}@{host}" if user else host, query="").geturl()


def limiting(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What may be said anew when a run is resumed."""
    return {name: arguments[name] for name in ("rate", "workers") if name in arguments}


def check_same(arguments: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """CommandError when a resumed run is not the one that was begun."""
    source = source_of(arguments)
    if named(source) != asked["source"] or source_mark(Path(source)) != asked["mark"]:
        raise CommandError(f"the run began with another source, or it was changed since: {asked['source']}")
    for name, value in arguments.items():
        if name not in ("source", "resume", "report", "rate", "workers") and asked.get(name) != value:
            raise CommandError(f"the run began with another --{name.replace('_', '-')}: leave it out")


def plan_of(asked: Mapping[str, Any], config: Config) -> Plan:
    """What to do, by what was asked for; CommandError."""
    rate = float(asked.get("rate", 0.0))
    if rate < 0:
        raise CommandError("--rate must not be below 0", USAGE)
    conflict = asked.get("conflict", "keep")
    if conflict not in CONFLICTS:
        raise CommandError(f"--conflict is one of {', '.join(CONFLICTS)}, not {conflict}", USAGE)
    return Plan(
        wanted_of(asked, config, limits_of(config, asked.get("over_limit", "keep")), rate),
        conflict=conflict,
        live=asked.get("live", False),
        dry_run=asked.get("dry_run", False),
        rate=rate,
        workers=asked.get("workers", UNDER_WAY),
    )


def wanted_of(asked: Mapping[str, Any], config: Config, limits: Limits, rate: float = 0.0) -> Wanted:
    """What to read, by what was asked for; CommandError."""
    since = asked.get("since")
    return Wanted(
        source=asked["source"],
        format=asked.get("format", "csv" if "columns" in asked else ""),
        domain=asked.get("domain", ""),
        map=str(Path(asked["map"]).absolute()) if "map" in asked else "",
        columns=asked.get("columns", ()),
        scratch=asked.get("scratch", ""),
        names_as_passwords=asked.get("names_as_passwords", False),
        only=asked.get("only", ()),
        since=None if since is None else moment(since),
        limits=limits,
        domains=config.server.domains,
        iterations=config.auth.iterations,
        batch=max(1, min(MOST_ACCOUNTS, int(rate / 4))) if rate else MOST_ACCOUNTS,
        owner=config.server.data_folder.stat().st_uid if config.server.data_folder.exists() else -1,
    )


def verify_source(arguments: Mapping[str, Any], config: Config, reach: Reach) -> tuple[Any, int]:
    """`migrate verify`."""
    asked = {**arguments, "source": source_of(arguments)}
    wanted = wanted_of(asked, config, limits_of(config, arguments.get("over_limit", "keep")))
    report = Path(arguments["report"]) if "report" in arguments else None
    return verifying.run(
        replace(wanted, derives=False), reach, report=report, full=arguments.get("full", False)
    )
