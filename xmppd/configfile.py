"""Which file is the configuration, and what it and the environment say: plain data, not checked yet.

That is enough to find a running server, and takes a fraction of the time that all of `xmppd.config` takes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from xmppd.document import Document, dotted, read_document
from xmppd.errors import ConfigError, Problem

FILE_NAME = "xmppd.yaml"
FILE_VARIABLE = "XMPPD_CONFIG"
OVERRIDE = "XMPPD__"
DATA_FOLDER = Path("data")
SOCKET_NAME = "xmppd.sock"


def shipped(name: str) -> Path:
    """A folder shipped with xmppd (`config`, `plugins`): in the package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "_data" / name
    return installed if installed.is_dir() else package.parent / name


def find(environ: Mapping[str, str] = os.environ) -> Path:
    """$XMPPD_CONFIG, ./xmppd.yaml, the XDG configuration folder, /etc/xmppd; else the built-in defaults."""
    if named := environ.get(FILE_VARIABLE):
        return Path(named)
    xdg = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "/")) / ".config")
    for candidate in (Path(FILE_NAME), xdg / "xmppd" / FILE_NAME, Path("/etc/xmppd") / FILE_NAME):
        # Unlike Path.is_file this is also False for a folder we may not enter.
        if os.path.isfile(candidate):  # noqa: PTH113
            return candidate
    return defaults()


def defaults() -> Path:
    """The file that holds where nobody wrote another one."""
    return shipped("config") / FILE_NAME


def read(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Document:
    """The file at `path`, else the one `find` finds, with the overrides in `environ`; ConfigError when it is
    not sections. Other mistakes in the text are among the document's `problems`.
    """
    document = _read(path or find(environ))
    _apply_overrides(document, environ)
    if document.data is None:
        document.data = {}
    if not isinstance(document.data, dict):
        raise ConfigError(
            [*document.problems, document.problem((), "must be sections (`name:` and keys below)")]
        )
    return document


def socket_path(document: Document) -> Path:
    """The socket of a server with this configuration; ConfigError for a data folder that is no text."""
    server = document.data.get("server")
    folder = server.get("data_folder", DATA_FOLDER) if isinstance(server, dict) else DATA_FOLDER
    if not isinstance(folder, str | Path):
        raise ConfigError([document.problem(("server", "data_folder"), "must be text (put it in quotes)")])
    return Path(folder) / SOCKET_NAME


def _read(path: Path) -> Document:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError([Problem(str(path), 0, 0, "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(str(path), 0, 0, "", f"is not UTF-8 (byte {error.start})")]) from None
    document = read_document(text, str(path))
    if document.problems and document.data is None:
        raise ConfigError(document.problems)
    return document


def _apply_overrides(document: Document, environ: Mapping[str, str]) -> None:
    """`XMPPD__SECTION__KEY=value`: values are YAML, so `[a, b]` and `true` work; names ignore case."""
    for name in sorted(environ):
        if not name.upper().startswith(OVERRIDE):
            continue
        value = read_document(environ[name], f"${name}", lines=False)
        document.problems.extend(value.problems)
        path = tuple(name[len(OVERRIDE) :].lower().split("__"))
        if not all(path):
            document.problems.append(Problem(f"${name}", 0, 0, "", "must be named XMPPD__SECTION__KEY"))
        elif obstacle := document.graft(path, value):
            document.problems.append(Problem(f"${name}", 0, 0, dotted(path), obstacle))
