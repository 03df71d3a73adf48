"""`ggrank convert` beside the original: token ids, logits and vectors of every architecture.

Weights are the seeded ones of ``tests/tiny``, which spread logits over several units. What torch answers to
them is in ``tests/goldens/tiny``; here the folder is loaded by transformers first, so that it is known to be
what `convert` says it reads. Heads in modules, and folders that only their makers write, are saved by
sentence-transformers and transformers themselves.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder, SentenceTransformer

from ggrank import Llama, convert
from ggrank.conversion import convert_model
from tiny import goldens, models, original_folder, torch_reference, vocab, weights
from tiny.models import TinyModel
from tiny.weights import Shape

pytestmark = pytest.mark.parity
logger = logging.getLogger(__name__)

NEAR_TORCH = 1e-3
WITH_OPENVINO = ("bert", "xlmr", "multilingual")
LARGE = "bert-reranker-segments-384"  # another shape of bert-reranker-segments, and slow
KINDS = [
    kind for kind in models.KINDS if models.build(kind).family in original_folder.CLASSES and kind != LARGE
]


def with_engines(kinds: list[str]) -> list[tuple[str, str]]:
    both = [kind for kind in kinds if kind.startswith(WITH_OPENVINO)]
    return [*((kind, "llama.cpp") for kind in kinds), *((kind, "openvino") for kind in both)]


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each kind's file in float32."""
    directory = tmp_path_factory.mktemp("converted")
    return {
        kind: convert(
            original_folder.write(kind, directory / kind), directory / f"{kind}.gguf", quantize="f32"
        )
        for kind in KINDS
    }


@pytest.mark.parametrize(("kind", "engine"), with_engines(KINDS), ids=str)
def test_a_converted_model_gives_the_original_s_ids_and_outputs(
    kind: str, engine: str, converted: dict[str, Path]
) -> None:
    golden = goldens.load(kind)
    with Llama.load(converted[kind], engine=cast(Any, engine)) as llama:
        if models.build(kind).is_reranker:
            assert pair_ids(llama, goldens.pairs()) == golden.ids
            deviation = largest(llama.score_pairs(goldens.pairs()), golden.outputs[:, 0])
        else:
            assert text_ids(llama, goldens.texts()) == golden.ids
            deviation = largest(llama.embed_many(goldens.texts()), normalized(golden.outputs))
    logger.info("%s, %s: %d sequences, largest deviation %.2g", kind, engine, len(golden.ids), deviation)
    assert deviation < NEAR_TORCH


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_the_same_folder_whole(kind: str, tmp_path: Path) -> None:
    """No weight is missing but a pooler's, none is left over, and the outputs are those of the goldens."""
    model = models.build(kind)
    folder = original_folder.write(kind, tmp_path)
    network, report = getattr(transformers, class_of(folder)).from_pretrained(
        folder, output_loading_info=True
    )
    missing = {name for name in report["missing_keys"] if "pooler" not in name and name != "lm_head.weight"}
    assert (missing, set(report["unexpected_keys"])) == (set(), set())
    if model.is_reranker and model.family != "qwen3":
        golden = goldens.load(kind)
        reference = torch_reference.Reference(model)
        types = [reference.pair(*pair)[1] for pair in goldens.pairs()]
        inputs = [{"input_ids": torch.tensor([ids])} for ids in golden.ids]
        if model.family == "bert":
            for one, segment in zip(inputs, types, strict=True):
                one["token_type_ids"] = torch.tensor([segment])
        with torch.no_grad():
            logits = [float(network.eval()(**one).logits[0, 0]) for one in inputs]
        assert largest(np.array(logits, np.float32), golden.outputs[:, 0]) < 1e-4


