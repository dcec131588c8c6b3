"""Content in pieces of other sizes than those in which it came: bytes, text, lines."""

from collections.abc import Iterable
from typing import AnyStr, Final, Generic

LINE_ENDS: Final = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"  # where str.splitlines() splits


class Cutter(Generic[AnyStr]):
    """Bytes or text in pieces of one size, or as they come. `nothing`: of which kind."""

    def __init__(self, size: int | None, nothing: AnyStr) -> None:
        if size is not None and size < 1:
            raise ValueError(f"chunk_size={size}: it is at least 1, or None for pieces as they come")
        self.size = size
        self.nothing: AnyStr = nothing
        self.kept: list[AnyStr] = []
        self.length = 0

    def feed(self, data: AnyStr) -> Iterable[AnyStr]:
        """The pieces that are whole now."""
        if self.size is None:
            return (data,) if data else ()
        self.kept.append(data)
        self.length += len(data)
        if self.length < self.size:
            return ()
        whole = self.nothing.join(self.kept)
        end = self.length - self.length % self.size
        self.kept = [whole[end:]]
        self.length -= end
        return [whole[start : start + self.size] for start in range(0, end, self.size)]

    def flush(self) -> Iterable[AnyStr]:
        """The last one."""
        return (self.nothing.join(self.kept),) if self.length else ()


class Lines:
    """Lines out of pieces of text, as str.splitlines() has them."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.after_cr = False

    def feed(self, text: str) -> list[str]:
        """The lines that are whole now."""
        if self.after_cr:
            text, self.after_cr = "\r" + text, False
        if text.endswith("\r"):  # perhaps half of a CR LF
            text, self.after_cr = text[:-1], True
        if not text:
            return []
        lines = text.splitlines()
        open_end = text[-1] not in LINE_ENDS
        if len(lines) == 1 and open_end:
            self.kept.append(lines[0])
            return []
        lines[0] = "".join(self.kept) + lines[0]
        self.kept = [lines.pop()] if open_end else []
        return lines

    def flush(self) -> list[str]:
        """The last one."""
        if not self.kept and not self.after_cr:
            return []
        return ["".join(self.kept)]
