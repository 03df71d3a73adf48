"""The second engine: as right as the first, by itself and in company, and safe with what it keeps on disk.

That it gives the original models' results in float32 is held by ``test_tiny_parity.py``; here are the bundled
files, whose weights are quantized.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import pytest

import make_goldens_bundled
import make_goldens_reranker
import tiny_models
from ggrank import Llama, PoolingType
from ggrank.engine.openvino.compiled import MOST_KEPT
from ggrank.engine.openvino.graph import build_graph
from ggrank.engine.openvino.library import ov
from ggrank.engine.weights import Weights
from ggrank.errors import ClosedError, ModelModeError
from ggrank.gguf import open_gguf
from ggrank.hub.presets import bundled_path, presets

EMBEDDER, RERANKER = "all-minilm-l6-v2", "ggrank-reranker-mini"
TEXTS = [text for _, text in make_goldens_bundled.read_texts()]


@pytest.fixture(scope="module")
def embedder() -> Iterator[Llama]:
    with Llama.load(EMBEDDER, engine="openvino") as llama:
        yield llama


@pytest.fixture(scope="module")
def reranker() -> Iterator[Llama]:
    with Llama.load(RERANKER, engine="openvino") as llama:
        yield llama


LOAD = """
import sys
network = []
sys.addaudithook(lambda event, _: event.startswith(("socket.", "subprocess.")) and network.append(event))
from ggrank.engine import start_engine
from ggrank.gguf import open_gguf
from ggrank.types import EngineSettings, PoolingType
sizes = {"n_ctx": 64, "n_ubatch": 64, "n_seq_max": 1, "n_threads": 1}
settings = EngineSettings(PoolingType.MEAN, **sizes, engine="openvino")
start_engine(open_gguf(sys.argv[1]), settings)
print(network, "openvino_telemetry" in sys.modules, "openvino" in sys.modules)
"""


def test_nothing_is_sent_or_written_home_when_openvino_is_imported(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    path = str(bundled_path(presets()[EMBEDDER]))
    done = subprocess.run(
        [sys.executable, "-c", LOAD, path], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.stdout == "[] False True\n", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_model_says_which_engine_computes(embedder: Llama) -> None:
    assert (embedder.engine, embedder.device) == ("openvino", "CPU")


def test_logits_are_as_near_to_transformers_as_llama_cpp_s(reranker: Llama) -> None:
    expected = np.load(make_goldens_reranker.GOLDENS)
    noise = np.abs(reranker.score_pairs(make_goldens_reranker.pairs()) - expected)
    with Llama.load(RERANKER, engine="llama.cpp") as other:
        noise_of_q8_0 = np.abs(other.score_pairs(make_goldens_reranker.pairs()) - expected)
    assert np.mean(noise) < 1.1 * np.mean(noise_of_q8_0)
    assert np.max(noise) < 1.5 * np.max(noise_of_q8_0)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Llama]:
    """The bundled files' numbers in f32, where no processor rounds activations: to 8 bits, or to bf16."""
    folder = tmp_path_factory.mktemp("f32")

    def load(name: str) -> Llama:
        path = tiny_models.quantize(bundled_path(presets()[name]), folder / f"{name}.gguf", dtype="f32")
        return Llama.load(path, engine="openvino")

    return load


def test_a_logit_does_not_depend_on_its_company(exact: Callable[[str], Llama]) -> None:
    pairs = make_goldens_reranker.pairs()[:60]
    order = np.random.default_rng(5).permutation(len(pairs))
    with exact(RERANKER) as llama:
        alone = np.concatenate([llama.score_pairs([pair]) for pair in pairs])
        together = llama.score_pairs([pairs[i] for i in order])
    np.testing.assert_allclose(together, alone[order], rtol=0, atol=1e-5)


def test_a_vector_does_not_depend_on_its_company(exact: Callable[[str], Llama]) -> None:
    with exact(EMBEDDER) as llama:
        alone = np.stack([llama.embed(text) for text in TEXTS[:50]])
        together = llama.embed_many(TEXTS[:50])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


def test_bf16_moves_vectors_less_than_the_bound(embedder: Llama) -> None:
    file = open_gguf(bundled_path(presets()[EMBEDDER]))
    weights, core = Weights(file), ov.Core()
    exact, rounded = (
        core.compile_model(
            build_graph(file, weights, pooling=PoolingType.MEAN, precision=precision),
            "CPU",
            {"INFERENCE_PRECISION_HINT": precision},
        )
        for precision in ("f32", "bf16")
    )
    for text in TEXTS[:100]:
        ids = np.array([101, *embedder.tokenize(text), 102])[:256]
        tokens = weights.rows("token_embd.weight", ids) + weights.array("position_embd.weight")[: len(ids)]
        tokens += weights.array("token_types.weight")[0]
        places = np.arange(len(ids), dtype=np.int32)
        no_mask, shares = np.zeros((1, 1, 1, len(ids)), np.float32), np.full((1, len(ids)), 1 / len(ids))
        inputs = [tokens, places[None], no_mask, places, shares.astype(np.float32)]
        one, other = exact(inputs)[0][0], rounded(inputs)[0][0]
        assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.9995


