"""The index on disk: what is found, what is embedded again, and what is refused."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tiny_models
from ggrank import (
    Document,
    Index,
    InputError,
    Llama,
    ModelModeError,
    Pipeline,
    SearchIndexError,
)
from ggrank.errors import InputTypeError
from ggrank.search.ranking import By

PASSAGES = {
    "tomatoes": "Water the tomatoes in the morning, at the roots and not on the leaves.",
    "train": "The night train to Vienna leaves at 22:10 from platform 4.",
    "router": "To reset the router, hold the small button for ten seconds.",
    "bread": "Knead the dough until it is smooth, then let it rest for an hour.",
    "pump": "Error E4711 means that the pump runs dry.",
}
QUERY = "how do I bake bread?"


class Counting(Llama):
    """The bundled model, which also counts the texts that it embeds."""

    n_texts = 0

    def embed_many(self, texts: Iterable[str], **options: object) -> NDArray[np.float32]:
        texts = list(texts)
        self.n_texts += len(texts)
        return super().embed_many(texts, **options)  # type: ignore[arg-type]


class Meanwhile(Llama):
    """The bundled model, which does something the first time that an index asks for its prefix."""

    meanwhile: Callable[[], object] | None = None

    @property
    def query_prefix(self) -> str:  # type: ignore[override]
        if self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            act()
        return self._prefix

    @query_prefix.setter
    def query_prefix(self, value: str) -> None:
        self._prefix = value


@pytest.fixture
def slow() -> Iterator[Meanwhile]:
    with Meanwhile.load("all-minilm-l6-v2") as llama:
        assert isinstance(llama, Meanwhile)
        yield llama


@pytest.fixture(scope="module")
def embedder() -> Iterator[Counting]:
    with Counting.load("all-minilm-l6-v2") as llama:
        assert isinstance(llama, Counting)
        yield llama


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file for each passage."""
    folder = tmp_path / "documents"
    folder.mkdir()
    for name, text in PASSAGES.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.fixture
def index(tmp_path: Path, folder: Path, embedder: Llama) -> Iterator[Index]:
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        index.update([folder])
        yield index


def jsonl(path: Path, texts: Iterable[str]) -> Path:
    path.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)))
    return path


def names(found: Iterable[object]) -> list[str]:
    return [Path(one.path).stem for one in found]  # type: ignore[attr-defined]


def counts(changes: object) -> tuple[int, ...]:
    words = ("added", "changed", "removed", "unchanged")
    return tuple(getattr(changes, word) for word in words)


def test_the_ranking_is_that_of_the_embedder_over_all_passages(tmp_path: Path, embedder: Llama) -> None:
    texts = [f"{text} {i}" for i in range(16) for text in PASSAGES.values()]
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        index.update([jsonl(tmp_path / "a.jsonl", texts)])
        found = index.search(QUERY, top_n=300, by="meaning")
    cosines = embedder.embed_many(texts) @ embedder.embed(QUERY)
    assert sorted(one.id for one in found) == list(range(80))  # type: ignore[type-var]
    # q8_0 rounds a little differently beside other neighbours.
    assert [one.cosine for one in found] == pytest.approx([cosines[one.id] for one in found], abs=5e-3)
    assert [one.cosine for one in found] == sorted((one.cosine for one in found), reverse=True)  # type: ignore[type-var]


def test_int8_moves_no_cosine_by_more_than_three_thousandths(tmp_path: Path, embedder: Llama) -> None:
    path = jsonl(tmp_path / "a.jsonl", (f"{text} {i}" for i in range(6) for text in PASSAGES.values()))
    scores = {}
    for vectors in ("float32", "int8"):
        with Index.open(tmp_path / vectors, embedder=embedder, vectors=vectors) as index:  # type: ignore[arg-type]
            index.update([path])
            scores[vectors] = {one.id: one.cosine for one in index.search(QUERY, top_n=100)}
    assert scores["int8"] == pytest.approx(scores["float32"], abs=3e-3)
    assert scores["int8"] != scores["float32"]


def test_a_hit_says_file_line_headings_and_characters(tmp_path: Path, embedder: Llama) -> None:
    path = tmp_path / "notes.md"
    path.write_text(f"# Notes\n\n## Garden\n\n{PASSAGES['tomatoes']}\n\n## Travel\n\n{PASSAGES['train']}")
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        index.update([path])
        best = index.search("when does the train leave?")[0]
    assert (best.path, best.id, best.headings) == (str(path), str(path), "Notes > Travel")
    assert path.read_text()[best.start : best.stop] == best.text == PASSAGES["train"]
    assert path.read_text().splitlines()[best.line - 1] == PASSAGES["train"]


def test_a_passage_in_a_long_text_knows_its_line(tmp_path: Path, embedder: Llama) -> None:
    path = tmp_path / "long.txt"
    path.write_text("\n\n".join(f"Paragraph {i}. {' '.join(PASSAGES.values())}" for i in range(200)))
    with Index.open(tmp_path / "index", embedder=embedder, chunk_tokens=100) as index:
        index.update([path])
        found = index.search("Paragraph 7", top_n=500)
        assert index.get(str(path)).text == path.read_text()
    assert len(found) >= 200
    for one in found:
        assert path.read_text()[one.start : one.stop] == one.text
        assert path.read_text()[: one.start].count("\n") + 1 == one.line
        assert embedder.count_tokens(one.text) <= 100


def test_both_finds_a_number_that_vectors_blur(index: Index) -> None:
    query = "E4711 train platform departure to the capital of Austria"
    for fusion in ("scores", "rrf"):
        found = index.search(query, top_n=2, fusion=fusion)  # type: ignore[arg-type]
        assert set(names(found)) == {"train", "pump"}


def test_words_alone_need_no_model(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Llama, "load", None)
    with Index.open(tmp_path / "index") as without:
        (best,) = without.search("pumps E4711", by="words", top_n=1)
    assert best.text == PASSAGES["pump"]
    assert (best.words, best.cosine, best.logit) == (("pumps", "e4711"), None, None)
    assert best.score == 1.0  # it holds all of them


def test_an_index_loads_its_own_model(index: Index, tmp_path: Path) -> None:
    with Index.open(tmp_path / "index") as own:
        assert names(own.search(QUERY)) == names(index.search(QUERY))
        assert isinstance(own.embedder, Llama)


def test_a_reranker_orders_what_was_found(
    index: Index, tmp_path_factory: pytest.TempPathFactory, folder: Path
) -> None:
    with Llama.load(tiny_models.write("bert-reranker", tmp_path_factory.mktemp("models"))) as reranker:
        found = index.search(QUERY, retrieve_k=4, top_n=3, reranker=reranker)
        through_pipeline = Pipeline(index, reranker).search(QUERY, retrieve_k=4, top_n=3, by="both")
        texts = [PASSAGES[name] for name in names(index.search(QUERY, top_n=4))]
        logits = sorted(reranker.rerank(QUERY, texts).tolist(), reverse=True)
    assert [one.logit for one in found] == pytest.approx(logits[:3], abs=1e-4)
    assert [one.score for one in found] == pytest.approx(
        [1 / (1 + math.exp(-x)) for x in logits[:3]], abs=1e-4
    )
    assert through_pipeline == found
    assert all(one.cosine is not None for one in through_pipeline)


