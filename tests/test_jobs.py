"""Jobs over files of rows: what is read, what is written, how a corpus grows, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_models
from ggrank import InputError, Llama, LlamaParams, ModelModeError
from ggrank.hub.presets import bundled_path, presets
from ggrank.jobs import EmbedStep, Job, Progress, ScoreStep, Summary, find_sources, run
from ggrank.jobs.steps import keep_vectors
from ggrank.jobs.workers import compute_all
from job_rows import contents, read_jsonl, text, write_jsonl

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

EMBEDDER, RERANKER = "all-minilm-l6-v2", "ggrank-reranker-mini"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LlamaParams:
    """An embedder so small that thousands of texts are nothing."""
    model = tiny_models.write("bert-mean", tmp_path_factory.mktemp("models"))
    return LlamaParams(model, engine="llama.cpp", n_threads=1)


def embed(source: Path | str, output: Path, params: LlamaParams | str = EMBEDDER, **options: Any) -> Summary:
    """A job that embeds; options are those of the step or of the job."""
    names = {"text_columns", "prefix", "dtype", "dimensions", "column"}
    step_options = {name: options.pop(name) for name in names & options.keys()}
    params = LlamaParams(params) if isinstance(params, str) else params
    sources = find_sources([str(source)], output=output)
    return run(Job(EmbedStep(params, **step_options), sources, output, **options))


def rows_of(path: Path) -> list[dict[str, Any]]:
    return read_jsonl(path) if path.suffix == ".jsonl" else pq.read_table(path).to_pylist()


def vectors(path: Path) -> Any:
    return np.array([row["embedding"] for row in rows_of(path)], np.float32)


ROWS: list[dict[str, Any]] = [{"id": i, "text": text(i), "year": 1900 + i} for i in range(50)]


def test_vectors_are_those_of_the_api_and_rows_keep_order_and_columns(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    summary = embed(source, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["id", "text", "year", "embedding", "embedding_truncated"]
    assert table.select(["id", "text", "year"]).to_pylist() == ROWS
    with Llama.load(EMBEDDER) as llama:
        expected = llama.embed_many(row["text"] for row in ROWS)
        n_tokens = sum(llama.count_tokens(str(row["text"])) for row in ROWS)
    np.testing.assert_array_equal(vectors(tmp_path / "out.parquet"), expected)
    assert (summary.rows, summary.bad_rows, summary.tokens) == (50, 0, n_tokens)
    embed(source, tmp_path / "out.jsonl")
    np.testing.assert_array_equal(vectors(tmp_path / "out.jsonl"), expected)


def test_scores_are_those_of_the_api(tmp_path: Path) -> None:
    rows = [{"q": "who hums?", "d": d, "label": i} for i, d in enumerate(["Bees hum.", "Cars rust."])]
    source = write_jsonl(tmp_path / "pairs.jsonl", rows)
    step = ScoreStep(LlamaParams(RERANKER), query_column="q", document_column="d")
    run(Job(step, find_sources([str(source)]), tmp_path / "scored.jsonl"))
    with Llama.load(RERANKER) as llama:
        expected = llama.score_pairs((row["q"], row["d"]) for row in rows)  # type: ignore[misc]
    scored = read_jsonl(tmp_path / "scored.jsonl")
    assert [{name: row[name] for name in ("q", "d", "label")} for row in scored] == rows
    np.testing.assert_array_equal(np.float32([row["score"] for row in scored]), expected)


@pytest.mark.parametrize("output", ["out.jsonl", "out.parquet"])
def test_parquet_keeps_its_types_in_parquet_and_its_values_in_json(
    output: str, tmp_path: Path, tiny: LlamaParams
) -> None:
    table = pa.table(
        {
            "text": pa.array([text(i) for i in range(300)], pa.string_view()),
            "when": pa.array(range(300), pa.timestamp("ns")),
            "tags": pa.array([["a"], None, []] * 100),
            "raw": pa.array([b"\xff"] * 300),
            "kind": pa.array(["x"] * 300).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=70)
    assert embed(tmp_path / "rows.parquet", tmp_path / output, tiny, shard_rows=90).rows == 300
    if output == "out.parquet":
        found = pq.read_table(tmp_path / output).select(table.column_names).replace_schema_metadata(None)
        assert found.equals(table)
    else:
        row = read_jsonl(tmp_path / output)[2]
        assert [row[name] for name in table.column_names] == [
            text(2),
            "1970-01-01 00:00:00.000000002",
            [],
            "/w==",
            "x",
        ]


def test_the_title_goes_before_the_text_unless_columns_are_named(tmp_path: Path) -> None:
    rows = [
        {"title": "Cats", "text": "They purr.", "more": "Often."},
        {"title": None, "text": "x", "more": ""},
    ]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    embed(source, tmp_path / "a.jsonl")
    embed(source, tmp_path / "b.jsonl", text_columns=("text", "more"), prefix="about ")
    with Llama.load(EMBEDDER) as llama:
        first, second = llama.embed("Cats They purr."), llama.embed("about They purr. Often.")
    np.testing.assert_allclose(vectors(tmp_path / "a.jsonl")[0], first, atol=1e-5)
    np.testing.assert_allclose(vectors(tmp_path / "b.jsonl")[0], second, atol=1e-5)


def test_a_long_text_is_cut_and_marked(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [{"text": "short"}, {"text": "word " * 400}])
    summary = embed(source, tmp_path / "out.jsonl")
    assert [row["embedding_truncated"] for row in read_jsonl(tmp_path / "out.jsonl")] == [False, True]
    assert summary.truncated == 1


# -- bad rows


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_bad_rows_go_to_a_side_file_with_reason_and_line(
    suffix: str, tmp_path: Path, tiny: LlamaParams
) -> None:
    bad = [(b"nothing", "not JSON"), (b'{"text": 5}', "has no string"), (b'{"text": "caf\xe9"}', "not UTF-8")]
    taken = (b'{"text": "a", "embedding": 1}', "there is a column 'embedding' already")
    lines = [b'{"text": "good"}', *(line for line, _ in bad), b"", taken[0], b'{"text": "good too"}']
    source = write_jsonl(tmp_path / "rows.jsonl", lines)
    for output in (tmp_path / f"out{suffix}", tmp_path / "folder"):
        summary = embed(source, output, tiny, format=suffix[1:], shard_rows=2)
        assert (summary.rows, summary.bad_rows) == (2, 4)
    found = read_jsonl(tmp_path / f"out{suffix}.bad.jsonl")
    assert [(row["file"], row["line"]) for row in found] == [(str(source), i) for i in (2, 3, 4, 6)]
    assert all(reason in row["reason"] for row, (_, reason) in zip(found, [*bad, taken], strict=True))
    side_files = sorted((tmp_path / "folder").glob("_part-*.bad"))
    assert [row for path in side_files for row in read_jsonl(path)] == found


def test_rows_that_do_not_fit_their_columns_in_parquet_are_bad_rows(
    tmp_path: Path, tiny: LlamaParams
) -> None:
    rows = [
        {"text": "a", "n": 1, "x": 1, "any": "s", "ok": True},
        {"text": "b", "n": None, "x": 2.5, "any": [1]},
        {"text": "c", "n": 2, "new": 7, "x": 3},  # a new column, and a whole number among others
        {"text": "d", "n": "word"},
        {"text": "e", "n": 2.5},
        {"text": "f", "ok": False, "any": {"k": 1}},
    ]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    for output in ("out.parquet", "folder"):
        assert embed(source, tmp_path / output, tiny, shard_rows=2).bad_rows == 2
    found = read_jsonl(tmp_path / "out.parquet.bad.jsonl")
    assert [row["line"] for row in found] == [4, 5]
    assert "column 'n' has text or a list, and the rows before it have whole numbers" in found[0]["reason"]
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["n"].to_pylist() == [1, None, 2, None]
    assert table["x"].to_pylist() == [1.0, 2.5, 3.0, None]
    assert table["any"].to_pylist() == ["s", "[1]", None, '{"k": 1}']
    assert table["new"].to_pylist() == [None, None, 7, None]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_missing_or_taken_column_is_an_error_that_lists_those_there_are(
    suffix: str, tmp_path: Path, tiny: LlamaParams
) -> None:
    source = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"id": [1], "body": ["a"]}), source)
    else:
        source.write_text('{"id": 1, "body": "a"}\n')
    with pytest.raises(InputError, match=r"no column 'text'; the columns are: id, body"):
        embed(source, tmp_path / "out.jsonl", tiny)
    with pytest.raises(InputError, match="another name with --column"):
        embed(source, tmp_path / "out.jsonl", tiny, text_columns=("body",), column="id")
    assert [path.name for path in tmp_path.iterdir()] == [source.name]
    embed(source, tmp_path / "out.jsonl", tiny, text_columns=("body",), column="vector")
    assert list(read_jsonl(tmp_path / "out.jsonl")[0]) == ["id", "body", "vector", "vector_truncated"]


def test_without_one_good_row_only_bad_rows_are_written_and_another_job_can_begin(
    tmp_path: Path, tiny: LlamaParams
) -> None:
    for lines in ([], [b"", b""], [b"bad", b'{"text": 1}']):
        source = write_jsonl(tmp_path / "rows.jsonl", lines)
        n_bad = sum(map(bool, lines))
        for name in ("a.parquet", "a.jsonl", "a"):
            for _ in range(2):
                summary = embed(source, tmp_path / name, tiny, shard_rows=1)
                assert (summary.rows, summary.bad_rows, summary.shards) == (0, n_bad, 0)
            assert not (tmp_path / name).is_file()
            assert (tmp_path / f"{name}.bad.jsonl").exists() == (n_bad > 0 and "." in name)
            good = write_jsonl(tmp_path / "good.jsonl", [{"text": "good"}])
            assert embed(good, tmp_path / name, tiny).rows == 1
            good.unlink()
            for path in tmp_path.glob("a*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


# -- how vectors are kept


@pytest.mark.parametrize(
    ("dtype", "least_cosine"), [("float32", 0.9999999), ("float16", 0.999999), ("int8", 0.9995)]
)
def test_a_narrower_dtype_keeps_the_direction(dtype: Any, least_cosine: float, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    embed(source, tmp_path / "out.parquet", dtype=dtype)
    assert (
        str(pq.read_schema(tmp_path / "out.parquet").field("embedding").type.value_type)
        == {
            "float32": "float",
            "float16": "halffloat",
            "int8": "int8",
        }[dtype]
    )
    with Llama.load(EMBEDDER) as llama:
        expected = llama.embed_many(row["text"] for row in ROWS)
    wide = vectors(tmp_path / "out.parquet").astype(np.float64)
    cosines = (wide * expected).sum(axis=1) / np.linalg.norm(wide, axis=1)
    assert cosines.min() >= least_cosine


def test_a_model_that_was_not_trained_for_fewer_dimensions_refuses_them(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(InputError, match=r"not trained .*Matryoshka.* nomic-embed-text-v1\.5"):
        embed(source, tmp_path / "out.jsonl", dimensions=64)


def test_fewer_dimensions_are_the_first_after_a_layer_norm(tmp_path: Path) -> None:
    """A model whose file has nomic's name, with the formula of nomic's card, written out."""
    model = tiny_models.write("nomic-mean", tmp_path)
    renamed = model.rename(tmp_path / "nomic-embed-text-v1.5.f32.gguf")
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    with Llama.load(renamed) as llama:
        whole = llama.embed_many((row["text"] for row in ROWS), normalize=False).astype(np.float64)
        trained = llama.matryoshka
    assert trained is not None
    with pytest.raises(InputError, match="must be 64 to 768; found 16"):
        embed(source, tmp_path / "out.jsonl", LlamaParams(renamed), dimensions=16)
    normal = (whole - whole.mean(1, keepdims=True)) / np.sqrt(whole.var(1, keepdims=True) + 1e-5)
    expected = normal[:, :8] / np.linalg.norm(normal[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(keep_vectors(np.float32(whole), "float32", 8, trained), expected, atol=1e-5)


def test_a_model_without_a_layer_norm_is_cut_plainly(tmp_path: Path) -> None:
    """The bundled model's weights under the name of one that was trained with 256 too."""
    path = shutil.copy(bundled_path(presets()[EMBEDDER]), tmp_path / "snowflake-arctic-embed-m-v1.5-x.gguf")
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    embed(source, tmp_path / "out.jsonl", LlamaParams(path), dimensions=256)
    with Llama.load(path) as llama:
        cut = llama.embed_many((row["text"] for row in ROWS), normalize=False)[:, :256].astype(np.float64)
    expected = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors(tmp_path / "out.jsonl"), expected, atol=1e-5)


