"""The drop-in faces on the bundled reranker, without torch: types, shapes, order and errors.

Beside the originals on the same weights: ``tests/parity/test_compat_parity.py``.
"""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_models
from ggrank import (
    DownloadError,
    InputError,
    InputTypeError,
    Llama,
    ModelModeError,
    ModelNotFoundError,
)
from ggrank.compat import CrossEncoder, Document, FlagReranker, Reranker
from ggrank.compat.model import ORIGINALS, is_gpu, preset_of
from ggrank.hub.presets import presets
from tiny import goldens

HAS_TORCH = importlib.util.find_spec("torch") is not None
FACES = [CrossEncoder, FlagReranker, Reranker]
ROOT = Path(__file__).resolve().parent.parent
QUERY = "What is the capital of France?"
DOCUMENTS = [
    "Berlin is the capital of Germany.",
    "Paris is the capital of France.",
    "Bananas are rich in potassium.",
]
PAIRS = [(QUERY, document) for document in DOCUMENTS]


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    with Llama.load("ggrank-reranker-mini") as model:
        yield model


@pytest.fixture(scope="module")
def logits(llama: Llama) -> np.ndarray:
    return llama.score_pairs(PAIRS)


def sigmoid(logits: Any) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.asarray(logits, np.float64)))


# Names


@pytest.mark.parametrize("name", ORIGINALS)
def test_an_original_s_name_is_a_preset_in_whatever_case(name: str) -> None:
    for spelling in (name, name.lower(), name.upper()):
        assert presets()[preset_of(spelling)].is_reranker


def test_a_preset_s_name_may_be_in_capitals_and_a_path_or_repo_stays_as_it_is() -> None:
    assert preset_of("BGE-Reranker-v2-m3") == "bge-reranker-v2-m3"
    for name in ("./models/Some.gguf", "Somebody/bge-reranker-base", "org/Model-GGUF"):
        assert preset_of(name) == name


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("name", ["cross-encoder/ms-marco-MiniLM-L6-v2", "no-such-model", "./no/such.gguf"])
def test_an_unknown_name_raises_an_error_with_the_names_that_are_known(face: Any, name: str) -> None:
    with pytest.raises((ModelNotFoundError, DownloadError)) as caught:
        face(name)
    assert name in str(caught.value)
    for known in ("ggrank-reranker-mini", "BAAI/bge-reranker-v2-m3"):
        assert known in str(caught.value)


@pytest.mark.parametrize("face", FACES)
def test_an_embedding_model_is_refused(face: Any) -> None:
    with pytest.raises(ModelModeError, match="a reranker is needed"):
        face("all-minilm-l6-v2")


def test_a_loaded_llama_must_have_the_max_length_that_is_asked_for(llama: Llama) -> None:
    assert CrossEncoder(llama, max_length=512).llama is llama
    with pytest.raises(InputError, match=r"max_length=256.*n_ctx=512"):
        CrossEncoder(llama, max_length=256)


def test_max_length_is_the_longest_pair_in_tokens() -> None:
    model = CrossEncoder("ggrank-reranker-mini", max_length=32)
    short, long = model.predict([(QUERY, "Paris is " * 20), (QUERY, "Paris is " * 200)])
    assert model.max_length == model.llama.n_ctx == 32
    assert short == long


def test_a_device_is_a_gpu_unless_it_is_the_cpu() -> None:
    assert not any(map(is_gpu, ("cpu", ["cpu"])))
    assert all(map(is_gpu, (None, "cuda:1", 0, ["cuda:0", "cpu"])))


@pytest.mark.parametrize("call", [(CrossEncoder, "predict"), (FlagReranker, "compute_score")])
def test_pairs_may_be_in_any_container_one_alone_or_none(llama: Llama, call: tuple[Any, str]) -> None:
    score = getattr(call[0](llama), call[1])
    expected = list(score(PAIRS))
    for pairs in ([list(pair) for pair in PAIRS], tuple(PAIRS), np.array(PAIRS), (pair for pair in PAIRS)):
        assert list(score(pairs)) == expected
    for pair in (PAIRS[1], list(PAIRS[1]), np.array(PAIRS[1])):
        np.testing.assert_allclose(score(pair), expected[1], atol=1e-5)
    assert len(score([])) == 0


# CrossEncoder


