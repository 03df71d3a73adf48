"""The faces of `ggrank.compat` beside their originals, on the same tiny weights.

sentence-transformers runs as its users run it. FlagEmbedding is not installed here, since its import brings
datasets, peft and more: `flag_scores` is what its published source computes (1.4.2,
``compute_score_single_gpu`` in ``inference/reranker/encoder_only/base.py``), and was held against the package
itself on transformers 4.57. The cross-encoder of ``rerankers`` gives the logits of
``AutoModelForSequenceClassification``, as they are.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tiny_models
from ggrank import InputError
from ggrank.compat import CrossEncoder, FlagReranker, Reranker
from tiny import goldens

pytestmark = pytest.mark.parity

NEAR_TORCH = 1e-3
N_CTX = 128
SPECIAL = ("<s>", "</s>", "[SEP]", "[CLS]")
# The originals read the text of a special token as that token; here it is text like any other.
PAIRS = [pair for pair in goldens.pairs() if not any(token in text for token in SPECIAL for text in pair)]
DOCUMENTS = list(dict.fromkeys(document for _, document in PAIRS))


@pytest.fixture(scope="module", params=["bert-reranker", "xlmr-reranker", "modernbert-reranker-mean"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny import original_folder

    return original_folder.write(kind, tmp_path_factory.mktemp("originals") / kind)


@pytest.fixture(scope="module")
def gguf(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write(kind, tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="module")
def original(folder: Path) -> Any:
    from sentence_transformers import CrossEncoder as Original

    return Original(str(folder))


@pytest.fixture(scope="module")
def ours(gguf: Path) -> CrossEncoder:
    return CrossEncoder(gguf)


def kinds_of(value: Any) -> Any:
    """The types that a caller sees: of a value, its numbers and its items."""
    items = kinds_of(value[0]) if isinstance(value, list) and value else None
    return type(value), getattr(value, "dtype", None), getattr(value, "shape", None), items


def short(original: CrossEncoder) -> list[tuple[str, str]]:
    """Pairs whose query has less than half of the room: the original cuts the longer text of a pair ("longest
    first"), which is then the document, as always here.
    """
    return [pair for pair in PAIRS if len(original.llama.tokenize(pair[0])) < N_CTX // 2 - 4]


@pytest.mark.parametrize("activation", [None, "Identity", "Tanh"])
def test_predict_gives_the_scores_of_sentence_transformers(
    original: Any, ours: CrossEncoder, activation: str | None
) -> None:
    import torch

    pairs = short(ours)
    assert len(pairs) > 100
    function = None if activation is None else getattr(torch.nn, activation)()
    expected = original.predict(pairs, activation_fn=function)
    np.testing.assert_allclose(ours.predict(pairs, activation_fn=function), expected, atol=NEAR_TORCH, rtol=0)


@pytest.mark.parametrize(
    "inputs",
    [PAIRS[5], list(PAIRS[5]), PAIRS[5:6], PAIRS[:7], [list(pair) for pair in PAIRS[:3]], []],
    ids=["a tuple", "a list", "one in a list", "many", "lists", "none"],
)
@pytest.mark.parametrize("convert", [{}, {"convert_to_tensor": True}, {"convert_to_numpy": False}], ids=str)
@pytest.mark.parametrize("as_array", [False, True], ids=["", "array"])
def test_predict_gives_the_types_and_shapes_of_sentence_transformers(
    original: Any, ours: CrossEncoder, inputs: Any, convert: dict[str, bool], as_array: bool
) -> None:
    inputs = np.array(inputs) if as_array and len(inputs) else inputs
    expected, found = original.predict(inputs, **convert), ours.predict(inputs, **convert)
    assert kinds_of(found) == kinds_of(expected)
    np.testing.assert_allclose(np.array(found), np.array(expected), atol=NEAR_TORCH, rtol=0)


@pytest.mark.parametrize("options", [{}, {"top_k": 5, "return_documents": True}], ids=str)
def test_rank_is_that_of_sentence_transformers(
    original: Any, ours: CrossEncoder, options: dict[str, Any]
) -> None:
    import torch

    options = {**options, "activation_fn": torch.nn.Identity()}
    expected = original.rank("Who may vote?", DOCUMENTS, **options)
    found = ours.rank("Who may vote?", DOCUMENTS, **options)
    assert [list(result) for result in found] == [list(result) for result in expected]
    assert [type(result["score"]) for result in found] == [type(result["score"]) for result in expected]
    assert_same_order(
        [(result["corpus_id"], result["score"]) for result in found],
        [(result["corpus_id"], result["score"]) for result in expected],
    )


def test_every_argument_of_sentence_transformers_is_known_here(original: Any, gguf: Path) -> None:
    def defaults(call: Any) -> dict[str, Any]:
        parameters = inspect.signature(call).parameters.values()
        return {one.name: one.default for one in parameters if one.default is not one.empty}

    model = CrossEncoder(**{**defaults(type(original).__init__), "model_name_or_path": gguf})
    options = defaults(original.predict)
    np.testing.assert_allclose(
        model.predict(PAIRS[:3], **options), original.predict(PAIRS[:3]), atol=NEAR_TORCH
    )
    ranked = model.rank("Who may vote?", DOCUMENTS[:5], **defaults(original.rank))
    assert len(ranked) == 5


def test_what_is_refused_here_the_original_follows(original: Any, folder: Path, gguf: Path) -> None:
    """It would change scores, so it must not be taken in silence."""
    options = {"processor_kwargs": {"model_max_length": 16}}
    other = type(original)(str(folder), **options)
    assert np.abs(other.predict(PAIRS) - original.predict(PAIRS)).max() > NEAR_TORCH
    with pytest.raises(InputError, match="model_max_length"):
        CrossEncoder(gguf, **options)  # type: ignore[arg-type]


def test_max_length_is_the_same(original: Any, ours: CrossEncoder) -> None:
    assert ours.max_length == original.max_length == N_CTX


def test_both_know_one_label_and_the_sigmoid(original: Any, ours: CrossEncoder) -> None:
    assert original.num_labels == 1
    assert type(original.activation_fn).__name__ == "Sigmoid"
    assert ours.activation_fn is None


@pytest.mark.parametrize(
    "options",
    [{}, {"normalize": True}, {"max_length": 64}],
    ids=str,
)
def test_flag_reranker_gives_the_scores_of_flag_embedding(
    folder: Path, gguf: Path, kind: str, options: dict[str, Any]
) -> None:
    if kind.startswith("modernbert"):
        pytest.skip("the original has it only for BERT and XLM-R")
    found = FlagReranker(gguf).compute_score(PAIRS, **options)
    expected = flag_scores(folder, PAIRS, **{"max_length": N_CTX, **options})
    np.testing.assert_allclose(found, expected, atol=NEAR_TORCH, rtol=0)


def test_flag_reranker_gives_a_list_for_one_pair_too(gguf: Path) -> None:
    scores = FlagReranker(gguf).compute_score(PAIRS[5])
    assert [type(score) for score in scores] == [float]


def test_reranker_gives_the_logits_that_rerankers_gives(original: Any, gguf: Path) -> None:
    import torch

    query = "Who may vote?"
    logits = original.predict(
        [(query, document) for document in DOCUMENTS], activation_fn=torch.nn.Identity()
    )
    order = np.argsort(-logits, kind="stable").tolist()
    results = Reranker(gguf).rank(query, DOCUMENTS)
    assert_same_order(
        [(result.doc_id, result.score) for result in results], [(i, float(logits[i])) for i in order]
    )
    assert [result.rank for result in results] == list(range(1, len(DOCUMENTS) + 1))


def assert_same_order(found: list[tuple[Any, float]], expected: list[tuple[Any, float]]) -> None:
    """The same scores in the same order; only documents with scores as good as equal change places."""
    scores = np.array([score for _, score in expected])
    np.testing.assert_allclose([score for _, score in found], scores, atol=NEAR_TORCH, rtol=0)
    score_of = dict(expected)
    for place, (name, _) in enumerate(found):
        assert abs(score_of.get(name, scores[-1]) - scores[place]) < NEAR_TORCH


def flag_scores(
    folder: Path,
    pairs: list[tuple[str, str]],
    *,
    max_length: int,
    normalize: bool = False,
) -> NDArray[np.float64]:
    """FlagEmbedding's scores: the query's first tokens, then as many of the passage's as have room."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    between = [tokenizer.sep_token_id] * (1 if "token_type_ids" in tokenizer.model_input_names else 2)
    scores = []
    for query, passage in pairs:
        q = tokenizer(query, add_special_tokens=False)["input_ids"][: max_length * 3 // 4]
        d = tokenizer(passage, add_special_tokens=False)["input_ids"][
            : max_length - len(q) - len(between) - 2
        ]
        first, second = [tokenizer.cls_token_id, *q, *between], [*d, tokenizer.sep_token_id]
        inputs = {"input_ids": torch.tensor([first + second])}
        if len(between) == 1:  # BERT: the passage and its end are of type 1
            inputs["token_type_ids"] = torch.tensor([[0] * len(first) + [1] * len(second)])
        with torch.no_grad():
            scores.append(model(**inputs).logits.view(-1).float().item())
    values = np.array(scores)
    return 1.0 / (1.0 + np.exp(-values)) if normalize else values
