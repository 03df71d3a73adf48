"""`Llama`: what it gives, what it refuses, and that nothing ends the process.

Equality with the original models is tested elsewhere (test_bundled_model.py, test_tiny_parity.py).
"""

from __future__ import annotations

import gc
import multiprocessing
import threading
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gguf_bytes
import tiny_models
from ggrank import (
    ClosedError,
    GgrankError,
    GgrankWarning,
    InputError,
    InputTooLongError,
    InputTypeError,
    Llama,
    LlamaParams,
    ModelModeError,
    ModelNotFoundError,
    PoolingType,
)
from ggrank.gguf import GgufFile
from ggrank.gguf.format import TensorInfo
from ggrank.loading.heads import warn_of_doubts

RUST = [
    "Rust is a systems programming language that guarantees memory safety.",
    "Paris is the capital of France.",
    "Bananas are rich in potassium.",
]
anything = settings(max_examples=60)


@pytest.fixture(scope="module")
def embedder() -> Iterator[Llama]:
    with Llama.load("all-minilm-l6-v2") as llama:
        yield llama


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def reranker(models: Path) -> Iterator[Llama]:
    with Llama.load(tiny_models.write("bert-reranker", models)) as llama:
        yield llama


def test_a_loaded_embedder_says_what_it_is(embedder: Llama) -> None:
    assert (embedder.mode, embedder.pooling_type, embedder.n_embd) == ("embedding", PoolingType.MEAN, 384)
    assert (embedder.n_ctx, embedder.quantization) == (256, "q8_0")
    assert embedder.engine in ("llama.cpp", "openvino")
    assert embedder.device
    assert embedder.model_path.name == "all-minilm-l6-v2-q8_0.gguf"


def test_a_loaded_reranker_says_what_it_is(reranker: Llama) -> None:
    assert (reranker.mode, reranker.pooling_type, reranker.score_scale) == (
        "rerank",
        PoolingType.RANK,
        "logit",
    )


def test_load_takes_options_or_params_but_not_both() -> None:
    with Llama.load(LlamaParams("all-minilm-l6-v2", n_ctx=64)) as llama:
        assert llama.n_ctx == 64
    with pytest.raises(InputError, match=r"set n_ctx in them"):
        Llama.load(LlamaParams("all-minilm-l6-v2"), n_ctx=64)


def test_vectors_have_length_one_unless_asked_otherwise(embedder: Llama) -> None:
    assert np.linalg.norm(embedder.embed("a text")) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(embedder.embed("a text", normalize=False)) > 1.5
    assert embedder.embed("a text").dtype == np.float32


def test_results_keep_the_input_order_however_texts_are_packed(embedder: Llama) -> None:
    texts = [f"{'word ' * (i * 7 % 90)}number {i}" for i in range(150)]
    together = embedder.embed_many(texts)
    alone = np.stack([embedder.embed(text) for text in texts])
    assert (together @ alone.T).argmax(axis=1).tolist() == list(range(len(texts)))
    assert (together * alone).sum(axis=1).min() > 0.999


def test_duplicates_get_equal_scores_in_input_order(embedder: Llama) -> None:
    ranking = embedder.rank("fruit", ["an apple", "a car", "an apple", "an apple"])
    assert [document.index for document in ranking][:3] == [0, 2, 3]
    assert len({document.score for document in ranking[:3]}) == 1


def test_rank_keeps_top_n_and_what_reaches_the_threshold(embedder: Llama) -> None:
    every = embedder.rank("safe systems programming language", RUST)
    assert every[0].index == 0
    assert len(every) == 3
    assert every.scale == "cosine"
    assert [d.index for d in embedder.rank("safe systems programming language", RUST, top_n=1)] == [0]
    limit = every[1].score
    assert len(embedder.rank("safe systems programming language", RUST, threshold=limit)) == 2


def test_a_rerankers_ranking_has_its_raw_logits(reranker: Llama) -> None:
    logits = reranker.rerank("safe language", RUST)
    ranking = reranker.rank("safe language", RUST, score="sigmoid")
    assert [d.index for d in ranking] == np.argsort(-logits, kind="stable").tolist()
    for document in ranking:
        assert document.logit == pytest.approx(float(logits[document.index]), abs=1e-6)
        assert document.score == pytest.approx(1 / (1 + np.exp(-document.logit)), abs=1e-6)


