"""Vectors on disk: one packed file, mapped into memory, each row compared with the query.

Knows rows and numbers; which rows count, and for what, is the business of `ggrank.search.store`. The file
has nothing but rows, so that adding one is a write at its place:

    float32   n_embd little-endian float32
    int8      one float32, the scale; then n_embd int8, the value divided by the scale and rounded

NumPy compares a million of them in well under a tenth of a second: ``docs/search.md`` has the figures.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ggrank.scoring import ONE_THREAD, cosine

VectorType = Literal["float32", "int8"]
"""How a vector is stored. int8 takes a quarter of the space; a cosine moves by 0.003 at most."""

Packed: TypeAlias = "NDArray[Any]"
"""Vectors as the file has them, a row each."""


class VectorFile:
    """L2-normalised vectors by row number. Rows are written by one process, and read by any.

    Args:
        path: need not exist.
        n_embd: width of a vector.
        vector_type: "float32" or "int8".

    Example:
        >>> import numpy as np, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = VectorFile(Path(folder, "vectors"), n_embd=2, vector_type="int8")
        ...     file.write(np.array([0, 1]), file.pack(np.float32([[1, 0], [0, 1]])))
        ...     file.cosines(np.float32([0, 1]), n_rows=2).tolist()
        [0.0, 1.0]
    """

    def __init__(self, path: Path, *, n_embd: int, vector_type: VectorType) -> None:
        self._path = path
        self._n_embd = n_embd
        self._is_int8 = vector_type == "int8"
        fields = [("scale", "<f4"), ("codes", "i1", (n_embd,))]
        self._row = np.dtype(fields) if self._is_int8 else np.dtype(("<f4", (n_embd,)))
        self._mapped: Packed = self.empty(0)

    def n_rows(self) -> int:
        """Whole rows in the file; 0 where there is none."""
        try:
            return self._path.stat().st_size // self._row.itemsize
        except FileNotFoundError:
            return 0

    def empty(self, n: int) -> Packed:
        """Room for ``n`` packed vectors."""
        return np.empty(n, self._row) if self._is_int8 else np.empty((n, self._n_embd), np.float32)

    def pack(self, vectors: NDArray[np.float32]) -> Packed:
        """Vectors, shape (n, n_embd), as the file has them."""
        if not self._is_int8:
            return np.ascontiguousarray(vectors, "<f4")
        packed = self.empty(len(vectors))
        scales = np.abs(vectors).max(axis=1, initial=0.0) / 127
        packed["scale"] = scales
        packed["codes"] = np.rint(vectors / np.where(scales > 0, scales, 1.0)[:, None])
        return packed

    def write(self, rows: NDArray[np.int64], packed: Packed) -> None:
        """Writes each row at its place, rows rising, and returns when the disk has them."""
        mode = "r+b" if self._path.exists() else "w+b"
        with self._path.open(mode) as file:
            runs = np.flatnonzero(np.diff(rows) != 1) + 1
            for run, part in zip(np.split(rows, runs), np.split(packed, runs), strict=True):
                if len(run):
                    file.seek(int(run[0]) * self._row.itemsize)
                    file.write(part.tobytes())
            file.flush()
            os.fsync(file.fileno())

    def read(self, rows: NDArray[np.int64]) -> Packed:
        """These rows, packed."""
        found: Packed = self._map(int(rows.max(initial=-1)) + 1)[rows]
        return found

    def cosines(self, query: NDArray[np.float32], n_rows: int) -> NDArray[np.float32]:
        """The query's product with each of the first ``n_rows``, shape (n_rows,), float32, within -1 to 1."""
        vectors = self._map(n_rows)[:n_rows]
        if not self._is_int8:
            return cosine(query, vectors)
        products = np.empty(n_rows, np.float32)
        wide = np.empty((max(1, ONE_THREAD // self._n_embd), self._n_embd), np.float32)
        for first in range(0, n_rows, len(wide)):
            block = vectors[first : first + len(wide)]
            wide[: len(block)] = block["codes"]
            np.matmul(wide[: len(block)], query, out=products[first : first + len(block)])
        products *= vectors["scale"]
        return np.clip(products, -1.0, 1.0, out=products)

    def close(self) -> None:
        """Lets go of the mapped file."""
        self._mapped = self.empty(0)

    def _map(self, n_rows: int) -> Packed:
        """At least so many rows; mapped again where the file has grown since."""
        if len(self._mapped) < n_rows:
            # A plain array over the map: memmap's own class makes each slice of it slower.
            self._mapped = np.asarray(np.memmap(self._path, self._row, "r", shape=(self.n_rows(),)))
        return self._mapped
