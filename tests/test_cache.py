"""The cache gives what was computed, bit by bit; and whatever happens to its file, a ranking goes on."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tiny_models
from command_line import BUNDLED, DOCUMENTS, ENVIRONMENT, QUERY, ggrank
from ggrank import GgrankWarning, InputError, Llama, PoolingType
from ggrank.loading.cache import FILE, CacheCounts, ResultCache
from ggrank.types import TokenIds

QUERIES = ["a query", "another one"]
TEXTS = [f"Document {i} is about {'word ' * (i % 7)}and the number {i * i}." for i in range(40)]
PAIRS = [(query, text) for query in QUERIES for text in TEXTS]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@contextmanager
def counted(path: str | Path, **options: Any) -> Iterator[tuple[Llama, list[int]]]:
    """A model, and how many sequences each of its micro-batches had."""
    with Llama.load(path, **options) as llama:
        run, sizes = llama._engine.run, []

        def counting_run(sequences: Sequence[TokenIds]) -> NDArray[np.float32]:
            sizes.append(len(sequences))
            return run(sequences)

        llama._engine.run = counting_run  # type: ignore[method-assign]
        yield llama, sizes


@contextmanager
def opened(folder: Path, *, limit: int = 10**9) -> Iterator[ResultCache]:
    with closing(ResultCache(folder, limit=limit, context=b"a model")) as cache:
        yield cache


def inputs(n: int, *, first: int = 0) -> list[bytes]:
    return [f"input {i}".encode() for i in range(first, first + n)]


def numbers(n: int, *, first: int = 0, width: int = 3) -> NDArray[np.float32]:
    """A row for each of `inputs`, all different."""
    rows = np.arange(first, first + n)[:, None] + np.linspace(0, 0.9, width)[None]
    return np.sqrt(rows).astype(np.float32)


def assert_nothing_wrong(cache: ResultCache, n: int) -> int:
    """Everything found is what was put; returns how much was."""
    found = cache.get_many(cache.keys(inputs(n)), width=3)
    known = ~np.isnan(found).any(axis=1)
    assert np.array_equal(found[known], numbers(n)[known])
    return int(known.sum())


# -- a model with a cache


@pytest.mark.parametrize("kind", ["bert-reranker", "xlmr-reranker", "qwen3-reranker"])
def test_a_score_found_is_bit_by_bit_the_one_computed_and_computes_nothing(
    kind: str, models: Path, tmp_path: Path
) -> None:
    path = tiny_models.write(kind, models)
    with counted(path, cache=tmp_path) as (llama, sizes):
        computed = llama.score_pairs(PAIRS)
        assert sum(sizes) == len(PAIRS)
        assert np.array_equal(llama.score_pairs(PAIRS), computed)
        assert sum(sizes) == len(PAIRS)
    with counted(path, cache=tmp_path) as (llama, sizes):
        assert np.array_equal(llama.score_pairs(PAIRS[::-1]), computed[::-1])
        ranking = llama.rank(QUERIES[0], TEXTS)
        assert {document.index: document.logit for document in ranking} == dict(enumerate(computed[:40]))
        assert sizes == []


def test_a_vector_found_is_bit_by_bit_the_one_computed(tmp_path: Path) -> None:
    with counted(BUNDLED, cache=tmp_path) as (llama, sizes):
        computed = llama.embed_many(TEXTS)
    with counted(BUNDLED, cache=tmp_path) as (llama, sizes):
        assert np.array_equal(llama.embed_many([*TEXTS[20:], "a new text"])[:20], computed[20:])
        assert sizes == [1]


@pytest.mark.parametrize("kind", ["bert-reranker", "bert-mean"])
@pytest.mark.parametrize("has_cache", [True, False])
def test_a_duplicate_is_computed_once_however_far_away_it_is(
    kind: str, has_cache: bool, models: Path, tmp_path: Path
) -> None:
    texts = [*(f"text {i}" for i in range(1500)), *(f"text {1499 - i}" for i in range(1500))]
    with counted(tiny_models.write(kind, models), cache=tmp_path if has_cache else None) as (llama, sizes):
        results = llama.rerank("q", texts) if kind == "bert-reranker" else llama.embed_many(texts)
    assert sum(sizes) == 1500
    assert np.array_equal(results[:1500], results[:1499:-1])


@pytest.mark.parametrize(
    "options",
    [{"flash_attn": True}, {"n_ubatch": 256}, {"use_extra_bufts": True}, {"pooling_type": PoolingType.CLS}],
    ids=lambda options: next(iter(options)),
)
def test_other_settings_find_nothing(options: dict[str, Any], models: Path, tmp_path: Path) -> None:
    path = tiny_models.write("bert-mean", models)
    before: dict[str, Any] = {"engine": "llama.cpp", "flash_attn": False, "use_extra_bufts": False}
    for settings in (before, {**before, **options}):
        with counted(path, cache=tmp_path, **settings) as (llama, sizes):
            llama.embed_many(TEXTS)
        assert sum(sizes) == len(TEXTS)


def test_another_file_finds_nothing_even_under_the_same_name_and_another_path_everything(
    models: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    original = tiny_models.write("bert-mean", models).read_bytes()
    path.write_bytes(original)
    with Llama.load(path, cache=tmp_path) as llama:
        llama.embed_many(TEXTS)
    changed = bytearray(original)
    changed[-8] ^= 1  # the last bits of a weight
    path.write_bytes(changed)
    with counted(path, cache=tmp_path) as (llama, sizes):
        llama.embed_many(TEXTS)
        assert sum(sizes) == len(TEXTS)
    with counted(tiny_models.write("bert-mean", models), cache=tmp_path) as (llama, sizes):
        llama.embed_many(TEXTS)
        assert sizes == []


def test_what_is_cut_by_another_n_ctx_is_another_text_and_what_is_not_is_the_same(
    models: Path, tmp_path: Path
) -> None:
    path, long = tiny_models.write("bert-mean", models), "word " * 100
    options = {"cache": tmp_path, "n_ubatch": 512}
    with Llama.load(path, **options) as llama:  # type: ignore[arg-type]
        llama.embed_many(["short", long])
    with counted(path, n_ctx=64, **options) as (llama, sizes):
        llama.embed_many(["short", long])
        assert sum(sizes) == 1


def test_without_a_cache_nothing_is_written(models: Path, tmp_path: Path) -> None:
    with Llama.load(tiny_models.write("bert-mean", models)) as llama:
        llama.embed("a text")
    assert list(tmp_path.iterdir()) == []


def test_a_limit_that_makes_no_sense_is_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cache_limit"):
        Llama.load(tiny_models.write("bert-mean", models), cache=tmp_path, cache_limit=10)


def test_the_command_line_keeps_results_too(tmp_path: Path) -> None:
    arguments = ["rank", QUERY, *DOCUMENTS, "--cache", tmp_path / "kept"]
    first = ggrank(*arguments)
    assert first.exit_code == 0
    with closing(sqlite3.connect(tmp_path / "kept" / FILE)) as db:
        assert db.execute("SELECT count(*) FROM result").fetchone() == (1 + len(DOCUMENTS),)
    assert ggrank(*arguments).stdout == first.stdout


def test_threads_share_a_model_and_its_cache(models: Path, tmp_path: Path) -> None:
    with Llama.load(tiny_models.write("bert-reranker", models), cache=tmp_path) as llama:
        expected, results = llama.score_pairs(PAIRS), {}

        def work(i: int) -> None:
            results[i] = llama.score_pairs(PAIRS[i:])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(np.array_equal(results[i], expected[i:]) for i in range(8))


# -- the file


def test_values_that_are_not_finite_are_never_kept(tmp_path: Path) -> None:
    values = np.float32([[1, 2, 3], [1, np.nan, 3], [np.inf, 2, 3], [4, 5, 6]])
    with opened(tmp_path) as cache:
        keys = cache.keys(inputs(4))
        cache.put_many(keys, values)
        found = cache.get_many(keys, width=3)
    assert np.isnan(found).all(axis=1).tolist() == [False, True, True, False]
    assert np.array_equal(found[[0, 3]], values[[0, 3]])


def test_every_float32_comes_back_with_the_same_bits(tmp_path: Path) -> None:
    odd = np.float32([[-0.0, 1e-45, 3.4e38], [np.nextafter(np.float32(1), np.float32(2)), -1e-45, 0.1]])
    with opened(tmp_path) as cache:
        keys = cache.keys(inputs(2))
        cache.put_many(keys, odd)
        assert cache.get_many(keys, width=3).tobytes() == odd.tobytes()


def test_another_context_finds_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as cache:
        cache.put_many(cache.keys(inputs(5)), numbers(5))
    with closing(ResultCache(tmp_path, limit=10**9, context=b"another model")) as cache:
        assert np.isnan(cache.get_many(cache.keys(inputs(5)), width=3)).all()


WRITER = """
    import sys, warnings
    from contextlib import closing
    from pathlib import Path
    sys.path[:0] = {path!r}
    from ggrank import GgrankWarning
    from ggrank.loading import cache as module
    module.TIMEOUT_SECONDS = 600  # on a busy machine, whoever writes may be kept from it for long
    warnings.simplefilter("error", GgrankWarning)
    from test_cache import inputs, numbers, opened
    folder, (start, stop, step) = Path(sys.argv[1]), map(int, sys.argv[2:])
    with opened(folder) as cache:
        for first in range(start, stop, step):
            cache.put_many(cache.keys(inputs(50, first=first)), numbers(50, first=first))
            print(first, flush=True)
