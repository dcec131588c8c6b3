"""Value: what every immutable record of the core is built on.

A value is a `@final` class with `__slots__`, `Final` attributes and `__match_args__` that names each of them in the
order of `__init__`. Equality, hash, repr and pickle go by those names, so that nothing else can be compared or saved.
"""

from typing import ClassVar, Final

Fields = tuple[tuple[bytes, bytes], ...]
"""A field section: (name, value) pairs in their order, duplicates kept (RFC 9110 §5)."""

INFINITY: Final = float("inf")
"""The time of what never happens: a clock that is off."""

NEVER: Final = float("-inf")
"""The time of what has not happened yet: a milestone that is not reached."""

SECRET_FIELDS: Final = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"set-cookie"})
"""Names whose values are shown by length only, never indexed (RFC 7541 §7.1.3) and never remembered."""

SHOWN_BYTES: Final = 80
SHOWN_ITEMS: Final = 12
SHOWN_DEPTH: Final = 5
WIRE: Final = frozenset({"block", "buffer"})  # parts that hold fields as they stand on the wire, secrets among them


class Value:
    """Equality, hash, repr and pickle by field."""

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other):
            return False
        for name in self.__match_args__:
            if getattr(self, name) != getattr(other, name):
                return False
        return True

    def __hash__(self) -> int:
        return hash((type(self).__name__, tuple([getattr(self, name) for name in self.__match_args__])))

    def __repr__(self) -> str:
        parts: list[str] = []
        for name in self.__match_args__:
            item = getattr(self, name)
            parts.append(f"{name}={show(item, SHOWN_DEPTH if name in WIRE else 0)}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), tuple([getattr(self, name) for name in self.__match_args__])


def show(item: object, depth: int) -> str:
    """What repr says of a part: secrets and long content by their length only, of long collections the first items."""
    if isinstance(item, bytes):
        return repr(item) if len(item) <= SHOWN_BYTES and depth < SHOWN_DEPTH else f"<{len(item)} bytes>"
    if not isinstance(item, tuple | dict):
        return repr(item)
    if depth >= SHOWN_DEPTH:
        return f"… {len(item)} items"
    if isinstance(item, dict):
        parts = [f"{show(key, depth + 1)}: {show(item[key], depth + 1)}" for key in list(item)[:SHOWN_ITEMS]]
    elif len(item) == 2 and isinstance(item[0], bytes) and isinstance(item[1], bytes):
        secret = item[0].lower() in SECRET_FIELDS
        parts = [show(item[0], depth), f"<{len(item[1])} bytes>" if secret else show(item[1], depth)]
    else:
        parts = [show(part, depth + 1) for part in item[:SHOWN_ITEMS]]
    if len(item) > SHOWN_ITEMS:
        parts.append(f"… {len(item)} in all")
    inside = ", ".join(parts)
    if isinstance(item, dict):
        return f"{{{inside}}}"
    return f"({inside},)" if len(item) == 1 else f"({inside})"
