"""Journal: an append-only text file in a store that can only put whole objects: one small object an addition.

A piece is called ``<first byte>-<term>.jsonl``. The term is the number of its writer's lease: a writer that was
replaced without noticing may still write pieces, and those of a lower term never follow, and never outlast, those of
a higher one. Pieces are merged now and then; whoever dies between the merged piece and the removal of the small ones
leaves nothing that is read twice.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ichtune.errors import DataError
from ichtune.store.store import Store

#: Pieces beside the merged one after which they are merged again: what a reader has to fetch stays little.
MAX_PIECES = 500
#: Times that the pieces are listed anew where they changed while they were read.
_TRIES = 4
_NAME = re.compile(r"(\d{15})-(\d{6})\.jsonl")


@dataclass(frozen=True)
class Piece:
    """One object of a journal.

    Attributes:
        start: place of its first byte in the whole.
        term: number of its writer's lease.
        n_bytes: its length.
    """

    start: int
    term: int
    n_bytes: int

    @property
    def name(self) -> str:
        """Name of the object in the journal's folder."""
        return f"{self.start:015d}-{self.term:06d}.jsonl"


class Gap(Exception):  # noqa: N818 - for the caller to judge: it may be read again
    """A piece does not begin where the one before it ends."""


def chain(pieces: Sequence[Piece]) -> list[tuple[Piece, int]]:
    """Return the pieces that make up the whole, in order, and how many bytes of each.

    Raises:
        Gap: one is missing between two others.
    """
    chosen: list[tuple[Piece, int]] = []
    length = term = 0
    for piece in sorted(pieces, key=lambda piece: (piece.start, piece.term)):
        if piece.term < term or (piece.term == term and piece.start < length):
            continue  # of a writer that was replaced, or merged into an earlier piece
        if piece.start > length:
            raise Gap(f"bytes {length} to {piece.start - 1} are missing before {piece.name}")
        while chosen and chosen[-1][0].start >= piece.start:
            chosen.pop()  # written by somebody who had been replaced
        if chosen:
            last, n_bytes = chosen[-1]
            chosen[-1] = last, min(n_bytes, piece.start - last.start)
        chosen.append((piece, piece.n_bytes))
        length, term = piece.start + piece.n_bytes, piece.term
    return chosen


class Journal:
    """The whole of a journal, and the way to add to it.

    Args:
        store: where it lies.
        folder: its folder there.
        plain: a plain file with the same content, as new as the last merge, for whoever copies it all to a disk. Where
            it goes on from the end of the last piece it was written on a disk since, and brought back.
        check: called before anything is written; raises where this writer may write no more.
    """

    def __init__(self, store: Store, folder: str, plain: str, check: Callable[[], None] = lambda: None) -> None:
        self._store, self._folder, self._plain, self._check = store, folder, plain, check
        self._content = bytearray()
        self._term = self._n_pieces = 0

    @property
    def content(self) -> bytes:
        """All that was read and added."""
        return bytes(self._content)

    def read(self) -> int:
        """Read the whole anew.

        Returns:
            The highest term of a piece, 0 where there is none.

        Raises:
            DataError: a piece is missing.
            StorageError: the store cannot be read.
        """
        for i in range(_TRIES):
            pieces = self._pieces()
            try:
                chosen = chain(list(pieces.values()))
                parts = self._store.read_all([f"{self._folder}/{piece.name}" for piece, _ in chosen])
            except (Gap, FileNotFoundError) as error:  # somebody merges them at this moment, or they are lost
                if i == _TRIES - 1:
                    where = self._store.address(self._folder)
                    raise DataError(f"{where} is damaged: {error}; restore its files from a copy") from error
                continue
            break
        whole = b"".join(part[:n] for part, (_, n) in zip(parts, chosen, strict=True))
        plain = self._store.read(self._plain) or b""
        plain = plain[: plain.rfind(b"\n") + 1]  # the last line of a killed writer's file may be torn
        term = max((piece.term for piece in pieces.values()), default=0)
        replaced = max((p.start + p.n_bytes for p in pieces.values() if p.term < term), default=0)
        # a replaced writer merges too: its plain file is as long as its pieces, one brought back from a disk is longer
        goes_on = plain.startswith(whole) and len(plain) > replaced
        self._content = bytearray(plain if goes_on else whole)
        self._n_pieces = len(pieces)
        return term

    def begin(self, term: int) -> None:
        """Become the writer: read the whole and merge it under the new term, so that no earlier writer can add to it.

        Raises:
            DataError: a piece is missing.
            StorageError: the store cannot be read or written.
        """
        self.read()
        self._term = term
        if self._content:
            self.merge()

    def append(self, line: str) -> None:
        """Add a line; it is in the store when this returns.

        Args:
            line: without its newline.

        Raises:
            ConflictError: somebody else writes by now.
            StorageError: it cannot be written.
        """
        self._check()
        added = f"{line}\n".encode()
        piece = Piece(len(self._content), self._term, len(added))
        self._store.write(f"{self._folder}/{piece.name}", added)
        self._content += added
        self._n_pieces += 1
        if self._n_pieces > MAX_PIECES:
            self.merge()

    def merge(self) -> None:
        """Write the plain file, and put all pieces into one: a plain file is never there without its writer's pieces.

        Raises:
            ConflictError: somebody else writes by now.
            StorageError: it cannot be written.
        """
        self._check()
        whole = Piece(0, self._term, len(self._content))
        self._store.write(self._plain, self.content)
        self._store.write(f"{self._folder}/{whole.name}", self.content)
        merged = [name for name, piece in self._pieces().items() if name != whole.name and piece.term <= self._term]
        self._store.remove([f"{self._folder}/{name}" for name in merged])
        self._n_pieces = 1

    def _pieces(self) -> Mapping[str, Piece]:
        found = self._store.files(self._folder)
        named = ((name, _NAME.fullmatch(name), entry) for name, entry in found.items())
        return {name: Piece(int(m[1]), int(m[2]), entry.n_bytes) for name, m, entry in named if m}
