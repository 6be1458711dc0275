"""Makes the table of what looks alike, `xmppd/confusables.txt`, from ICU's data of confusables (UTS 39)."""

from __future__ import annotations

import ctypes
import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

ROOM = 4096
HEAD = """\
# Unicode's confusables (UTS 39), of Unicode {unicode}, as ICU {icu} has them: on each line a prototype,
# `<`, and the characters that it stands for, all in hex. Made by scripts/confusables; not to be edited.
#
# The data are modified Unicode data files, under this license (SPDX: Unicode-DFS-2016):
#
# COPYRIGHT AND PERMISSION NOTICE
#
# Copyright (c) 1991-2022 Unicode, Inc. All rights reserved.
# Distributed under the Terms of Use in https://www.unicode.org/copyright.html.
#
# Permission is hereby granted, free of charge, to any person obtaining a copy of the Unicode data files
# and any associated documentation (the "Data Files") or Unicode software and any associated documentation
# (the "Software") to deal in the Data Files or Software without restriction, including without limitation
# the rights to use, copy, modify, merge, publish, distribute, and/or sell copies of the Data Files or
# Software, and to permit persons to whom the Data Files or Software are furnished to do so, provided that
# either
# (a) this copyright and permission notice appear with all copies of the Data Files or Software, or
# (b) this copyright and permission notice appear in associated Documentation.
#
# THE DATA FILES AND SOFTWARE ARE PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED,
# INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
# NONINFRINGEMENT OF THIRD PARTY RIGHTS. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR HOLDERS INCLUDED IN THIS
# NOTICE BE LIABLE FOR ANY CLAIM, OR ANY SPECIAL INDIRECT OR CONSEQUENTIAL DAMAGES, OR ANY DAMAGES
# WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE OR
# OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THE DATA FILES OR
# SOFTWARE.
#
# Except as contained in this notice, the name of a copyright holder shall not be used in advertising or
# otherwise to promote the sale, use or other dealings in these Data Files or Software without prior
# written authorization of the copyright holder.
"""


def skeletons() -> tuple[str, str, Callable[[str], str]]:
    """ICU's version, that of its Unicode, and its function; OSError without the library."""
    (path, *_) = sorted(Path("/usr/lib").glob("*/libicui18n.so.[0-9]*"), reverse=True) or [
        Path("libicui18n.so")
    ]
    found = re.search(r"\.so\.(\d+)", str(path))
    version = found[1] if found else ""
    library = ctypes.CDLL(str(path))
    common = ctypes.CDLL(str(path).replace("i18n", "uc"))
    numbers = (ctypes.c_uint8 * 4)()
    common[f"u_getUnicodeVersion_{version}"](numbers)
    status = ctypes.c_int(0)
    open_checker = library[f"uspoof_open_{version}"]
    open_checker.restype = ctypes.c_void_p
    checker = ctypes.c_void_p(open_checker(ctypes.byref(status)))
    function = library[f"uspoof_getSkeletonUTF8_{version}"]
    buffer = ctypes.create_string_buffer(ROOM)

    def skeleton(text: str) -> str:
        data, status = text.encode(), ctypes.c_int(0)
        length = function(checker, 0, data, len(data), buffer, ROOM, ctypes.byref(status))
        assert status.value <= 0, f"ICU says {status.value} to {text!r}"
        return buffer.raw[:length].decode()

    return version, ".".join(map(str, numbers[:2])), skeleton


def main() -> None:
    """Writes the table to the file named, or prints it."""
    icu, version, skeleton = skeletons()
    sources: dict[str, list[int]] = defaultdict(list)
    for code in (*range(0xD800), *range(0xE000, sys.maxunicode + 1)):
        char = chr(code)
        if unicodedata.normalize("NFD", char) == char and (prototype := skeleton(char)) != char:
            sources[prototype].append(code)
    lines = [
        f"{' '.join(f'{ord(char):x}' for char in prototype)}<{' '.join(f'{code:x}' for code in codes)}\n"
        for prototype, codes in sorted(sources.items())
    ]
    text = HEAD.format(unicode=version, icu=icu) + "".join(lines)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text, encoding="ascii")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
