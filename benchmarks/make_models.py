"""Writes models to measure, with no hub: ``python benchmarks/make_models.py FOLDER``.

    FOLDER/bge-small-shape            BERT, 12 layers, 384 wide, WordPiece: embeds
    FOLDER/bge-reranker-base-shape    XLM-R, 12 layers, 768 wide, 250,002 unigram pieces: reranks

Speed and memory hang on a network's shape and not on its values, so the weights are drawn from a seed. Each
folder holds the same weights in every form that a peer loads:

    NAME-f32.gguf, -q8_0.gguf, -q4_k_m.gguf     ggrank and llama-server
    model.safetensors, config.json, tokenizer   sentence-transformers
    onnx/model.onnx, onnx/model_int8.onnx       ONNX Runtime, where torch and onnxruntime are installed

The WordPiece vocabulary is the bundled model's. The unigram pieces are its words, its word parts and made-up
syllables, so that ordinary text gets about as many tokens as with the original. Run it where the peers are
(`make bench` does). Takes about two minutes and 6 GB of disk; what is there is not written again.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
sys.path[:0] = [str(TESTS), str(ROOT / "src")]

from ggrank import convert  # noqa: E402
from model_tokenizers import Json, unigram, wordpiece  # noqa: E402
from tiny import weights  # noqa: E402
from tiny.weights import Shape, Weights  # noqa: E402

QUANTIZATIONS = ("f32", "q8_0", "q4_k_m")
SEED = 4
MOST_TOKENS = 512


@dataclass(frozen=True)
class Recipe:
    """A model to write: its name, which family's network, and its shape."""

    name: str
    is_reranker: bool
    shape: Shape