def test_the_explanation_holds_the_ranks_and_the_value_that_orders(index: Index) -> None:
    query = "E4711 train platform"
    both = index.search(query, top_n=5)
    meaning = names(index.search(query, top_n=5, by="meaning"))
    words = names(index.search(query, top_n=5, by="words"))
    for hit in both:
        assert hit.explanation.meaning_rank == 1 + meaning.index(names([hit])[0])
        assert (hit.explanation.words_rank or 9) == (1 + words.index(names([hit])[0]) if hit.words else 9)
    values = [hit.explanation.first_stage for hit in both]
    assert values == sorted(values, reverse=True)


def test_nothing_is_embedded_again_while_nothing_changes(
    index: Index, folder: Path, embedder: Counting
) -> None:
    before = embedder.n_texts
    assert counts(index.update([folder])) == (0, 0, 0, 5)
    for path in folder.iterdir():
        os.utime(path, ns=(1, 1))
    assert counts(index.update([folder])) == (0, 0, 0, 5)
    assert counts(index.update()) == (0, 0, 0, 5)
    assert embedder.n_texts == before


def test_progress_grows_while_one_large_file_is_read(tmp_path: Path, embedder: Counting) -> None:
    (tmp_path / "small.txt").write_text("Small.")
    lines = (f"The number {i} is one of a long list of numbers that a writer wrote." for i in range(3000))
    (tmp_path / "large.txt").write_text("\n\n".join(lines))
    seen = []
    with Index.open(":memory:", embedder=embedder, chunk_tokens=32, overlap=0) as index:
        index.update([tmp_path], on_progress=lambda progress: seen.append(progress.n_bytes))
    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert seen == sorted(seen)
    assert seen[-1] == total
    assert len({n for n in seen if 0 < n < total}) > 5


def test_only_what_changed_is_embedded_again(index: Index, folder: Path, embedder: Counting) -> None:
    before = embedder.n_texts
    (folder / "bread.txt").write_text("Rye needs sourdough.")
    (folder / "pump.txt").unlink()
    (folder / "deeper").mkdir()
    (folder / "deeper" / "new.md").write_text("Bees dance.")
    assert counts(index.update([folder])) == (1, 1, 1, 3)
    assert embedder.n_texts == before + 2
    assert sorted(names(index.search("x", top_n=9))) == ["bread", "new", "router", "tomatoes", "train"]
    assert index.search("E4711 pump", by="words") == []
    assert index.search("sourdough")[0].text == "Rye needs sourdough."


def test_a_record_that_is_added_to_a_large_file_is_the_only_one_to_be_embedded(
    tmp_path: Path, embedder: Counting
) -> None:
    texts = [f"{text} {i}" for i in range(30) for text in PASSAGES.values()]
    path = jsonl(tmp_path / "a.jsonl", texts)
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        index.update([path])
        before = embedder.n_texts
        jsonl(path, [texts[1], "A new one.", *texts[5:]])
        assert counts(index.update()) == (0, 1, 0, 0)
        assert embedder.n_texts == before + 1
        found = {one.id: one.text for one in index.search("x", top_n=999)}
    assert found == dict(enumerate([texts[1], "A new one.", *texts[5:]]))


def test_a_file_that_moves_keeps_its_vectors(index: Index, folder: Path, embedder: Counting) -> None:
    before = embedder.n_texts
    (folder / "bread.txt").rename(folder / "loaf.txt")
    assert counts(index.update()) == (1, 0, 1, 4)
    assert embedder.n_texts == before
    assert names(index.search(QUERY))[0] == "loaf"


def test_files_shrink_when_most_of_an_index_is_forgotten(tmp_path: Path, embedder: Counting) -> None:
    kept = jsonl(tmp_path / "a.jsonl", (f"{text} {i}" for i in range(30) for text in PASSAGES.values()))
    gone = jsonl(tmp_path / "b.jsonl", (f"Note {i} is about {i * i}." for i in range(400)))
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        index.update([gone])
        index.update([kept])
        assert vectors_of(tmp_path / "index").stat().st_size == 550 * 4 * 384
        before = index.search(QUERY, top_n=100)
        n_embedded = embedder.n_texts
        assert index.remove(paths=[gone]) == 1
        assert embedder.n_texts == n_embedded
        assert vectors_of(tmp_path / "index").stat().st_size == 150 * 4 * 384
        after = index.search(QUERY, top_n=100)
        assert [(one.id, one.text) for one in after][:50] == [(one.id, one.text) for one in before][:50]
        assert index.search("a note about it", by="words") == []
        assert len(index) == 150
        assert [one.text for one in index.search("platform 29", by="words", top_n=1)] == [
            f"{PASSAGES['train']} 29"
        ]
        assert index.update([gone]).progress.n_embedded == 400


def vectors_of(folder: Path) -> Path:
    (path,) = folder.rglob("vectors-*")
    return path


def test_files_that_cannot_be_read_are_skipped_and_told(index: Index, folder: Path) -> None:
    (folder / "binary.md").write_text("Kneading.")
    index.update()
    (folder / "binary.md").write_bytes(b"\0\1\2")
    (folder / ".hidden.txt").write_text("hidden")
    (folder / "program.exe").write_text("no text")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.txt")
    (folder / "link.txt").symlink_to(folder / "nowhere")
    changes = index.update()
    assert counts(changes) == (0, 0, 0, 5)
    reasons = {Path(one.path).name: one.reason for one in changes.skipped}
    assert set(reasons) - {"pipe.txt"} == {"binary.md", "link.txt"}
    assert {suffix: len(paths) for suffix, paths in changes.unsupported.items()} == {".exe": 1}
    # What was known of it before stays, since nobody knows what is in it now.
    assert index.search("Kneading", by="words")[0].text == "Kneading."


def test_front_matter_that_cannot_be_read_is_told_and_the_text_is_indexed(index: Index, folder: Path) -> None:
    (folder / "note.md").write_text('---\ntitle: "unclosed\ntags: a\n---\n# Bees\n\nBees dance.\n')
    changes = index.update()
    (skipped,) = changes.skipped
    assert (counts(changes), skipped.n_lines) == ((1, 0, 0, 5), 4)
    assert skipped.reason.startswith("the front matter is left out: it is not YAML (")
    assert index.search("dance", by="words")[0].title == "Bees"
    assert index.update().skipped == ()


