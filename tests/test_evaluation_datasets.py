"""Test sets are read as their files say, and what cannot be read is refused by file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from ggrank import InputError
from ggrank.evaluation.datasets import Query, TestSet, read_run, read_test_set, sample

DOCUMENTS = {
    "d1": ("Llamas", "They live in the Andes and carry loads."),
    "d2": ("", "Paris is the capital of France."),
    "d3": ("", "Bread is baked from flour, water and yeast."),
    "d4": ("", "Rust is a systems programming language."),
}
QUERIES = {"q1": "Where do llamas live?", "q2": "What is bread made of?", "q3": "Who wrote this?"}
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td3\t1\nq3\tnowhere\t1\n"


def write_beir(folder: Path, *, packed: bool = False, qrels: str = "qrels.tsv") -> Path:
    corpus = [{"_id": name, "title": title, "text": text} for name, (title, text) in DOCUMENTS.items()]
    queries = [{"_id": name, "text": text} for name, text in QUERIES.items()]
    write(folder / "corpus.jsonl", "\n".join(map(json.dumps, corpus)), packed=packed)
    write(folder / "queries.jsonl", "\n".join(map(json.dumps, queries)), packed=packed)
    write(folder / qrels, QRELS, packed=packed)
    return folder


def write(path: Path, text: str, *, packed: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        path = path.with_name(f"{path.name}.gz")
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("qrels", ["qrels.tsv", "qrels/test.tsv"])
def test_a_beir_folder_is_read_plain_or_packed(tmp_path: Path, packed: bool, qrels: str) -> None:
    test = read_test_set(write_beir(tmp_path / "zoo", packed=packed, qrels=qrels))
    assert (test.name, test.documents[0]) == ("zoo", "Llamas They live in the Andes and carry loads.")
    assert test.queries == (Query("q1", QUERIES["q1"], {0: 2}), Query("q2", QUERIES["q2"], {2: 1}))


def test_a_query_without_a_relevant_document_is_left_out_and_counted(tmp_path: Path) -> None:
    test = read_test_set(write_beir(tmp_path))
    assert (test.n_skipped, len(test.queries)) == (1, 2)


def test_a_judgement_of_an_unknown_id_is_left_out_and_counted(tmp_path: Path) -> None:
    assert read_test_set(write_beir(tmp_path)).n_unknown == 1


@pytest.mark.parametrize("line", ["q1 0 d1 2", "q1\t0\td1\t2", "q1\td1\t2.0", "q1 d1 2"])
def test_qrels_may_have_trec_eval_s_columns_and_no_header(tmp_path: Path, line: str) -> None:
    (write_beir(tmp_path) / "qrels.tsv").write_text(f"{line}\n", "utf-8")
    assert read_test_set(tmp_path).queries == (Query("q1", QUERIES["q1"], {0: 2}),)


@pytest.mark.parametrize("grade", ["inf", "nan", "0.5", "1e300", "one"])
def test_a_grade_that_is_no_whole_number_is_refused_by_line(tmp_path: Path, grade: str) -> None:
    (write_beir(tmp_path) / "qrels.tsv").write_text(f"q1\td1\t1\nq2\td3\t{grade}\n", "utf-8")
    with pytest.raises(InputError, match=r"qrels\.tsv:2: expected"):
        read_test_set(tmp_path)


@pytest.mark.parametrize("line", ["q1,d1,1", "q1, d1, 1", "query-id,corpus-id,score", "q1 d1"])
def test_qrels_of_other_columns_are_refused_by_line(tmp_path: Path, line: str) -> None:
    (write_beir(tmp_path) / "qrels.tsv").write_text(f"{line}\n", "utf-8")
    expected = r"qrels\.tsv:1: expected query-id, corpus-id and a whole number, .* spaces between; found 'q"
    with pytest.raises(InputError, match=expected):
        read_test_set(tmp_path)


def test_a_record_without_text_is_refused_with_an_example_of_beir(tmp_path: Path) -> None:
    write(write_beir(tmp_path) / "corpus.jsonl", '{"_id": "d1"}\n')
    with pytest.raises(
        InputError, match=r"corpus\.jsonl:1: expected .* \{\"_id\": \"a1\", .*; no column 'text'"
    ):
        read_test_set(tmp_path)


def test_numbers_as_ids_are_the_same_as_their_digits(tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl", '{"_id": 7, "text": "seven"}\n{"_id": "8", "text": "eight"}\n')
    write(tmp_path / "queries.jsonl", '{"_id": 1, "text": "what is seven"}\n')
    write(tmp_path / "qrels.tsv", "1\t7\t1\n")
    assert read_test_set(tmp_path).queries == (Query("1", "what is seven", {0: 1}),)


def test_two_documents_of_one_id_are_refused(tmp_path: Path) -> None:
    path = write_beir(tmp_path) / "corpus.jsonl"
    path.write_text(path.read_text("utf-8").replace('"d2"', '"d1"'), "utf-8")
    with pytest.raises(InputError, match="two records have the id 'd1'"):
        read_test_set(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pairs.tsv", 'query\tpassage\nsize of a "cat"\tsmall\nanimal\tsmall\nanimal\ta llama\n'),
        ("pairs.csv", '"size of a ""cat""",small\nanimal,small\nanimal,a llama\n'),
        (
            "pairs.jsonl",
            '{"query": "size of a \\"cat\\"", "passage": "small"}\n{"query": "animal", "positive": "small"}\n'
            '{"query": "animal", "passage": "a llama"}\n',
        ),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_of_pairs_is_a_set_of_its_distinct_passages(
    tmp_path: Path, name: str, text: str, packed: bool
) -> None:
    test = read_test_set(write(tmp_path / name, text, packed=packed))
    assert (test.name, test.documents) == ("pairs", ("small", "a llama"))
    assert test.queries == (Query("0", 'size of a "cat"', {0: 1}), Query("1", "animal", {0: 1, 1: 1}))


