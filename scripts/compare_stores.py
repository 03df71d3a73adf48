"""Measures stores for vectors: add, search all of them exactly, change, delete, and a kill in the middle.

    python scripts/compare_stores.py [--rows 1000000] [--stores NAME ...] [--folder DIR]

Each step runs in a process of its own, so that memory is the step's and a search starts cold. The table
goes to stdout as Markdown. lancedb, sqlite-vec and usearch are needed for their own rows only; sqlite-vec
also needs a Python whose sqlite3 loads extensions, or pysqlite3.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ggrank.scoring import top_k
from ggrank.search.vectors import VectorFile, VectorType

WIDTH = 384
BATCH = 10_000
"""Rows of a commit."""

K = 20
N_QUERIES = 15
N_CHANGED = 1_000
SECONDS_BEFORE_THE_KILL = 3.0

Vectors = NDArray[np.float32]


class VectorStore(Protocol):
    """What each candidate must do; ids are whole numbers from 0. When a call returns, it is durable."""

    def add(self, ids: Sequence[int], vectors: Vectors) -> None: ...
    def search(self, query: Vectors) -> list[int]: ...
    def update(self, ids: Sequence[int], vectors: Vectors) -> None: ...
    def delete(self, ids: Sequence[int]) -> None: ...
    def count(self) -> int: ...


class SqliteAndFile:
    """SQLite says which rows count, a mapped file has the vectors: ggrank's way (`ggrank.search.store`)."""

    def __init__(self, folder: Path, vector_type: VectorType) -> None:
        self._db = sqlite3.connect(folder / "rows.sqlite", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("CREATE TABLE IF NOT EXISTS live (row INTEGER PRIMARY KEY)")
        self._db.execute("CREATE TABLE IF NOT EXISTS free (row INTEGER PRIMARY KEY)")
        self._file = VectorFile(folder / "vectors", n_embd=WIDTH, vector_type=vector_type)

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        self._file.write(np.array(ids), self._file.pack(vectors))
        self._commit("INSERT INTO live VALUES (?)", ids)

    def search(self, query: Vectors) -> list[int]:
        n_rows = self._db.execute("SELECT coalesce(max(row), -1) + 1 FROM live").fetchone()[0]
        cosines = self._file.cosines(query, n_rows)
        cosines[[row for (row,) in self._db.execute("SELECT row FROM free")]] = -np.inf
        return list(map(int, top_k(cosines, K)))

    def update(self, ids: Sequence[int], vectors: Vectors) -> None:
        self._file.write(np.array(ids), self._file.pack(vectors))

    def delete(self, ids: Sequence[int]) -> None:
        self._commit("DELETE FROM live WHERE row = ?", ids)
        self._commit("INSERT INTO free VALUES (?)", ids)

    def count(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM live").fetchone()[0])

    def _commit(self, statement: str, ids: Sequence[int]) -> None:
        self._db.execute("BEGIN")
        self._db.executemany(statement, [(id,) for id in ids])
        self._db.execute("COMMIT")


class SqliteBlobs:
    """SQLite has the vectors as blobs; a search reads them all into one matrix, the first time."""

    def __init__(self, folder: Path, vector_type: VectorType) -> None:
        self._db = sqlite3.connect(folder / "vectors.sqlite", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("CREATE TABLE IF NOT EXISTS vector (id INTEGER PRIMARY KEY, data BLOB NOT NULL)")
        self._ids: list[int] = []
        self._matrix = np.empty((0, WIDTH), np.float32)

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        self._commit(
            "INSERT INTO vector VALUES (?, ?)",
            ((id, v.tobytes()) for id, v in zip(ids, vectors, strict=True)),
        )

    def search(self, query: Vectors) -> list[int]:
        if not self._ids:
            n = self.count()
            self._matrix = np.empty((n, WIDTH), np.float32)
            for i, (id, data) in enumerate(self._db.execute("SELECT id, data FROM vector")):
                self._matrix[i] = np.frombuffer(data, np.float32)
                self._ids.append(id)
        return [self._ids[i] for i in top_k(self._matrix @ query, K)]

    def update(self, ids: Sequence[int], vectors: Vectors) -> None:
        changed = ((v.tobytes(), id) for id, v in zip(ids, vectors, strict=True))
        self._commit("UPDATE vector SET data = ? WHERE id = ?", changed)

    def delete(self, ids: Sequence[int]) -> None:
        self._commit("DELETE FROM vector WHERE id = ?", ((id,) for id in ids))

    def count(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM vector").fetchone()[0])

    def _commit(self, statement: str, rows: Any) -> None:
        self._db.execute("BEGIN")
        self._db.executemany(statement, rows)
        self._db.execute("COMMIT")


class SqliteVec:
    """sqlite-vec's table vec0, which compares all rows."""

    def __init__(self, folder: Path, vector_type: VectorType) -> None:
        import sqlite_vec

        loads_extensions = hasattr(sqlite3.Connection, "enable_load_extension")
        sqlite: Any = sqlite3 if loads_extensions else import_module("pysqlite3.dbapi2")
        self._db = sqlite.connect(str(folder / "vec.sqlite"), isolation_level=None)
        self._db.enable_load_extension(True)
        sqlite_vec.load(self._db)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        kind, self._value = ("int8", "vec_int8(?)") if vector_type == "int8" else ("float", "?")
        self._is_int8 = vector_type == "int8"
        self._db.execute(
            "CREATE VIRTUAL TABLE IF NOT EXISTS vector USING "
            f"vec0(id INTEGER PRIMARY KEY, data {kind}[{WIDTH}] distance_metric=cosine)"
        )

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        rows = [(id, self._blob(v)) for id, v in zip(ids, vectors, strict=True)]
        self._commit(f"INSERT INTO vector (id, data) VALUES (?, {self._value})", rows)

    def search(self, query: Vectors) -> list[int]:
        statement = f"SELECT id FROM vector WHERE data MATCH {self._value} AND k = {K} ORDER BY distance"
        return [id for (id,) in self._db.execute(statement, (self._blob(query),))]

    def update(self, ids: Sequence[int], vectors: Vectors) -> None:
        # sqlite-vec 0.1.9 takes no int8 in UPDATE: "expected to be of type int8, but a float32 ... provided".
        self.delete(ids)
        self.add(ids, vectors)

    def delete(self, ids: Sequence[int]) -> None:
        self._commit("DELETE FROM vector WHERE id = ?", [(id,) for id in ids])

    def count(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM vector").fetchone()[0])

    def _blob(self, vector: Vectors) -> bytes:
        return as_int8(vector).tobytes() if self._is_int8 else vector.tobytes()

    def _commit(self, statement: str, rows: Any) -> None:
        self._db.execute("BEGIN")
        self._db.executemany(statement, rows)
        self._db.execute("COMMIT")


class LanceDb:
    """LanceDB without a vector index, so that all rows are compared. It has no int8."""

    def __init__(self, folder: Path, vector_type: VectorType) -> None:
        import lancedb
        import pyarrow

        self._arrow = pyarrow
        if vector_type == "int8":
            raise NotImplementedError("LanceDB compares no int8 by cosine")
        kind = pyarrow.list_(pyarrow.float32(), WIDTH)
        schema = pyarrow.schema([("id", pyarrow.int64()), ("vector", kind)])
        self._table = lancedb.connect(folder).create_table("vectors", schema=schema, exist_ok=True)

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        self._table.add(self._rows(ids, vectors))

    def search(self, query: Vectors) -> list[int]:
        found = self._table.search(query).distance_type("cosine").select(["id"]).limit(K).to_arrow()
        return list(found["id"].to_pylist())

    def update(self, ids: Sequence[int], vectors: Vectors) -> None:
        self._table.merge_insert("id").when_matched_update_all().execute(self._rows(ids, vectors))

    def delete(self, ids: Sequence[int]) -> None:
        self._table.delete(f"id IN ({', '.join(map(str, ids))})")

    def count(self) -> int:
        return int(self._table.count_rows())

    def _rows(self, ids: Sequence[int], vectors: Vectors) -> Any:
        flat = self._arrow.array(vectors.ravel(), self._arrow.float32())
        lists = self._arrow.FixedSizeListArray.from_arrays(flat, WIDTH)
        return self._arrow.table({"id": self._arrow.array(ids, self._arrow.int64()), "vector": lists})


class USearch:
    """usearch's graph with exact search. It is durable only as a whole: `save` writes everything."""

    def __init__(self, folder: Path, vector_type: VectorType) -> None:
        from usearch.index import Index

        self._path = folder / "vectors.usearch"
        self._index = Index(ndim=WIDTH, metric="cos", dtype="i8" if vector_type == "int8" else "f32")
        if self._path.exists():
            self._index.load(str(self._path))

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        self._index.add(np.array(ids), vectors)

    def search(self, query: Vectors) -> list[int]:
        return [int(id) for id in self._index.search(query, K, exact=True).keys]

    def update(self, ids: Sequence[int], vectors: Vectors) -> None:
        self._index.remove(np.array(ids))
        self._index.add(np.array(ids), vectors)
        self.save()

    def delete(self, ids: Sequence[int]) -> None:
        self._index.remove(np.array(ids))
        self.save()

    def count(self) -> int:
        return len(self._index)

    def save(self) -> None:
        self._index.save(str(self._path))


STORES: dict[str, tuple[Callable[[Path, VectorType], VectorStore], VectorType]] = {
    "SQLite + mapped file": (SqliteAndFile, "float32"),
    "SQLite + mapped file, int8": (SqliteAndFile, "int8"),
    "SQLite blobs, matrix in memory": (SqliteBlobs, "float32"),
    "sqlite-vec": (SqliteVec, "float32"),
    "sqlite-vec, int8": (SqliteVec, "int8"),
    "LanceDB": (LanceDb, "float32"),
    "usearch": (USearch, "float32"),
    "usearch, int8": (USearch, "int8"),
}


def as_int8(vector: Vectors) -> NDArray[np.int8]:
    scaled: Vectors = np.rint(vector * (127 / np.abs(vector).max()))
    return scaled.astype(np.int8)


def block(number: int) -> Vectors:
    """``BATCH`` random vectors of length 1, the same each time."""
    vectors = np.random.default_rng(number).standard_normal((BATCH, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def queries() -> Vectors:
    return block(-1 % 2**31)[:N_QUERIES]


# -- the steps, each in a process of its own


def step_add(store: VectorStore, rows: int) -> dict[str, Any]:
    seconds = 0.0
    for number in range(rows // BATCH):
        vectors, ids = block(number), range(number * BATCH, (number + 1) * BATCH)
        started = time.perf_counter()
        store.add(ids, vectors)
        seconds += time.perf_counter() - started
        print(json.dumps({"acknowledged": (number + 1) * BATCH}), flush=True)
    if isinstance(store, USearch):
        started = time.perf_counter()
        store.save()
        seconds += time.perf_counter() - started
    return {"seconds": seconds}


def step_search(store: VectorStore, rows: int) -> dict[str, Any]:
    found, times = [], []
    for query in queries():
        started = time.perf_counter()
        found.append(store.search(query))
        times.append(time.perf_counter() - started)
    return {"found": found, "first": times[0], "median": statistics.median(times[1:])}


def step_change(store: VectorStore, rows: int) -> dict[str, Any]:
    chosen = np.random.default_rng(7).permutation(rows)[: 2 * N_CHANGED]
    updated, deleted = np.sort(chosen[:N_CHANGED]).tolist(), np.sort(chosen[N_CHANGED:]).tolist()
    vectors = block(2**30)[:N_CHANGED]
    started = time.perf_counter()
    store.update(updated, vectors)
    between = time.perf_counter()
    store.delete(deleted)
    ended = time.perf_counter()
    right = sum(store.search(vectors[i])[0] == updated[i] for i in range(5))
    gone = sum(deleted[i] not in store.search(row_of(deleted[i])) for i in range(5))
    return {"update": between - started, "delete": ended - between, "right": right + gone == 10}


def row_of(id: int) -> Vectors:
    vector: Vectors = block(id // BATCH)[id % BATCH]
    return vector


def step_check(store: VectorStore, rows: int) -> dict[str, Any]:
    """After a kill: how many rows there are, and whether the last acknowledged ones are found."""
    sound = all(store.search(row_of(id))[:1] == [id] for id in range(max(0, rows - 3), rows))
    return {"count": store.count(), "sound": sound}


STEPS = {"add": step_add, "search": step_search, "change": step_change, "check": step_check}


class Watched(threading.Thread):
    """The most memory of its own (not counting mapped files) that this process has had, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0.0

    def run(self) -> None:
        while True:
            self.look()
            time.sleep(0.02)

    def look(self) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        now = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024
        self.most = max(self.most, now)
        return self.most


def child(name: str, step: str, rows: int, folder: Path) -> None:
    make, vector_type = STORES[name]
    if step == "add":
        block(0)  # so that making vectors is not counted
    watched = Watched()
    before = watched.look()
    watched.start()
    started = time.perf_counter()
    store = make(folder, vector_type)
    opened = time.perf_counter() - started
    result = STEPS[step](store, rows)
    print(json.dumps({**result, "open": opened, "memory": watched.look() - before}), flush=True)


# -- the parent


@dataclass(frozen=True)
class Killed:
    """A store after ``kill -9`` in the middle of adding."""

    acknowledged: int
    count: int
    sound: bool

    def __str__(self) -> str:
        if self.count < self.acknowledged:
            return f"{self.count:,} of {self.acknowledged:,} left"
        return "whole" if self.sound else "opens, but does not find what was acknowledged"


def run(name: str, step: str, rows: int, folder: Path) -> dict[str, Any]:
    done = subprocess.run(command(name, step, rows, folder), capture_output=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def command(name: str, step: str, rows: int, folder: Path) -> list[str]:
    return [sys.executable, __file__, "--child", name, step, "--rows", str(rows), "--folder", str(folder)]


def kill_in_the_middle(name: str, folder: Path, rows: int) -> Killed:
    """Adds until some batches were acknowledged, and a little further."""
    adding = subprocess.Popen(command(name, "add", rows, folder), stdout=subprocess.PIPE, encoding="utf-8")
    acknowledged, deadline = 0, 0.0
    for line in adding.stdout or ():
        acknowledged = json.loads(line).get("acknowledged", acknowledged)
        deadline = deadline or time.monotonic() + SECONDS_BEFORE_THE_KILL
        if time.monotonic() > deadline:
            break
    time.sleep(0.03)
    os.kill(adding.pid, signal.SIGKILL)
    rest = adding.communicate()[0]
    for line in rest.splitlines():
        acknowledged = json.loads(line).get("acknowledged", acknowledged)
    checked = run(name, "check", acknowledged, folder)
    return Killed(acknowledged, checked["count"], checked["sound"])


def truth(rows: int) -> list[list[int]]:
    """The exact 20 best for each query, from NumPy alone."""
    cosines = np.concatenate([block(number) @ queries().T for number in range(rows // BATCH)])
    return [top_k(np.ascontiguousarray(column), K).tolist() for column in cosines.T]


def size_of(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def measure(name: str, rows: int, folder: Path, expected: list[list[int]]) -> str:
    full, killed = folder / "full", folder / "killed"
    full.mkdir()
    killed.mkdir()
    added = run(name, "add", rows, full)
    size = size_of(full)
    searched = run(name, "search", rows, full)
    pairs = zip(searched["found"], expected, strict=True)
    exact = statistics.mean(len(set(one) & set(other)) / K for one, other in pairs)
    changed = run(name, "change", rows, full)
    cells = (
        name,
        f"{added['seconds']:,.0f} s",
        f"{added['memory']:,.0f} MB",
        f"{size:,.0f} MB",
        f"{1000 * searched['first']:,.0f} ms",
        f"{1000 * searched['median']:,.0f} ms",
        f"{searched['memory']:,.0f} MB",
        f"{100 * exact:.0f} %",
        f"{1000 * changed['update']:,.0f} ms",
        f"{1000 * changed['delete']:,.0f} ms{'' if changed['right'] else ' (wrong)'}",
        str(kill_in_the_middle(name, killed, rows)),
    )
    return f"| {' | '.join(cells)} |"


HEADER = (
    "store",
    "add all",
    "memory",
    "size",
    "first search",
    "search",
    "memory",
    "of the true 20",
    f"update {N_CHANGED:,}",
    f"delete {N_CHANGED:,}",
    "after kill -9",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="a multiple of 10,000")
    parser.add_argument("--stores", nargs="*", default=list(STORES), choices=list(STORES), metavar="NAME")
    parser.add_argument(
        "--folder", type=Path, help="where files go (removed afterwards); else a temporary one"
    )
    parser.add_argument("--child", nargs=2, metavar=("NAME", "STEP"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, step = options.child
        child(name, step, options.rows, options.folder)
        return
    expected = truth(options.rows)
    print(f"| {' | '.join(HEADER)} |")
    print(f"|{'---|' * len(HEADER)}", flush=True)
    for name in options.stores:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            try:
                print(measure(name, options.rows, Path(folder), expected), flush=True)
            except RuntimeError as error:
                print(f"| {name} | {error} |", flush=True)


if __name__ == "__main__":
    main()
