"""Which allocator the interpreter uses, what lives in it, and giving back what is free.

Python's own allocator gives memory back in arenas of 1 MiB, and one object left keeps its arena: after 10,000
sessions had come and gone, 80 KB of live objects kept 20 MiB. The C library gives back every free page. It
costs about 8 % of the CPU of a message.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from pathlib import Path

VARIABLE = "PYTHONMALLOC"
LIBC = ctypes.CDLL(None)


def prefer_malloc() -> None:
    """Start this program again, as the same process, with the C library's allocator for Python's objects.

    Not where the environment names an allocator, nor beside another C library than glibc, for theirs may be
    slow. Nothing may be open yet.
    """
    if VARIABLE in os.environ or not hasattr(LIBC, "gnu_get_libc_version"):
        return
    os.environ[VARIABLE] = "malloc"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def collect() -> None:
    """Free what the interpreter keeps for itself: one object left keeps a page in use.

    A full collection empties its free lists. Its cache of attribute look-ups holds up to 4,096 names; each
    parser of ElementTree looks for `doctype` by a string of its own.
    """
    gc.collect()
    forget_names = getattr(sys, "_clear_type_cache", None)
    if forget_names is not None:
        forget_names()


def trim() -> None:
    """Return the free pages of the C library's heap to the system; nothing happens where it cannot (musl)."""
    release = getattr(LIBC, "malloc_trim", None)
    if release is not None:
        release(ctypes.c_size_t(0))


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def heap() -> dict[str, int]:
    """Bytes of the C library in use, and freed but kept (0 where it does not tell). After `prefer_malloc`
    that is all there is.
    """
    ask = getattr(LIBC, "mallinfo2", None)
    if ask is None:
        return {"used": 0, "free": 0}
    ask.restype = _MallInfo
    told = ask()
    return {"used": told.uordblks + told.hblkhd, "free": told.fordblks}


def memory_bytes() -> int:
    """What the process holds of memory now (RSS)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