@pytest.mark.parametrize("kind", ["bert-mean", "xlmr-reranker", "qwen3-reranker"])
@pytest.mark.parametrize("quantize", ["f32", "q8_0"])
def test_check_finds_a_converted_model_near_its_original(kind: str, quantize: str, tmp_path: Path) -> None:
    folder = original_folder.write(kind, tmp_path / kind)
    _, found = convert_model(folder, tmp_path / "m.gguf", quantize=quantize, check=True)
    assert found is not None
    logger.info(
        "%s, %s: deviation %.2g, correlation %.5f", kind, quantize, found.deviation, found.correlation
    )
    assert found.is_near
    assert found.n > 20


# -- a head in modules of sentence-transformers, as the ettin rerankers have


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_head_in_modules_becomes_the_file_s_own(pooling: str, tmp_path: Path) -> None:
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    backbone = original_folder.write_model(modernbert_backbone(), tmp_path / "backbone")
    n = modernbert_backbone().shape.hidden_size
    names = ("head.dense", "head.norm", "classifier")
    head = models.build("modernbert-reranker-cls").weights
    dense, scale, last = (torch.from_numpy(head[f"{name}.weight"].copy()) for name in names)
    norm = LayerNorm(n)
    norm.norm.weight = torch.nn.Parameter(scale)
    torch.nn.init.normal_(norm.norm.bias)
    modules = [
        Transformer(str(backbone)),
        Pooling(n, pooling_mode=pooling),
        Dense(n, n, bias=False, activation_function=torch.nn.GELU(), init_weight=dense),
        norm,
        Dense(n, 1, activation_function=torch.nn.Identity(), module_output_name="scores", init_weight=last),
    ]
    original = CrossEncoder(modules=modules, device="cpu")
    original.save_pretrained(str(tmp_path / "saved"))
    expected = original.predict(short_pairs(), activation_fn=torch.nn.Identity())
    path = convert(tmp_path / "saved", tmp_path / "m.gguf", quantize="f32", check=True)
    with Llama.load(path) as llama:
        deviation = largest(llama.score_pairs(short_pairs()), expected)
    logger.info("ettin layout, %s: deviation %.2g over a range of %.2g", pooling, deviation, np.ptp(expected))
    assert deviation < NEAR_TORCH
    assert np.ptp(expected) > 2


def modernbert_backbone() -> TinyModel:
    model = models.build("modernbert-reranker-cls")
    kept = {
        name.removeprefix("model."): array
        for name, array in model.weights.items()
        if not name.startswith(("head", "classifier"))
    }
    return replace(model, kind="backbone", weights=kept, labels=(), pooling="cls")


# -- BERT with XLM-R's vocabulary, as multilingual-e5-small and paraphrase-multilingual-MiniLM have


@pytest.mark.parametrize("engine", ["llama.cpp", "openvino"])
@pytest.mark.parametrize("has_sentencepiece_only", [False, True])
def test_bert_with_xlm_r_s_vocabulary_keeps_it(
    engine: str, has_sentencepiece_only: bool, tmp_path: Path
) -> None:
    folder = original_folder.write_model(multilingual(), tmp_path / "multilingual")
    reference = torch_reference.Reference(multilingual())
    if has_sentencepiece_only:
        write_sentencepiece(folder)
    sequences = [reference.text(text) for text in goldens.texts()]
    expected = normalized(reference.outputs(sequences))
    path = convert(folder, tmp_path / "m.gguf", quantize="f32")
    with Llama.load(path, engine=cast(Any, engine)) as llama:
        assert text_ids(llama, goldens.texts()) == [ids for ids, _ in sequences]
        deviation = largest(llama.embed_many(goldens.texts()), expected)
    logger.info("BERT with XLM-R's vocabulary, %s: deviation %.2g", engine, deviation)
    assert deviation < NEAR_TORCH


def multilingual() -> TinyModel:
    shape = Shape(vocab.size("unigram") + 35)  # rows without a token, as multilingual-e5-small has 35
    return TinyModel("multilingual", "bert", "unigram", shape, weights.bert(shape, 71), "mean")


