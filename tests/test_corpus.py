"""Jobs over files of rows: what is read, what is written, and what is refused."""

from __future__ import annotations

import csv
import gzip
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tiny_models
from corpus_jobs import read_jsonl, text, write_jsonl
from ggrank import InputError, Llama, LlamaParams, ModelModeError
from ggrank.hub.presets import bundled_path, presets
from ggrank.jobs import EmbedStep, Job, Progress, ScoreStep, Summary, VectorForm, find_sources, run
from ggrank.jobs.rows import RowReader

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
    names = {"text_columns", "prefix", "form", "column"}
    step_options = {name: options.pop(name) for name in names & options.keys()}
    params = LlamaParams(params) if isinstance(params, str) else params
    sources = find_sources([str(source)], output=output)
    return run(Job(EmbedStep(params, **step_options), sources, output, **options))


ROWS = [{"id": i, "text": text(i), "year": 1900 + i} for i in range(50)]


def test_vectors_are_those_of_the_api_and_rows_keep_order_and_columns(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    summary = embed(source, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["id", "text", "year", "embedding", "embedding_truncated"]
    assert table.select(["id", "text", "year"]).to_pylist() == ROWS
    with Llama.load(EMBEDDER) as llama:
        expected = llama.embed_many(row["text"] for row in ROWS)
        n_tokens = sum(llama.count_tokens(str(row["text"])) for row in ROWS)
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), np.float32), expected)
    assert (summary.rows, summary.bad_rows, summary.tokens) == (50, 0, n_tokens)


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


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet", ".ndjson"])
def test_the_same_rows_give_the_same_vectors_whatever_file_they_are_in(
    suffix: str, tmp_path: Path, tiny: LlamaParams
) -> None:
    source = tmp_path / f"rows{suffix}"
    if "parquet" in suffix:
        pq.write_table(pa.Table.from_pylist(ROWS), source, row_group_size=20)
    else:
        opened = gzip.open if suffix.endswith(".gz") else open
        with opened(source, "wt", newline="", encoding="utf-8-sig") as file:
            if "csv" in suffix:
                writer = csv.DictWriter(file, list(ROWS[0]))
                writer.writeheader()
                writer.writerows(ROWS)
            else:
                file.writelines(json.dumps(row) + "\n" for row in ROWS)
    embed(source, tmp_path / "out.npy", tiny, part_rows=7)
    expected = write_jsonl(tmp_path / "expected.jsonl", ROWS)
    embed(expected, tmp_path / "expected.npy", tiny, part_rows=7)
    found = np.load(tmp_path / "out.npy")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.load(tmp_path / "expected.npy"))


NANOSECONDS = pa.struct([("at", pa.time64("ns")), ("for", pa.duration("ns"))])


def test_parquet_keeps_the_types_that_json_lacks(tmp_path: Path, tiny: LlamaParams) -> None:
    table = pa.table(
        {
            "text": pa.array([text(i) for i in range(300)], pa.large_string()),
            "when": pa.array(range(300), pa.timestamp("ns")),
            "then": pa.array([[{"at": i, "for": i}] for i in range(300)], pa.list_(NANOSECONDS)),
            "tags": pa.array([["a"], None, []] * 100),
            "raw": pa.array([b"\xff"] * 300),
            "kind": pa.array(["x"] * 300).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=70)
    embed(tmp_path / "rows.parquet", tmp_path / "out", tiny, part_rows=90)
    found = pq.read_table(tmp_path / "out")
    assert found.select(table.column_names).replace_schema_metadata(None).equals(table)
    embed(tmp_path / "rows.parquet", tmp_path / "out.jsonl", tiny)
    first = read_jsonl(tmp_path / "out.jsonl")[1]
    assert (first["when"], first["raw"], first["tags"]) == ("1970-01-01T00:00:00", "/w==", None)
    assert first["then"][0]["at"] == "00:00:00"


def test_the_title_goes_before_the_text_unless_columns_are_named(tmp_path: Path) -> None:
    rows = [{"title": "Cats", "text": "They purr.", "more": "Often."}]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    embed(source, tmp_path / "a.npy")
    embed(source, tmp_path / "b.npy", text_columns=("text", "more"))
    with Llama.load(EMBEDDER) as llama:
        first, second = llama.embed("Cats They purr."), llama.embed("They purr. Often.")
    np.testing.assert_allclose(np.load(tmp_path / "a.npy")[0], first, atol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "b.npy")[0], second, atol=1e-5)


