"""The bundled model is the file that the build script makes, and gives the original's vectors."""

from __future__ import annotations

import hashlib
import string
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import build_bundled_models
import make_goldens_bundled
from ggrank import Llama, PoolingType
from ggrank.gguf import GgufFile, open_gguf
from ggrank.hub.presets import bundled_path, presets
from ggrank.text.tokenizer import bert_wordpiece
from ggrank.types import TokenIds

PATH = bundled_path(presets()["all-minilm-l6-v2"])
SPECIAL_IDS = {
    "bos": 101,
    "eos": 102,
    "unknown": 100,
    "seperator": 102,  # llama.cpp's spelling
    "padding": 0,
    "mask": 103,
}


@pytest.fixture(scope="module")
def file() -> GgufFile:
    return open_gguf(PATH)


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    with Llama.load("all-minilm-l6-v2") as model:
        yield model


def test_the_file_has_the_recorded_sum() -> None:
    recorded = build_bundled_models.recorded_sum(PATH.parent)
    assert hashlib.sha256(PATH.read_bytes()).hexdigest() == recorded


def test_the_file_is_about_25_megabytes() -> None:
    assert 24e6 < PATH.stat().st_size < 27e6


def test_the_notice_names_origin_licence_and_changes() -> None:
    notice = Path(PATH.parent, "NOTICE").read_text("utf-8")
    package, version = build_bundled_models.PACKAGE.split("==")
    for expected in (
        PATH.name,
        "sentence-transformers/all-MiniLM-L6-v2",
        "Apache License 2.0",
        f"{package} {version}",
        build_bundled_models.PACKAGE_SHA256,
        build_bundled_models.SOURCE_SHA256["model.safetensors"],
        "q8_0",
        "scripts/build_bundled_models.py",
    ):
        assert expected in notice


def test_the_file_says_what_it_is(file: GgufFile) -> None:
    metadata = file.metadata
    assert (file.architecture, file.n_ctx_train, file.pooling_type) == ("bert", 512, PoolingType.MEAN)
    assert (file.quantization, file.tokenizer_model, file.tokenizer_pre) == ("q8_0", "bert", "bert-bge")
    assert (metadata["general.name"], metadata["general.license"]) == ("all-MiniLM-L6-v2", "apache-2.0")
    assert metadata["bert.attention.causal"] is False
    assert metadata["bert.attention.layer_norm_epsilon"] == pytest.approx(1e-12)


def test_the_special_tokens_are_bert_s(file: GgufFile) -> None:
    ids = {name: file.metadata[f"tokenizer.ggml.{name}_token_id"] for name in SPECIAL_IDS}
    assert ids == SPECIAL_IDS
    tokens = file.strings("tokenizer.ggml.tokens")
    assert [tokens[token_id] for token_id in (0, 100, 101, 102, 103)] == [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
    ]
    assert (len(tokens), tokens[7592], tokens[2075]) == (30522, "\u2581hello", "ing")


def test_matrices_are_rounded_and_the_rest_is_not(file: GgufFile) -> None:
    types = {name: tensor.type.lower() for name, tensor in file.tensors.items()}
    assert Counter(types.values()) == {"f32": 64, "q8_0": 31, "f16": 6}
    assert {name.partition(".attn_v.")[2] for name, kind in types.items() if kind == "f16"} == {"weight"}
    assert types["token_embd.weight"] == "q8_0"
    assert types["position_embd.weight"] == "f32"


def test_every_text_has_the_original_s_ids_and_vector(llama: Llama) -> None:
    goldens = make_goldens_bundled.read()
    other_ids = [
        golden.name
        for golden in goldens
        if [101, *llama.tokenize(golden.text)[: 256 - 2], 102] != golden.ids.tolist()
    ]
    assert other_ids == []

    vectors = llama.embed_many(golden.text for golden in goldens)
    cosines = cosine(vectors, np.stack([golden.vector for golden in goldens]))
    too_far = {
        golden.name: value for golden, value in zip(goldens, cosines, strict=True) if not value >= 0.998
    }
    assert too_far == {}


def test_the_preset_cuts_where_sentence_transformers_does(llama: Llama) -> None:
    long = next(golden for golden in make_goldens_bundled.read() if golden.ids.size == 256)
    assert llama.n_ctx == 256
    assert llama.count_tokens(long.text) > 256
    assert cosine(llama.embed(long.text), long.vector) >= 0.998


@given(text=st.text(alphabet=string.printable[:98], max_size=300))
def test_plain_ascii_has_the_same_ids_from_llama_cpp_and_from_tokenizers(
    text: str, llama: Llama, by_tokenizers: Callable[[str], TokenIds]
) -> None:
    assert llama.tokenize(text).tolist() == by_tokenizers(text).tolist()


@pytest.fixture(scope="module")
def by_tokenizers(file: GgufFile) -> Callable[[str], TokenIds]:
    return bert_wordpiece(file)


def cosine(ours: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """By rows, in float64: the committed vectors are rounded to float16."""
    ours, originals = ours.astype(np.float64), originals.astype(np.float64)
    norms = np.linalg.norm(ours, axis=-1) * np.linalg.norm(originals, axis=-1)
    return np.sum(ours * originals, axis=-1) / norms