RECIPES = (
    Recipe(
        "bge-small-shape",
        False,
        Shape(
            vocab_size=30_522,
            hidden_size=384,
            intermediate_size=1536,
            num_hidden_layers=12,
            num_attention_heads=12,
            head_dim=32,
            max_position_embeddings=MOST_TOKENS,
        ),
    ),
    Recipe(
        "bge-reranker-base-shape",
        True,
        Shape(
            vocab_size=250_002,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            head_dim=64,
            max_position_embeddings=MOST_TOKENS,
            type_vocab_size=1,
        ),
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write models of known shapes to measure.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    logging.basicConfig(level=logging.ERROR)
    warnings.simplefilter("ignore")  # what torch says of its own exporter
    for recipe in RECIPES:
        make(recipe, folder / recipe.name)
    return 0


def make(recipe: Recipe, folder: Path) -> None:
    """All forms of one model; the last file that is written says that the folder is whole."""
    done = folder / "made"
    if done.exists():
        return
    print(f"writing {folder}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = unigram(recipe.shape.vocab_size) if recipe.is_reranker else wordpiece()
    values = draw(recipe)
    write_hugging_face(recipe, values, tokenizer, folder)
    for quantization in QUANTIZATIONS:
        convert(folder, folder / f"{recipe.name}-{quantization}.gguf", quantize=quantization, force=True)
    if write_onnx(recipe, folder):
        done.touch()


def draw(recipe: Recipe) -> Weights:
    """The weights under the names of ``transformers``."""
    if not recipe.is_reranker:
        return weights.bert(recipe.shape, SEED)
    head = weights.roberta_head(recipe.shape, SEED + 1, n_labels=1)
    return weights.bert(recipe.shape, SEED, unused_positions=2) | head


# -- Hugging Face


def config(recipe: Recipe) -> Json:
    """config.json, but for what differs between the two families."""
    shape = recipe.shape
    return {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "max_position_embeddings": shape.max_position_embeddings,
        "type_vocab_size": shape.type_vocab_size,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5 if recipe.is_reranker else 1e-12,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


BERT = {"model_type": "bert", "architectures": ["BertModel"], "pad_token_id": 0}
XLMR = {
    "model_type": "xlm-roberta",
    "architectures": ["XLMRobertaForSequenceClassification"],
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
}


def write_hugging_face(recipe: Recipe, values: Weights, tokenizer: Json, folder: Path) -> None:
    """What ``from_pretrained`` reads, and for the embedder what sentence-transformers adds."""
    from safetensors.numpy import save_file

    if recipe.is_reranker:
        own = {"max_position_embeddings": recipe.shape.max_position_embeddings + 2, **XLMR}
        named = {name if "classifier" in name else f"roberta.{name}": a for name, a in values.items()}
    else:
        own, named = BERT, dict(values)
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", {**config(recipe), **own})
    write_json(folder / "tokenizer.json", tokenizer)
    write_json(folder / "tokenizer_config.json", tokenizer_config(recipe))
    if not recipe.is_reranker:
        write_sentence_transformers(recipe, folder)


def tokenizer_config(recipe: Recipe) -> Json:
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"} | (
        {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>"}
        if recipe.is_reranker
        else {"unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]",
              "sep_token": "[SEP]", "cls_token": "[CLS]"}
    )  # fmt: skip
    return {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": MOST_TOKENS, **names}


def write_sentence_transformers(recipe: Recipe, folder: Path) -> None:
    """The modules of bge-small: the first token's vector, with length 1."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    write_json(folder / "modules.json", listed)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MOST_TOKENS, "do_lower_case": False})
    pooling = {"word_embedding_dimension": recipe.shape.hidden_size, "pooling_mode_cls_token": True}
    write_json(folder / "1_Pooling" / "config.json", {**pooling, "pooling_mode_mean_tokens": False})


def write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data, ensure_ascii=False), "utf-8")


# -- ONNX

PLAIN = {"attn_implementation": "eager", "dtype": "float32"}  # the graph that the optimizer recognises


def write_onnx(recipe: Recipe, folder: Path) -> bool:
    """torch's export, fused by ONNX Runtime's own optimizer, and its dynamic int8; whether that was done."""
    try:
        import onnx
        import torch  # noqa: F401  # transformers imports without it
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.transformers import optimizer
        from transformers import AutoModel, AutoModelForSequenceClassification
    except ImportError as error:
        print(f"no ONNX files, because {error.name} is not installed", flush=True)
        return False
    if recipe.is_reranker:
        model = AutoModelForSequenceClassification.from_pretrained(folder, **PLAIN).eval()
    else:
        model = AutoModel.from_pretrained(folder, add_pooling_layer=False, **PLAIN).eval()
    path = folder / "onnx" / "model.onnx"
    path.parent.mkdir(exist_ok=True)
    export(model, recipe, path)
    shape = recipe.shape
    fused = optimizer.optimize_model(
        str(path), "bert", num_heads=shape.num_attention_heads, hidden_size=shape.hidden_size, opt_level=0
    )
    print(f"{recipe.name}: fused {fused.get_fused_operator_statistics()}", flush=True)
    fused.save_model_to_file(str(path))
    # Its shape inference does not know the fused operators, whose outputs are float as well.
    known = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    int8 = path.with_name("model_int8.onnx")
    quantize_dynamic(path, int8, weight_type=QuantType.QInt8, extra_options=known)
    return True


def export(model: Any, recipe: Recipe, path: Path) -> None:
    """One graph with any number of sequences of any length, inputs as Hugging Face's files name them."""
    import torch

    names = ["input_ids", "attention_mask"] + ([] if recipe.is_reranker else ["token_type_ids"])
    example = {name: torch.ones((2, 8), dtype=torch.long) for name in names}
    output = "logits" if recipe.is_reranker else "last_hidden_state"
    any_size = {0: "batch", 1: "length"}  # said of logits too, where it does no harm

    class Plain(torch.nn.Module):  # type: ignore[misc]  # mypy skips torch
        """Takes tensors by position, as the export passes them, and gives one."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            return self.model(**dict(zip(names, inputs, strict=True)), return_dict=False)[0]

    torch.onnx.export(
        Plain(),
        tuple(example.values()),
        str(path),
        input_names=names,
        output_names=[output],
        dynamic_axes={
            **dict.fromkeys(names, any_size),
            output: {0: "batch"} if recipe.is_reranker else any_size,
        },
        opset_version=17,
        dynamo=False,
    )


if __name__ == "__main__":
    sys.exit(main())