def test_score_pairs_equals_rerank_for_the_same_pairs(reranker: Llama) -> None:
    pairs = [(query, text) for query in ("safe language", "fruit") for text in RUST]
    expected = np.concatenate([reranker.rerank("safe language", RUST), reranker.rerank("fruit", RUST)])
    assert np.abs(reranker.score_pairs(pairs) - expected).max() < 1e-4


def test_documents_may_come_from_a_generator_and_be_none_or_thousands(reranker: Llama) -> None:
    assert reranker.rerank("q", []).shape == (0,)
    assert len(reranker.rank("q", [])) == 0
    assert reranker.score_pairs([]).shape == (0,)
    assert reranker.rerank("q", (f"document {i}" for i in range(10_000))).shape == (10_000,)


def test_embedding_nothing_gives_no_rows(embedder: Llama) -> None:
    assert embedder.embed_many([]).shape == (0, 384)
    assert len(embedder.rank("q", [])) == 0


def test_pooling_none_gives_a_vector_for_every_token() -> None:
    with Llama.load("all-minilm-l6-v2", pooling_type=PoolingType.NONE) as llama:
        vectors = llama.embed_tokens("hello world")
        assert vectors.shape == (llama.count_tokens("hello world"), 384)
        with pytest.raises(ModelModeError, match=r"embed_tokens"):
            llama.embed("hello world")
    with Llama.load("all-minilm-l6-v2") as pooled:
        mean = vectors.mean(axis=0)
        assert mean @ pooled.embed("hello world") / np.linalg.norm(mean) > 0.999
        with pytest.raises(ModelModeError, match="pooling_type none"):
            pooled.embed_tokens("hello world")


def test_cls_and_last_pooling_take_the_first_and_last_token() -> None:
    with Llama.load("all-minilm-l6-v2", pooling_type=PoolingType.NONE) as llama:
        tokens = llama.embed_tokens("hello world")
    for pooling, row in ((PoolingType.CLS, 0), (PoolingType.LAST, -1)):
        with Llama.load("all-minilm-l6-v2", pooling_type=pooling) as llama:
            assert np.abs(llama.embed("hello world", normalize=False) - tokens[row]).max() < 2e-3


def test_prefixes_apply_in_rank_and_can_be_passed() -> None:
    options = {"query_prefix": "query: ", "document_prefix": "passage: "}
    with Llama.load("all-minilm-l6-v2", **options) as llama:  # type: ignore[arg-type]
        score = llama.rank("a", ["b"])[0].score
        expected = llama.embed("query: a") @ llama.embed("passage: b")
        assert score == pytest.approx(float(expected), abs=1e-3)
        assert llama.embed("a", prefix=llama.query_prefix) == pytest.approx(llama.embed("query: a"), abs=1e-3)


def test_long_texts_are_cut_marked_and_on_request_refused(embedder: Llama, reranker: Llama) -> None:
    long = "word " * 5_000
    assert [d.truncated for d in embedder.rank("word", ["short", long])].count(True) == 1
    assert [d.truncated for d in reranker.rank("word", ["short", long])].count(True) == 1
    with pytest.raises(InputTooLongError, match=r"text 1 has 5000 tokens"):
        embedder.embed_many(["short", long], truncate="error")
    with pytest.raises(InputTooLongError, match=r"document 1 has"):
        reranker.rerank("word", ["short", long], truncate="error")
    with pytest.raises(InputError, match=r"'chunk' is for reranking"):
        embedder.embed(long, truncate="chunk")


def test_chunks_score_at_least_the_documents_beginning(reranker: Llama) -> None:
    document = " ".join(f"sentence {i} about paris and rust" for i in range(80))
    (cut,) = reranker.rerank("paris", [document])
    (best,) = reranker.rerank("paris", [document], truncate="chunk")
    assert best >= cut - 1e-4
    assert not reranker.rank("paris", [document], truncate="chunk")[0].truncated


def test_numpy_s_numbers_are_numbers() -> None:
    with Llama.load("all-minilm-l6-v2", n_ctx=np.int64(64), n_threads=np.int32(1)) as llama:
        ranking = llama.rank("a", ["b", "c"], top_n=np.int64(1), threshold=np.float32(-1.0))
    assert (llama.n_ctx, len(ranking)) == (64, 1)


