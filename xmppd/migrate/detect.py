"""Which format a source has, by looking at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from xmppd.migrate.formats import FORMATS
from xmppd.migrate.source import Format, Options, Reader, SourceError, head_of

LOOKS: Final[Mapping[str, str]] = {
    "jsonl": "a file whose first line is a JSON object with `account`",
    "csv": "a file with a first line of columns, `account` among them, or a folder of such *.csv",
    "ejabberd-mnesia": "the file of `ejabberdctl dump`, which begins with {tables,",
    "ejabberd-sql": "a dump or an SQLite file with the tables users and rosterusers",
    "mongooseim": "a dump or an SQLite file with the table users and its column pass_details",
    "openfire-sql": "a dump or an SQLite file with the tables ofUser and ofRoster",
    "prosody": "the data folder, with HOST/accounts/USER.dat",
    "prosody-sql": "a dump or an SQLite file with the table prosody",
    "tigase": "a dump with tig_users, lines of an account and its <contact/>s, or a folder of such texts",
    "xep-0227": "a <server-data/> or <Openfire/> document, or a folder of them",
}
"""How a source of each format looks."""


def open_source(path: Path, *, format: str = "", options: Options | None = None) -> Reader:
    """Begin to read a source: in the format with this name, or in the only one that it looks like.
    SourceError where there is no such format, or none or several that fit.
    """
    chosen = named(format, path) if format else recognised(path)
    return chosen.open(path, Options() if options is None else options)


def named(name: str, path: Path | str = "") -> Format:
    """The format with a name; SourceError with all names."""
    for candidate in FORMATS:
        if candidate.name == name:
            return candidate
    raise SourceError(f"there is no format {name!r}", file=path, hint=f"there are {_names(FORMATS)}")


def recognised(path: Path) -> Format:
    """The only format that a source looks like; SourceError."""
    head = head_of(path)
    try:
        found = [candidate for candidate in FORMATS if candidate.recognises(path, head)]
    except OSError as error:
        raise SourceError(f"cannot be read: {error}", file=path) from None
    if len(found) == 1:
        return found[0]
    if found:
        hint = f"say by --format which of them is meant: {_looks(found)}"
        raise SourceError(f"looks like {_names(found)}", file=path, hint=hint)
    what = "folder" if path.is_dir() else "file"
    raise SourceError(f"a {what} of no format that is known", file=path, hint=_looks(FORMATS))


def _names(formats: Sequence[Format]) -> str:
    return ", ".join(candidate.name for candidate in formats)


def _looks(formats: Sequence[Format]) -> str:
    return "; ".join(f"{each.name}: {LOOKS.get(each.name, 'see its documentation')}" for each in formats)
