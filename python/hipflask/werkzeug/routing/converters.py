"""Converters: what a variable's text must look like, and how it becomes a value and text again.

The native router knows these classes. A subclass that changes only `regex` or `weight` still runs natively; a
`to_python` or `to_url` of its own is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Mapping

    from .map import Map


class ValidationError(ValueError):
    """Raised by a converter to say that its rule does not match, or cannot be built, with a value."""


class BaseConverter:
    """The converter from which all others derive: one segment of text.

    A subclass sets `regex`, and `weight` if it is to be tried before (lower) or after (higher) others. One
    whose `regex` has a slash may match several segments, unless it sets `part_isolating` itself.
    """

    regex = "[^/]+"
    weight = 100
    part_isolating = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "regex" in vars(cls) and "part_isolating" not in vars(cls):
            cls.part_isolating = "/" not in cls.regex

    def __init__(self, map: Map, *args: Any, **kwargs: Any) -> None:
        self.map = map

    def to_python(self, value: str) -> Any:
        """Convert text from a path.

        Raises:
            ValidationError: If the rule does not match after all.
        """
        return value

    def to_url(self, value: Any) -> str:
        """Convert a value to percent-encoded text for a URL."""
        from urllib.parse import quote

        return quote(str(value), safe="!$&'()*+,/:;=@")


class UnicodeConverter(BaseConverter):
    """Text within one segment: `<name>` or `<string(length=2):name>`.

    Args:
        minlength: The least number of characters.
        maxlength: The greatest number of characters.
        length: The exact number; the other two are then ignored.
    """

    def __init__(
        self, map: Map, minlength: int = 1, maxlength: int | None = None, length: int | None = None
    ) -> None:
        super().__init__(map)
        if length is not None:
            count = f"{int(length)}"
        else:
            count = f"{int(minlength)},{'' if maxlength is None else int(maxlength)}"
        self.regex = f"[^/]{{{count}}}"


class AnyConverter(BaseConverter):
    """One of several words: `<any(about, help, "foo,bar"):page>`.

    Args:
        items: The words.
    """

    def __init__(self, map: Map, *items: str) -> None:
        from re import escape

        super().__init__(map)
        self.items = set(items)
        self.regex = "(?:" + "|".join([escape(item) for item in items]) + ")"

    def to_url(self, value: Any) -> str:
        """Return the word.

        Raises:
            ValueError: If it is not one of the converter's words.
        """
        if value in self.items:
            return str(value)
        words = ", ".join(f"'{item}'" for item in sorted(self.items))
        raise ValueError(f"'{value}' is not one of {words}")


class PathConverter(BaseConverter):
    """Text that may hold slashes, but does not begin with one: `<path:name>`."""

    part_isolating = False
    regex = "[^/].*?"
    weight = 200


class NumberConverter(BaseConverter):
    """What integers and floating-point numbers have in common."""

    weight = 50
    num_convert: Callable[[Any], Any] = int

    def __init__(
        self,
        map: Map,
        fixed_digits: int = 0,
        min: int | None = None,
        max: int | None = None,
        signed: bool = False,
    ) -> None:
        if signed:
            self.regex = self.signed_regex
        super().__init__(map)
        self.fixed_digits = fixed_digits
        self.min = min
        self.max = max
        self.signed = signed

    def to_python(self, value: str) -> Any:
        """Convert to a number.

        Raises:
            ValidationError: If it has the wrong number of digits or lies outside the limits.
        """
        if self.fixed_digits and len(value) != self.fixed_digits:
            raise ValidationError
        number = self.num_convert(value)
        below = self.min is not None and number < self.min
        if below or (self.max is not None and number > self.max):
            raise ValidationError
        return number

    def to_url(self, value: Any) -> str:
        """Convert a number, filling with zeros to `fixed_digits`."""
        return str(self.num_convert(value)).zfill(self.fixed_digits)

    @property
    def signed_regex(self) -> str:
        """The regular expression with a minus sign allowed."""
        return f"-?{self.regex}"


class IntegerConverter(NumberConverter):
    """An integer of any size: `<int:page>`, `<int(signed=True):offset>`.

    Args:
        fixed_digits: How many characters the number must have.
        min: The least value.
        max: The greatest value.
        signed: Whether a minus sign is allowed.
    """

    regex = r"\d+"


class FloatConverter(NumberConverter):
    """A number with a point: `<float:price>`.

    Args:
        min: The least value.
        max: The greatest value.
        signed: Whether a minus sign is allowed.
    """

    regex = r"\d+\.\d+"
    num_convert = float

    def __init__(
        self, map: Map, min: float | None = None, max: float | None = None, signed: bool = False
    ) -> None:
        super().__init__(map, min=min, max=max, signed=signed)  # type: ignore[arg-type]


class UUIDConverter(BaseConverter):
    """A UUID with its hyphens: `<uuid:id>`."""

    regex = "[A-Fa-f0-9]{8}-" + "[A-Fa-f0-9]{4}-" * 3 + "[A-Fa-f0-9]{12}"

    def to_python(self, value: str) -> uuid.UUID:
        """Convert to a `uuid.UUID`."""
        from uuid import UUID

        return UUID(value)

    def to_url(self, value: uuid.UUID) -> str:
        """Convert to the usual text with hyphens."""
        return str(value)


DEFAULT_CONVERTERS: Mapping[str, type[BaseConverter]] = {
    "default": UnicodeConverter,
    "string": UnicodeConverter,
    "any": AnyConverter,
    "path": PathConverter,
    "int": IntegerConverter,
    "float": FloatConverter,
    "uuid": UUIDConverter,
}
"""What a map calls its converters, unless told otherwise."""


def describe(converter: Any) -> tuple[Any, ...]:
    """Tell the native router about a converter.

    Returns:
        The converter, its regular expression, weight and isolation, the names of the native functions that
        stand in for its `to_python` and `to_url` (`own` where it must be called), the limits of numbers, and
        the words.
    """
    kind = type(converter)
    own = vars(converter) if hasattr(converter, "__dict__") else {}
    decode = "own" if "to_python" in own else _DECODERS.get(kind.to_python, "own")
    encode = "own" if "to_url" in own else _ENCODERS.get(kind.to_url, "own")
    limits: tuple[int, Any, Any] = (0, None, None)
    words = None
    if "number" in (decode, encode):
        native, limits = _describe_number(converter)
        decode = decode if decode != "number" else native or "own"
        number = {int: "int", float: "float"}.get(converter.num_convert, "own")
        encode = encode if encode != "number" else number
        if encode == "own" or decode == "own":
            limits = (limits[0] if encode != "own" else 0, None, None)
    if encode == "any":
        words = frozenset(converter.items)
        if not all(type(word) is str for word in words):
            encode, words = "own", None
    return (
        converter,
        converter.regex,
        converter.weight,
        bool(converter.part_isolating),
        decode,
        encode,
        limits,
        words,
    )


def _describe_number(converter: Any) -> tuple[str | None, tuple[int, Any, Any]]:
    digits = converter.fixed_digits
    if type(digits) is not int or digits < 0:
        return None, (0, None, None)
    limits = (digits, converter.min, converter.max)
    given = [limit for limit in limits[1:] if limit is not None]
    if converter.num_convert is int and all(type(limit) is int and abs(limit) < 2**63 for limit in given):
        return "int", limits
    if converter.num_convert is float and all(type(limit) in (int, float) for limit in given):
        return "float", limits
    return None, (digits, None, None)


_DECODERS: dict[Any, str] = {
    BaseConverter.to_python: "text",
    NumberConverter.to_python: "number",
    UUIDConverter.to_python: "uuid",
}
_ENCODERS: dict[Any, str] = {
    BaseConverter.to_url: "text",
    AnyConverter.to_url: "any",
    NumberConverter.to_url: "number",
    UUIDConverter.to_url: "uuid",
}