def test_a_query_longer_than_n_ctx_is_cut_and_marked(reranker: Llama) -> None:
    ranking = reranker.rank("word " * 5_000, RUST)
    assert all(document.truncated for document in ranking)
    assert len(ranking) == 3


ODD_TEXTS = [
    "",
    "   \n\t ",
    "\0",
    "a\0b",
    "\ud800",
    "a\udfffb",
    "</s>",
    "[CLS] [SEP] [PAD]",
    "<|im_end|>",
    "x" * 1_000_000,
    "word " * 200_000,
    "\U0001f469‍\U0001f52c",
    "͏̂" * 5_000,
    "ﷺ" * 1_000,
    "\uffff\ufffe￼",
]


@pytest.mark.parametrize("text", ODD_TEXTS, ids=lambda text: ascii(text[:12]))
@pytest.mark.parametrize(
    "kind", ["bert-reranker", "xlmr-reranker", "qwen3-reranker", "modernbert-reranker-mean", "jina-reranker"]
)
def test_odd_texts_get_a_finite_score_from_every_tokenizer(kind: str, text: str, models: Path) -> None:
    llama = _loaded(kind, models)
    for query, document in ((text, "plain"), ("plain", text), (text, text)):
        assert np.isfinite(llama.rerank(query, [document, "other"])).all()


@pytest.mark.parametrize("text", ODD_TEXTS, ids=lambda text: ascii(text[:12]))
def test_odd_texts_get_a_finite_vector(text: str, embedder: Llama) -> None:
    assert np.isfinite(embedder.embed(text)).all()


_cache: dict[str, Llama] = {}


def _loaded(kind: str, directory: Path) -> Llama:
    if kind not in _cache:
        _cache[kind] = Llama.load(tiny_models.write(kind, directory))
    return _cache[kind]


@anything
@given(texts=st.lists(st.text(max_size=80), max_size=8), query=st.text(max_size=40))
def test_any_texts_give_one_finite_logit_each(reranker: Llama, texts: list[str], query: str) -> None:
    logits = reranker.rerank(query, texts)
    assert logits.shape == (len(texts),)
    assert np.isfinite(logits).all()


@anything
@given(texts=st.lists(st.text(max_size=80), max_size=8))
def test_any_texts_give_one_vector_of_length_one_each(embedder: Llama, texts: list[str]) -> None:
    norms = np.linalg.norm(embedder.embed_many(texts), axis=1)
    assert np.allclose(norms, 1, atol=1e-4)


@anything
@given(value=st.one_of(st.none(), st.integers(), st.binary(), st.floats(), st.lists(st.integers())))
def test_whatever_is_not_a_string_is_named(reranker: Llama, embedder: Llama, value: object) -> None:
    with pytest.raises(InputTypeError, match=r"document 1 must be a string"):
        reranker.rerank("q", ["a", value])  # type: ignore[list-item]
    with pytest.raises(InputTypeError, match=r"the query must be a string"):
        reranker.rank(value, ["a"])  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match=r"must be a string"):
        embedder.embed(value)  # type: ignore[arg-type]


def test_one_string_is_not_taken_for_a_list_of_letters(reranker: Llama, embedder: Llama) -> None:
    for call in (lambda: reranker.rerank("q", "abc"), lambda: embedder.embed_many("abc")):
        with pytest.raises(InputTypeError, match=r"put it in a list"):
            call()
    with pytest.raises(InputTypeError, match=r"pair 0 must be"):
        reranker.score_pairs(["ab"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "arguments", [{"top_n": 0}, {"top_n": True}, {"threshold": float("nan")}, {"truncate": "x"}]
)
def test_arguments_out_of_range_are_refused(reranker: Llama, arguments: dict[str, object]) -> None:
    with pytest.raises(InputError):
        reranker.rank("q", ["a"], **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"n_ctx": 513},
        {"n_ctx": 0},
        {"n_ctx": "many"},
        {"n_seq_max": 257},
        {"n_threads": -1},
        {"n_ubatch": 10**9},
    ],
)
def test_settings_that_llama_cpp_would_die_of_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Llama.load("all-minilm-l6-v2", **options)  # type: ignore[arg-type]


