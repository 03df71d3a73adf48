"""Test sets: what is searched, what is asked, and which documents answer; and rankings of other systems.

docs/evaluation.md describes the formats: BEIR's and MS MARCO's folders, pairs, runs of TREC and MS MARCO.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from ggrank.errors import InputError
from ggrank.rows.documents import document_of, string_in
from ggrank.rows.reading import Row, format_of, read_rows

SEED = 20261121
"""Of the sample that `sample` takes, and of the bootstrap."""

_HEADER = (
    {"query", "queries", "question", "questions", "q"},
    {"passage", "positive", "document", "doc", "answer", "text", "context", "gold"},
)
"""The words that the cells of a first line hold where it names the columns."""

_CORPUS = ("corpus.jsonl", "collection.tsv")
_QUERIES = ("queries.jsonl", "queries.tsv", "queries.dev.small.tsv")
_QRELS = ("qrels.tsv", "qrels/test.tsv", "qrels.dev.small.tsv")
_RUN = "query id, Q0, document id, rank, score and tag, or query id, document id and rank"
_MOST_GRADE = 1_000_000
_OWN_TEXT = 60
"""Characters of a query that a document of the same id must hold to be the same text."""


@dataclass(frozen=True)
class Query:
    """A question, and the grades above 0 of the documents that answer it, by position in the corpus.

    ``own`` is the document that is the query itself, as in ArguAna and Quora: it does not count.
    """

    id: str
    text: str
    relevant: Mapping[int, int]
    own: int | None = None


@dataclass(frozen=True)
class TestSet:
    """Documents, with their positions by id where they have one; and the queries that have a relevant one.

    The counts are of the queries before `sample` took some, of those without a relevant document, and of
    judgements whose query or document is not there: both are left out.
    """

    name: str
    documents: tuple[str, ...]
    queries: tuple[Query, ...]
    positions: Mapping[str, int] = field(default_factory=dict)
    n_queries_in_all: int = 0
    n_skipped: int = 0
    n_unknown: int = 0

    __test__ = False  # not a test, whatever pytest thinks of its name


@dataclass(frozen=True)
class GivenRun:
    """Another system's ranking of each query of a test set: positions of documents, best first."""

    name: str
    rankings: tuple[list[int], ...]


def read_test_set(path: Path) -> TestSet:
    """A test set from a folder of BEIR's or MS MARCO's files, or from a file of pairs.

    Raises:
        InputError: something is missing or unreadable, or not in the expected format; with file and line.
    """
    return _read_folder(path) if path.is_dir() else _read_pairs(path)


def sample(test: TestSet, limit: int | None) -> TestSet:
    """At most ``limit`` queries, always the same ones, in their order."""
    if limit is None or limit >= len(test.queries):
        return test
    chosen = sorted(random.Random(SEED).sample(range(len(test.queries)), limit))
    return replace(test, queries=tuple(test.queries[i] for i in chosen))


def read_run(path: Path, test: TestSet) -> GivenRun:
    """A TREC run file, which is ordered by its scores, or one of MS MARCO's, which is ordered by its ranks.

    A query that it lacks has an empty ranking. Documents that the set lacks are left out.

    Raises:
        InputError: a line has another format, or no query and document of the set are in the file.
    """
    ranked: dict[str, list[tuple[float, int]]] = {}
    for row, fields in _fields(path):
        with _at(path, row, _RUN):
            if len(fields) == 6:
                query, _, document, _, score, _ = fields
                order = -float(score)
            else:
                query, document, rank = fields
                order = float(rank)
        if document in test.positions:
            ranked.setdefault(query, []).append((order, test.positions[document]))
    found = [sorted(ranked.get(query.id, []), key=lambda one: one[0]) for query in test.queries]
    if not any(found):
        raise InputError(f"{path}: expected the ids of the files of {test.name}, found none of them")
    rankings = (list(dict.fromkeys(position for _, position in one)) for one in found)
    return GivenRun(Path(path.name.removesuffix(".gz")).stem, tuple(rankings))


def _read_folder(folder: Path) -> TestSet:
    documents, queries = _texts(_find(folder, _CORPUS)), _texts(_find(folder, _QUERIES))
    positions = {name: position for position, name in enumerate(documents)}
    grades: dict[str, dict[int, int]] = {name: {} for name in queries}
    n_unknown = 0
    for query, document, grade in _judgements(_find(folder, _QRELS)):
        if query not in grades or document not in positions:
            n_unknown += 1
        elif grade > 0:
            grades[query][positions[document]] = grade
    asked = []
    for name, relevant in grades.items():
        own = positions[name] if _is_same_text(queries[name], documents.get(name, "")) else None
        relevant = {position: grade for position, grade in relevant.items() if position != own}
        if relevant:
            asked.append(Query(name, queries[name], relevant, own))
    if not asked:
        raise InputError(
            f"{folder}: no query has a relevant document; the ids in qrels must be those of the files"
        )
    counts = {"n_queries_in_all": len(asked), "n_skipped": len(queries) - len(asked), "n_unknown": n_unknown}
    return TestSet(folder.resolve().name, tuple(documents.values()), tuple(asked), positions, **counts)