def test_a_long_text_is_cut_and_marked(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [{"text": "short"}, {"text": "word " * 400}])
    summary = embed(source, tmp_path / "out.jsonl")
    assert [row["embedding_truncated"] for row in read_jsonl(tmp_path / "out.jsonl")] == [False, True]
    assert summary.truncated == 1


BAD = [
    (b"nothing", "not JSON"),
    (b'["a"]', "not an object: list"),
    (b'{"txt": "a"}', "no column 'text'"),
    (b'{"text": 5}', "holds no string: int"),
    (b'{"text": null}', "holds no string: null"),
    (b'{"text": "caf\xe9"}', "not UTF-8"),
    (b"[" * 100_000, "not JSON"),
]


def test_bad_rows_go_to_a_side_file_with_reason_and_line(tmp_path: Path, tiny: LlamaParams) -> None:
    lines = [b'{"text": "good"}', *(line for line, _ in BAD), b"", b'{"text": "good too"}']
    source = write_jsonl(tmp_path / "rows.jsonl", lines)
    summary = embed(source, tmp_path / "out", tiny, format="jsonl", part_rows=3)
    bad = read_jsonl(tmp_path / "out.bad.jsonl")
    assert [(row["file"], row["line"]) for row in bad] == [(str(source), i) for i in range(2, 2 + len(BAD))]
    assert all(reason in row["reason"] for row, (_, reason) in zip(bad, BAD, strict=True))
    assert (summary.rows, summary.bad_rows, summary.parts) == (2, len(BAD), 3)


@pytest.mark.parametrize(("line", "reason"), BAD[:5])
def test_strict_stops_at_the_first_bad_row(line: bytes, reason: str, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [b'{"text": "good"}', line])
    with pytest.raises(InputError, match=rf"rows\.jsonl:2: .*{reason.split(':')[0]}"):
        embed(source, tmp_path / "out.jsonl", is_strict=True)
    with pytest.raises(InputError, match=r":2: .*in a \.npy .*\.jsonl and \.parquet can leave it out"):
        embed(source, tmp_path / "out.npy")  # a row's number is all that a .npy knows it by
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]


