"""Sections of a configuration: how they are made, what may stand in them, and each way to be wrong."""

import ipaddress
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import pytest

from xmppd.document import Document, read_document
from xmppd.errors import ConfigError
from xmppd.section import (
    Beside,
    NonNegativeFloat,
    Parsed,
    PositiveFloat,
    SecretText,
    Section,
    at_least,
    at_most,
    changed,
    fields_of,
    matching,
    not_below,
    values_of,
)
from xmppd.validation import validated


class Wheel(Section):
    """Without a default for one of its fields."""

    inches: int
    colour: Literal["black", "white"] = "black"


class Bicycle(Section):
    """With every kind of field."""

    wheels: tuple[Wheel, ...] = (Wheel(inches=28), Wheel(inches=28))
    gears: Annotated[int, at_least(1), at_most(30)] = 3
    top_gear: Annotated[int, not_below("gears")] = 3
    weight: PositiveFloat = 12.0
    slack: NonNegativeFloat = 0.0
    names: frozenset[Annotated[str, matching("[a-z]+"), str.upper]] = frozenset()
    tours: list[Path] = []  # noqa: RUF012 - nobody changes it
    teeth: Mapping[Annotated[str, str.lower], int] = {}
    spare: Wheel | None = None
    code: SecretText | None = None
    gateway: ipaddress.IPv4Address | None = None
    doubled: Annotated[str | int, Parsed(lambda text: text * 2)] = ""
    anything: Any = None
    size: Literal[1, 2] = 1
    made_by: ClassVar[str] = "nobody"
    _hidden = "a"


class Tandem(Bicycle):
    """One field more, and one with another default."""

    gears: int = 7
    seats: int = 2


def read(section, text):
    document = read_document(text, "f")
    return validated(section, document.data or {}, document, ())


def mistakes(section, text):
    with pytest.raises(ConfigError) as caught:
        read(section, text)
    return [f"{it.line}:{it.column} {it.path}: {it.message}" for it in caught.value.problems]


class TestMaking:
    """A section made by its class."""

    def test_fields_and_defaults(self):
        bicycle = Bicycle(gears=8)
        assert (bicycle.gears, bicycle.top_gear, bicycle.made_by) == (8, 3, "nobody")
        assert list(fields_of(Wheel)) == ["inches", "colour"]
        assert values_of(Wheel(inches=26)) == {"inches": 26, "colour": "black"}
        assert not {"made_by", "_hidden"} & set(fields_of(Bicycle))

    def test_a_subclass_has_the_fields_of_both(self):
        tandem = Tandem(weight=20.0)
        assert (tandem.gears, tandem.seats, tandem.weight, tandem.top_gear) == (7, 2, 20.0, 3)
        assert Bicycle().gears == 3
        assert "seats" not in fields_of(Bicycle)

    def test_what_is_missing_or_too_much(self):
        with pytest.raises(TypeError, match="Wheel needs the field 'inches'"):
            Wheel()
        with pytest.raises(TypeError, match="Wheel has no field 'spokes'"):
            Wheel(inches=1, spokes=2)

    def test_nothing_can_be_changed(self):
        wheel = Wheel(inches=26)
        with pytest.raises(AttributeError, match="frozen: 'inches' cannot be set"):
            wheel.inches = 27
        with pytest.raises(AttributeError, match="frozen: 'inches' cannot be deleted"):
            del wheel.inches
        assert wheel.inches == 26

    def test_changed_is_another_one(self):
        wheel = Wheel(inches=26, colour="white")
        assert changed(wheel, inches=27) == Wheel(inches=27, colour="white")
        assert wheel.inches == 26

    def test_changed_keeps_what_is_no_field(self):
        bicycle = Bicycle()
        vars(bicycle)["_hidden"] = "b"
        assert changed(bicycle, gears=5)._hidden == "b"

    def test_equal_is_what_has_equal_fields(self):
        assert Bicycle() == Bicycle(gears=3)
        assert Bicycle() != Bicycle(gears=4)
        assert Wheel(inches=1) != Bicycle()
        assert Bicycle() != "Bicycle"

    def test_it_shows_its_fields_and_no_secrets(self):
        assert repr(Wheel(inches=26)) == "Wheel(inches=26, colour='black')"
        assert "1234" not in repr(Bicycle(code=SecretText("1234")))
        assert SecretText("1234") == SecretText("1234") != SecretText("1235")
        assert len({SecretText("1234"), SecretText("1234")}) == 1