def test_what_makes_no_sense_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(InputError, match="dtype must be one of float32, float16, int8; found 'int4'"):
        EmbedStep(LlamaParams(EMBEDDER), dtype="int4")  # type: ignore[arg-type]
    with pytest.raises(ModelModeError):
        embed(source, tmp_path / "out.jsonl", RERANKER)
    with pytest.raises(InputError, match="shard_rows must be at least 1"):
        embed(source, tmp_path / "out.jsonl", shard_rows=0)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


# -- sources


def test_folders_and_patterns_stand_for_their_files_in_order(tmp_path: Path, tiny: LlamaParams) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl", "_log.jsonl", ".hidden.jsonl", "about.json"):
        write_jsonl(tmp_path / name, [{"text": name}])
    embed(tmp_path, tmp_path / "out.jsonl", tiny)
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [row["text"] for row in rows] == ["a.jsonl", "b.jsonl", "deep/c.jsonl"]
    embed(tmp_path, tmp_path / "out.jsonl", tiny)  # what it wrote itself is no input
    embed(f"{tmp_path}/?.jsonl", tmp_path / "two.jsonl", tiny)
    assert [row["text"] for row in read_jsonl(tmp_path / "two.jsonl")] == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["none.jsonl"], "no such file"),
        (["empty"], "has no file of rows"),
        (["*.csv"], "no file matches"),
        (["a.jsonl", "empty/../a.jsonl"], "named twice"),
        (["a.jsonl", "link.jsonl"], r"link\.jsonl is named twice \(also as .*a\.jsonl\)"),
        (["a.jsonl", "-"], "goes alone"),
    ],
)
def test_sources_that_cannot_be_read_together_are_refused(
    names: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.jsonl").write_text("{}")
    (tmp_path / "link.jsonl").symlink_to("a.jsonl")
    path_of = {name: name if name == "-" else f"{tmp_path}/{name}" for name in names}
    with pytest.raises(InputError, match=message):
        find_sources([path_of[name] for name in names])


@pytest.mark.parametrize("output", ["rows.jsonl", "deep/../rows.jsonl", "link/rows.jsonl", "link.jsonl"])
def test_a_file_is_not_read_and_written_at_once(output: str, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "link.jsonl").symlink_to(source)
    with pytest.raises(InputError, match="both read and written"):
        find_sources([str(source)], output=tmp_path / output)


def test_a_file_whose_name_is_no_utf8_goes_on_as_others(tmp_path: Path, tiny: LlamaParams) -> None:
    source = tmp_path / os.fsdecode(b"r\xff.jsonl")
    try:
        write_jsonl(source, [b"bad", *ROWS])
    except OSError:
        pytest.skip("this file system has only names in UTF-8")
    for output in (tmp_path / "out", tmp_path / "out.jsonl"):
        embed(source, output, tiny, format="jsonl")
        assert embed(source, output, tiny, format="jsonl").new_rows == 0
    assert read_jsonl(tmp_path / "out.jsonl.bad.jsonl")[0]["file"] == str(source)


# -- a corpus that grows


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder of two large files and three small ones."""
    for name, n in (("a", 60), ("b", 50), ("small/1", 3), ("small/2", 4), ("small/3", 5)):
        path = tmp_path / "corpus" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        padding = "x" * 30_000 if n > 10 else ""
        write_jsonl(path, ({"id": f"{name}-{i}", "text": text(i), "padding": padding} for i in range(n)))
    return tmp_path / "corpus"


def ids(output: Path) -> list[str]:
    return [row["id"] for path in sorted(output.glob("part-*")) for row in read_jsonl(path)]


def expected_ids(*sizes: tuple[str, int]) -> list[str]:
    return [f"{name}-{i}" for name, n in sizes for i in range(n)]


ALL = (("a", 60), ("b", 50), ("small/1", 3), ("small/2", 4), ("small/3", 5))


def test_of_a_folder_that_grew_only_new_and_changed_files_are_computed(
    corpus: Path, tmp_path: Path, tiny: LlamaParams
) -> None:
    output = tmp_path / "out"

    def again() -> Summary:
        return embed(corpus, output, tiny, format="jsonl", shard_rows=25)

    assert (again().rows, ids(output)) == (122, expected_ids(*ALL))
    before = contents(output)
    assert again().new_rows == 0
    os.utime(corpus / "a.jsonl")  # the same bytes, another time
    assert again().new_rows == 0

    write_jsonl(corpus / "aa.jsonl", [{"id": "aa-0", "text": "new"}])
    summary = again()
    assert (summary.rows, summary.new_rows) == (123, 1)
    assert ids(output) == [*expected_ids(*ALL), "aa-0"], "new files come after those that were there"
    assert {name: data for name, data in contents(output).items() if name in before} == {
        **before,
        "_job.json": contents(output)["_job.json"],
    }

    write_jsonl(corpus / "small" / "2.jsonl", [{"id": "small/2-new", "text": "changed"}])
    summary = again()
    assert (summary.rows, summary.new_rows) == (120, 9), "a group of small files is computed together"
    assert "small/2-new" in ids(output)
    assert "small/2-0" not in ids(output)

    (corpus / "b.jsonl").unlink()
    summary = again()
    assert (summary.removed, summary.rows, summary.new_rows) == ((str(corpus / "b.jsonl"),), 120, 0)


def test_a_shard_that_was_removed_is_made_again(corpus: Path, tmp_path: Path, tiny: LlamaParams) -> None:
    output = tmp_path / "out"
    embed(corpus, output, tiny, format="jsonl", shard_rows=25)
    before = contents(output)
    (output / "part-00000-00001.jsonl").unlink()
    assert embed(corpus, output, tiny, format="jsonl", shard_rows=25).new_rows == 25
    assert contents(output) == before


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_of_small_files_one_is_deleted_and_one_changed_and_no_row_is_lost(
    format: Any, tmp_path: Path, tiny: LlamaParams
) -> None:
    """They share a shard: what stays of it is copied, what changed is computed."""
    corpus, output = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    for name in "abc":
        lines = [{"id": f"{name}{i}", "text": f"{name} {text(i)}"} for i in range(3)]
        write_jsonl(corpus / f"{name}.jsonl", [*lines, b"bad"])

    def again() -> Summary:
        return embed(corpus, output, tiny, format=format, shard_rows=5)

    def found() -> dict[str, Any]:
        rows = [row for path in sorted(output.glob("part-*")) for row in rows_of(path)]
        assert len({row["id"] for row in rows}) == len(rows)
        return {row["id"]: row["embedding"] for row in rows}

    again()
    before = found()
    (corpus / "b.jsonl").unlink()
    write_jsonl(corpus / "c.jsonl", [{"id": "new", "text": "changed"}])
    summary = again()
    assert (summary.rows, summary.bad_rows, summary.new_rows) == (7, 2, 4)
    assert summary.removed == (str(corpus / "b.jsonl"),)
    after = found()
    assert set(after) == {*("a0", "a1", "a2"), *("b0", "b1", "b2"), "new"}
    assert [after[f"b{i}"] for i in range(3)] == [before[f"b{i}"] for i in range(3)]
    assert again().new_rows == 0
    write_jsonl(corpus / "b.jsonl", [{"id": "b is back", "text": "another"}])
    assert (again().rows, "b is back" in found(), "b0" in found()) == (5, True, False)


def test_files_that_disagree_about_a_column_become_one_of_text(tmp_path: Path, tiny: LlamaParams) -> None:
    columns = {
        "n": ([1, 2], ["x", None]),
        "wide": ([2**60 + 1, 1], [0.5, 1.5]),
        "tags": ([["a"], []], ["b", None]),
        "none": ([None, None], [1, 2]),
        "price": ([Decimal("1.50"), None], [1, 2]),
    }
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for i in range(2):
        table = {"text": ["one", "two"], **{name: values[i] for name, values in columns.items()}}
        pq.write_table(pa.table(table), corpus / f"{i}.parquet")
    write_jsonl(corpus / "more.jsonl", [{"text": "three", "n": 3}])
    assert embed(corpus, tmp_path / "out.parquet", tiny).rows == 5
    found = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert found["n"] == ["1", "2", "x", None, "3"]
    assert found["wide"] == ["1152921504606846977", "1", "0.5", "1.5", None]
    assert found["tags"] == ['["a"]', "[]", "b", None, None]
    assert found["none"] == [None, None, 1, 2, None]
    assert found["price"] == ["1.50", None, "1", "2", None]


def test_a_table_without_a_text_is_embedded_whole_and_the_job_says_so(
    tmp_path: Path, tiny: LlamaParams
) -> None:
    (tmp_path / "rows.csv").write_text("\ncity,country\nCusco,Peru\n")
    told: list[str] = []
    step = EmbedStep(tiny)
    run(Job(step, (str(tmp_path / "rows.csv"),), tmp_path / "out.jsonl", tell=told.append))
    with Llama.load(tiny) as llama:
        expected = llama.embed("city: Cusco\ncountry: Peru")
    np.testing.assert_allclose(vectors(tmp_path / "out.jsonl")[0], expected, atol=1e-5)
    assert len(told) == 1
    assert "rows.csv has no column 'text'" in told[0]
    step = EmbedStep(tiny, text_columns=("text",))
    with pytest.raises(InputError, match="no column 'text'; the columns are: city, country"):
        run(Job(step, (str(tmp_path / "rows.csv"),), tmp_path / "named.jsonl"))


@pytest.mark.parametrize("first", [[], [["a text"]]])
def test_few_finished_shards_are_in_memory_at_a_time(tiny: LlamaParams, first: list[list[str]]) -> None:
    """A resumed job reads many shards that need no worker, after one that does or alone."""
    n_read = 0

    def work() -> Iterator[tuple[int, list[list[str]]]]:
        nonlocal n_read
        for n_read in range(200):
            yield n_read, [] if n_read else first

    for n, _ in compute_all(work(), EmbedStep(tiny), lambda computed: None, workers=2):
        assert n_read - n <= 5


def test_one_file_does_not_grow(corpus: Path, tmp_path: Path, tiny: LlamaParams) -> None:
    output = tmp_path / "out.jsonl"
    embed(corpus, output, tiny)
    before = output.read_bytes()
    write_jsonl(corpus / "aa.jsonl", [{"id": "aa-0", "text": "new"}])
    with pytest.raises(InputError, match="one file does not grow: name a folder"):
        embed(corpus, output, tiny)
    (corpus / "aa.jsonl").unlink()
    write_jsonl(corpus / "b.jsonl", [{"text": "changed"}])
    with pytest.raises(InputError, match=r"out\.jsonl was begun with other files, or one was changed"):
        embed(corpus, output, tiny)
    assert output.read_bytes() == before


# -- places to write to


def test_files_that_no_job_made_are_left_alone(tmp_path: Path, tiny: LlamaParams) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "out.jsonl").write_text("precious")
    with pytest.raises(InputError, match=r"out\.jsonl is there, and no job made it"):
        embed(source, tmp_path / "out.jsonl", tiny)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("precious")
    with pytest.raises(InputError, match="has other files in it"):
        embed(source, tmp_path / "out", tiny)
    with pytest.raises(InputError, match="is a file, and a folder should go there"):
        embed(source, tmp_path / "out.jsonl", tiny, is_folder=True)
    assert (tmp_path / "out.jsonl").read_text() == "precious"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious.txt"]


def test_folders_are_made_for_shards_and_not_for_a_file(tmp_path: Path, tiny: LlamaParams) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    assert embed(source, tmp_path / "new" / "deep" / "shards", tiny).rows == 50
    with pytest.raises(InputError, match=r"the folder .*none does not exist; make it first"):
        embed(source, tmp_path / "none" / "out.jsonl", tiny)
    bad = write_jsonl(tmp_path / "bad.jsonl", [{"body": "no text"}])
    for folder in ("none/deep", "new/none/deep"):
        with pytest.raises(InputError, match="no column"):
            embed(bad, tmp_path / folder, tiny)
    assert not (tmp_path / "none").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["deep"]


def test_the_folder_that_one_is_in_can_be_the_output(
    tmp_path: Path, tiny: LlamaParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [b"bad", *ROWS])
    (tmp_path / "shards").mkdir()
    monkeypatch.chdir(tmp_path / "shards")
    assert embed(source, Path(), tiny, format="jsonl").rows == 50
    assert Path("part-00000-00000.jsonl").exists()


# -- odd rows

NAMES = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
ODD_ROWS = st.lists(st.dictionaries(NAMES, VALUES, max_size=5), min_size=1, max_size=6)


@given(rows=ODD_ROWS)
@settings(max_examples=25)
def test_whatever_else_a_row_holds_comes_out_as_it_went_in(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory, tiny: LlamaParams
) -> None:
    folder = tmp_path_factory.mktemp("odd")
    rows = [{**row, "text": "a text"} for row in rows]
    for row in rows:
        row.pop("title", None)
    source = write_jsonl(folder / "rows.jsonl", rows)
    embed(source, folder / "out.jsonl", tiny)
    found = read_jsonl(folder / "out.jsonl")
    assert [{name: row[name] for name in before} for row, before in zip(found, rows, strict=True)] == rows

    embed(source, folder / "out.parquet", tiny)
    table = pq.read_table(folder / "out.parquet").to_pylist()
    for before, after in zip(rows, table, strict=True):
        for name, value in before.items():
            stored = after.get(name)
            assert stored == value or json.loads(stored) == value


# -- steps by themselves


def test_a_step_can_be_pickled_before_and_after_it_computed() -> None:
    step = EmbedStep(LlamaParams(EMBEDDER))
    table = {"id": [1, 2], "text": ["one", "two"]}
    before = pickle.loads(pickle.dumps(step))(table)
    step(table)
    after = pickle.loads(pickle.dumps(step))(table)
    np.testing.assert_array_equal(before["embedding"], after["embedding"])
    assert list(before) == ["id", "text", "embedding", "embedding_truncated"]


def test_a_step_takes_columns_as_numpy_gives_them() -> None:
    step = ScoreStep(LlamaParams(RERANKER), score="sigmoid")
    table = step({"query": np.array(["who hums?"]), "document": np.array(["Bees hum."], object)})
    assert 0 <= table["score"][0] <= 1
    with pytest.raises(InputError, match="columns are: query"):
        step({"query": ["a"]})


def test_progress_counts_rows_tokens_and_the_part_of_the_input(tmp_path: Path, tiny: LlamaParams) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    seen: list[Progress] = []
    job = Job(EmbedStep(tiny), find_sources([str(source)]), tmp_path / "out.jsonl", shard_rows=20)
    summary = run(job, on_progress=seen.append)
    assert [progress.rows for progress in seen] == [20, 40, 50]
    assert seen[-1].tokens == summary.tokens
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert 0.5 < fractions[-1] <= 1