def test_bad_rows_of_csv_and_parquet_are_named_too(tmp_path: Path, tiny: LlamaParams) -> None:
    (tmp_path / "rows.csv").write_bytes(b'id,text\n1,"two\nlines"\n2\n3,caf\xe9\n4,good\n')
    assert embed(tmp_path / "rows.csv", tmp_path / "a.jsonl", tiny).bad_rows == 2
    bad = read_jsonl(tmp_path / "a.jsonl.bad.jsonl")
    assert [(row["line"], row["reason"]) for row in bad] == [
        (4, "1 fields, and the header names 2"),
        (5, "not UTF-8"),
    ]
    pq.write_table(pa.table({"text": ["a", None, "b"]}), tmp_path / "rows.parquet")
    assert embed(tmp_path / "rows.parquet", tmp_path / "b.parquet", tiny).rows == 2
    assert read_jsonl(tmp_path / "b.parquet.bad.jsonl")[0]["line"] == 2


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_missing_column_is_an_error_that_lists_those_there_are(suffix: str, tmp_path: Path) -> None:
    source = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"id": [1], "body": ["a"]}), source)
    else:
        source.write_text('{"id": 1, "body": "a"}\n' if suffix == ".jsonl" else "id,body\n1,a\n")
    with pytest.raises(InputError, match=r"no column 'text'; the columns are: id, body"):
        embed(source, tmp_path / "out.jsonl")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_column_that_is_there_is_not_overwritten(suffix: str, tmp_path: Path, tiny: LlamaParams) -> None:
    source = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"text": ["a"], "embedding": ["mine"]}), source)
    else:
        source.write_text(
            '{"text": "a", "embedding": "mine"}\n' if suffix == ".jsonl" else "text,embedding\na,mine\n"
        )
    with pytest.raises(InputError, match="another name with --output-column"):
        embed(source, tmp_path / "out.jsonl", tiny)
    embed(source, tmp_path / "out.jsonl", tiny, column="vector")
    assert list(read_jsonl(tmp_path / "out.jsonl")[0]) == ["text", "embedding", "vector", "vector_truncated"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_late_row_that_has_the_new_column_is_a_bad_row(
    suffix: str, tmp_path: Path, tiny: LlamaParams
) -> None:
    rows = [
        {"text": "a"},
        {"text": "b", "embedding": 1},
        {"text": "c", "embedding_truncated": 2},
        {"text": "d"},
    ]
    source, output = write_jsonl(tmp_path / "rows.jsonl", rows), tmp_path / f"out{suffix}"
    assert embed(source, output, tiny).rows == 2
    bad = read_jsonl(tmp_path / f"out{suffix}.bad.jsonl")
    assert [row["line"] for row in bad] == [2, 3]
    assert all("another name with --output-column" in row["reason"] for row in bad)
    written = pq.read_table(output).to_pylist() if suffix == ".parquet" else read_jsonl(output)
    assert [row["text"] for row in written] == ["a", "d"]
    with pytest.raises(InputError, match=":2: there is a column 'embedding' already"):
        embed(source, tmp_path / f"strict{suffix}", tiny, is_strict=True)


def test_each_file_of_json_lines_must_have_the_column(tmp_path: Path, tiny: LlamaParams) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}])
    write_jsonl(tmp_path / "b.jsonl", [b"bad", {"body": "b"}])
    with pytest.raises(InputError, match=r"b\.jsonl: there is no column 'text'; the columns are: body"):
        embed(f"{tmp_path}/*.jsonl", tmp_path / "out" / "parts", tiny)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]


def test_without_one_good_row_nothing_takes_the_output_s_name(tmp_path: Path, tiny: LlamaParams) -> None:
    for lines in ([], [b"", b""], [b"bad", b'{"text": 1}']):
        source = write_jsonl(tmp_path / "rows.jsonl", lines)
        n_bad = sum(map(bool, lines))
        for name in ("a.parquet", "a.jsonl", "a", *(() if n_bad else ("a.npy",))):
            summary = embed(source, tmp_path / name, tiny, part_rows=1)
            assert (summary.rows, summary.bad_rows, summary.parts) == (0, n_bad, 0)
            bad = [f"{name}.bad.jsonl"] if n_bad else []
            assert sorted(path.name for path in tmp_path.iterdir()) == [*bad, "rows.jsonl"]
            assert embed(source, tmp_path / name, tiny, part_rows=1).bad_rows == n_bad, "and again"
            (tmp_path / f"{name}.bad.jsonl").unlink(missing_ok=True)


# -- how vectors are kept