def test_predict_gives_sigmoids_of_the_logits_as_float32(llama: Llama, logits: np.ndarray) -> None:
    scores = CrossEncoder(llama).predict(PAIRS)
    assert (type(scores), scores.shape, scores.dtype) == (np.ndarray, (3,), np.dtype("float32"))
    np.testing.assert_allclose(scores, sigmoid(logits), atol=1e-6)


def test_predict_gives_one_number_for_one_pair(llama: Llama) -> None:
    assert isinstance(CrossEncoder(llama).predict(PAIRS[1]), np.float32)


def test_an_activation_takes_a_column_of_logits_and_the_call_s_goes_first(
    llama: Llama, logits: np.ndarray
) -> None:
    shapes = []

    def twice(values: Any) -> Any:
        shapes.append(tuple(values.shape))
        return values * 2

    model = CrossEncoder(llama, activation_fn=twice)
    np.testing.assert_allclose(model.predict(PAIRS), 2 * logits, rtol=1e-6)
    np.testing.assert_allclose(model.predict(PAIRS, activation_fn=lambda values: values), logits, rtol=1e-6)
    assert shapes == [(3, 1)]


def test_old_names_mean_what_the_new_ones_do(llama: Llama, logits: np.ndarray, tmp_path: Path) -> None:
    def same(values: Any) -> Any:
        return values

    old = CrossEncoder(llama, default_activation_function=same)
    assert old.activation_fn is same
    np.testing.assert_allclose(old.predict(PAIRS), logits, rtol=1e-6)
    model = CrossEncoder(llama)
    np.testing.assert_allclose(model.predict(PAIRS, activation_fct=same), logits, rtol=1e-6)
    best = model.rank(QUERY, DOCUMENTS, activation_fct=same)[0]
    assert best["score"] == pytest.approx(logits.max(), rel=1e-6)
    with pytest.raises((ModelNotFoundError, DownloadError)):
        CrossEncoder("org/none-GGUF", cache_dir=tmp_path, local_files_only=True)


def test_options_that_change_no_score_are_accepted(llama: Llama) -> None:
    model = CrossEncoder(
        llama,
        backend="onnx",
        trust_remote_code=True,
        model_kwargs={"torch_dtype": "float16", "device_map": "auto"},
        automodel_args={},
        tokenizer_args={"use_fast": True},
        config_kwargs=None,
        prompts={},
    )
    expected = model.predict(PAIRS)
    np.testing.assert_array_equal(model.predict(PAIRS, device="cuda:0", chunk_size=2, prompt=None), expected)
    assert model.rank(QUERY, DOCUMENTS, device=["cpu", "cpu"]) == model.rank(QUERY, DOCUMENTS)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"tokenizer_kwargs": {"model_max_length": 64}}, "(tokenizer_kwargs=...): 'model_max_length'"),
        ({"tokenizer_args": {"truncation_side": "left"}}, "(tokenizer_args=...): 'truncation_side'"),
        ({"automodel_args": {"torch_dtype": "auto", "num_labels": 2}}, "(automodel_args=...): 'num_labels'"),
        ({"prompts": {"query": "query: "}}, "(prompts=...): 'query'"),
        ({"modules": [object()]}, "(modules=...): 'modules'"),
        ({"max_lenght": 10}, "(max_lenght=...): 'max_lenght'"),
    ],
)
@pytest.mark.parametrize("face", FACES)
def test_an_option_that_would_change_scores_or_that_no_one_knows_is_refused_by_name(
    llama: Llama, face: Any, options: dict[str, Any], shown: str
) -> None:
    with pytest.raises(InputTypeError) as error:
        face(llama, **options)
    assert f"{face.__name__}{shown} is unknown, or would change scores" in str(error.value)


@pytest.mark.parametrize("options", [{"batchsize": 3}, {"prompt": "query: "}, {"query_max_length": 20}])
def test_a_call_s_options_are_refused_too(llama: Llama, options: dict[str, Any]) -> None:
    model = CrossEncoder(llama)
    with pytest.raises(InputTypeError, match=next(iter(options))):
        FlagReranker(llama).compute_score(PAIRS, **options)
    with pytest.raises(InputTypeError, match=next(iter(options))):
        model.predict(PAIRS, **options)
    with pytest.raises(InputTypeError, match=next(iter(options))):
        model.rank("q", ["a"], **options)


def test_an_activation_that_gives_another_number_of_scores_is_refused(llama: Llama) -> None:
    with pytest.raises(InputError, match="a score a pair: 3"):
        CrossEncoder(llama).predict(PAIRS, activation_fn=lambda values: values[:2])


