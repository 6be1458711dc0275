"""XEP-0227 in its three dialects: Prosody's folder with a document for each account, `export_piefxis` of
ejabberd with a document that includes one for each host, and the one document of Openfire's plugin; and the
other format of that plugin, which is its own XML.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from xmppd import ns
from xmppd.migrate.pie.account import Draft
from xmppd.migrate.pie.document import HOST, PIECE, START, USER, Document, Include, Result
from xmppd.migrate.record import Account, Unreadable
from xmppd.migrate.scratch import Seen
from xmppd.migrate.source import Options, SourceError, head_of, is_within, opened

_ROOT: Final = re.compile(
    rb"\s*+(?><\?.*?\?>\s*+|<!--.*?-->\s*+)*+<(?:[\w.-]++:)?(server-data|host|user|Openfire)\b([^>]*+)",
    re.DOTALL,
)
_BOM: Final = b"\xef\xbb\xbf"
_SPACES: Final = (ns.PIE.encode(), ns.OLD_PIE.encode())
_ENDINGS: Final = (".xml", ".xml.gz")
_PARTS: Final = frozenset(("host", "user"))
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_LOOKED_AT: Final = 50
"""Files of a folder that are looked at to recognise it."""


def root_of(head: bytes) -> str:
    """The root of a document by its first bytes, "" where it is none of ours."""
    match = _ROOT.match(head.removeprefix(_BOM))
    if match is None:
        return ""
    name = match[1].decode()
    return name if name == "Openfire" or any(space in match[2] for space in _SPACES) else ""


class PieReader:
    """One source: a document with all that it includes, or all documents of a folder by their names."""

    def __init__(self, path: Path, options: Options) -> None:
        self._path = path
        self._options = options
        self._is_folder = path.is_dir()
        self._root = (path if self._is_folder else path.parent).resolve()
        self._last = ""
        self._files = self._documents() if self._is_folder else [path]
        if not self._files:
            raise SourceError("no document of XEP-0227 is in this folder", file=path)

    @property
    def total(self) -> int | None:
        """As many as there are files, if each account has its own."""
        return len(self._files) if self._is_folder and len(self._files) > 1 else None

    def close(self) -> None:
        """No file is open between two accounts that are asked for but the one that is read."""

    def __iter__(self) -> Iterator[Account | Unreadable]:
        self._last = ""
        with Seen(self._options.scratch) as seen:
            for item in self.everything():
                if isinstance(item, Result):
                    continue
                first = seen.before(item.name, item.where) if isinstance(item, Account) else None
                if first is None:
                    yield item
                else:
                    yield Unreadable(item.name, f"the account is there already: {first}", item.where)

    def everything(self) -> Iterator[Account | Unreadable | Result]:
        """Accounts as they come, one twice if it is there twice, and messages of archives where asked for."""
        for file in self._files:
            try:
                yield from self._read(file, START, "", ())
            except SourceError as error:
                if not self._is_folder or not _is_account(file.name):
                    raise
                yield Unreadable(_stem(file), str(error), self._name(file))

    def _documents(self) -> list[Path]:
        """The documents of the folder that no other one includes, ordered by the bytes of their names."""
        names = sorted(
            (
                entry.name
                for entry in os.scandir(self._path)
                if entry.name.endswith(_ENDINGS) and self._is_inside(entry)
            ),
            key=os.fsencode,
        )
        found: list[Path] = []
        parts: list[Path] = []
        mains: list[Path] = []
        for name in names:
            file = self._path / name
            if _is_account(name):
                found.append(file)
                continue
            head = head_of(file)
            root = root_of(head)
            if not root:
                self._options.losses.add("file", "", f"{name}: not XEP-0227")
            elif root in _PARTS:
                parts.append(file)
            else:
                found.append(file)
                mains += [file] if b":include" in head else []
        if len(mains) > 1:
            why = f"several exports are in this folder: {', '.join(main.name for main in mains[:5])}"
            raise SourceError(why, file=self._path, hint="name the document to be read instead")
        return sorted(found if mains else found + parts, key=lambda file: os.fsencode(file.name))

    def _is_inside(self, entry: os.DirEntry[str]) -> bool:
        """Whether an entry of the folder is a file and stays there when links are followed. What does
        not is a loss, unless it is a folder.
        """
        try:
            is_inside = entry.is_file() and is_within(Path(entry.path), self._path)
        except OSError:  # a circle of links
            is_inside = False
        if not is_inside and not entry.is_dir(follow_symlinks=False):
            self._options.losses.add("file", "", f"{_readable(entry.name)}: no file of this folder")
        return is_inside

    def _read(
        self, file: Path, state: int, domain: str, around: tuple[Path, ...]
    ) -> Iterator[Account | Unreadable | Result]:
        """The accounts of one document, which stands within `around`; SourceError when they were taken that
        come before what is wrong.
        """
        within = (*around, file.resolve())
        document = Document(
            self._name(file),
            self._options,
            state=state,
            domain=domain,
            include=lambda include, draft: self._complete(draft, include, file, within),
        )
        for failure in self._pieces(file, document):
            for item in document.ready:
                if isinstance(item, Include):
                    yield from self._included(item, file, within)
                else:
                    self._last = item.name if isinstance(item, Account) else self._last
                    yield item
            document.ready.clear()
            if failure is not None:
                raise failure

    def _pieces(self, file: Path, document: Document) -> Iterator[SourceError | None]:
        """Feed a document piece by piece, and stop to let what is ready be taken; an error is the last."""
        try:
            with opened(file) as stream:
                data = b"<"
                while data:
                    data = stream.read(PIECE)
                    document.last = self._last
                    if data:
                        document.feed(data)
                    else:
                        document.close()
                    yield None
        except SourceError as error:
            yield error
        except (OSError, EOFError, zlib.error) as error:
            yield SourceError(f"cannot be read: {_reason(error)}", file=self._name(file))

    def _included(
        self, include: Include, file: Path, within: tuple[Path, ...]
    ) -> Iterator[Account | Unreadable | Result]:
        """What an include stands for, in a document or in a host. That one user's file cannot be read costs
        that user.
        """
        target = self._target(include, file, within)
        try:
            if target is None:
                raise SourceError(f"{include.href!r} is not there", file=self._name(file), line=include.line)
            yield from self._read(target, include.state, include.domain, within)
        except Refused:
            raise
        except SourceError as error:
            if include.state != HOST:
                raise
            name = f"{_stem(Path(include.href))}@{include.domain}"
            yield Unreadable(name, str(error), f"{self._name(file)}:{include.line}")

    def _complete(self, draft: Draft, include: Include, file: Path, within: tuple[Path, ...]) -> None:
        """Read what is included within a user; that it cannot be read costs that user."""
        target = self._target(include, file, within)
        if target is None:
            draft.spoil(f"{include.href!r} is not there")
            return
        document = Document(self._name(target), self._options, state=USER, domain=include.domain, draft=draft)
        for failure in self._pieces(target, document):
            if failure is not None:
                draft.spoil(str(failure))

    def _target(self, include: Include, file: Path, within: tuple[Path, ...]) -> Path | None:
        """The file that an include names, None where there is none; Refused where it is out of the folder of
        the source, or includes this one. ejabberd escapes nothing in its names, and writes some in Latin-1.
        """
        place, line = self._name(file), include.line
        if _SCHEME.match(include.href) or include.href[:1] in ("", "/", "\\"):
            raise Refused(
                f"an include of {include.href!r}: only relative ones are read", file=place, line=line
            )
        names = dict.fromkeys((include.href, unquote(include.href)))
        names |= dict.fromkeys(os.fsdecode(_latin_1(name)) for name in tuple(names))
        for name in names:
            try:
                found = (file.parent / name).resolve()
                is_outside, is_there = not found.is_relative_to(self._root), found.is_file()
            except (OSError, RuntimeError, ValueError):
                continue
            if is_outside:
                raise Refused(f"an include of {include.href!r}, out of the folder", file=place, line=line)
            if found in within:
                raise Refused(f"an include of {include.href!r}, which includes it", file=place, line=line)
            if is_there:
                return found
        return None

    def _name(self, file: Path) -> str:
        """A file as operators are told of it."""
        name = file.relative_to(self._path) if file.is_relative_to(self._path) and self._is_folder else file
        return _readable(str(name))


class Refused(SourceError):
    """An include that is never read, whatever it would be of."""


def _latin_1(name: str) -> bytes:
    return name.encode("latin-1", "replace")


def _readable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_account(name: str) -> bool:
    """Whether a document is named as Prosody names them."""
    return "@" in name


def _stem(file: Path) -> str:
    name = _readable(file.name)
    return next((name.removesuffix(end) for end in reversed(_ENDINGS) if name.endswith(end)), name)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class PieFormat:
    """XEP-0227 and Openfire's own XML."""

    name = "xep-0227"

    def recognises(self, path: Path, head: bytes) -> bool:
        """A document, or a folder in which one of the first is."""
        if not path.is_dir():
            return bool(root_of(head))
        looked_at = 0
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.endswith(_ENDINGS) and entry.is_file():
                    looked_at += 1
                    if root_of(head_of(Path(entry.path))):
                        return True
                if looked_at == _LOOKED_AT:
                    break
        return False

    def open(self, path: Path, options: Options) -> PieReader:
        """Begin to read a document or a folder; SourceError."""
        return PieReader(path, options)


FORMAT: Final = PieFormat()