def test_the_wrong_job_is_refused_with_the_way_out(embedder: Llama, reranker: Llama) -> None:
    with pytest.raises(ModelModeError, match=r"pooling MEAN.*ggrank-reranker-mini"):
        embedder.rerank("q", ["a"])
    with pytest.raises(ModelModeError, match=r"pooling RANK.*all-minilm-l6-v2"):
        reranker.embed("a")
    with pytest.raises(ModelModeError, match=r"no classification layer"):
        Llama.load("all-minilm-l6-v2", pooling_type=PoolingType.RANK)
    with pytest.raises(ModelModeError, match=r"use one of 'auto', 'cosine'"):
        embedder.rank("q", ["a"], score="logit")


def test_a_reranker_loaded_to_embed_warns(models: Path) -> None:
    with pytest.warns(GgrankWarning, match=r"is a reranker"):
        Llama.load(tiny_models.write("bert-reranker", models), pooling_type=PoolingType.CLS).close()


def test_a_bert_reranker_that_lost_its_pooler_warns_and_a_whole_one_does_not(models: Path) -> None:
    with pytest.warns(GgrankWarning, match=r"lost its pooler.*'ggrank convert'"):
        Llama.load(tiny_models.write("bert-reranker-without-pooler", models)).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("bert-reranker", "bert-reranker-segments"):
            Llama.load(tiny_models.write(kind, models)).close()


def test_a_wordpiece_vocabulary_in_a_multilingual_e5_warns(tmp_path: Path) -> None:
    file = gguf_bytes.read(tiny_models.write("bert-mean", tmp_path))
    path = tmp_path / "model.gguf"
    path.write_bytes(file.with_key("general.name", "Multilingual E5 Small").to_bytes())
    with pytest.warns(GgrankWarning, match=r"WordPiece vocabulary.*'multilingual-e5-small'"):
        Llama.load(path).close()
    right = tiny_models.write("xlmr-cls", tmp_path).rename(tmp_path / "multilingual-e5-small-f32.gguf")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Llama.load(right).close()