@pytest.mark.parametrize("header", ["question,answer", "Query, Document", "Q,TEXT", "questions,gold"])
def test_a_first_line_that_names_the_columns_is_no_pair(tmp_path: Path, header: str) -> None:
    test = read_test_set(write(tmp_path / "a.csv", f"{header}\nwho?,me\n"))
    assert ([query.text for query in test.queries], test.documents) == (["who?"], ("me",))


@pytest.mark.parametrize("line", ["query,a llama", "what,text", "answer,question"])
def test_a_first_line_of_which_one_cell_is_another_word_is_a_pair(tmp_path: Path, line: str) -> None:
    assert len(read_test_set(write(tmp_path / "a.csv", f"{line}\nwho?,me\n")).queries) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.tsv",
            "only one column\n",
            r"a\.tsv:1: expected two columns, query and passage; found 'only one column'",
        ),
        ("a.tsv", "q\t \n", r"a\.tsv:1: the query or the passage is empty"),
        ("a.jsonl", '{"query": 3}\n', r"a\.jsonl:1: expected"),
        ("a.jsonl", "[\n", r"a\.jsonl:1: expected"),
        ("a.csv", "", r"no \(query, passage\) pair"),
        ("a.txt", "q\tp\n", r"expected a folder of BEIR's or MS MARCO's files, or pairs"),
    ],
)
def test_a_file_of_another_form_is_refused_by_line(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_test_set(write(tmp_path / name, text))


def test_a_packed_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "query\tpassage\n" * 99, packed=True)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match=r"a\.tsv\.gz"):
        read_test_set(path)