def write_sentencepiece(folder: Path) -> None:
    """sentencepiece.bpe.model in the place of tokenizer.json, with the same pieces."""
    import base64

    from sentencepiece import sentencepiece_model_pb2

    data = vocab.read("unigram")
    proto = sentencepiece_model_pb2.ModelProto()
    proto.normalizer_spec.precompiled_charsmap = base64.b64decode(data["normalizer"]["precompiled_charsmap"])
    pieces = [["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0], *data["model"]["vocab"][4:-1]]
    for piece, score in pieces:
        proto.pieces.add(piece=piece, score=score)
    (folder / "sentencepiece.bpe.model").write_bytes(proto.SerializeToString())
    (folder / "tokenizer.json").unlink()


# -- layouts and numbers of weights


def test_nomic_s_own_names_give_the_same_vectors(tmp_path: Path, converted: dict[str, Path]) -> None:
    """transformers saves nomic-bert under the names of nomic's own code."""
    folder = original_folder.write("nomic-mean", tmp_path / "nomic-mean")
    network = transformers.NomicBertModel.from_pretrained(folder)
    network.save_pretrained(folder)
    path = convert(folder, tmp_path / "m.gguf", quantize="f32")
    with Llama.load(path) as llama, Llama.load(converted["nomic-mean"]) as known:
        assert largest(llama.embed_many(goldens.texts()), known.embed_many(goldens.texts())) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_shards_of_half_precision_give_the_vectors_of_torch(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = original_folder.write("bert-mean", tmp_path / "bert-mean")
    network = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).to(dtype)
    (folder / "model.safetensors").unlink()
    network.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    original = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
    expected = original.encode(plain_texts(), normalize_embeddings=True)
    with Llama.load(convert(folder, tmp_path / "m.gguf", quantize="f32")) as llama:
        assert largest(llama.embed_many(plain_texts()), expected) < NEAR_TORCH


def test_prompts_of_sentence_transformers_become_prefixes(tmp_path: Path) -> None:
    folder = original_folder.write("bert-mean", tmp_path / "bert-mean")
    prompts = {"query": "Instruct: find it\nQuery: ", "document": "passage: "}
    original = SentenceTransformer(str(folder), device="cpu", prompts=prompts)
    original.save_pretrained(str(tmp_path / "saved"))
    with Llama.load(convert(tmp_path / "saved", tmp_path / "m.gguf", quantize="f32")) as llama:
        assert (llama.query_prefix, llama.document_prefix) == (prompts["query"], prompts["document"])
        found = llama.rank("Who may vote?", goldens.texts()[:20])
    scores = original.encode_query("Who may vote?", normalize_embeddings=True) @ (
        original.encode_document(goldens.texts()[:20], normalize_embeddings=True).T
    )
    assert largest(np.array([hit.score for hit in found], np.float32), np.sort(scores)[::-1]) < NEAR_TORCH


def plain_texts() -> list[str]:
    """Texts without the text of a special token, which originals read as one."""
    return [text for text in goldens.texts() if not is_special(text)]


def is_special(text: str) -> bool:
    return bool(set(text) & set("[<"))


def class_of(folder: Path) -> str:
    return str(json.loads((folder / "config.json").read_text("utf-8"))["architectures"][0])


def short_pairs() -> list[tuple[str, str]]:
    """Pairs that fit, which originals of several makers cut in other ways."""
    plain = [pair for pair in goldens.pairs() if not is_special("".join(pair))]
    return [(query[:40], document[:80]) for query, document in plain][:60]


# What a sequence is before it is computed has no public name: these two take a text as far as `Llama` does.


def pair_ids(llama: Llama, pairs: list[tuple[str, str]]) -> list[list[int]]:
    builder = llama._builder
    parts = ((builder.query_part(query, truncate="end"), document) for query, document in pairs)
    return [
        builder.pairs(part, document, name="", truncate="end")[0].tokens.tolist() for part, document in parts
    ]


def text_ids(llama: Llama, texts: list[str]) -> list[list[int]]:
    return [llama._sequence(text, "the text", "end").tokens.tolist() for text in texts]


def largest(found: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(found - expected).max())


def normalized(vectors: NDArray[Any]) -> NDArray[Any]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
