"""Vectors by row number, in a packed file that is mapped into memory, or in memory alone.

Rows are only ever added: a row that was written never changes, so a search that began before an update reads
what it began with. The file has nothing but rows:

    float32   n_embd little-endian float32
    int8      one float32, the scale; then n_embd int8, the value divided by the scale and rounded
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ggrank.scoring import ONE_THREAD, cosine, to_int8

VectorType = Literal["float32", "int8"]
"""How a vector is stored. int8 takes a quarter of the space; a cosine moves by 0.003 at most."""

Packed: TypeAlias = "NDArray[Any]"
"""Vectors as they are stored, a row each."""


class Vectors:
    """L2-normalised vectors. One writer adds rows; any number of threads and processes read them.

    Without a path they are kept in memory; with one, the file need not exist yet.
    """

    def __init__(self, path: Path | None, *, n_embd: int, vector_type: VectorType) -> None:
        self.path = path
        self._n_embd = n_embd
        self._is_int8 = vector_type == "int8"
        fields = [("scale", "<f4"), ("codes", "i1", (n_embd,))]
        self._row = np.dtype(fields) if self._is_int8 else np.dtype(("<f4", (n_embd,)))
        self._rows: Packed = np.empty(0, self._row)

    def n_rows(self) -> int:
        """Whole rows that are there; in memory also those that have room and no vector yet."""
        if self.path is None:
            return len(self._rows)
        try:
            return self.path.stat().st_size // self._row.itemsize
        except FileNotFoundError:
            return 0

    def pack(self, vectors: NDArray[np.float32]) -> Packed:
        """Vectors, shape (n, n_embd), as they are stored."""
        if not self._is_int8:
            return np.ascontiguousarray(vectors, "<f4")
        packed: Packed = np.empty(len(vectors), self._row)
        packed["codes"], packed["scale"] = to_int8(vectors)
        return packed

    def unpack(self, packed: Packed) -> NDArray[np.float32]:
        """Stored vectors as numbers, shape (n, n_embd)."""
        if not self._is_int8:
            return np.array(packed, np.float32)
        numbers: NDArray[np.float32] = packed["codes"] * packed["scale"][:, None]
        return numbers

    def write(self, start: int, packed: Packed) -> None:
        """Writes rows from ``start`` on, and returns when the disk has them."""
        if self.path is None:
            self._grow(start + len(packed))
            self._rows[start : start + len(packed)] = packed
            return
        with self.path.open("r+b" if self.path.exists() else "w+b") as file:
            file.seek(start * self._row.itemsize)
            file.write(packed.tobytes())
            file.flush()
            os.fsync(file.fileno())

    def read(self, rows: NDArray[np.int64]) -> Packed:
        """These rows, packed."""
        found: Packed = self._at_least(int(rows.max(initial=-1)) + 1)[rows]
        return found

    def cosines(self, query: NDArray[np.float32], n_rows: int) -> NDArray[np.float32]:
        """The query's product with each of the first ``n_rows``, shape (n_rows,), float32, within -1 to 1."""
        rows = self._at_least(n_rows)[:n_rows]
        if not self._is_int8:
            return cosine(query, rows)
        products = np.empty(n_rows, np.float32)
        wide = np.empty((max(1, ONE_THREAD // self._n_embd), self._n_embd), np.float32)
        for first in range(0, n_rows, len(wide)):
            block = rows[first : first + len(wide)]
            wide[: len(block)] = block["codes"]
            np.matmul(wide[: len(block)], query, out=products[first : first + len(block)])
        products *= rows["scale"]
        return np.clip(products, -1.0, 1.0, out=products)

    def _grow(self, n_rows: int) -> None:
        """Makes room by doubling, never in place: a search may be reading the old rows."""
        if n_rows > len(self._rows):
            grown = np.empty(max(n_rows, 2 * len(self._rows)), self._row)
            grown[: len(self._rows)] = self._rows
            self._rows = grown

    def _at_least(self, n_rows: int) -> Packed:
        """At least so many rows; mapped again where the file has grown since."""
        rows = self._rows
        if len(rows) < n_rows and self.path is not None:
            # A plain array over the map: memmap's own class makes each slice of it slower.
            rows = np.asarray(np.memmap(self.path, self._row, "r", shape=(self.n_rows(),)))
            self._rows = rows
        return rows