@pytest.mark.parametrize("place", range(10, 200, 7))
def test_a_packed_file_that_is_damaged_is_refused(tmp_path: Path, place: int) -> None:
    text = "".join(f"query {i * i}\tpassage {i**3}\n" for i in range(99))
    path = write(tmp_path / "a.tsv", text, packed=True)
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.tsv\.gz"):
        read_test_set(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_pairs_may_be_in_another_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes("query\tpassage\nWo gibt es Müsli?\tIm schönen Café.\n".encode(encoding))
    assert read_test_set(path).documents == ("Im schönen Café.",)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_ms_marco_s_files_are_read(tmp_path: Path, suffix: str) -> None:
    packed = bool(suffix)
    write(tmp_path / "collection.tsv", '0\tThe "first" passage\n7\tThe second\n', packed=packed)
    write(tmp_path / "queries.dev.small.tsv", "300\twhat comes second\n301\twhat else\n", packed=packed)
    write(tmp_path / "qrels.dev.small.tsv", "300\t0\t7\t1\n", packed=packed)
    test = read_test_set(tmp_path)
    assert test.documents == ('The "first" passage', "The second")
    assert (test.queries, test.n_skipped) == ((Query("300", "what comes second", {1: 1}),), 1)


def test_a_query_s_own_document_does_not_count_and_the_same_id_by_chance_does(tmp_path: Path) -> None:
    write_beir(tmp_path)
    write(
        tmp_path / "queries.jsonl",
        '{"_id": "d1", "text": "They live in  the Andes"}\n{"_id": "d2", "text": "bread"}\n',
    )
    write(tmp_path / "qrels.tsv", "d1\td1\t1\nd1\td3\t1\nd2\td2\t1\n")
    assert read_test_set(tmp_path).queries == (
        Query("d1", "They live in  the Andes", {2: 1}, own=0),
        Query("d2", "bread", {1: 1}),
    )


TREC = """\
q2 Q0 d4 2 1.5 other
q2 Q0 d3 1 -2e-3 other
q2 Q0 nowhere 3 9 other
q1 Q0 d1 1 0.25 other
"""
MS_MARCO = "q2\td3\t2\nq2\td4\t1\nq1\td1\t1\n"


@pytest.mark.parametrize(("name", "text"), [("other.trec", TREC), ("other.tsv", MS_MARCO), ("other", TREC)])
@pytest.mark.parametrize("packed", [False, True])
def test_a_run_is_ordered_by_its_scores_or_its_ranks(
    tmp_path: Path, name: str, text: str, packed: bool
) -> None:
    test = read_test_set(write_beir(tmp_path / "zoo"))
    write(tmp_path / name, text, packed=packed)
    run = read_run(tmp_path / (f"{name}.gz" if packed else name), test)
    assert (run.name, run.rankings) == ("other", ([0], [3, 2]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "q1 Q0 d1 1\n",
            r"other\.trec:1: expected query id, Q0, document id, rank, score and tag, or .*'q1 Q0 d1 1'",
        ),
        ("q1 Q0 d1 1 high tag\n", r"other\.trec:1: expected"),
        ("q1 0 1 2\n", r"other\.trec:1: expected"),
        ("q9 Q0 d1 1 2.0 tag\n", r"expected the ids of the files of zoo"),
        ("", r"expected the ids of the files of zoo"),
    ],
)
def test_a_run_of_another_form_or_of_other_ids_is_refused(tmp_path: Path, text: str, message: str) -> None:
    test = read_test_set(write_beir(tmp_path / "zoo"))
    with pytest.raises(InputError, match=message):
        read_run(write(tmp_path / "other.trec", text), test)


def test_a_byte_order_mark_and_windows_line_ends_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"\xef\xbb\xbfquery\tpassage\r\nwhat\tthis\r\n")
    assert read_test_set(path).documents == ("this",)


def test_a_quoted_cell_may_hold_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'what,"first, and\nsecond"\n')
    assert read_test_set(path).documents == ("first, and\nsecond",)


@pytest.mark.parametrize("missing", ["corpus.jsonl", "queries.jsonl", "qrels.tsv"])
def test_a_folder_without_one_of_its_files_is_refused_with_its_name(tmp_path: Path, missing: str) -> None:
    (write_beir(tmp_path) / missing).unlink()
    with pytest.raises(InputError, match=rf"{missing} or .* is missing, plain or with \.gz;"):
        read_test_set(tmp_path)


def test_qrels_of_other_ids_are_refused(tmp_path: Path) -> None:
    (write_beir(tmp_path) / "qrels.tsv").write_text("q9\td1\t1\n", "utf-8")
    with pytest.raises(InputError, match="the ids in qrels must be those of the files"):
        read_test_set(tmp_path)


def test_a_sample_is_always_the_same_and_in_order() -> None:
    queries = tuple(Query(str(i), "?", {0: 1}) for i in range(100))
    test = TestSet("a", ("text",), queries, n_queries_in_all=100)
    first, again = sample(test, 10), sample(test, 10)
    assert first == again
    assert [int(query.id) for query in first.queries] == sorted(int(query.id) for query in first.queries)
    assert (len(first.queries), first.n_queries_in_all) == (10, 100)
