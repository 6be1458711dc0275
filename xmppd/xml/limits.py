"""What one client may make the scanner look at."""

from __future__ import annotations

from dataclasses import dataclass, field

_MARKS = (b"&", b"\n", b"\r", b">", b"'")
_TEXT_SHARE = 16


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """Bounds of one stream; beyond them there is the stream error policy-violation (RFC 6120 4.9.3.14).

    `stanza_bytes` bounds one first-level element, `header_bytes` the stream header with its XML declaration.
    `depth` counts the first-level element as 1, `elements` counts it too. `attributes` and `namespaces`
    (declarations, at least 1) are per element. `name_bytes` bounds one name, of an element, attribute or
    namespace; it is checked in the header, and in elements with so many tags or attributes that a long one,
    repeated, would be costly. `tag_bytes` bounds one tag, with its attributes.

    The rest bounds what one stanza costs, whatever it is made of. `pieces` counts elements, attributes and
    declarations (as `=` signs in short start tags), CDATA sections as four, and at a sixteenth the places
    where text is not plain (references, ends of lines, `>` and `'`). An element that is rewritten, or whose
    namespaces are odd, may have a quarter of them. `markup_bytes` bounds the names of elements and attributes
    (short start tags as a whole), `expanded_bytes` elements and attributes times the longest namespace with a
    prefix.
    """

    stanza_bytes: int = 262_144
    depth: int = 64
    attributes: int = 64
    namespaces: int = 32
    elements: int = 2048
    pieces: int = 3072
    markup_bytes: int = 65_536
    tag_bytes: int = 65_536
    expanded_bytes: int = 262_144
    header_bytes: int = 4096
    name_bytes: int = 512
    harmless_bytes: int = field(init=False, repr=False)
    """Attributes of at most so many bytes exceed no bound: ` a=''` is 5 bytes."""
    simple_bytes: int = field(init=False, repr=False)
    """A first-level element of at most so many bytes, without a declared prefix, exceeds no bound: a level
    takes 7 bytes (`<a></a>`), an element 4 (`<a/>`), an attribute 5, and none can declare two namespaces.
    """
    simple_tags: int = field(init=False, repr=False)
    """An element with at most so many `<` exceeds neither depth nor elements (depth d needs 2d - 1)."""
    simple_pairs: int = field(init=False, repr=False)
    """An element with at most so many `=` has not too many attributes."""
    counted_bytes: int = field(init=False, repr=False)
    """An element with more bytes has to be counted tag by tag, whatever it is."""

    def __post_init__(self) -> None:
        third = self.pieces // 3  # for each of tags, attributes and text
        pairs, tags = min(self.attributes, third), min(2 * self.depth, self.elements, third)
        counted = min(
            self.stanza_bytes, 4 * self.elements, self.markup_bytes, self.tag_bytes, _TEXT_SHARE * third
        )
        simple = min(7 * self.depth, 5 * self.attributes, self.name_bytes, 4 * self.pieces, counted)
        harmless = min(5 * self.attributes, 5 * self.namespaces, self.name_bytes)
        object.__setattr__(self, "harmless_bytes", harmless)
        object.__setattr__(self, "simple_bytes", simple)
        object.__setattr__(self, "simple_tags", tags)
        object.__setattr__(self, "simple_pairs", pairs)
        object.__setattr__(self, "counted_bytes", counted)

    def allow(self, raw: bytes) -> bool:
        """Whether a first-level element without a declared prefix is below every bound for certain."""
        size = len(raw)
        return size <= self.simple_bytes or (
            size <= self.counted_bytes
            and size - len(raw.replace(b"<", b"", self.simple_tags + 1))
            <= self.simple_tags  # `count` is slower
            and size - len(raw.replace(b"=", b"", self.simple_pairs + 1)) <= self.simple_pairs
        )

    def pieces_of_text(self, raw: bytes) -> int:
        """What references, ends of lines and the like count as pieces; not exact above `pieces`."""
        most = left = _TEXT_SHARE * self.pieces
        if len(raw) <= _TEXT_SHARE:
            return 0
        for mark in _MARKS:
            left -= len(raw) - len(raw.replace(mark, b"", left + _TEXT_SHARE))
            if left < 0:
                break
        return (most - left) // _TEXT_SHARE
