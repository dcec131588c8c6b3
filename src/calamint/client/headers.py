"""Fields as callers read and write them: names in any case of letters, in order, more than one of a name (RFC 9110 §5)."""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Union, final

from calamint.core.value import SECRET_FIELDS, Fields
from calamint.net.response import to_bytes, to_fields

HeadersInit = Union["Headers", Mapping[str, str], Iterable[tuple[str | bytes, str | bytes]]]


@final
class Headers(MutableMapping[str, str]):
    """Header or trailer fields. `headers["name"]` joins the values of that name with ", "; `get_list` keeps them apart.

    `raw` is what goes on the wire. Values are shown as UTF-8 where they are that, else as Latin-1. Raises TypeError for names
    and values that are neither text nor bytes.
    """

    __slots__ = ("_fields",)

    def __init__(self, headers: HeadersInit | None = None) -> None:
        self._fields: Fields = (
            headers._fields if isinstance(headers, Headers) else read_fields(headers)
        )  # what a change replaces, so that it may be shared

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """Names and values as bytes, in their order, as they were given."""
        return list(self._fields)

    @property
    def fields(self) -> Fields:
        """The same as a tuple, as the core takes them."""
        return self._fields

    def get_list(self, key: str, split_commas: bool = False) -> list[str]:
        """All values of this name, in their order; `split_commas`: also where one line holds several."""
        name = to_bytes(key).lower()
        values = [to_text(value) for field, value in self._fields if field.lower() == name]
        if split_commas:
            return [part.strip() for value in values for part in value.split(",")]
        return values

    def multi_items(self) -> list[tuple[str, str]]:
        """Names, in lower case, and values, each field for itself."""
        return [(name.lower().decode("latin-1"), to_text(value)) for name, value in self._fields]

    def copy(self) -> "Headers":
        """The same fields, to be changed."""
        return Headers(self)

    def add(self, name: str, value: str) -> None:
        """One more field, beside those of the same name."""
        self._fields += read_fields([(name, value)])

    def update(self, headers: HeadersInit | None = None) -> None:  # type: ignore[override]  # without keywords, as in httpx
        """These take the place of those with the same names."""
        fields = read_fields(headers)
        names = {name.lower() for name, _ in fields}
        self._fields = (*[field for field in self._fields if field[0].lower() not in names], *fields)

    def __getitem__(self, key: str) -> str:
        values = self.get_list(key)
        if not values:
            raise KeyError(key)
        return ", ".join(values)

    def __setitem__(self, key: str, value: str) -> None:
        [field] = read_fields([(key, value)])
        name = field[0].lower()
        found = [place for place, (other, _) in enumerate(self._fields) if other.lower() == name]
        fields = list(self._fields)
        for place in reversed(found[1:]):
            del fields[place]
        if found:
            fields[found[0]] = field
        else:
            fields.append(field)
        self._fields = tuple(fields)

    def __delitem__(self, key: str) -> None:
        name = to_bytes(key).lower()
        kept = [field for field in self._fields if field[0].lower() != name]
        if len(kept) == len(self._fields):
            raise KeyError(key)
        self._fields = tuple(kept)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self.get_list(key))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([name.lower().decode("latin-1") for name, _ in self._fields]))

    def __len__(self) -> int:
        return len({name.lower() for name, _ in self._fields})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers | Mapping):
            return NotImplemented
        mine, theirs = [sorted([(name.lower(), value) for name, value in read_fields(item)]) for item in (self, other)]
        return mine == theirs

    def __repr__(self) -> str:
        shown = [
            (name.lower().decode("latin-1"), "[secure]" if name.lower() in SECRET_FIELDS else to_text(value))
            for name, value in self._fields
        ]
        return f"Headers({shown!r})"


def read_fields(headers: HeadersInit | None) -> Fields:
    """Fields as pairs of bytes. Raises TypeError for what is neither text nor bytes."""
    if headers is None:
        return ()
    if isinstance(headers, Headers):
        return headers._fields
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    for name, value in pairs:
        if not isinstance(name, str | bytes) or not isinstance(value, str | bytes):
            kinds = f"{type(name).__name__}: {type(value).__name__}"
            raise TypeError(f"the field {name!r} is of the types {kinds}: names and values are text or bytes")
    return to_fields(pairs)


def to_text(value: bytes) -> str:
    """A value as text."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