def test_rank_orders_by_score_and_keeps_places_and_texts(llama: Llama, logits: np.ndarray) -> None:
    model = CrossEncoder(llama)
    results = model.rank(QUERY, DOCUMENTS, return_documents=True)
    assert [result["corpus_id"] for result in results] == np.argsort(-logits).tolist()
    assert [result["text"] for result in results] == [DOCUMENTS[result["corpus_id"]] for result in results]
    assert all(type(result["score"]) is float for result in results)
    assert list(model.rank(QUERY, DOCUMENTS, top_k=1)[0]) == ["corpus_id", "score"]
    assert model.rank(QUERY, []) == []


def test_rank_keeps_the_order_of_equal_documents(llama: Llama) -> None:
    results = CrossEncoder(llama).rank(QUERY, ["the same"] * 5)
    assert [result["corpus_id"] for result in results] == list(range(5))


@pytest.mark.skipif(HAS_TORCH, reason="with torch there are tensors")
@pytest.mark.parametrize("option", [{"convert_to_tensor": True}, {"convert_to_numpy": False}])
def test_tensors_without_torch_are_one_clear_error(llama: Llama, option: dict[str, bool]) -> None:
    with pytest.raises(InputError, match=r"torch is not installed.*pip install torch"):
        CrossEncoder(llama).predict(PAIRS, **option)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("ab", "a list of .* pairs or one such pair, found str"),
        (7, "found int"),
        (["one", "two", "three"], "pair 0 must be"),
        ([("only one",)], "pair 0 must be"),
        ([("a", {"image": "b"})], "the document of pair 0 must be a string, found dict"),
        ([("a", "b"), ("a", None)], "the document of pair 1 must be a string"),
    ],
)
def test_what_is_not_a_pair_of_texts_is_named(llama: Llama, inputs: Any, message: str) -> None:
    with pytest.raises(InputTypeError, match=message):
        CrossEncoder(llama).predict(inputs)


def test_options_that_a_reranker_cannot_have_are_refused(llama: Llama) -> None:
    with pytest.raises(InputError, match="num_labels must be 1"):
        CrossEncoder(llama, num_labels=3)


def test_a_softmax_head_s_probability_is_squashed_once(tmp_path: Path) -> None:
    """Qwen3's own head gives 0 to 1 already; the goldens are torch's."""
    model = CrossEncoder(tiny_models.write("qwen3-reranker", tmp_path))
    pairs, expected = goldens.pairs()[:20], goldens.load("qwen3-reranker").outputs[:20, 0]
    np.testing.assert_allclose(model.predict(pairs), expected, atol=1e-3)
    raw = model.predict(pairs, activation_fn=lambda values: values)
    np.testing.assert_allclose(sigmoid(raw), expected, atol=1e-3)
    assert raw.min() < 0


# FlagReranker


def test_compute_score_gives_floats_raw_or_normalized(llama: Llama, logits: np.ndarray) -> None:
    reranker = FlagReranker(llama, use_fp16=True)
    scores = reranker.compute_score(PAIRS)
    assert [type(score) for score in scores] == [float] * 3
    np.testing.assert_allclose(scores, logits, rtol=1e-6)
    np.testing.assert_allclose(reranker.compute_score(PAIRS, normalize=True), sigmoid(logits), atol=1e-6)
    normalized = FlagReranker(llama, normalize=True)
    np.testing.assert_allclose(normalized.compute_score(PAIRS), sigmoid(logits), atol=1e-6)
    np.testing.assert_allclose(normalized.compute_score(PAIRS, normalize=False), logits, rtol=1e-6)


def test_compute_score_gives_a_list_for_one_pair_too(llama: Llama) -> None:
    reranker = FlagReranker(llama)
    assert reranker.compute_score(PAIRS[1]) == reranker.compute_score(PAIRS[1:2])
    with pytest.raises(InputTypeError, match="found str"):
        reranker.compute_score("one text")


def test_the_call_s_max_length_is_for_the_call() -> None:
    reranker = FlagReranker("ggrank-reranker-mini", passage_max_length=512)
    long = [(QUERY, "Berlin is the capital of Germany. " * 10 + "Paris is the capital of France.")]
    whole = reranker.compute_score(long)
    assert reranker.compute_score(long, max_length=32) != whole
    assert reranker.compute_score(long) == whole


# Reranker


