"""What is wrong with what everything stands on: the data folder, and the engines of store and cache."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from xmppd.config import Config
from xmppd.engines import shared_cache, store_of
from xmppd.errors import ConfigError, Finding

Check = Callable[[Config], Iterator[Finding]]


def refuse_store(config: Config) -> None:
    """ConfigError with every mistake that keeps a command from working on the store."""
    refuse(config, MATTER_TO_THE_STORE)


def refuse(config: Config, parts: Sequence[Check]) -> None:
    """ConfigError with every fatal mistake that these find."""
    if found := [finding.problem for part in parts for finding in part(config) if finding.is_fatal]:
        raise ConfigError(found)


def check_data_folder(config: Config) -> Iterator[Finding]:
    """A folder that cannot be made, or not be written to."""
    path = ("server", "data_folder")
    obstacle = obstacle_to(config.server.data_folder)
    if obstacle is not None:
        message = f"cannot be made: {obstacle.filename}: {obstacle.strerror}"
        is_mistake = not isinstance(obstacle, PermissionError)
        yield Finding(config.problem(path, message), is_fatal=is_mistake)


def obstacle_to(folder: Path) -> OSError | None:
    """Why a folder that may not be there yet cannot be made, or cannot be written to."""
    for place in (folder, *folder.absolute().parents):
        try:
            if place.is_dir():
                if os.access(place, os.W_OK | os.X_OK):
                    return None
                return PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
            place.lstat()
            return NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
        except FileNotFoundError:
            continue
        except OSError as error:
            return error
    return None


def check_engines(config: Config) -> Iterator[Finding]:
    """Drivers that are not installed, files and options that they cannot use."""
    if config.store.engine == "cassandra":
        yield from made(store_of, config)
    if config.cache.redis is not None:
        yield from made(shared_cache, config)


def made(make: Callable[[Config], object], config: Config) -> Iterator[Finding]:
    """The mistakes that keep something from being made."""
    try:
        make(config)
    except ConfigError as error:
        yield from (Finding(problem, is_fatal=True) for problem in error.problems)


MATTER_TO_THE_STORE: tuple[Check, ...] = (check_data_folder, check_engines)
