"""The bundled model beside the original, in torch and tokenizers, computed now."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import build_bundled_models
import make_goldens_bundled
from ggrank import Llama
from ggrank.hub.presets import bundled_path, presets
from make_goldens_bundled import Golden

pytestmark = pytest.mark.parity
logger = logging.getLogger(__name__)

PATH = bundled_path(presets()["all-minilm-l6-v2"])
SURROGATES = range(0xD800, 0xE000)


@pytest.fixture(scope="module")
def originals() -> list[Golden]:
    return make_goldens_bundled.compute()


@pytest.fixture(scope="module")
def f32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    original = make_goldens_bundled.original_folder()
    return build_bundled_models.build_into(tmp_path_factory.mktemp("f32"), source=original, quantize="f32")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The original's, with the text of control tokens read as plain text, as we read it."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(make_goldens_bundled.original_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


def test_the_goldens_are_still_what_the_original_says(originals: list[Golden]) -> None:
    goldens = make_goldens_bundled.read()
    assert [golden.ids.tolist() for golden in goldens] == [original.ids.tolist() for original in originals]
    assert cosines(vectors_of(goldens), originals).min() >= 0.999999


@pytest.mark.parametrize("n_texts_at_once", [1, 64])
def test_q8_0_gives_the_original_s_ids_and_vectors(originals: list[Golden], n_texts_at_once: int) -> None:
    with Llama.load("all-minilm-l6-v2", engine="llama.cpp") as llama:
        assert ids(llama, originals) == [original.ids.tolist() for original in originals]
        values = cosines(embed(llama, originals, n_texts_at_once), originals)
    report("q8_0", n_texts_at_once, values)
    assert values.min() >= 0.998


@pytest.mark.parametrize("n_texts_at_once", [1, 64])
def test_f32_gives_the_original_s_vectors(originals: list[Golden], f32: Path, n_texts_at_once: int) -> None:
    values = cosines(embed_in_f32(f32, originals, n_texts_at_once), originals)
    report("f32", n_texts_at_once, values)
    assert values.min() >= 0.99999


def test_f32_differs_from_the_original_by_the_approximation_of_gelu_only(f32: Path) -> None:
    """llama.cpp computes GELU by tanh, the original by erf: that alone is up to 9e-6 of cosine here."""
    originals = make_goldens_bundled.compute(gelu="tanh")
    values = cosines(embed_in_f32(f32, originals, 64), originals)
    report("f32 beside tanh", 64, values)
    assert values.min() >= 0.999999


def test_a_second_build_has_the_same_bytes(tmp_path: Path) -> None:
    build_bundled_models.build_into(tmp_path, source=make_goldens_bundled.original_folder())
    recorded = build_bundled_models.recorded_sum(PATH.parent)
    assert build_bundled_models.sha256_of(tmp_path / PATH.name) == recorded


def test_the_rounded_values_are_numpy_s(f32: Path) -> None:
    """So the bytes hang on no compiler and no CPU."""
    import gguf

    exact = {tensor.name: tensor.data for tensor in gguf.GGUFReader(f32).tensors}
    for tensor in gguf.GGUFReader(PATH).tensors:
        rounded = gguf.quants.quantize(exact[tensor.name], tensor.tensor_type)
        assert rounded.tobytes() == tensor.data.tobytes(), tensor.name


def test_random_texts_of_all_scripts_have_the_original_s_ids(tokenizer: Any) -> None:
    with Llama.load("all-minilm-l6-v2") as llama:
        different = [
            text
            for text in random_texts(20_000)
            if llama.tokenize(text).tolist() != tokenizer.encode(text, add_special_tokens=False).ids
        ]
    assert different == []


def random_texts(n: int) -> Iterator[str]:
    """Half from the characters and words of the vocabulary, half from any block of Unicode."""
    choose = random.Random(20240229)
    vocabulary = (make_goldens_bundled.original_folder() / "vocab.txt").read_text("utf-8").split("\n")
    pieces = [token.removeprefix("##") for token in vocabulary]
    pieces += [
        *"".join(pieces),
        *"\0\t\n\x85\xad\u200b\u200d\u2028\u3000\ufeff\ufffdİßΣ\u017f≠각한\u0301\u093e\u302e",
    ]
    pieces += [" "] * (len(pieces) // 5)
    for number in range(n):
        if number % 2:
            yield "".join(choose.choices(pieces, k=choose.randrange(60)))
        else:
            start = choose.randrange(0, 0x32000, 128)
            codes = (choose.randrange(start, start + 128) for _ in range(choose.randrange(60)))
            yield "".join(
                chr(code) if choose.random() < 0.9 else " " for code in codes if code not in SURROGATES
            )


def ids(llama: Llama, originals: list[Golden]) -> list[list[int]]:
    return [[101, *llama.tokenize(original.text)[: 256 - 2].tolist(), 102] for original in originals]


def embed(llama: Llama, originals: list[Golden], n_texts_at_once: int) -> NDArray[np.float32]:
    texts = [original.text for original in originals]
    starts = range(0, len(texts), n_texts_at_once)
    return np.concatenate([llama.embed_many(texts[start : start + n_texts_at_once]) for start in starts])


def embed_in_f32(f32: Path, originals: list[Golden], n_texts_at_once: int) -> NDArray[np.float32]:
    """Without flash attention, which keeps keys and values in f16."""
    with Llama.load(f32, n_ctx=256, flash_attn=False, engine="llama.cpp") as llama:
        return embed(llama, originals, n_texts_at_once)


def vectors_of(goldens: list[Golden]) -> NDArray[np.float32]:
    return np.stack([golden.vector for golden in goldens])


def cosines(vectors: NDArray[np.float32], originals: list[Golden]) -> NDArray[np.float64]:
    ours, theirs = vectors.astype(np.float64), vectors_of(originals).astype(np.float64)
    return np.sum(ours * theirs, axis=1) / (np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1))


def report(name: str, n_texts_at_once: int, values: NDArray[np.float64]) -> None:
    """Shown by ``pytest --log-cli-level INFO``: the figures behind the verdict."""
    figures = f"min {values.min():.7f}, median {np.median(values):.7f}, below 0.999: {np.sum(values < 0.999)}"
    logger.info("%s, %d texts, %d at once: cosine %s", name, len(values), n_texts_at_once, figures)