def test_a_ranking_is_in_order_of_the_raw_logits(llama: Llama, logits: np.ndarray) -> None:
    results = Reranker(llama).rank(QUERY, DOCUMENTS)
    order = np.argsort(-logits).tolist()
    assert [result.doc_id for result in results] == order
    np.testing.assert_allclose([result.score for result in results], logits[order], rtol=1e-6)
    assert [result.rank for result in results] == [1, 2, 3]
    assert (results.query, results.has_scores, results.results_count()) == (QUERY, True, 3)


def test_ids_and_metadata_go_with_their_documents(llama: Llama) -> None:
    results = Reranker(llama).rank(
        query=QUERY,
        docs=DOCUMENTS,
        doc_ids=["berlin", "paris", "bananas"],
        metadata=[{"page": i} for i in range(3)],
    )
    best = results[0]
    assert (best.doc_id, best.text, best.metadata, best.page) == ("paris", DOCUMENTS[1], {"page": 1}, 1)
    assert results.get_score_by_docid("paris") == best.score
    assert results.get_result_by_docid("paris") is best
    assert results.get_score_by_docid("rome") is results.get_result_by_docid("rome") is None
    assert [result.doc_id for result in results.top_k(2)] == ["paris", "berlin"]


def test_documents_keep_what_they_have_where_nothing_else_is_given(llama: Llama) -> None:
    documents = [Document("Paris is the capital of France.", "paris", {"page": 3}), Document("Bananas.")]
    results = Reranker(llama).rank(QUERY, documents)
    assert [(result.doc_id, result.metadata) for result in results] == [("paris", {"page": 3}), (1, {})]
    other = Reranker(llama).rank(QUERY, documents, doc_ids=[7, 8])
    assert [result.doc_id for result in other] == [7, 8]
    assert documents[0].doc_id == "paris"


def test_one_text_is_a_ranking_of_one_and_none_of_none(llama: Llama) -> None:
    (only,) = Reranker(llama).rank(QUERY, DOCUMENTS[1])
    assert (only.text, only.rank) == (DOCUMENTS[1], 1)
    assert Reranker(llama).rank(QUERY, []).results == []


def test_score_and_rank_async_are_those_of_rank(llama: Llama) -> None:
    reranker = Reranker(llama, verbose=0)
    expected = reranker.rank(QUERY, DOCUMENTS)
    assert asyncio.run(reranker.rank_async(QUERY, DOCUMENTS)) == expected
    score = reranker.score(QUERY, DOCUMENTS[1])
    assert isinstance(score, float)
    assert score == pytest.approx(expected[0].score, abs=1e-4)


def test_a_result_can_be_copied_and_names_what_it_lacks(llama: Llama) -> None:
    result = Reranker(llama).rank(QUERY, DOCUMENTS)[0]
    assert copy.deepcopy(result) == result
    with pytest.raises(AttributeError, match="'Result' object has no attribute 'page'"):
        result.page  # noqa: B018


def test_ids_for_another_number_of_documents_and_other_rankers_are_refused(llama: Llama) -> None:
    with pytest.raises(InputError, match="doc_ids must have one item a document: 3, found 1"):
        Reranker(llama).rank(QUERY, DOCUMENTS, doc_ids=[1])
    with pytest.raises(InputTypeError, match="document 1 must be a string"):
        Reranker(llama).rank(QUERY, ["a", None])
    with pytest.raises(InputError, match="model_type must be 'cross-encoder'"):
        Reranker(llama, model_type="colbert")


# Together


def test_the_faces_load_neither_torch_nor_llama_cpp_until_a_model_is_loaded() -> None:
    code = "import ggrank.compat, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(loaded.split()) & {"torch", "llama_cpp", "sentence_transformers", "FlagEmbedding"} == set()


def shown(arguments: list[str | Path]) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, encoding="utf-8", timeout=300, check=True
    )
    assert done.stderr == ""
    return done.stdout


def test_the_example_shows_the_same_order_from_all_three() -> None:
    blocks = shown([ROOT / "examples" / "compat.py"]).strip().split("\n\n")[1:]
    assert len(blocks) == 3
    assert all("Rust is" in block.splitlines()[1] for block in blocks)


def test_the_code_in_the_docs_finds_the_answer() -> None:
    page = (ROOT / "docs" / "integrations.md").read_text("utf-8")
    code = page.split("\n## Drop-in faces\n")[1].split("```python\n")[1].split("```")[0]
    text, scores, doc_id = shown(["-c", code]).splitlines()
    assert (text, doc_id) == ("Llamas live in the Andes.", "andes")
    worse, better = map(float, scores.strip("[]").split(","))
    assert worse < better
