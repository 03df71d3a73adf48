"""Trained weights -> the GGUFs: f32 for comparison, q8_0 for the package.

    python training/export.py work/model.pt work/reranker-f32.gguf work/ggrank-reranker-mini-q8_0.gguf
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import gguf
import torch
from backbone import source_folder
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
import build_bundled_models as bundled

LEFT_OUT = ("embeddings.position_ids", "embeddings.token_type_ids")
HEAD = {"pooler.dense": "cls", "output": "cls.output"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the reranker as GGUF.")
    parser.add_argument("weights", type=Path)
    parser.add_argument("f32", type=Path)
    parser.add_argument("q8_0", type=Path)
    arguments = parser.parse_args()
    write_f32(torch.load(arguments.weights), arguments.f32)
    bundled.quantize(arguments.f32, arguments.q8_0, f16_tensors=None)
    print(f"wrote {arguments.q8_0}, {arguments.q8_0.stat().st_size:,} bytes, sha256 {bundled.sha256_of(arguments.q8_0)}")


def write_f32(weights: dict[str, torch.Tensor], path: Path) -> None:
    """A BERT with rank pooling: the head's dense layer is ``cls``, its output ``cls.output``.

    Both token type rows are the first: the model was trained with type 0 alone, and llama.cpp's graph
    knows no other.
    """
    config = json.loads((source_folder() / "config.json").read_text("utf-8"))
    config["num_hidden_layers"] = 1 + max(int(name.split(".")[3]) for name in weights if ".layer." in name)
    vocabulary = (source_folder() / "vocab.txt").read_text("utf-8").rstrip("\n").split("\n")
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.BERT])
    add_origin(writer)
    bundled.add_shape(writer, config, pooling_type=gguf.PoolingType.RANK)
    bundled.add_tokenizer(writer, vocabulary)
    for name, tensor in tensors(weights, layers=config["num_hidden_layers"]):
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_origin(writer: gguf.GGUFWriter) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("ggrank-reranker-mini")
    writer.add_organization("ggrank")
    writer.add_basename("ggrank-reranker-mini")
    writer.add_size_label("23M")
    writer.add_license("cc-by-sa-4.0")
    writer.add_languages(["en"])
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, "all-MiniLM-L6-v2")
    writer.add_base_model_organization(0, "sentence-transformers")
    writer.add_base_model_repo_url(0, "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2")


def tensors(weights: dict[str, torch.Tensor], *, layers: int) -> list[tuple[str, NDArray]]:
    """Name in the GGUF and float32 values of every tensor."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, layers)
    result = []
    for name, tensor in weights.items():
        values, short = tensor.float().numpy(), name.removeprefix("bert.")
        if short in LEFT_OUT:
            continue
        stem, _, kind = short.rpartition(".")
        if stem in HEAD:
            result.append((f"{HEAD[stem]}.{kind}", values))
            continue
        place = names.get_name(short, try_suffixes=(".weight", ".bias"))
        if place is None:
            raise SystemExit(f"tensor {name} has no place in a bert GGUF")
        if short == "embeddings.token_type_embeddings.weight":
            values = values[[0, 0]]
        result.append((place, values))
    return result


if __name__ == "__main__":
    main()