"""


def writer(folder: Path, *, start: int, stop: int, step: int) -> subprocess.Popen[str]:
    """A process that puts 50 results at a time, each time ``step`` further."""
    code = textwrap.dedent(WRITER).format(path=[str(Path(__file__).parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", code, folder, str(start), str(stop), str(step)],
        env={**ENVIRONMENT, "GGRANK_CACHE_DIR": os.environ["GGRANK_CACHE_DIR"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_new_file_that_another_process_is_making_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ggrank.loading.cache.TIMEOUT_SECONDS", 600)  # on a busy machine
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        ends = threading.Timer(0.3, other.execute, ["COMMIT"])
        ends.start()
        with opened(tmp_path) as cache:
            cache.put_many(cache.keys(inputs(1)), np.float32([[1]]))
            assert cache.get_many(cache.keys(inputs(1)), width=1) == 1
        ends.join()


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    writers = [writer(tmp_path / "new", start=50 * i, stop=10_000, step=150) for i in range(4)]
    for process in writers:
        _, errors = process.communicate(timeout=600)
        assert (process.returncode, errors) == (0, "")
    with opened(tmp_path / "new") as cache:
        assert assert_nothing_wrong(cache, 10_000) == 10_000


@pytest.mark.skipif(os.name != "posix", reason="kill -9 as POSIX has it")
@pytest.mark.parametrize("delay", [0.0, 0.003, 0.02])
def test_killed_while_it_writes_it_leaves_a_cache_that_can_be_read_and_written(
    delay: float, tmp_path: Path
) -> None:
    process = writer(tmp_path, start=0, stop=10**9, step=50)  # it would not end by itself
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(delay)
    process.kill()
    out, _ = process.communicate()
    assert process.returncode == -9
    n_told = min(50 * (1 + out.count("\n")), 10_000)
    with warnings.catch_warnings(), opened(tmp_path) as cache:
        warnings.simplefilter("error")
        n_kept = assert_nothing_wrong(cache, 10_000)
        assert n_kept >= n_told
        cache.put_many(cache.keys(inputs(10_000)), numbers(10_000))
        assert assert_nothing_wrong(cache, 10_000) == 10_000


def damage(path: Path, how: int) -> None:
    """Other bytes in a file, each time in another way."""
    dice, data = random.Random(how), bytearray(path.read_bytes())
    if how % 3 == 0:
        data = data[: dice.randrange(len(data))]
    elif how % 3 == 1:
        start = dice.randrange(len(data))
        data[start : start + dice.randrange(1, 5000)] = dice.randbytes(dice.randrange(1, 5000))
    else:
        for _ in range(1 + how):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


@pytest.mark.parametrize("how", range(45))
def test_a_damaged_file_gives_no_wrong_number_and_no_error_and_is_soon_of_use_again(
    how: int, tmp_path: Path
) -> None:
    with opened(tmp_path) as cache:
        cache.put_many(cache.keys(inputs(500)), numbers(500))
    damage(tmp_path / FILE, how)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GgrankWarning)
        for _ in range(3):  # a table's and an index's damage may show one after the other
            with opened(tmp_path) as cache:
                assert_nothing_wrong(cache, 500)
                cache.put_many(cache.keys(inputs(500)), numbers(500))
    with warnings.catch_warnings(), opened(tmp_path) as cache:
        warnings.simplefilter("error")
        assert assert_nothing_wrong(cache, 500) == 500


@pytest.mark.parametrize(
    ("place", "others"),
    [
        (47, b"\xff"),  # the header's schema format: "unsupported file format"
        (b"CREATE TABLE result", b"CREATE TABL\xc1"),  # quoted in a message that is no UTF-8
        (b"tableresult", b"tablerefult"),  # "no such table"
    ],
)
def test_damage_to_the_schema_is_told_of_and_the_cache_started_afresh(
    place: int | bytes, others: bytes, tmp_path: Path
) -> None:
    with opened(tmp_path) as cache:
        cache.put_many(cache.keys(inputs(500)), numbers(500))
    data = bytearray((tmp_path / FILE).read_bytes())
    start = place if isinstance(place, int) else data.index(place)
    data[start : start + len(others)] = others
    (tmp_path / FILE).write_bytes(data)
    with pytest.warns(GgrankWarning, match="started afresh"):
        cache = ResultCache(tmp_path, limit=10**9, context=b"a model")
    with closing(cache):
        cache.put_many(cache.keys(inputs(500)), numbers(500))
        assert assert_nothing_wrong(cache, 500) == 500


def test_a_file_that_is_something_else_is_told_of_and_replaced(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("not a database " * 1000)
    with pytest.warns(GgrankWarning, match=r"is damaged \(file is not a database\); it is started afresh"):
        cache = ResultCache(tmp_path, limit=10**9, context=b"a model")
    with closing(cache):
        cache.put_many(cache.keys(inputs(5)), numbers(5))
        assert assert_nothing_wrong(cache, 5) == 5


def test_damage_in_the_middle_of_a_run_is_told_of_and_the_run_goes_on(models: Path, tmp_path: Path) -> None:
    with Llama.load(tiny_models.write("bert-reranker", models), cache=tmp_path) as llama:
        computed = llama.score_pairs(PAIRS)
        with closing(sqlite3.connect(tmp_path / FILE)) as db, db:
            db.execute("UPDATE result SET numbers = zeroblob(8) WHERE id % 2")
        with pytest.warns(GgrankWarning, match="started afresh"):
            again = llama.score_pairs(PAIRS)
        assert np.abs(again - computed).max() < 1e-4
        assert np.array_equal(llama.score_pairs(PAIRS), again)


def test_what_was_not_used_for_longest_goes_when_the_file_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day, limit = 86_400.0, 400_000
    with opened(tmp_path, limit=limit) as cache:
        for first in range(0, 5_000, 500):
            monkeypatch.setattr(time, "time", lambda: day * (1 + first / 500))  # noqa: B023
            cache.put_many(cache.keys(inputs(500, first=first)), numbers(500, first=first))
            cache.get_many(cache.keys(inputs(100)), width=3)  # the first hundred stay in use
        found = cache.get_many(cache.keys(inputs(5_000)), width=3)
    kept = ~np.isnan(found).any(axis=1)
    assert kept[:100].all()
    assert kept[-500:].all()
    assert not kept[100:500].any()
    assert np.flatnonzero(~kept[100:]).max() < np.flatnonzero(kept[100:]).min()
    assert (tmp_path / FILE).stat().st_size < 1.5 * limit


def test_a_row_in_use_is_written_once_a_day_and_not_at_each_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as cache, closing(sqlite3.connect(tmp_path / FILE)) as onlooker:
        cache.put_many(cache.keys(inputs(5)), numbers(5))
        versions = []
        for hour in (1, 2, 30):
            monkeypatch.setattr(time, "time", lambda: 3_600.0 * hour + 1e9 // 86_400 * 86_400)  # noqa: B023
            cache.get_many(cache.keys(inputs(5)), width=3)
            versions.append(onlooker.execute("PRAGMA data_version").fetchone()[0])
    assert versions[0] == versions[1] != versions[2]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_told_of_and_the_ranking_goes_on(
    models: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    with pytest.warns(GgrankWarning, match="cannot be used"):
        llama = Llama.load(tiny_models.write("bert-reranker", models), cache=tmp_path)
    with llama:
        assert np.isfinite(llama.score_pairs(PAIRS)).all()


def test_a_folder_that_cannot_be_made_is_told_of_at_the_callers_line_and_the_ranking_goes_on(
    models: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(GgrankWarning, match="cannot be used") as told:
        llama = Llama.load(tiny_models.write("bert-reranker", models), cache=tmp_path / "file" / "folder")
    assert [warning.filename for warning in told] == [__file__]
    with llama:
        assert np.isfinite(llama.score_pairs(PAIRS)).all()


def test_a_file_in_the_folders_place_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"cache must be a folder, found the file .*file; name another"):
        Llama.load(BUNDLED, cache=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "no folder"


@pytest.mark.skipif(os.name != "posix", reason="Windows deletes no file that is open")
def test_a_folder_that_is_deleted_in_the_middle_is_made_again_without_a_word(
    models: Path, tmp_path: Path
) -> None:
    path, folder = tiny_models.write("bert-reranker", models), tmp_path / "cache"
    with warnings.catch_warnings(), counted(path, cache=folder) as (llama, sizes):
        warnings.simplefilter("error")
        computed = llama.score_pairs(PAIRS)
        shutil.rmtree(folder)
        assert np.allclose(llama.score_pairs(PAIRS), computed, atol=1e-4)
        assert sum(sizes) == 2 * len(PAIRS)
        kept = llama.score_pairs(PAIRS)
        assert sum(sizes) == 2 * len(PAIRS)
    with counted(path, cache=folder) as (llama, sizes):
        assert np.array_equal(llama.score_pairs(PAIRS), kept)
        assert sizes == []


def test_it_counts_what_was_looked_for_and_what_was_found(models: Path, tmp_path: Path) -> None:
    path = tiny_models.write("bert-reranker", models)
    with Llama.load(path) as llama:
        assert llama.cache_counts is None
    with Llama.load(path, cache=tmp_path) as llama:
        llama.rerank("q", ["a", "b", "a"])
        assert llama.cache_counts == CacheCounts(n_asked=2, n_found=0)
        llama.rerank("q", ["b", "c", "a"])
        assert llama.cache_counts == CacheCounts(n_asked=5, n_found=2)


def test_a_full_disk_is_told_of_and_the_ranking_goes_on(models: Path, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    code = """
        import resource, signal, sys
        from ggrank import Llama
        with Llama.load(sys.argv[1], cache=sys.argv[2]) as llama:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            vectors = llama.embed_many(f"text {i}" for i in range(3_000))
        print(vectors.shape)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tiny_models.write("bert-mean", models), tmp_path],
        env={**ENVIRONMENT, "GGRANK_CACHE_DIR": os.environ["GGRANK_CACHE_DIR"]},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "(3000, 64)\n")
    assert done.stderr.count("GgrankWarning: ") == 1
    assert "cannot be used" in done.stderr


def test_a_closed_cache_finds_nothing_and_keeps_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as cache:
        cache.close()
        keys = cache.keys(inputs(3))
        cache.put_many(keys, numbers(3))
        assert np.isnan(cache.get_many(keys, width=3)).all()