def test_a_granite_model_that_does_not_name_its_activation_warns(tmp_path: Path) -> None:
    model = tiny_models.write("modernbert-reranker-cls", tmp_path)
    path = tmp_path / "granite-embedding-97M-multilingual-r2-f32.gguf"
    path.write_bytes(gguf_bytes.read(model).without_key("modern-bert.hidden_activation").to_bytes())
    with pytest.warns(GgrankWarning, match=r"no modern-bert\.hidden_activation"):
        Llama.load(path).close()
    path.write_bytes(model.read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Llama.load(path).close()


def test_an_embeddinggemma_without_its_dense_layers_warns(tmp_path: Path) -> None:
    metadata = {"general.architecture": "gemma-embedding", "tokenizer.ggml.model": "llama"}
    tensor = TensorInfo("dense_2.weight", (768, 3072), "q8_0", 0, 0)
    with pytest.warns(GgrankWarning, match=r"no dense_2\.weight.*'embeddinggemma-300m'"):
        warn_of_doubts(GgufFile(tmp_path / "m.gguf", 0, metadata, {}), PoolingType.MEAN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_doubts(GgufFile(tmp_path / "m.gguf", 0, metadata, {tensor.name: tensor}), PoolingType.MEAN)


@pytest.mark.parametrize(
    "options", [{"n_ubatch": 600}, {"n_seq_max": 100}, {"n_ctx": 64, "n_ubatch": 64, "n_seq_max": 128}]
)
def test_budgets_that_are_no_multiples_of_each_other_are_rounded(
    options: dict[str, int], models: Path
) -> None:
    for kind in ("bert-mean", "bert-reranker"):
        with Llama.load(tiny_models.write(kind, models), **options) as llama:  # type: ignore[arg-type]
            texts = [f"text {i}" for i in range(200)]
            values = llama.embed_many(texts) if kind == "bert-mean" else llama.rerank("q", texts)
            assert np.isfinite(values).all()


def test_a_chat_model_is_named_as_one(models: Path) -> None:
    with pytest.raises(ModelModeError, match=r"looks like a chat model"):
        Llama.load(tiny_models.write("chat", models))


def test_a_head_makes_a_file_without_pooling_type_a_reranker(models: Path) -> None:
    with Llama.load(tiny_models.write("bert-reranker-without-pooling-type", models)) as llama:
        assert llama.mode == "rerank"


def test_an_embedder_without_pooling_type_asks_for_one(models: Path) -> None:
    path = tiny_models.write("bert-without-pooling-type", models)
    with pytest.raises(ModelModeError, match="set pooling_type to mean"):
        Llama.load(path)
    with Llama.load(path, pooling_type=PoolingType.MEAN) as llama:
        assert llama.embed("a").shape == (llama.n_embd,)


def test_a_classifier_with_three_labels_is_not_taken_for_a_reranker(models: Path) -> None:
    with pytest.raises(ModelModeError, match=r"3 outputs"):
        Llama.load(tiny_models.write("bert-reranker-3-labels", models))


def test_a_missing_file_is_named_and_nothing_is_downloaded() -> None:
    with pytest.raises(ModelNotFoundError, match=r"nowhere.gguf"):
        Llama.load("nowhere.gguf")


def test_many_threads_share_one_model_and_get_the_single_threaded_results(reranker: Llama) -> None:
    queries = [f"query {i}" for i in range(24)]
    expected = [reranker.rerank(query, RUST) for query in queries]
    results: list[np.ndarray] = [np.empty(0)] * len(queries)

    def work(i: int) -> None:
        results[i] = reranker.rerank(queries[i], RUST)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(queries))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result, alone in zip(results, expected, strict=True):
        assert np.abs(result - alone).max() < 1e-5


def test_closing_while_other_threads_compute_ends_in_results_or_a_clear_error(models: Path) -> None:
    llama = Llama.load(tiny_models.write("bert-reranker", models))
    outcomes: list[object] = []

    def work() -> None:
        try:
            for _ in range(50):
                llama.rerank("q", RUST * 5)
            outcomes.append("done")
        except GgrankError as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    llama.close()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4
    assert set(outcomes) <= {"done", ClosedError}


def test_use_after_close_is_a_clear_error_and_closing_twice_is_fine(models: Path) -> None:
    llama = Llama.load(tiny_models.write("bert-reranker", models))
    llama.close()
    llama.close()
    for call in (
        lambda: llama.rerank("q", ["a"]),
        lambda: llama.tokenize("a"),
        lambda: llama.count_tokens("a"),
    ):
        with pytest.raises(ClosedError, match=r"load it again"):
            call()


def _use_in_child(llama: Llama, sender: object) -> None:
    try:
        llama.embed("a")
        sender.send("computed")  # type: ignore[attr-defined]
    except ClosedError as error:
        sender.send(str(error))  # type: ignore[attr-defined]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_use_after_a_fork_is_a_clear_error(embedder: Llama) -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_use_in_child, args=(embedder, sender))
    child.start()
    assert (receiver.poll(600) and "before a fork" in (message := receiver.recv())) or "fork" in message
    child.join()
    assert child.exitcode == 0
    assert embedder.embed("a").shape == (384,)


def test_the_text_of_control_tokens_is_plain_text(embedder: Llama, reranker: Llama) -> None:
    assert not {101, 102} & set(embedder.tokenize("[CLS] a [SEP]").tolist())
    assert embedder.count_tokens("[SEP]") == 5


def test_the_token_appears_in_no_repr() -> None:
    assert "hf_secret" not in repr(LlamaParams("org/repo", token="hf_secret"))


def test_every_load_option_is_a_param_and_the_other_way_round() -> None:
    import inspect

    options = inspect.signature(Llama.load).parameters
    assert tuple(options) == tuple(LlamaParams.__dataclass_fields__)
    for name, default in (
        (f.name, f.default) for f in LlamaParams.__dataclass_fields__.values() if f.name != "model"
    ):
        assert options[name].default == default


def test_a_model_that_is_no_longer_used_is_freed_at_once() -> None:
    llama = Llama.load("all-minilm-l6-v2")
    llama.embed("a text", prefix="query: ")
    engine = weakref.ref(llama._engine)
    gc.disable()  # so that only a cycle of references could keep it
    try:
        del llama
        assert engine() is None
    finally:
        gc.enable()
