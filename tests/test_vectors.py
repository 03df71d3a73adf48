"""The vector file: rows at their places, compared exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ggrank.search.vectors import Vectors, VectorType


def unit_vectors(n: int, n_embd: int = 384, *, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((n, n_embd)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def written(path: Path, vectors: NDArray[np.float32], vector_type: VectorType) -> Vectors:
    file = Vectors(path, n_embd=vectors.shape[1], vector_type=vector_type)
    file.write(0, file.pack(vectors))
    return file


@pytest.mark.parametrize("n_rows", [0, 1, 1041, 1042, 5000])
@pytest.mark.parametrize(("vector_type", "tolerance"), [("float32", 1e-6), ("int8", 0.004)])
def test_cosines_are_the_plain_products(
    tmp_path: Path, n_rows: int, vector_type: VectorType, tolerance: float
) -> None:
    vectors = unit_vectors(5000)
    query = unit_vectors(1, seed=1)[0]
    file = written(tmp_path / "v", vectors, vector_type)
    expected = vectors[:n_rows].astype(np.float64) @ query
    assert file.cosines(query, n_rows) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("vector_type", "n_bytes"), [("float32", 1536), ("int8", 388)])
def test_a_row_takes_what_the_format_says(tmp_path: Path, vector_type: VectorType, n_bytes: int) -> None:
    written(tmp_path / "v", unit_vectors(10), vector_type)
    assert (tmp_path / "v").stat().st_size == 10 * n_bytes


def test_float32_rows_are_the_numbers_themselves(tmp_path: Path) -> None:
    vectors = unit_vectors(3, 8)
    written(tmp_path / "v", vectors, "float32")
    assert (np.fromfile(tmp_path / "v", "<f4").reshape(3, 8) == vectors).all()


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("vector_type", ["float32", "int8"])
def test_rows_that_are_added_later_are_read_and_what_was_read_before_stays(
    tmp_path: Path, vector_type: VectorType, in_memory: bool
) -> None:
    vectors = unit_vectors(12)
    file = Vectors(None if in_memory else tmp_path / "v", n_embd=384, vector_type=vector_type)
    query = vectors[9]
    for first, last in ((0, 6), (6, 7), (7, 12)):
        file.write(first, file.pack(vectors[first:last]))
        assert file.cosines(query, last) == pytest.approx(vectors[:last] @ query, abs=0.004)
    rows = np.array([1, 9, 4])
    assert (file.read(rows) == file.pack(vectors[rows])).all()
    assert file.unpack(file.read(rows)) == pytest.approx(vectors[rows], abs=0.004)


def test_the_zero_vector_stays_zero(tmp_path: Path) -> None:
    file = written(tmp_path / "v", np.zeros((2, 384), np.float32), "int8")
    assert file.cosines(unit_vectors(1)[0], 2).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("n_embd", [1, 2, 768, 500_000])
def test_any_width_will_do(tmp_path: Path, n_embd: int) -> None:
    vectors = unit_vectors(3, n_embd)
    file = written(tmp_path / "v", vectors, "int8")
    assert file.cosines(vectors[1], 3) == pytest.approx(vectors @ vectors[1], abs=0.01)
