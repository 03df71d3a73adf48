"""The index on disk: what is found, what is embedded again, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import tiny_models
from ggrank import Index, InputError, Llama, ModelModeError, Pipeline, SearchIndexError
from ggrank.errors import InputTypeError

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
    return [Path(one.metadata["path"]).stem for one in found]  # type: ignore[attr-defined]


def counts(changes: object) -> tuple[int, ...]:
    words = ("added", "changed", "removed", "unchanged")
    return tuple(getattr(changes, word) for word in words)


def test_the_ranking_is_that_of_the_embedder_over_all_passages(tmp_path: Path, embedder: Llama) -> None:
    texts = [f"{text} {i}" for i in range(16) for text in PASSAGES.values()]
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        index.update([jsonl(tmp_path / "a.jsonl", texts)])
        found = index.search(QUERY, retrieve_k=300, top_n=None)
    cosines = embedder.embed_many(texts) @ embedder.embed(QUERY)
    assert sorted(one.id for one in found) == list(range(80))
    # q8_0 rounds a little differently beside other neighbours.
    assert [one.score for one in found] == pytest.approx([cosines[one.id] for one in found], abs=5e-3)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_int8_moves_no_cosine_by_more_than_three_thousandths(tmp_path: Path, embedder: Llama) -> None:
    path = jsonl(tmp_path / "a.jsonl", (f"{text} {i}" for i in range(6) for text in PASSAGES.values()))
    scores = {}
    for vectors in ("float32", "int8"):
        with Index.open(tmp_path / vectors, embedder=embedder, vectors=vectors) as index:  # type: ignore[arg-type]
            index.update([path])
            scores[vectors] = {one.id: one.score for one in index.search(QUERY, top_n=100)}
    assert scores["int8"] == pytest.approx(scores["float32"], abs=3e-3)
    assert scores["int8"] != scores["float32"]


def test_a_hit_says_file_place_and_characters(tmp_path: Path, embedder: Llama) -> None:
    path = tmp_path / "notes.md"
    path.write_text(f"# Garden\n\n{PASSAGES['tomatoes']}\n\n# Travel\n\n{PASSAGES['train']}")
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        index.update([path])
        best = index.search("when does the train leave?")[0]
    assert best.metadata is not None
    assert best.metadata["path"] == str(path)
    assert best.metadata["place"] == "Travel"
    assert path.read_text()[best.metadata["start"] : best.metadata["stop"]] == best.document


def test_a_place_in_a_plain_text_is_its_line(tmp_path: Path, embedder: Llama) -> None:
    path = tmp_path / "long.txt"
    path.write_text("\n\n".join(f"Paragraph {i}. {' '.join(PASSAGES.values())}" for i in range(12)))
    with Index.open(tmp_path / "index", embedder=embedder, chunk_tokens=100) as index:
        index.update([path])
        for one in index.search("Paragraph 7", top_n=50):
            assert one.metadata is not None
            line = path.read_text()[: one.metadata["start"]].count("\n") + 1
            assert one.metadata["place"] == f"line {line}"
            assert embedder.count_tokens(one.document) <= 100


def test_hybrid_finds_a_number_that_vectors_blur(index: Index) -> None:
    query = "E4711 train platform departure to the capital of Austria"
    ranking = index.search(query, hybrid=True, top_n=2)
    assert set(names(ranking)) == {"train", "pump"}
    assert ranking.scale == "rrf"


def test_a_reranker_orders_what_was_found(
    index: Index, tmp_path_factory: pytest.TempPathFactory, folder: Path
) -> None:
    with Llama.load(tiny_models.write("bert-reranker", tmp_path_factory.mktemp("models"))) as reranker:
        found = index.search(QUERY, retrieve_k=4, top_n=3, reranker=reranker)
        through_pipeline = Pipeline(index, reranker).search(QUERY, retrieve_k=4, top_n=3)
        texts = [PASSAGES[name] for name in names(index.search(QUERY, retrieve_k=4, top_n=4))]
        logits = sorted(reranker.rerank(QUERY, texts).tolist(), reverse=True)
    assert [one.logit for one in found] == pytest.approx(logits[:3], abs=1e-4)
    assert names(through_pipeline) == names(found)
    assert all(one.cosine is not None for one in through_pipeline)


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


def test_only_what_changed_is_embedded_again(index: Index, folder: Path, embedder: Counting) -> None:
    before = embedder.n_texts
    (folder / "bread.txt").write_text("Rye needs sourdough.")
    (folder / "pump.txt").unlink()
    (folder / "deeper").mkdir()
    (folder / "deeper" / "new.md").write_text("Bees dance.")
    assert counts(index.update([folder])) == (1, 1, 1, 3)
    assert embedder.n_texts == before + 2
    assert sorted(names(index.search("x", top_n=9))) == ["bread", "new", "router", "tomatoes", "train"]
    assert index.search("E4711 pump", hybrid=True)[0].document != PASSAGES["pump"]
    assert index.search("sourdough", hybrid=True)[0].document == "Rye needs sourdough."


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
        found = {one.id: one.document for one in index.search("x", top_n=999)}
    assert found == dict(enumerate([texts[1], "A new one.", *texts[5:]]))


def test_a_file_that_moves_keeps_its_vectors(index: Index, folder: Path, embedder: Counting) -> None:
    before = embedder.n_texts
    (folder / "bread.txt").rename(folder / "loaf.txt")
    assert counts(index.update()) == (1, 0, 1, 4)
    assert embedder.n_texts == before
    assert names(index.search(QUERY))[0] == "loaf"


def test_rows_that_were_freed_are_used_again(index: Index, folder: Path, tmp_path: Path) -> None:
    size = (tmp_path / "index" / "vectors.float32").stat().st_size
    for i in range(6):
        text = f"Version {i} of bread."
        (folder / "bread.txt").write_text(text)
        index.update()
        assert index.search(text)[0].document == text
        assert len(index) == 5
    assert (tmp_path / "index" / "vectors.float32").stat().st_size <= size + 1536


def test_files_that_cannot_be_read_are_skipped_and_told(index: Index, folder: Path) -> None:
    (folder / "bread.txt").write_bytes(b"caf\0")
    (folder / "binary.md").write_bytes(b"\0\1\2")
    (folder / ".hidden.txt").write_text("hidden")
    (folder / "program.exe").write_text("no text")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.txt")
    (folder / "link.txt").symlink_to(folder / "nowhere")
    changes = index.update()
    assert counts(changes) == (0, 0, 0, 4)
    reasons = {Path(one.path).name: one.reason for one in changes.skipped}
    assert set(reasons) - {"pipe.txt"} == {"bread.txt", "binary.md", "link.txt"}
    assert "binary" in reasons["bread.txt"]
    # What was known of it before stays, since nobody knows what is in it now.
    assert names(index.search(QUERY))[0] == "bread"


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
        index.forget([folder, tmp_path / "nowhere"])
    assert len(index) == 6
    assert index.forget([folder]) == 5
    assert names(index.search("E4711", hybrid=True, top_n=9)) == ["bees"]
    assert counts(index.update()) == (0, 0, 0, 1)


def test_what_is_forgotten_below_a_folder_that_stays_comes_back_with_it(index: Index, folder: Path) -> None:
    assert index.forget([folder / "bread.txt", folder / "pump.txt", folder / "pump.txt"]) == 2
    assert len(index) == 3
    assert counts(index.update()) == (2, 0, 0, 3)
    assert index.forget([folder.parent]) == 5
    with pytest.raises(InputError, match="nothing to index"):
        index.update()


def test_a_file_that_was_named_itself_and_is_gone_goes(tmp_path: Path, embedder: Llama) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.py"
    first.write_text("one")
    second.write_text("two")
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        assert counts(index.update([first, second])) == (2, 0, 0, 0)
        first.unlink()
        assert counts(index.update()) == (0, 0, 1, 1)
        assert counts(index.update()) == (0, 0, 0, 1)


def test_an_empty_folder_is_an_empty_index(tmp_path: Path, embedder: Llama) -> None:
    (tmp_path / "empty").mkdir()
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        assert counts(index.update([tmp_path / "empty"])) == (0, 0, 0, 0)
        assert len(index.search("anything", hybrid=True)) == 0
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
    for settings in ({"chunk_tokens": 100}, {"overlap": 0}, {"vectors": "int8"}):
        with pytest.raises(SearchIndexError, match=f"{next(iter(settings))} .*--rebuild"):
            Index.open(tmp_path / "index", embedder=embedder, **settings)  # type: ignore[arg-type]
    with Index.open(tmp_path / "index", embedder=embedder, vectors="int8", rebuild=True) as rebuilt:
        assert counts(rebuilt.update()) == (5, 0, 0, 0)
        assert rebuilt.settings.vectors == "int8"
        assert names(rebuilt.search(QUERY))[0] == "bread"


def test_a_rebuild_that_cannot_be_leaves_the_index_as_it_was(
    index: Index, folder: Path, tmp_path: Path, embedder: Llama
) -> None:
    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()}

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
    assert not (tmp_path / "index" / "index.sqlite").exists()


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
    path = tmp_path / "index" / "index.sqlite"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE precious (x)")
    for content in (path.read_bytes(), b"no database at all", b"x" * 5000):
        path.write_bytes(content)
        with pytest.raises(SearchIndexError, match="not an index of ggrank"):
            Index.open(path.parent, embedder=embedder)
        with pytest.raises(SearchIndexError, match="not an index of ggrank"):
            Index.open(path.parent, embedder=embedder, rebuild=True).update([tmp_path / "a.txt"])
        assert path.read_bytes() == content


def test_a_damaged_index_says_so_and_rebuild_mends_it(index: Index, tmp_path: Path, embedder: Llama) -> None:
    index.close()
    path, vectors = tmp_path / "index" / "index.sqlite", tmp_path / "index" / "vectors.float32"
    whole, whole_vectors = path.read_bytes(), vectors.read_bytes()
    vectors.write_bytes(whole_vectors[:-1])
    for use in (lambda: index.search(QUERY), index.update):
        with pytest.raises(
            SearchIndexError, match=rf"damaged .*: ggrank index --index {tmp_path}/index --rebuild$"
        ):
            use()
    (tmp_path / "documents" / "pump.txt").unlink()
    index.forget([tmp_path / "documents" / "pump.txt"])
    with Index.open(tmp_path / "index", embedder=embedder, rebuild=True) as rebuilt:
        assert counts(rebuilt.update()) == (4, 0, 0, 0)
        assert names(rebuilt.search(QUERY))[0] == "bread"
    vectors.write_bytes(whole_vectors)
    path.write_bytes(whole[:4096] + b"\xaa" * (len(whole) - 4096))
    with pytest.raises(SearchIndexError, match=r"damaged .* --rebuild"):
        index.search(QUERY)
    with Index.open(tmp_path / "index", embedder=embedder, rebuild=True) as rebuilt:
        with pytest.raises(InputError, match=r"cannot be read; name them: .* PATH\.\.\. --rebuild"):
            rebuilt.update()
        assert counts(rebuilt.update([tmp_path / "documents"])) == (4, 0, 0, 0)


def test_an_index_of_a_later_version_is_refused(index: Index, tmp_path: Path) -> None:
    index.close()
    with closing(sqlite3.connect(tmp_path / "index" / "index.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(SearchIndexError, match="format 99"):
        index.search(QUERY)


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


def test_a_hit_s_cosine_is_that_of_its_own_text_while_another_thread_updates(
    index: Index, folder: Path, embedder: Llama
) -> None:
    query, versions = "Version of bread.", [f"Version {i} of bread." for i in range(12)]
    texts = [*PASSAGES.values(), *versions]
    cosines = dict(zip(texts, embedder.embed_many(texts) @ embedder.embed(query), strict=True))
    done = threading.Event()
    wrong: list[object] = []

    def search(*, hybrid: bool) -> None:
        while not done.is_set():
            found = index.search(query, hybrid=hybrid, top_n=9)
            wrong.extend(one for one in found if abs((one.cosine or 9) - cosines[one.document]) > 5e-3)

    threads = [threading.Thread(target=search, kwargs={"hybrid": hybrid}) for hybrid in (False, True)]
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
        best = index.search("running pumps")[0]
        assert "pump E4711 runs dry" in index.snippet("running pumps", best, n_words=12)
        assert index.snippet("zebra", best, n_words=3) == "Nothing of interest..."
        assert index.snippet("zebra", best, n_words=999) == " ".join(best.document.split())


def test_a_closed_index_opens_itself_again(index: Index) -> None:
    index.close()
    index.close()
    assert names(index.search(QUERY))[0] == "bread"