@pytest.mark.parametrize("kind", ["q8_0", "q4_k_m", "f16"])
def test_numbers_of_a_file_are_those_that_the_gguf_package_reads(kind: str, tmp_path: Path) -> None:
    path = tiny_models.write("bert-reranker", tmp_path, dtype=kind)
    weights = Weights(open_gguf(path))
    for tensor in gguf.GGUFReader(path).tensors:
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(weights.array(tensor.name).reshape(expected.shape), expected)
        if expected.ndim == 2:
            rows = np.array([0, len(expected) - 1])
            np.testing.assert_array_equal(weights.rows(tensor.name, rows), expected[rows])


def test_blocks_of_a_q8_0_matrix_are_its_own(tmp_path: Path) -> None:
    path = tiny_models.write("bert-reranker", tmp_path, dtype="q8_0")
    weights, name = Weights(open_gguf(path)), "blk.0.ffn_up.weight"
    codes, scales = weights.blocks(name)
    np.testing.assert_array_equal(
        (codes * scales.astype(np.float32)).reshape(len(codes), -1), weights.array(name)
    )


def test_a_network_that_it_does_not_know_is_an_error_and_left_to_llama_cpp(tmp_path: Path) -> None:
    path = tiny_models.write("nomic-mean", tmp_path)
    with pytest.raises(ModelModeError, match=r"nomic-bert.*Use llama\.cpp"):
        Llama.load(path, engine="openvino")
    with Llama.load(path) as llama:
        assert llama.engine == "llama.cpp"


def test_a_graph_on_the_disk_that_is_damaged_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(tmp_path))
    path = tiny_models.write("bert-reranker", tmp_path)
    logits = []
    for damage in (
        lambda data: data,
        lambda data: data[: len(data) // 2],
        lambda data: data[:-9] + b"123456789",
    ):
        with Llama.load(path, engine="openvino") as llama:
            logits.append(llama.rerank("river", ["a river", "a stone"]))
        for blob in tmp_path.glob("openvino/*.blob"):
            blob.write_bytes(damage(blob.read_bytes()))
    np.testing.assert_array_equal(logits, [logits[0]] * 3)


def test_a_folder_for_graphs_that_cannot_be_written_is_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(tmp_path))
    (tmp_path / "openvino").write_text("in the way")
    with Llama.load(tiny_models.write("bert-reranker", tmp_path), engine="openvino") as llama:
        assert llama.engine == "openvino"


def test_the_graphs_used_last_stay_and_abandoned_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(tmp_path))
    path = tiny_models.write("bert-reranker", tmp_path)
    folder = tmp_path / "openvino"
    folder.mkdir()
    abandoned, unfinished = folder / ".a.1-1.unfinished", folder / ".b.2-1.unfinished"  # old, new
    abandoned.touch()
    unfinished.touch()
    os.utime(abandoned, (1, 1))
    Llama.load(path, engine="openvino").close()
    first, new = set(folder.glob("*.blob")), set[Path]()
    data = bytearray(path.read_bytes())
    for i in range(MOST_KEPT + 1):  # other weights, and so another graph
        data[-4] = i
        path.write_bytes(data)
        before = set(folder.glob("*.blob"))
        Llama.load(path, engine="openvino").close()
        new = set(folder.glob("*.blob")) - before
    assert len(new) == 1
    left = set(folder.iterdir())
    assert left > {unfinished, *new}
    assert len(left) == MOST_KEPT + 1
    assert not left & first


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps no time of change that cannot be set")
def test_other_weights_in_the_same_place_of_the_same_size_and_time_have_a_graph_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(tmp_path))
    path = tiny_models.write("bert-reranker", tmp_path)
    with Llama.load(path, engine="openvino") as llama:
        before, time = llama.rerank("river", ["a river", "a stone"]), path.stat().st_mtime_ns
    data = bytearray(path.read_bytes())
    data[-4000:] = np.negative(np.frombuffer(data[-4000:], np.float32)).tobytes()
    path.write_bytes(data)
    os.utime(path, ns=(time, time))
    with Llama.load(path, engine="openvino") as llama:
        after = llama.rerank("river", ["a river", "a stone"])
    with Llama.load(path, engine="llama.cpp") as llama:
        np.testing.assert_allclose(llama.rerank("river", ["a river", "a stone"]), after, atol=0.01)
    assert not np.allclose(before, after, atol=0.01)


def test_threads_get_what_one_gets(reranker: Llama) -> None:
    queries = TEXTS[:8]
    expected = [reranker.rerank(query, TEXTS[:20]) for query in queries]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda query: reranker.rerank(query, TEXTS[:20]), queries))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_closed_model_says_so(tmp_path: Path) -> None:
    llama = Llama.load(tiny_models.write("bert-mean", tmp_path), engine="openvino")
    llama.close()
    llama.close()
    with pytest.raises(ClosedError):
        llama.embed("a text")