def test_a_named_file_that_cannot_be_read_warns_once(index: Index, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.txt").write_bytes(b"\0\1")
    assert names(index.update([tmp_path / "photo.txt"]).skipped) == ["photo"]
    assert index.roots == [str(folder)]
    assert index.update().skipped == ()


def test_a_folder_that_is_gone_is_an_error_and_nothing_is_forgotten(index: Index, folder: Path) -> None:
    shutil.move(folder, folder.with_name("elsewhere"))
    with pytest.raises(InputError, match="no such file or folder"):
        index.update()
    assert len(index) == 5


def test_a_folder_that_is_gone_is_forgotten_when_told_and_the_rest_goes_on(
    index: Index, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "documents2"
    other.mkdir()
    (other / "bees.txt").write_text("Bees dance.")
    index.update([other])
    shutil.rmtree(folder)
    with pytest.raises(InputError, match=rf"--index {tmp_path}/index --forget {folder}$"):
        index.update()
    with pytest.raises(InputError, match=f"nowhere is not in the index, which is of: {folder}, {other}"):
        index.remove(paths=[folder, tmp_path / "nowhere"])
    assert len(index) == 6
    assert index.remove(paths=[folder]) == 5
    assert names(index.search("E4711", top_n=9)) == ["bees"]
    assert counts(index.update()) == (0, 0, 0, 1)


@pytest.mark.parametrize("rebuild", [False, True])
def test_what_is_forgotten_below_a_folder_stays_out_until_it_is_named_again(
    index: Index, folder: Path, tmp_path: Path, embedder: Llama, rebuild: bool
) -> None:
    assert index.remove(paths=[folder / "bread.txt", folder / "pump.txt", folder / "pump.txt"]) == 2
    assert len(index) == 3
    with Index.open(tmp_path / "index", embedder=embedder, rebuild=rebuild) as again:
        assert set(again.update().unsupported) == {"forgotten"}
        assert counts(again.update([folder])) == (0, 0, 0, 3)
    assert counts(index.update([folder / "bread.txt"])) == (1, 0, 0, 0)
    assert counts(index.update()) == (0, 0, 0, 4)
    assert index.remove(paths=[folder.parent]) == 4
    with pytest.raises(InputError, match="nothing to index"):
        index.update()
    assert counts(index.update([folder])) == (5, 0, 0, 0)


def test_a_file_that_was_named_itself_and_is_gone_goes(tmp_path: Path, embedder: Llama) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.py"
    first.write_text("one")
    second.write_text("two")
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        assert counts(index.update([first, second])) == (2, 0, 0, 0)
        first.unlink()
        assert counts(index.update()) == (0, 0, 1, 1)
        assert counts(index.update()) == (0, 0, 0, 1)


def test_an_index_that_moves_with_its_folder_knows_the_new_paths(tmp_path: Path, embedder: Counting) -> None:
    old, new = tmp_path / "old%_", tmp_path / "new"
    (old / "sub").mkdir(parents=True)
    (old / "sub" / "bees.txt").write_text("Bees dance.")
    with Index.open(old / ".ggrank", embedder=embedder) as index:
        index.update([old], exclude=["drafts/"])
    old.rename(new)
    with Index.open(new / ".ggrank", embedder=embedder) as index:
        assert [hit.path for hit in index.search("bees")] == [str(new / "sub" / "bees.txt")]
        before = embedder.n_texts
        (new / "drafts").mkdir()
        (new / "drafts" / "no.txt").write_text("No.")
        assert counts(index.update()) == (0, 0, 0, 1)
        assert (index.roots, embedder.n_texts) == ([str(new)], before)
    shutil.copytree(new, tmp_path / "copy")
    with Index.open(tmp_path / "copy" / ".ggrank") as index:
        assert index.roots == [str(new)]


def test_an_empty_folder_is_an_empty_index(tmp_path: Path, embedder: Llama) -> None:
    (tmp_path / "empty").mkdir()
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        assert counts(index.update([tmp_path / "empty"])) == (0, 0, 0, 0)
        assert index.search("anything") == []
        assert len(index) == 0


@pytest.mark.parametrize("text", ["", " \n ", "\\ud800 lone surrogate", "emoji \U0001f999", "a\\u0000b"])
def test_a_record_may_hold_any_text(tmp_path: Path, embedder: Llama, text: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        f'{{"id": "\\ud800{2**70}", "text": "{text}"}}\n{{"id": {2**70}, "text": "llama"}}'.replace(
            "\n ", "\\n "
        ),
        "utf-8",
    )
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        assert index.update([path]).skipped == ()
        assert index.search("llama")[0].id in (str(2**70), f"\ufffd{2**70}")


def test_whatever_a_file_says_its_text_is_found(tmp_path: Path, embedder: Llama) -> None:
    """Lone surrogates and zeros in headings, titles, ids and metadata; rows whose metadata is too deep."""
    cells = [{"cell_type": "markdown", "source": ["# A \ud800 heading\n", "\n", "Bees \ud800 dance."]}]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    bad = {
        "id": "\ud800",
        "title": "\ud800\0",
        "text": "Cars \ud800\0 rust.",
        "\ud800": "\ud800\0",
        "n": 2**99,
    }
    deep = f'{{"text": "Deep.", "x": {"[" * 900}{"]" * 900}}}'
    (tmp_path / "b.jsonl").write_text(f"{json.dumps({**bad, 'n': 2**99})}\n{deep}\n")
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        (skipped,) = index.update([tmp_path]).skipped
        assert "line 2: metadata must not be nested" in skipped.reason
        (bees,) = index.search("bees", by="words")
        (cars,) = index.search("cars", by="words", where={"n": {">": 2**90}})
        assert (bees.headings, bees.text) == ("A \ufffd heading", "Bees \ufffd dance.")
        assert (cars.id, cars.title, cars.text) == ("\ufffd", "\ufffd ", "Cars \ufffd  rust.")
        assert cars.metadata["\ufffd"] == "\ufffd\0"
        assert index.get("\ud800").text == cars.text
        assert index.search("cars", where={"\ud800": {"==": "\ud800x"}}) == []
        for path in ("\ud800", "\0"):
            assert index.search("cars", paths=[path], suffixes=[path]) == []


def test_a_path_that_is_no_unicode_is_skipped(tmp_path: Path, embedder: Llama) -> None:
    path = tmp_path / os.fsdecode(b"\xff.txt")
    path.write_text("Bees dance.")
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        (skipped,) = index.update([path]).skipped
        assert skipped.reason == "its name is not UTF-8"
        with pytest.raises(InputError, match="is not in the index"):
            index.remove(paths=[path])


@pytest.mark.parametrize(
    "id", [2**64, -(2**64), 10.0**300, float("nan"), float("inf"), "\ud800", "", "\0", 1.5]
)
def test_any_number_or_text_is_an_id(embedder: Llama, id: str | float) -> None:
    with Index.open(":memory:", embedder=embedder) as index:
        with pytest.raises(InputError, match="not in the index"):
            index.get(id)
        with pytest.raises(InputError, match="has the id"):
            index.remove(ids=[id])
        assert id not in index
        index.add(["Bees dance."], ids=[id])
        index.add(["Cars rust."], ids=[id])
        assert index.get(id).text == "Cars rust."
        assert index.similar(id) == []
        with pytest.raises(InputError, match="stands twice"):
            index.add(["a", "b"], ids=[id, id])
        assert index.remove(ids=[id]) == 1


@pytest.mark.parametrize("id", [["a"], {"a": 1}, None, True, b"a", ("a",)])
def test_what_is_no_id_is_told_so(embedder: Llama, id: Any) -> None:
    with Index.open(":memory:", embedder=embedder) as index:
        for use in (index.get, index.similar, lambda one: index.remove(ids=[one])):
            with pytest.raises(InputTypeError, match="an id must be a string or a number"):
                use(id)
        if id is not None:
            with pytest.raises(InputTypeError, match="an id must be a string or a number"):
                index.add(["a"], ids=[id])


def test_a_number_may_be_asked_for_as_a_text(embedder: Llama) -> None:
    with Index.open(":memory:", embedder=embedder) as index:
        index.add(["Bees dance.", "Cars rust.", "Eggs boil."], ids=[7, "8", 8])
        texts = [index.get(id).text for id in ("7", 7, 7.0, "8", 8, "8.0")]
    assert texts == ["Bees dance."] * 3 + ["Cars rust.", "Eggs boil.", "Eggs boil."]


@pytest.mark.parametrize(
    ("since", "n_found"),
    [
        (datetime.min, 1),
        (datetime.max, 0),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), 1),
        (datetime.max.replace(tzinfo=timezone(-timedelta(hours=12))), 0),
        (datetime(2020, 1, 1, tzinfo=timezone.utc), 1),
    ],
)
def test_any_date_is_a_filter(tmp_path: Path, embedder: Llama, since: datetime, n_found: int) -> None:
    (tmp_path / "a.txt").write_text("Bees dance.")
    with Index.open(":memory:", embedder=embedder) as index:
        index.update([tmp_path / "a.txt"])
        assert len(index.search("bees", since=since)) == n_found
        with pytest.raises(InputTypeError, match="since must be a datetime"):
            index.search("bees", since="2020-01-01")  # type: ignore[arg-type]


