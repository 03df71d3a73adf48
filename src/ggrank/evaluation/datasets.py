"""Test sets: what is searched, what is asked, and which documents answer.

Knows two forms, BEIR's folders and files of (query, passage) pairs, both plain or gzipped; not how anything
is ranked.

    folder/corpus.jsonl    {"_id": "d1", "title": "...", "text": "..."}
    folder/queries.jsonl   {"_id": "q1", "text": "..."}
    folder/qrels.tsv       query-id <tab> corpus-id <tab> score     (or qrels/test.tsv)

    pairs.tsv, pairs.csv   query, passage                           (a header of `_HEADER` is left out)
    pairs.jsonl            {"query": "...", "passage": "..."}       ("positive" does for "passage")
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ggrank.errors import InputError
from ggrank.rows.documents import EXPECTED, Document, read_record

SEED = 20261121
"""Of the sample that `sample` takes."""

_HEADER = (
    {"query", "queries", "question", "questions", "q"},
    {"passage", "positive", "document", "doc", "answer", "text", "context", "gold"},
)
"""The words that the cells of a first line hold where it names the columns."""

_EXPECTED = EXPECTED.replace('"id"', '"_id"')
_PAIR_FORMS = ".tsv, .csv or .jsonl (.gz too)"
_GRADE = re.compile(r"[+-]?[0-9]{1,6}(\.0*)?")


@dataclass(frozen=True)
class Query:
    """A question, and the grades above 0 of the documents that answer it, by position in the corpus."""

    id: str
    text: str
    relevant: Mapping[int, int]


@dataclass(frozen=True)
class TestSet:
    """Documents, and the queries that have at least one relevant document among them.

    Attributes:
        n_queries_in_all: queries before `sample` took some.
        n_skipped: queries that were left out because they have none.
        n_unknown: judgements left out because the query or the document is not there.
    """

    name: str
    documents: tuple[str, ...]
    queries: tuple[Query, ...]
    n_queries_in_all: int = 0
    n_skipped: int = 0
    n_unknown: int = 0

    __test__ = False  # not a test, whatever pytest thinks of its name


def read_test_set(path: Path) -> TestSet:
    """A test set from a BEIR folder or a file of pairs.

    Raises:
        InputError: something is missing, unreadable, or not of the expected form; with file and line.
    """
    try:
        return _read_beir(path) if path.is_dir() else _read_pairs(path)
    except (OSError, EOFError, zlib.error) as error:  # the last two: a .gz that is cut off, or damaged
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{getattr(error, 'filename', None) or path}: {reason}") from error


def sample(test: TestSet, limit: int | None) -> TestSet:
    """At most ``limit`` queries, always the same ones, in their order.

    Example:
        >>> queries = tuple(Query(str(i), "?", {0: 1}) for i in range(9))
        >>> len(sample(TestSet("a", ("text",), queries), 4).queries)
        4
    """
    if limit is None or limit >= len(test.queries):
        return test
    chosen = sorted(random.Random(SEED).sample(range(len(test.queries)), limit))
    return replace(test, queries=tuple(test.queries[i] for i in chosen))


def _read_beir(folder: Path) -> TestSet:
    documents = _unique(_records(_find(folder, "corpus.jsonl")), folder / "corpus.jsonl")
    queries = _unique(_records(_find(folder, "queries.jsonl")), folder / "queries.jsonl")
    place = {name: position for position, name in enumerate(documents)}
    grades: dict[str, dict[int, int]] = {name: {} for name in queries}
    n_unknown = 0
    for query, document, grade in _judgements(_find(folder, "qrels.tsv", "qrels/test.tsv")):
        if query not in grades or document not in place:
            n_unknown += 1
        elif grade > 0:
            grades[query][place[document]] = grade
    asked = tuple(Query(name, queries[name].text, grades[name]) for name in queries if grades[name])
    if not asked:
        raise InputError(
            f"{folder}: no query has a relevant document; the ids in qrels must be those of the files"
        )
    texts = tuple(document.text for document in documents.values())
    name, n_skipped = folder.resolve().name, len(queries) - len(asked)
    return TestSet(name, texts, asked, len(asked), n_skipped, n_unknown)


def _find(folder: Path, *names: str) -> Path:
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise InputError(
        f"{folder}: {' or '.join(names)} is missing, plain or with .gz; "
        "a BEIR folder has corpus.jsonl, queries.jsonl and qrels.tsv or qrels/test.tsv"
    )


def _lines(path: Path) -> Iterator[str]:
    """Lines of a plain or gzipped UTF-8 file, without their ends."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            yield _decoded(line, path, number).rstrip("\r\n")