class TestReading:
    """A section made of plain data."""

    def test_every_kind(self):
        text = """
            wheels: [{inches: 26}]
            gears: 8
            top_gear: 8
            weight: 9
            names: [anna, anna, berta]
            tours: [/alps]
            teeth: {Front: 44}
            spare: {inches: 20, colour: white}
            code: "1234"
            gateway: 192.0.2.1
            doubled: ab
            anything: [1, {a: true}]
            size: 2
        """
        assert read(Bicycle, text) == Bicycle(
            wheels=(Wheel(inches=26),),
            gears=8,
            top_gear=8,
            weight=9.0,
            names=frozenset({"ANNA", "BERTA"}),
            tours=[Path("/alps")],
            teeth={"front": 44},
            spare=Wheel(inches=20, colour="white"),
            code=SecretText("1234"),
            gateway=ipaddress.IPv4Address("192.0.2.1"),
            doubled="abab",
            anything=[1, {"a": True}],
            size=2,
        )

    def test_nothing_is_all_defaults(self):
        assert read(Bicycle, "") == Bicycle()

    def test_a_number_may_be_whole_and_is_not_then(self):
        assert isinstance(read(Bicycle, "weight: 9").weight, float)

    def test_null_is_none_where_that_is_a_kind(self):
        assert read(Bicycle, "spare: null").spare is None
        assert mistakes(Bicycle, "gears: null") == ["1:8 gears: must be a whole number"]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("gears: true", "1:8 gears: must be a whole number"),
            ("gears: 1.0", "1:8 gears: must be a whole number"),
            ("gears: 0", "1:8 gears: must be at least 1"),
            ("gears: 31", "1:8 gears: must be at most 30"),
            ("gears: 5", "1:1 top_gear: must not be smaller than gears"),
            ("weight: true", "1:9 weight: must be a number"),
            ("weight: 0", "1:9 weight: must be more than 0"),
            ("slack: -1", "1:8 slack: must be at least 0"),
            ("weight: 1.0e999", "1:9 weight: must be a finite number"),
            ("names: anna", "1:8 names: must be a list"),
            ("names: {anna: 1}", "1:8 names: must be a list"),
            ("names: [anna, Berta]", "1:15 names[1]: does not have the right form ([a-z]+)"),
            ('names: ["anna\\n"]', "1:9 names[0]: does not have the right form ([a-z]+)"),
            ("tours: [1]", "1:9 tours[0]: must be text (put it in quotes)"),
            ("teeth: [1]", "1:8 teeth: must be a section (keys and values below it)"),
            ("teeth: {front: x}", "1:16 teeth.front: must be a whole number"),
            ("teeth: {front: 1, Front: 2}", "1:8 teeth: names the same twice: front and Front"),
            ("spare: 5", "1:8 spare: must be a section (keys and values below it)"),
            ("wheels: [{}]", "1:10 wheels[0].inches: is missing"),
            ("wheels: [{inches: 1, spokes: 2}]", "1:22 wheels[0].spokes: unknown key"),
            ("code: 1234", "1:7 code: must be text (put it in quotes)"),
            ("gateway: 192.0.2", "1:10 gateway: Expected 4 octets in '192.0.2'"),
            ("doubled: 5", "1:10 doubled: must be text (put it in quotes)"),
            ("size: 3", "1:7 size: must be one of 1, 2"),
            ("size: true", "1:7 size: must be one of 1, 2"),
            ("_hidden: b", "1:1 _hidden: unknown key"),
            ("made_by: b", "1:1 made_by: unknown key"),
        ],
    )
    def test_a_mistake(self, text, expected):
        assert mistakes(Bicycle, text) == [expected]

    def test_all_at_once(self):
        text = "gears: x\nwheels: [{inches: x, colour: blak}, {}]\nteeth: {a: x, b: y}\ngaers: 1\n"
        assert mistakes(Bicycle, text) == [
            "1:8 gears: must be a whole number",
            "2:19 wheels[0].inches: must be a whole number",
            "2:30 wheels[0].colour: must be one of black, white (did you mean black?)",
            "2:37 wheels[1].inches: is missing",
            "3:12 teeth.a: must be a whole number",
            "3:18 teeth.b: must be a whole number",
            "4:1 gaers: unknown key (did you mean gears?)",
        ]

    def test_a_whole_number_may_be_too_large_for_a_number(self):
        with pytest.raises(ConfigError, match="weight: must be a finite number"):
            validated(Bicycle, {"weight": 10**400}, Document("f"), ())

    def test_a_rule_looks_at_what_is_right_only(self):
        assert mistakes(Bicycle, "gears: 99\ntop_gear: 1") == ["1:8 gears: must be at most 30"]

    def test_a_secret_in_a_file_keeps_the_rules(self, tmp_path):
        class Locked(Section):
            key: Annotated[SecretText, Beside(self.long)]
            number: Annotated[SecretText | None, self.digits] = None

        (tmp_path / "word").write_text("word\n")
        text = f"key_file: {tmp_path}/word\nnumber_file: {tmp_path}/word\n"
        assert mistakes(Locked, text) == [
            "1:1 key: must have 5 letters or more",
            "2:14 number_file: must be digits",
        ]

    @staticmethod
    def long(secret, before):
        assert dict(before) == {}
        if len(secret.value) < 5:
            raise ValueError("must have 5 letters or more")
        return secret

    @staticmethod
    def digits(secret):
        if not secret.value.isdigit():
            raise ValueError("must be digits")
        return secret

    @pytest.mark.parametrize("kind", [int | str, tuple[int, ...] | Wheel, TypeVar("T"), type[int]])
    def test_what_no_file_can_hold_is_an_error_of_its_author(self, kind):
        wrong = type("Wrong", (Section,), {"__annotations__": {"it": kind}, "it": math.pi})
        assert validated(wrong, {}, Document("f"), ()).it == math.pi
        with pytest.raises(TypeError):
            validated(wrong, {"it": 1}, Document("f"), ())

    def test_so_is_a_kind_that_is_not_there(self):
        with pytest.raises(NameError):
            type("Wrong", (Section,), {"__annotations__": {"it": "Nothing"}})