def test_what_has_no_text_has_nothing_similar(embedder: Llama, folder: Path) -> None:
    (folder / "empty.txt").write_text(" \n")
    with Index.open(":memory:", embedder=embedder) as index:
        index.update([folder])
        for name in (str(folder / "empty.txt"), "", " \n"):
            with pytest.raises(InputError, match="nothing is similar"):
                index.similar(name)


def test_thousands_of_equal_texts_do_not_hide_the_others(embedder: Llama) -> None:
    with Index.open(":memory:", embedder=embedder) as index:
        index.add([Document("Bread bread.", title=f"{i}") for i in range(1200)])
        index.add(["Bread, and much more about other things that are not bread."])
        assert [hit.text[:6] for hit in index.search("bread", by="words")] == ["Bread ", "Bread,"]


def test_missing_indexes_and_paths_are_errors(tmp_path: Path, embedder: Llama) -> None:
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        with pytest.raises(SearchIndexError, match="there is no index"):
            index.search("anything")
        with pytest.raises(InputError, match="nothing to index"):
            index.update()
        with pytest.raises(InputError, match="no such file or folder"):
            index.update([tmp_path / "nowhere"])
        with pytest.raises(InputTypeError, match="in a list"):
            index.update(str(tmp_path))


def test_another_model_prefix_or_setting_is_refused_with_the_way_out(
    index: Index, tmp_path: Path, embedder: Llama, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = tiny_models.write("bert-mean", tmp_path_factory.mktemp("models"))
    with Llama.load(model) as other, pytest.raises(SearchIndexError, match=r"bert-mean.*--rebuild"):
        Index.open(tmp_path / "index", embedder=other, chunk_tokens=other.n_ctx)
    with (
        Llama.load("all-minilm-l6-v2", document_prefix="passage: ") as other,
        pytest.raises(SearchIndexError, match="document_prefix '', now it is 'passage: '"),
    ):
        Index.open(tmp_path / "index", embedder=other)
    for settings in ({"chunk_tokens": 64}, {"overlap": 0}, {"vectors": "int8"}):
        ((name, value),) = settings.items()
        with pytest.raises(SearchIndexError, match=f"with {name} .*, now it is {value!r}: .*--rebuild"):
            Index.open(tmp_path / "index", embedder=embedder, **settings)  # type: ignore[arg-type]
    with Index.open(tmp_path / "index", embedder=embedder, vectors="int8", rebuild=True) as rebuilt:
        assert counts(rebuilt.update()) == (5, 0, 0, 0)
        assert rebuilt.settings.vectors == "int8"
        assert names(rebuilt.search(QUERY))[0] == "bread"


def test_a_rebuild_that_cannot_be_leaves_the_index_as_it_was(
    index: Index, folder: Path, tmp_path: Path, embedder: Llama
) -> None:
    def contents() -> dict[str, bytes]:
        paths = (path for path in (tmp_path / "index").rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in paths}

    (folder / "bread.txt").rename(tmp_path / "bread.txt")
    index.update([tmp_path / "bread.txt"])
    (tmp_path / "bread.txt").unlink()
    index.close()
    before = contents()
    for paths, settings in (
        ([folder, tmp_path / "typo"], {}),
        ([tmp_path / "bread.txt"], {}),
        ([folder], {"chunk_tokens": 257}),
        ([folder], {"chunk_tokens": 16, "overlap": 7}),
    ):
        rebuilt = Index.open(tmp_path / "index", embedder=embedder, rebuild=True, **settings)  # type: ignore[arg-type]
        with pytest.raises(InputError):
            rebuilt.update(paths)
    assert contents() == before
    # A file that was named once and is gone goes, as it does without a rebuild.
    with Index.open(tmp_path / "index", embedder=embedder, rebuild=True) as rebuilt:
        assert counts(rebuilt.update()) == (4, 0, 0, 0)
        assert counts(rebuilt.update()) == (0, 0, 0, 4)


def test_a_rebuild_keeps_the_settings_that_fit(
    tmp_path: Path, folder: Path, embedder: Llama, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def rebuilt(model: Llama, **settings: object) -> tuple[object, ...]:
        with Index.open(tmp_path / "index", embedder=model, rebuild=True, **settings) as index:  # type: ignore[arg-type]
            index.update()
            return index.settings.vectors, index.settings.chunk_tokens, index.settings.overlap

    with Index.open(
        tmp_path / "index", embedder=embedder, vectors="int8", chunk_tokens=120, overlap=50
    ) as index:
        index.update([folder])
    assert rebuilt(embedder) == ("int8", 120, 50)
    assert rebuilt(embedder, chunk_tokens=150) == ("int8", 150, 50)
    assert rebuilt(embedder, chunk_tokens=100) == ("int8", 100, 20)
    assert rebuilt(embedder, vectors="float32", overlap=0) == ("float32", 100, 0)
    with Llama.load(tiny_models.write("bert-mean", tmp_path_factory.mktemp("models")), n_ctx=64) as small:
        assert rebuilt(small) == ("float32", 64, 12)


def test_a_first_update_that_cannot_be_leaves_nothing_behind(
    tmp_path: Path, folder: Path, embedder: Llama
) -> None:
    for paths, settings in (
        ([], {}),
        ([tmp_path / "typo"], {}),
        ([folder], {"chunk_tokens": 257}),
        ([folder], {"chunk_tokens": 16, "overlap": 7}),
    ):
        index = Index.open(tmp_path / "index", embedder=embedder, **settings)  # type: ignore[arg-type]
        with pytest.raises(InputError):
            index.update(paths)
        assert not (tmp_path / "index").exists()


def test_settings_that_make_no_sense_are_refused(tmp_path: Path, embedder: Llama) -> None:
    (tmp_path / "a.txt").write_text("a")
    for settings in (
        {"chunk_tokens": 257},
        {"chunk_tokens": 3},
        {"chunk_tokens": 100, "overlap": 49},
        {"overlap": -1},
        {"vectors": "float64"},
    ):
        with (
            pytest.raises(InputError),
            Index.open(tmp_path / "index", embedder=embedder, **settings) as index,
        ):  # type: ignore[arg-type]
            index.update([tmp_path / "a.txt"])
    assert not (tmp_path / "index").exists()


def test_a_reranker_cannot_make_an_index(tmp_path: Path) -> None:
    with (
        Llama.load(tiny_models.write("bert-reranker", tmp_path)) as reranker,
        pytest.raises(ModelModeError),
    ):
        Index.open(tmp_path / "index", embedder=reranker)


def test_what_is_no_model_and_what_is_no_folder_is_told_so(
    index: Index, tmp_path: Path, embedder: Llama
) -> None:
    with pytest.raises(InputTypeError, match=r"embedder must be a loaded model, found 'mini': .*Llama\.load"):
        Index.open(tmp_path / "index", embedder="mini")  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match=r"reranker must be a loaded model, found int"):
        index.search(QUERY, reranker=3)  # type: ignore[arg-type]
    (tmp_path / "i.py").write_text("i = 1")
    with pytest.raises(SearchIndexError, match=r"i\.py is a file, and an index is a folder"):
        Index.open(tmp_path / "i.py", embedder=embedder)


def test_something_else_under_the_index_s_name_is_refused_and_left_alone(
    tmp_path: Path, embedder: Llama
) -> None:
    (tmp_path / "a.txt").write_text("a")
    path = tmp_path / "index" / "current"
    path.parent.mkdir()
    path.write_bytes(b"no number at all")
    with pytest.raises(SearchIndexError, match="does not belong to an index"):
        Index.open(path.parent, embedder=embedder)
    with pytest.raises(SearchIndexError, match="does not belong to an index"):
        Index.open(path.parent, embedder=embedder, rebuild=True).update([tmp_path / "a.txt"])
    assert path.read_bytes() == b"no number at all"


def test_a_damaged_index_says_so_and_rebuild_mends_it(index: Index, tmp_path: Path, embedder: Llama) -> None:
    index.close()
    path, vectors = tmp_path / "index" / "1" / "index.sqlite", vectors_of(tmp_path / "index")
    vectors.write_bytes(vectors.read_bytes()[:-1])
    for use in (lambda: index.search(QUERY), index.update):
        with pytest.raises(
            SearchIndexError, match=rf"damaged .*: ggrank index --index {tmp_path}/index --rebuild$"
        ):
            use()
    (tmp_path / "documents" / "pump.txt").unlink()
    index.remove(paths=[tmp_path / "documents" / "pump.txt"])
    with Index.open(tmp_path / "index", embedder=embedder, rebuild=True) as rebuilt:
        assert counts(rebuilt.update()) == (4, 0, 0, 0)
        assert names(rebuilt.search(QUERY))[0] == "bread"
    index.close()
    path = tmp_path / "index" / "2" / "index.sqlite"
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xaa" * (len(whole) - 4096))
    with pytest.raises(SearchIndexError, match=r"damaged .* --rebuild"):
        index.search(QUERY)
    with Index.open(tmp_path / "index", embedder=embedder, rebuild=True) as rebuilt:
        with pytest.raises(InputError, match=r"nothing to index.* name them: .* PATH\.\.\."):
            rebuilt.update()
        assert counts(rebuilt.update([tmp_path / "documents"])) == (4, 0, 0, 0)


def test_an_index_that_cannot_be_read_just_now_is_not_made_anew_without_its_documents(
    index: Index, tmp_path: Path, embedder: Llama
) -> None:
    index.add([Document("Bees dance.", id="bees")])
    index.close()
    path = tmp_path / "index" / "1" / "index.sqlite"
    path.rename(tmp_path / "kept")
    path.mkdir()
    with Index.open(tmp_path / "index", embedder=embedder, rebuild=True) as rebuilt:
        with pytest.raises(SearchIndexError, match="unable to open"):
            rebuilt.update()
        path.rmdir()
        (tmp_path / "kept").rename(path)
        rebuilt.update()
        assert rebuilt.get("bees").text == "Bees dance."


def test_an_index_of_a_later_version_is_refused(index: Index, tmp_path: Path) -> None:
    index.close()
    with closing(sqlite3.connect(tmp_path / "index" / "1" / "index.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(SearchIndexError, match="format 99"):
        index.search(QUERY)


def test_readers_follow_a_rebuild_and_search_while_it_runs(
    index: Index, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = tiny_models.write("bert-mean", tmp_path_factory.mktemp("models"))
    seen: list[int] = []
    index.add([Document("Added by hand.", id=7)])
    with Llama.load(model) as other, Index.open(tmp_path / "index") as reader:
        assert reader.settings.n_embd == 384

        def meanwhile(progress: object) -> None:
            seen.append(reader.settings.n_embd)
            assert names(reader.search(QUERY))[0] == names(index.search(QUERY))[0] == "bread"

        with Index.open(tmp_path / "index", embedder=other, rebuild=True, chunk_tokens=60) as rebuilt:
            rebuilt.update(on_progress=meanwhile)
        assert set(seen) == {384}
        assert reader.settings.n_embd == other.n_embd
        vectors = dict(zip(PASSAGES.values(), other.embed_many(PASSAGES.values()), strict=True))
        query = other.embed("bread")
        for hit in reader.search("bread", by="meaning"):
            if hit.text in vectors:
                assert hit.cosine == pytest.approx(float(query @ vectors[hit.text]), abs=1e-3)
        assert reader.get(7).text == "Added by hand."
        with pytest.raises(SearchIndexError, match="bert-mean"):
            index.search(QUERY)


def test_a_rebuild_that_was_stopped_goes_on(index: Index, tmp_path: Path, embedder: Counting) -> None:
    class StoppedError(Exception):
        pass

    def stop(progress: object) -> None:
        if progress.n_passages:  # type: ignore[attr-defined]
            raise StoppedError

    with Index.open(tmp_path / "index", embedder=embedder, rebuild=True, overlap=10) as rebuilt:
        with pytest.raises(StoppedError):
            rebuilt.update(on_progress=stop)
        assert index.settings.overlap == 40
        assert names(index.search(QUERY))[0] == "bread"
        before = embedder.n_texts
        rebuilt.update()
        assert embedder.n_texts == before
    assert names(Index.open(tmp_path / "index").search(QUERY))[0] == "bread"
    assert [path.name for path in (tmp_path / "index").iterdir() if path.is_dir()] == ["2"]


@pytest.mark.parametrize("has_writer", [True, False])
def test_who_may_not_write_sees_the_last_committed_state(
    index: Index, folder: Path, tmp_path: Path, has_writer: bool
) -> None:
    """Another user: with a writer that lives (or was killed and left its log), and without any log."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    (folder / "new.txt").write_text("Bees dance.")
    index.update()
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "index", copy)  # as a killed writer leaves it
    if not has_writer:
        with closing(sqlite3.connect(copy / "1" / "index.sqlite")) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for log in (copy / "1").glob("index.sqlite-*"):
            log.unlink()
    for path in [*tmp_path.parents, tmp_path]:
        if path.stat().st_uid == 0 and str(path).startswith(str(tmp_path.parent.parent)):
            path.chmod(0o755)
    code = (
        "import os, sys; from ggrank import Index; import ggrank.search.index\n"
        "import ggrank.search.readers, encodings.ascii\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "with Index.open(sys.argv[1]) as index:\n"
        "    for _ in range(2): print(len(index), [hit.text for hit in index.search('bees', by='words')])\n"
    )
    for where in (copy, tmp_path / "index"):
        found = subprocess.run([sys.executable, "-c", code, where], capture_output=True, text=True)
        assert found.stdout == "6 ['Bees dance.']\n" * 2, found.stderr


def test_a_second_writer_is_refused_and_readers_are_not(index: Index, folder: Path, embedder: Llama) -> None:
    (folder / "new.txt").write_text("Bees dance.")
    refused: list[str] = []

    def meanwhile(progress: object) -> None:
        with pytest.raises(SearchIndexError, match="being updated") as told:
            index.update()
        refused.append(str(told.value))
        assert names(index.search(QUERY))[0] == "bread"

    index.update(on_progress=meanwhile)
    assert len(refused) == 2
    assert counts(index.update()) == (0, 0, 0, 6)


def test_two_that_make_an_index_at_the_same_moment_both_add_to_it(
    tmp_path: Path, embedder: Llama, slow: Meanwhile
) -> None:
    with (
        Index.open(tmp_path / "index", embedder=embedder) as other,
        Index.open(tmp_path / "index", embedder=slow) as index,
    ):
        slow.meanwhile = lambda: other.add(["Bees dance."])
        index.add(["Cars rust."])
        assert {hit.text for hit in other.search("insects")} == {"Bees dance.", "Cars rust."}


def test_a_folder_that_is_added_just_before_a_rebuild_is_in_it(
    index: Index, folder: Path, tmp_path: Path, slow: Meanwhile
) -> None:
    (tmp_path / "new.txt").write_text("Bees dance.")
    with Index.open(tmp_path / "index", embedder=slow, rebuild=True) as rebuilt:
        slow.meanwhile = lambda: index.update([tmp_path / "new.txt"])
        assert counts(rebuilt.update()) == (6, 0, 0, 0)


def test_what_is_forgotten_just_after_a_rebuild_is_gone_from_it(
    index: Index, folder: Path, tmp_path: Path, embedder: Llama
) -> None:
    with Index.open(tmp_path / "index", embedder=embedder, rebuild=True) as rebuilt:
        rebuilt.update()
    index.remove(paths=[folder])
    assert len(rebuilt) == len(index) == 0


def test_a_reader_that_opens_while_a_rebuild_ends_gets_the_new_one(
    index: Index, tmp_path: Path, embedder: Llama, slow: Meanwhile
) -> None:
    def rebuild() -> None:
        with Index.open(tmp_path / "index", embedder=embedder, rebuild=True) as rebuilt:
            rebuilt.update()

    slow.meanwhile = rebuild
    with Index.open(tmp_path / "index", embedder=slow) as reader:
        assert names(reader.search(QUERY))[0] == "bread"


def test_a_hit_s_cosine_is_that_of_its_own_text_while_another_thread_updates(
    index: Index, folder: Path, embedder: Llama
) -> None:
    query, versions = "Version of bread.", [f"Version {i} of bread." for i in range(12)]
    texts = [*PASSAGES.values(), *versions]
    cosines = dict(zip(texts, embedder.embed_many(texts) @ embedder.embed(query), strict=True))
    done = threading.Event()
    wrong: list[object] = []

    def search(*, by: By) -> None:
        while not done.is_set():
            found = index.search(query, by=by, top_n=9)
            wrong.extend(one for one in found if abs((one.cosine or 9) - cosines[one.text]) > 5e-3)

    threads = [threading.Thread(target=search, kwargs={"by": by}) for by in ("both", "meaning")]
    for thread in threads:
        thread.start()
    for text in versions:
        (folder / "bread.txt").write_text(text)
        index.update()
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_snippet_shows_the_words_of_the_query(tmp_path: Path, embedder: Llama) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"{'Nothing of interest here. ' * 20}The pump E4711 runs dry. {'More of it. ' * 20}")
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        index.update([path])
        best = next(hit for hit in index.search("running pumps") if "pump" in hit.text)
    assert "pump E4711 runs dry" in best.snippet("running pumps", n_characters=60)
    assert best.snippet("zebra", n_characters=20) == "Nothing of interest..."
    assert best.snippet("zebra", n_characters=9999) == " ".join(best.text.split())


def test_a_closed_index_opens_itself_again(index: Index) -> None:
    index.close()
    index.close()
    assert names(index.search(QUERY))[0] == "bread"


def test_equal_texts_are_embedded_once_and_shown_once_with_their_places(
    tmp_path: Path, embedder: Counting
) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    for i in range(5):
        (folder / f"{i}.txt").write_text(PASSAGES["bread"])
        (folder / f"{i}.md").write_text(f"# Heading {i}\n\n{PASSAGES['bread']}")
    (folder / "pump.txt").write_text(PASSAGES["pump"])
    before = embedder.n_texts
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        index.update([folder])
        first, second = index.search(QUERY)
        assert embedder.n_texts - before <= 1 + 5 + 1 + 1 + 24  # and what a new index measures its model with
        assert (first.text, second.text) == (PASSAGES["bread"], PASSAGES["pump"])
        assert len({first.path, *(place.path for place in first.others)}) == 10
        for i in range(5):
            (folder / f"{i}.txt").unlink()
        index.update()
        assert {Path(place.path).suffix for place in index.search(QUERY)[0].others} == {".md"}
        assert index.search("dough", by="words")[0].text == PASSAGES["bread"]


def test_what_was_named_stays_until_it_is_forgotten_or_gone(tmp_path: Path, embedder: Llama) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "Makefile").write_text("bake: knead")
    (folder / "a.txt").write_text("Bees dance.")
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        index.update([folder, folder / "Makefile"])
        assert counts(index.update([folder])) == (0, 0, 0, 2)
        assert counts(index.update()) == (0, 0, 0, 2)
        (folder / "Makefile").unlink()
        assert counts(index.update([folder])) == (0, 0, 1, 1)


def test_more_than_half_of_a_folder_is_not_forgotten_without_a_word(index: Index, folder: Path) -> None:
    shutil.move(folder, folder.with_name("elsewhere"))
    folder.mkdir()  # as a mount point without its disk
    with pytest.raises(InputError, match=r"5 of the index's 5 files are gone.*--prune"):
        index.update([folder])
    assert names(index.search(QUERY))[0] == "bread"
    assert counts(index.update(prune=True)) == (0, 0, 5, 0)
    assert len(index) == 0


@pytest.mark.parametrize("loss", ["empty", "unreadable", "damaged"])
def test_a_rebuild_does_not_forget_more_than_half_of_a_folder_without_a_word(
    index: Index, folder: Path, tmp_path: Path, embedder: Llama, loss: str
) -> None:
    for path in folder.iterdir():
        path.unlink()
        if loss == "unreadable":
            path.symlink_to(tmp_path / "nowhere")
        elif loss == "damaged":
            path.write_bytes(b"\0")
    with Index.open(tmp_path / "index", embedder=embedder, rebuild=True) as rebuilt:
        for paths in ([], [folder]):
            with pytest.raises(InputError, match=r"5 of the index's 5 files are gone.*--prune"):
                rebuilt.update(paths)
            assert names(index.search(QUERY))[0] == "bread"
        rebuilt.update(prune=True)
    assert len(index) == 0


def test_files_that_a_new_pattern_leaves_out_are_not_taken_for_gone(index: Index, folder: Path) -> None:
    (folder / ".gitignore").write_text("*.txt\n!bread.txt\n")
    changes = index.update()
    assert counts(changes) == (0, 0, 4, 1)
    assert len(changes.unsupported["ignored"]) == 4


def test_a_folder_whose_files_moved_inside_it_is_not_lost(index: Index, folder: Path) -> None:
    (folder / "deeper").mkdir()
    for path in folder.glob("*.txt"):
        path.rename(folder / "deeper" / path.name)
    assert counts(index.update()) == (5, 0, 5, 0)


def test_documents_are_added_replaced_got_and_removed(tmp_path: Path, embedder: Counting) -> None:
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        index.add([Document("Bees dance.", id="a", title="Insects", metadata={"tags": ["x", "y"]}), "No id."])
        index.add(["Cars rust."], ids=[7], metadata=[{"year": 1999}])
        (hit, *_) = index.search("what do bees do?")
        assert (hit.id, hit.title, hit.headings, hit.metadata) == (
            "a",
            "Insects",
            "Insects",
            {"tags": ["x", "y"]},
        )
        assert (hit.path, hit.text) == ("", "Bees dance.")
        index.add([Document("Bees sting.", id="a")])
        assert (index.get("a").text, index.get(7).text, index.n_documents) == ("Bees sting.", "Cars rust.", 3)
        with pytest.raises(InputError, match="'b' is not in the index"):
            index.get("b")
        with pytest.raises(InputError, match="has the id 8"):
            index.remove(ids=["a", 8])
        assert index.remove(ids=["a", 7]) == 2
        assert [one.text for one in index.search("bees")] == ["No id."]


def test_documents_survive_a_rebuild_and_updates_of_files(
    index: Index, tmp_path: Path, embedder: Llama
) -> None:
    index.add([Document("Bees dance.", id="a", title="Insects", metadata={"year": 1999})])
    index.update()
    index.close()
    with Index.open(tmp_path / "index", embedder=embedder, rebuild=True, vectors="int8") as rebuilt:
        rebuilt.update()
        assert rebuilt.get("a") == Document("Bees dance.", id="a", title="Insects", metadata={"year": 1999})
        assert rebuilt.search("bees")[0].id == "a"


def test_words_that_another_version_of_python_made_are_filled_again(index: Index, tmp_path: Path) -> None:
    index.close()
    with closing(sqlite3.connect(tmp_path / "index" / "1" / "index.sqlite")) as db:
        db.execute("UPDATE meta SET words = 'another'")
        db.execute("INSERT INTO words (words) VALUES ('delete-all')")
        db.commit()
    assert index.search("E4711", by="words") == []
    index.update()
    assert names(index.search("E4711", by="words")) == ["pump"]


def test_similar_finds_other_documents(index: Index, folder: Path) -> None:
    (folder / "loaf.txt").write_text("Let the dough rest for two hours, then bake the bread.")
    index.update()
    assert names(index.similar(str(folder / "bread.txt")))[0] == "loaf"
    assert "bread" not in names(index.similar(str(folder / "bread.txt")))
    assert set(names(index.similar("Baking with yeast dough"))[:2]) == {"bread", "loaf"}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"year": 2001}, {"b", "d"}),
        ({"year": {">=": 2001}}, {"b", "c", "d"}),
        ({"year": {">": 1999, "<": 2010}}, {"b", "d"}),
        ({"tags": "staff"}, {"a", "c"}),
        ({"tags": "staff", "year": {"<=": 2001}}, {"a"}),
        ({"tags": {"!=": "staff"}}, {"b", "d"}),
        ({"year": "2001"}, {"d"}),
        ({"nothing": 1}, set()),
        ({"year": {"<": 2**70, ">": -(10**400)}}, {"a", "b", "c", "d"}),
        ({"year": 2001.0, "tags": {"!=": "a"}}, {"b", "d"}),
    ],
)
def test_filters_keep_documents_by_their_metadata(
    embedder: Llama, where: dict[str, object], expected: set[str]
) -> None:
    facts = {
        "a": {"year": 1999, "tags": ["staff", "old"]},
        "b": {"year": 2001, "tags": "guest"},
        "c": {"year": 2020.5, "tags": "staff"},
        "d": {"year": "2001"},
    }
    with Index.open(":memory:", embedder=embedder) as index:
        # Equal texts, so that a text's places are filtered too; and others that rank before.
        index.add([Document(f"Bread {i}", metadata={"tags": "staff"}) for i in range(30)], ids=range(30))
        texts = ["Bread", "Bread", "Bread of c", "Bread of d"]
        index.add(texts, ids=facts, metadata=facts.values())
        for by in ("both", "meaning", "words"):
            found = index.search("bread", where=where, by=by, top_n=100)  # type: ignore[arg-type]
            places = (place for hit in found for place in (hit, *hit.others))
            assert {place.id for place in places if place.id in facts} == expected


@pytest.mark.parametrize(
    "where", [{"a": {"~": 1}}, {"a": [1]}, {'"': 1}, "a", {"a": {"<": True}}, {"a": float("nan")}]
)
def test_filters_that_are_none_are_refused(index: Index, where: Any) -> None:
    with pytest.raises(InputError, match="where"):
        index.search(QUERY, where=where)


def test_an_index_in_memory_is_gone_when_it_is_closed(embedder: Llama, folder: Path) -> None:
    index = Index.open(":memory:", embedder=embedder)
    assert index.search("anything") == []
    assert counts(index.update([folder])) == (5, 0, 0, 0)
    assert names(index.search(QUERY))[0] == "bread"
    index.close()
    assert len(index) == 0
    assert not Path(":memory:").exists()


def test_min_score_leaves_out_what_has_nothing_to_do_with_the_query(index: Index) -> None:
    assert names(index.search(QUERY, min_score=0.2))[:1] == ["bread"]
    assert index.search("medieval tax law", min_score=0.2) == []
    for by in ("both", "meaning", "words"):
        assert all(0 <= hit.score <= 1 for hit in index.search(QUERY, by=by))  # type: ignore[arg-type]


def test_a_snippet_of_markdown_has_no_heading_marks(tmp_path: Path, embedder: Llama) -> None:
    (tmp_path / "a.md").write_text("Rules #1\n\n## Travel\n\nBy rail.\n")
    with Index.open(":memory:", embedder=embedder) as index:
        index.update([tmp_path / "a.md"])
        snippets = " ".join(hit.snippet("rail") for hit in index.search("rail", by="words"))
    assert snippets == "Rules #1 Travel By rail."


def test_a_query_of_stop_words_scores_nothing(index: Index) -> None:
    assert [hit.score for hit in index.search("to the", by="words", top_n=9)] == [0.0] * 5


@pytest.mark.parametrize("query", ["", " \n", '" "'])
def test_an_empty_query_is_refused(index: Index, query: str) -> None:
    with pytest.raises(InputError, match="query is empty"):
        index.search(query)


def test_an_index_of_one_passage_scores_it_like_any_other(embedder: Llama) -> None:
    with Index.open(":memory:", embedder=embedder) as index:
        index.add([PASSAGES["bread"]])
        (right,), (nonsense,) = index.search("knead the dough"), index.search("zebra umbrella quantum")
    assert right.score > 0.4
    assert nonsense.score < 0.1


QUESTIONS = {
    "how long must the dough rest?": "bread",
    "when should tomatoes get water?": "tomatoes",
    "from which platform does the train to Vienna leave?": "train",
    "my router must be reset": "router",
    "what does error E4711 mean?": "pump",
}
WORDS = (
    "violet harbour quarrel seldom marble tribune oyster candle furlough bishop lantern velvet crusade "
    "pepper glacier trumpet sonnet orchard falcon ransom meadow sceptre walnut drizzle compass"
)


@pytest.mark.parametrize("by", ["both", "meaning", "words"])
def test_scores_of_real_questions_are_above_those_of_random_words(index: Index, by: By) -> None:
    rng = random.Random(0)
    nonsense = [" ".join(rng.sample(WORDS.split(), rng.randint(3, 8))) for _ in range(50)]
    tops = [max((hit.score for hit in index.search(query, by=by)), default=0.0) for query in nonsense]
    for question, name in QUESTIONS.items():
        best = index.search(question, by=by)[0]
        assert names([best]) == [name]
        assert best.score > max(tops)


def test_numbers_that_json_lacks_are_null_in_metadata(embedder: Llama) -> None:
    with Index.open(":memory:", embedder=embedder) as index:
        index.add([Document("Bread", id="a", metadata={"x": float("nan"), "year": 2020})])
        assert index.get("a").metadata == {"x": None, "year": 2020}
        assert [hit.id for hit in index.search("bread", where={"year": 2020})] == ["a"]


PHRASES = {
    "leave": "The Annual Leave is 25 days.",
    "leaves": "Annual leaves fall; leave them there, it is annual.",
    "draft": "A draft of the annual\nleave policy.",
    "cafe": "Cafe\u0301s in M\u00fcnchen take no annual, leave-like break.",
    "tokyo": "\u660e\u65e5\u306f\u6771\u4eac\u90fd\u306b\u884c\u304f\u3002",
    "kyoto": "\u4eac\u90fd\u306f\u96e8\u3067\u3059\u3002",
    "thai": "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22\u0e2a\u0e27\u0e22",
    "korean": "\uace0\uc591\uc774\ub294 \uc794\ub2e4.",
}


@pytest.fixture(scope="module")
def phrases(embedder: Llama) -> Iterator[Index]:
    with Index.open(":memory:", embedder=embedder) as index:
        index.add(PHRASES.values(), ids=PHRASES)
        index.add([Document("Days off.", id="titled", title="Annual Leave")])
        yield index


ALL = {*PHRASES, "titled"}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('"annual leave"', {"leave", "draft", "cafe", "titled"}),
        ('"ANNUAL LEAVE" -draft', {"leave", "cafe", "titled"}),
        ('annual -"annual leave"', ALL - {"leave", "draft", "cafe", "titled"}),
        ("annual -leave", ALL - {"leave", "leaves", "draft", "cafe", "titled"}),
        ("annual -leav", ALL),
        ('"leaves"', {"leaves"}),
        ('"cafes in munchen"', {"cafe"}),
        ('"annual leave" "policy"', {"draft"}),
        ('"annual leave" "zebra"', set()),
        ('"\u6771\u4eac"', {"tokyo"}),
        ('"\u4eac\u90fd"', {"tokyo", "kyoto"}),
        ("\u4eac\u90fd -\u6771", ALL - {"tokyo"}),
        ('"\u4eac\u6771"', set()),
        ('"\u0e44\u0e17\u0e22"', {"thai"}),
        ('"\uace0\uc591\uc774"', {"korean"}),
        ('"of the annual leave"', {"draft"}),
    ],
    ids=ascii,
)
def test_phrases_are_required_and_excluded_exactly(phrases: Index, query: str, found: set[str]) -> None:
    assert {hit.id for hit in phrases.search(query, by="meaning", top_n=20)} == found
    assert {hit.id for hit in phrases.search(query, top_n=20)} == found
    by_words = {hit.id for hit in phrases.search(query, by="words", top_n=20)}
    assert by_words <= found
    assert by_words == found or "-" in query


def test_a_phrase_filters_before_the_ranking_and_beside_other_filters(
    tmp_path: Path, embedder: Llama
) -> None:
    with Index.open(":memory:", embedder=embedder) as index:
        notes = [Document(f"Bread number {i} is baked.", id=i, metadata={"odd": i % 2}) for i in range(300)]
        index.add([*notes, Document("Old bread, the blue kind.", id="blue", metadata={"odd": 1})])
        for by in ("both", "meaning", "words"):
            assert [hit.id for hit in index.search('bread "blue kind"', by=by, top_n=3)] == ["blue"]
            assert index.search('bread "blue kind"', by=by, where={"odd": 0}) == []
            without = index.search("bread -blue", by=by, top_n=400, where={"odd": 1})
            assert {hit.id for hit in without} == set(range(1, 300, 2))


def test_a_phrase_in_quotes_ranks_with_its_words_and_an_exclusion_does_not(phrases: Index) -> None:
    asked = phrases.search('"annual leave" days -draft', top_n=20)
    plain = {hit.id: hit for hit in phrases.search("annual leave days", top_n=20)}
    assert [(hit.id, hit.cosine, hit.words, hit.score) for hit in asked] == [
        (hit.id, plain[hit.id].cosine, plain[hit.id].words, plain[hit.id].score) for hit in asked
    ]
    for query in ("-draft", '-"last year" -draft'):
        with pytest.raises(InputError, match=r"only what to leave out: .*draft\."):
            phrases.search(query)


def test_a_plain_query_and_a_pipeline_s_have_no_operators(phrases: Index) -> None:
    for query in ('"annual leave" zebra', "annual leave -zebra"):
        plain = phrases.search(query, top_n=20, by="meaning", plain=True)
        assert {hit.id for hit in plain} == ALL
        assert Pipeline(phrases).search(query, top_n=20) == plain


def test_one_hit_of_each_file_and_the_lines_around_it(tmp_path: Path, embedder: Llama) -> None:
    for name in ("a", "b"):
        notes = "".join(f"# Part {i}\n\nBread {name} {i} is\nbaked in an oven.\n\n" for i in range(30))
        (tmp_path / f"{name}.md").write_text(notes)
    with Index.open(tmp_path / "index", embedder=embedder, chunk_tokens=20) as index:
        index.update([tmp_path / "a.md", tmp_path / "b.md"])
        index.add(["Bread.", "More bread."])
        assert sorted(names(index.search("bread a oven", top_n=9, one_per_file=True)[:2])) == ["a", "b"]
        assert len(index.search("bread a oven", top_n=9, one_per_file=True)) == 4
        (hit,) = index.search("bread a 7 baked", top_n=1, by="words", context=2)
        assert hit.text == "Bread a 7 is\nbaked in an oven."
        assert (hit.before, hit.after) == ("# Part 7\n\n", "\n\n# Part 8")
        assert index.search("bread a 7 baked", top_n=1, by="words")[0].before == ""
        for context in (1, 10_000):
            for hit in index.search("bread", top_n=9, context=context, paths=["a.md"]):
                assert hit.before + hit.text + hit.after in Path(hit.path).read_text()
        with pytest.raises(InputError, match="context"):
            index.search("bread", context=-1)
