"""A deflated file, read as if it were not: inflated no further than it is read."""

import zlib

from ichtune.errors import DataError

#: A header that inflates beyond this is no header; those of a thousand frames take 4 MiB.
MAX_HEADER_BYTES = 4 * 1024 * 1024
#: Pixels that inflate beyond this are refused.
MAX_PIXEL_BYTES = 64 * 1024 * 1024
#: What may follow the pixels: padding, signatures.
MAX_TRAILING_BYTES = 1024 * 1024

_STEP_BYTES = 64 * 1024


class DeflatedFile:
    """The part of a binary file that a parser needs: read, seek, tell.

    Args:
        meta: the file meta information, which is never deflated, with all that precedes it.
        body: the rest of the file.

    Source: DICOM PS3.5 A.5: everything after the file meta information is one raw deflate stream.
    """

    def __init__(self, meta: bytes, body: memoryview) -> None:
        self._inflated = bytearray(meta)
        self._body = body
        self._consumed = 0
        self._pending = b""
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._is_broken = False
        self._limit = len(meta) + MAX_HEADER_BYTES
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        """Return bytes from the current position on, fewer at the end.

        Raises:
            DataError: ``unreadable_header: ...``, the header is too large for one.
            zlib.error: the stream is damaged before this place.
        """
        end = self._limit + 1 if size < 0 else self._position + size
        if end > len(self._inflated):
            self._inflate_to(min(end, self._limit + 1))
            if len(self._inflated) > self._limit:
                raise DataError(f"unreadable_header: the header inflates beyond {MAX_HEADER_BYTES >> 20} MiB")
            if self._is_broken:
                raise zlib.error("damaged stream")
        found = bytes(self._inflated[self._position : end])
        self._position += len(found)
        return found

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move the position: from the start, or with ``whence`` 1 from where it is."""
        self._position = offset + (self._position if whence == 1 else 0)
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def up_to(self, size: int) -> memoryview:
        """Return the inflated file up to ``size`` bytes, fewer where the stream ends or is damaged before."""
        self._inflate_to(size)
        return memoryview(self._inflated).toreadonly()[:size]

    def ends_by(self, size: int) -> bool:
        """Whether no more than ``size`` bytes come out of the stream; nothing of them is kept."""
        length = len(self._inflated)
        while length <= size:
            more = self._next(_STEP_BYTES)
            if not more:
                return True
            length += len(more)
        return False

    def _inflate_to(self, size: int) -> None:
        while len(self._inflated) < size:
            more = self._next(min(size - len(self._inflated), _STEP_BYTES))
            if not more:
                return
            self._inflated += more

    def _next(self, size: int) -> bytes:
        """The next bytes of the stream, at least one and at most ``size``; none at its end or where it is damaged."""
        while not (self._inflater.eof or self._is_broken):
            if not self._pending:
                self._pending = bytes(self._body[self._consumed : self._consumed + _STEP_BYTES])
                self._consumed += len(self._pending)
            at_end = not self._pending
            try:
                more = self._inflater.decompress(self._pending, size)
            except zlib.error:
                self._is_broken = True
                break
            self._pending = self._inflater.unconsumed_tail
            if more or at_end:
                return more
        return b""