def _decoded(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}:{number}: not UTF-8; save the file as UTF-8") from error


def _records(path: Path) -> Iterator[Document]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            yield read_record(line, place=f"{path}:{number}")
        except InputError as error:
            raise InputError(str(error).replace(EXPECTED, _EXPECTED)) from error


def _unique(records: Iterable[Document], path: Path) -> dict[str, Document]:
    found: dict[str, Document] = {}
    for record in records:
        if record.id is None:
            raise InputError(f'{path}: a record has no "_id": {record.text[:60]!r}')
        if str(record.id) in found:
            raise InputError(f"{path}: two records have the id {record.id!r}")
        found[str(record.id)] = record
    return found


def _judgements(path: Path) -> Iterator[tuple[str, str, int]]:
    """(query, document, grade) of each line; trec_eval's four columns, with an iteration, do too."""
    for number, line in enumerate(_lines(path), 1):
        fields = line.split("\t") if "\t" in line else line.split()
        if not fields:
            continue
        has_columns = len(fields) in (3, 4) and not fields[0].endswith(",")
        has_grade = _GRADE.fullmatch(fields[-1])
        if has_columns and has_grade:
            yield fields[0], fields[-2], int(float(fields[-1]))
        elif number > 1 or not has_columns:  # else it is a header
            raise InputError(
                f"{path}:{number}: expected query-id, corpus-id and a whole number, "
                f"with tabs or spaces between, found {line[:80]!r}"
            )


def _read_pairs(path: Path) -> TestSet:
    """Each distinct passage is a document, each distinct query is asked; all its passages are relevant."""
    places: dict[str, int] = {}
    relevant: dict[str, dict[int, int]] = {}
    for query, passage in _pairs(path):
        relevant.setdefault(query, {})[places.setdefault(passage, len(places))] = 1
    if not relevant:
        raise InputError(f"{path}: no (query, passage) pair in it")
    queries = tuple(Query(str(i), text, grades) for i, (text, grades) in enumerate(relevant.items()))
    return TestSet(Path(path.name.removesuffix(".gz")).stem, tuple(places), queries, len(queries))


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    form = Path(path.name.removesuffix(".gz")).suffix.lower()
    if form not in (".tsv", ".csv", ".jsonl", ".ndjson"):
        raise InputError(f"{path}: expected a BEIR folder, or pairs as {_PAIR_FORMS}")
    rows = _json_pairs(path) if form in (".jsonl", ".ndjson") else _column_pairs(path, form)
    for place, query, passage in rows:
        if not query.strip() or not passage.strip():
            raise InputError(f"{place}: the query or the passage is empty")
        yield query, passage


def _json_pairs(path: Path) -> Iterator[tuple[str, str, str]]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            passage = record["passage"] if "passage" in record else record["positive"]
            query = record["query"]
        except (ValueError, RecursionError, KeyError, TypeError):
            query = passage = None
        if not isinstance(query, str) or not isinstance(passage, str):
            raise InputError(
                f'{path}:{number}: expected {{"query": "...", "passage": "..."}}, found {line[:80]!r}'
            )
        yield f"{path}:{number}", query, passage


def _column_pairs(path: Path, form: str) -> Iterator[tuple[str, str, str]]:
    text = io.StringIO("\n".join(_lines(path)))
    # A tab-separated file has no quoting: a quotation mark in it is one.
    rows = csv.reader(text) if form == ".csv" else csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
    try:
        for number, row in enumerate(rows, 1):
            if not row or (number == 1 and _is_header(row)):
                continue
            if len(row) != 2:
                raise InputError(
                    f"{path}:{rows.line_num}: expected two columns, query and passage, found {len(row)}"
                )
            yield f"{path}:{rows.line_num}", row[0], row[1]
    except csv.Error as error:
        raise InputError(f"{path}:{rows.line_num}: {error}") from error


def _is_header(row: Sequence[str]) -> bool:
    return len(row) == 2 and all(
        cell.strip().lower() in words for cell, words in zip(row, _HEADER, strict=True)
    )
