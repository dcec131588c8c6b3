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
        shown = ", ".join([f"{name}={show(getattr(self, name), 0)}" for name in self.__match_args__])
        return f"{type(self).__name__}({shown})"

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), tuple([getattr(self, name) for name in self.__match_args__])


def show(item: object, depth: int) -> str:
    """What repr says of a part: secrets and long content by their length only, long collections by their first items."""
    if isinstance(item, bytes):
        return repr(item) if len(item) <= SHOWN_BYTES else f"<{len(item)} bytes>"
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], bytes) and isinstance(item[1], bytes):
        name, value = item
        shown = f"<{len(value)} bytes>" if name.lower() in SECRET_FIELDS else show(value, depth)
        return f"({name!r}, {shown})"
    if depth < 4 and isinstance(item, tuple):
        parts = [show(part, depth + 1) for part in item[:SHOWN_ITEMS]]
        if len(item) > SHOWN_ITEMS:
            parts.append(f"… {len(item)} in all")
        return f"({', '.join(parts)}{',' if len(item) == 1 else ''})"
    if depth < 4 and isinstance(item, dict):
        pairs = [f"{key!r}: {show(part, depth + 1)}" for key, part in list(item.items())[:SHOWN_ITEMS]]
        if len(item) > SHOWN_ITEMS:
            pairs.append(f"… {len(item)} in all")
        return f"{{{', '.join(pairs)}}}"
    return repr(item)
