"""The key of tokens that are bound to a connection: not in the store, so that this alone lets nobody in."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
from pathlib import Path

from xmppd.config import Config

FILE_NAME = "token.key"
KEY_BYTES = 32

log = logging.getLogger(__name__)


class TokenKey:
    """The key as the configuration has it (`auth.fast.secret`), or else in a file of the data folder, which
    is made when it is first needed. Of several nodes each would make its own, so there the former is needed.
    """

    def __init__(self, config: Config) -> None:
        secret = config.auth.fast.secret
        self._key = hashlib.sha256(secret.value.encode()).digest() if secret is not None else None
        self._file: Path | None = None
        if secret is None and config.cluster.listen is None:
            self._file = config.server.data_folder / FILE_NAME

    @property
    def can_be(self) -> bool:
        """Whether there is one, or may be."""
        return self._key is not None or self._file is not None

    def __call__(self, create: bool) -> bytes | None:
        """The key; with `create` it is made where there is none yet. None if it cannot be had."""
        if self._key is None and self._file is not None:
            try:
                self._key = _read(self._file) or (_make(self._file) if create else None)
            except OSError as error:
                self._file = None
                log.warning("token-key-unavailable", extra={"problem": str(error)})
        return self._key


def _read(file: Path) -> bytes | None:
    """What is in the file; None where there is none, OSError for one that is no key."""
    try:
        key = file.read_bytes()
    except FileNotFoundError:
        return None
    if len(key) != KEY_BYTES:
        raise OSError(f"{file} has {len(key)} bytes and not {KEY_BYTES}")
    return key


def _make(file: Path) -> bytes | None:
    """Write a new key, whole or not at all; the one that somebody else wrote meanwhile counts."""
    unfinished = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(secrets.token_bytes(KEY_BYTES))
            out.flush()
            os.fsync(out.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(unfinished, file)
    finally:
        unfinished.unlink()
    return _read(file)