@pytest.mark.parametrize(
    ("dtype", "least_cosine"), [("float32", 0.9999999), ("float16", 0.999999), ("int8", 0.9995)]
)
def test_a_narrower_dtype_keeps_the_direction(dtype: Any, least_cosine: float, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    embed(source, tmp_path / "out.npy", form=VectorForm(dtype=dtype))
    found = np.load(tmp_path / "out.npy")
    assert found.dtype == np.dtype(dtype)
    with Llama.load(EMBEDDER) as llama:
        expected = llama.embed_many(row["text"] for row in ROWS)
    wide = found.astype(np.float64)
    cosines = (wide * expected).sum(axis=1) / np.linalg.norm(wide, axis=1)
    assert cosines.min() >= least_cosine
    if dtype == "int8":
        assert set(np.abs(found.astype(int)).max(axis=1).tolist()) == {127}


def test_binary_is_the_signs_as_numpy_packs_them(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    embed(source, tmp_path / "out.parquet", form=VectorForm(dtype="binary"))
    found = np.array(pq.read_table(tmp_path / "out.parquet")["embedding"].to_pylist(), np.uint8)
    with Llama.load(EMBEDDER) as llama:
        expected = llama.embed_many(row["text"] for row in ROWS)
    assert found.shape == (50, 48)
    np.testing.assert_array_equal(np.unpackbits(found, axis=1), expected > 0)


def test_a_model_that_was_not_trained_for_fewer_dimensions_refuses_them(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(InputError, match=r"not trained .*Matryoshka.* nomic-embed-text-v1\.5"):
        embed(source, tmp_path / "out.npy", form=VectorForm(dimensions=64))


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
        embed(source, tmp_path / "out.npy", LlamaParams(renamed), form=VectorForm(dimensions=16))
    form = VectorForm(dimensions=8)
    normal = (whole - whole.mean(1, keepdims=True)) / np.sqrt(whole.var(1, keepdims=True) + 1e-5)
    expected = normal[:, :8] / np.linalg.norm(normal[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(form.apply(np.float32(whole), trained), expected, atol=1e-5)


def test_a_model_without_a_layer_norm_is_cut_plainly(tmp_path: Path) -> None:
    """The bundled model's weights under the name of one that was trained with 256 too."""
    path = shutil.copy(bundled_path(presets()[EMBEDDER]), tmp_path / "snowflake-arctic-embed-m-v1.5-x.gguf")
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    embed(source, tmp_path / "out.npy", LlamaParams(path), form=VectorForm(dimensions=256))
    with Llama.load(path) as llama:
        cut = llama.embed_many((row["text"] for row in ROWS), normalize=False)[:, :256].astype(np.float64)
    expected = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)
    with pytest.raises(InputError, match=r"dimensions of .* must be 256, or 384 for the whole"):
        embed(source, tmp_path / "no.npy", LlamaParams(path), form=VectorForm(dimensions=64))


@pytest.mark.parametrize(
    "options",
    [{"dtype": "int4"}, {"dtype": "int8", "normalize": False}, {"dtype": "binary", "normalize": False}],
)
def test_forms_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        VectorForm(**options)


def test_the_wrong_kind_of_model_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(ModelModeError):
        embed(source, tmp_path / "out.jsonl", RERANKER)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


# -- sources


def test_folders_and_patterns_stand_for_their_files_in_order(tmp_path: Path, tiny: LlamaParams) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl", "_log.jsonl", ".hidden.jsonl"):
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
        (["empty"], "holds no file to read"),
        (["*.csv"], "no file matches"),
        (["a.jsonl", "a.jsonl"], "named twice"),
        (["a.jsonl", "empty/../a.jsonl"], "named twice"),
        (["a.jsonl", "link.jsonl"], r"link\.jsonl is named twice \(also as .*a\.jsonl\)"),
        (["a.jsonl", "b.parquet"], "several kinds"),
        (["a.jsonl", "-"], "goes alone"),
        (["notes.txt"], "what kind of file"),
    ],
)
def test_sources_that_cannot_be_read_together_are_refused(
    names: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("a.jsonl", "b.parquet", "notes.txt"):
        (tmp_path / name).write_text("{}")
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


def test_a_file_that_no_job_made_is_left_alone(tmp_path: Path, tiny: LlamaParams) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "out.jsonl").write_text("precious")
    with pytest.raises(InputError, match=r"out\.jsonl is there already, and no job made it"):
        embed(source, tmp_path / "out.jsonl", tiny)
    assert (tmp_path / "out.jsonl").read_text() == "precious"


def test_a_file_whose_name_is_no_utf8_goes_on_as_others(tmp_path: Path, tiny: LlamaParams) -> None:
    source = tmp_path / os.fsdecode(b"r\xff.jsonl")
    try:
        write_jsonl(source, [b"bad", *ROWS])
    except OSError:
        pytest.skip("this file system has only names in UTF-8")
    for output in (tmp_path / "out", tmp_path / "out.jsonl"):
        embed(source, output, tiny, format="jsonl")
        assert embed(source, output, tiny, format="jsonl").resumed_rows == 50
        assert read_jsonl(output.with_name(f"{output.name}.bad.jsonl"))[0]["file"] == str(source)


@given(text=st.text('a,"\n', max_size=12))
@settings(max_examples=200)
def test_a_csv_that_is_cut_within_quotes_is_told_from_a_whole_one(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As `csv` tells it in its strict mode, which also refuses other things and so is not for us."""
    path = tmp_path_factory.mktemp("cut") / "rows.csv"
    path.write_text(f"a\n{text}")
    is_cut = False
    try:
        list(csv.reader(path.read_text().splitlines(keepends=True), strict=True))
    except csv.Error as error:
        is_cut = True
        assume("unexpected end of data" in str(error))
    problems = [row.problem for row in RowReader(find_sources([str(path)]), ["a"])]
    found = ["never closed" in problem for problem in problems]
    assert (any(found[:-1]), any(found)) == (False, is_cut)


def test_an_open_quote_is_a_bad_row_that_names_its_lines(tmp_path: Path, tiny: LlamaParams) -> None:
    (tmp_path / "rows.csv").write_text('id,text\n0,good\n1,"never closed\n' + "2,b\n" * 10)
    summary = embed(tmp_path / "rows.csv", tmp_path / "out.jsonl", tiny)
    assert (summary.rows, summary.bad_rows) == (1, 1)
    bad = read_jsonl(tmp_path / "out.jsonl.bad.jsonl")
    assert (bad[0]["line"], "up to line 13, the last" in bad[0]["reason"]) == (3, True)
    (tmp_path / "rows.csv").write_text('id,"text\n1,a\n')
    with pytest.raises(InputError, match=r"rows\.csv:1: .* never closed"):
        embed(tmp_path / "rows.csv", tmp_path / "header.jsonl", tiny)


def test_folders_are_made_for_parts_and_not_for_a_file(tmp_path: Path, tiny: LlamaParams) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    assert embed(source, tmp_path / "new" / "deep" / "parts", tiny).rows == 50
    with pytest.raises(InputError, match=r"the folder .*none does not exist; make it first"):
        embed(source, tmp_path / "none" / "out.jsonl", tiny)
    assert not (tmp_path / "none").exists()
    bad = write_jsonl(tmp_path / "bad.jsonl", [b"bad"])
    for folder in ("none/deep", "new/none/deep"):
        with pytest.raises(InputError, match="not JSON"):
            embed(bad, tmp_path / folder, tiny, is_strict=True)
    assert not (tmp_path / "none").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["deep"]


def test_the_folder_that_one_is_in_can_be_the_output(
    tmp_path: Path, tiny: LlamaParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [b"bad", *ROWS])
    (tmp_path / "parts").mkdir()
    monkeypatch.chdir(tmp_path / "parts")
    assert embed(source, Path(), tiny, format="jsonl").rows == 50
    assert Path("part-00000.jsonl").exists()
    assert Path("../parts.bad.jsonl").exists()


# -- odd rows

NAMES = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
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
            name = name.encode("utf-8", "replace").decode()
            stored = after[name]
            assert stored == value or stored == str(value) or json.loads(stored) == value


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


def test_progress_counts_rows_bytes_and_tokens(tmp_path: Path, tiny: LlamaParams) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    seen: list[Progress] = []
    job = Job(EmbedStep(tiny), find_sources([str(source)]), tmp_path / "out.npy", part_rows=20)
    summary = run(job, on_progress=seen.append)
    assert [progress.rows for progress in seen] == [20, 40, 50]
    assert seen[-1].n_bytes == seen[-1].n_bytes_total == source.stat().st_size
    assert seen[-1].n_tokens == summary.tokens