def _is_same_text(query: str, document: str) -> bool:
    """BEIR leaves out every document that has the query's id; in some sets the same number is chance."""
    begin = " ".join(query.split())[:_OWN_TEXT]
    return bool(begin) and begin in " ".join(document.split())


def _find(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise InputError(
        f"{folder}: {' or '.join(names[:2])} is missing, plain or with .gz; "
        "a BEIR folder has corpus.jsonl, queries.jsonl and qrels.tsv or qrels/test.tsv"
    )


def _texts(path: Path) -> dict[str, str]:
    """The texts of documents or queries by id."""
    found: dict[str, str] = {}
    is_tsv = format_of(path.name) == "tsv"
    for row in read_rows(path, "text" if is_tsv else "auto"):
        with _at(
            path,
            row,
            "id and text, with a tab between" if is_tsv else 'an object like {"_id": "a1", "text": "..."}',
        ):
            if is_tsv:
                name, text = row.values["text"].split("\t")
            else:
                document = document_of(row)
                name, text = document.id, document.full_text
            if name is None or str(name) in found:
                raise InputError('no "_id"' if name is None else f"two records have the id {name!r}")
            found[str(name)] = text
    return found


@contextmanager
def _at(path: Path, row: Row, expected: str) -> Iterator[None]:
    """Adds the file, the line and what is expected there to what is wrong with a row."""
    try:
        if row.problem:
            raise InputError(row.problem)
        yield
    except (ValueError, IndexError) as error:  # InputError is a ValueError
        found = repr(str(row.values.get("text", ""))[:80])
        problem = error if isinstance(error, InputError) else f"found {found}"
        raise InputError(f"{path}:{row.line}: expected {expected}; {problem}") from error


def _fields(path: Path) -> Iterator[tuple[Row, list[str]]]:
    """Each line with its fields, parted by tabs or else by spaces."""
    for row in read_rows(path, "text"):
        text = row.values["text"]
        yield row, [part.strip() for part in text.split("\t")] if "\t" in text else text.split()


def _judgements(path: Path) -> Iterator[tuple[str, str, int]]:
    """(query, document, grade) of each line; trec_eval's four columns, with an iteration, do too."""
    for number, (row, fields) in enumerate(_fields(path)):
        has_columns = len(fields) in (3, 4) and not fields[0].endswith(",")
        if number == 0 and has_columns and fields[-1].isalpha():
            continue  # a header
        with _at(path, row, "query-id, corpus-id and a whole number, with tabs or spaces between"):
            grade = float(fields[-1])
            if not has_columns or grade % 1 or abs(grade) > _MOST_GRADE:
                raise ValueError
        yield fields[0], fields[-2], int(grade)


def _read_pairs(path: Path) -> TestSet:
    """Each distinct passage is a document, each distinct query is asked; all its passages are relevant."""
    if format_of(path.name) not in ("csv", "tsv", "jsonl"):
        raise InputError(
            f"{path}: expected a folder of BEIR's or MS MARCO's files, or pairs as .tsv, .csv or .jsonl"
        )
    positions: dict[str, int] = {}
    relevant: dict[str, dict[int, int]] = {}
    for line, query, passage in _pairs(path):
        if not query.strip() or not passage.strip():
            raise InputError(f"{path}:{line}: the query or the passage is empty")
        relevant.setdefault(query, {})[positions.setdefault(passage, len(positions))] = 1
    if not relevant:
        raise InputError(f"{path}: no (query, passage) pair in it")
    queries = tuple(Query(str(i), text, grades) for i, (text, grades) in enumerate(relevant.items()))
    name = Path(path.name.removesuffix(".gz")).stem
    return TestSet(name, tuple(positions), queries, n_queries_in_all=len(queries))


def _pairs(path: Path) -> Iterator[tuple[int, str, str]]:
    """The line, the query and the passage of each pair."""
    if format_of(path.name) == "jsonl":
        for row in read_rows(path):
            with _at(path, row, 'an object like {"query": "...", "passage": "..."}'):
                passage = "passage" if "passage" in row.values else "positive"
                pair = string_in(row.values, "query"), string_in(row.values, passage)
            yield row.line, *pair
        return
    row = Row({}, 0)

    def lines() -> Iterator[str]:
        nonlocal row
        for row in read_rows(path, "text"):
            yield f"{row.values['text']}\n"

    # A tab-separated file has no quoting: a quotation mark in it is one.
    split = (text.rstrip("\n").split("\t") for text in lines())
    for number, cells in enumerate(csv.reader(lines()) if format_of(path.name) == "csv" else split):
        with _at(path, row, "two columns, query and passage"):
            query, passage = cells
        names = zip(cells, _HEADER, strict=True)
        if number or not all(cell.strip().lower() in words for cell, words in names):
            yield row.line, query, passage
