"""Trained weights -> the GGUFs: f32 for comparison, q8_0 for the package.

The loss knows only differences of logits. Before they are written, the output layer is scaled and shifted so
that sigmoid(logit) says how likely a candidate is the labelled one: 0 is the line between the two.

    python training/export.py work/model.pt work/lists.npz work/ggrank-reranker-mini-f32.gguf \\
        work/ggrank-reranker-mini-q8_0.gguf
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import gguf
import torch
from backbone import CrossEncoder, original_names, score, source_folder
from numpy.typing import NDArray
from train import Lists

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
import build_bundled_models as bundled

HEAD = {"pooler": "cls", "output": "cls.output"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the reranker as GGUF.")
    parser.add_argument("weights", type=Path)
    parser.add_argument("lists", type=Path, help="candidate lists, for the scale of the logits")
    parser.add_argument("f32", type=Path)
    parser.add_argument("q8_0", type=Path)
    parser.add_argument("--calibrate", type=int, default=400, metavar="N", help="lists for the logits' scale")
    arguments = parser.parse_args()
    weights = torch.load(arguments.weights)
    calibrate(weights, arguments.lists, n=arguments.calibrate)
    torch.save(weights, arguments.f32.with_suffix(".pt"))
    write_f32(weights, arguments.f32)
    bundled.quantize(arguments.f32, arguments.q8_0, f16_tensors=None)
    size, digest = arguments.q8_0.stat().st_size, bundled.sha256_of(arguments.q8_0)
    print(f"wrote {arguments.q8_0}, {size:,} bytes, sha256 {digest}")


def calibrate(weights: dict[str, torch.Tensor], lists: Path, *, n: int) -> None:
    """Scales and shifts the output layer by logistic regression on ``n`` labelled lists (Platt)."""
    model = CrossEncoder(layers=count_layers(weights)).eval()
    model.load_state_dict(weights)
    unseen = Lists(lists, bm25_weight=0.0, width=8, label_weight=1.0)
    unseen.skip(10**6)
    examples = [example for example in unseen.draw(n) if example.label_weight]
    logits = torch.from_numpy(score(model, [pair for example in examples for pair in example.pairs]))
    labels = torch.zeros(len(examples), 8)
    labels[:, 0] = 1.0
    line = torch.tensor([1.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        moved = line[0] * logits + line[1]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(moved, labels.flatten())
        loss.backward()
        return loss

    optimizer.step(closure)
    slope, shift = line.detach()
    if slope <= 0:
        raise SystemExit(f"higher logits are not the better ones (slope {slope:.3f}): train longer")
    weights["output.weight"] *= slope
    weights["output.bias"] = weights["output.bias"] * slope + shift
    print(f"logits: {slope:.3f} x {shift:+.3f}")


def count_layers(weights: dict[str, torch.Tensor]) -> int:
    return 1 + max(int(name.split(".")[2]) for name in weights if ".layers." in name)


def write_f32(weights: dict[str, torch.Tensor], path: Path) -> None:
    """A BERT with rank pooling: the head's dense layer is ``cls``, its output ``cls.output``.

    Both token type rows are the first: the model was trained with type 0 alone, and llama.cpp's graph
    knows no other.
    """
    config = json.loads((source_folder() / "config.json").read_text("utf-8"))
    config["num_hidden_layers"] = count_layers(weights)
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
    writer.add_license("apache-2.0")
    writer.add_languages(["en"])
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, "all-MiniLM-L6-v2")
    writer.add_base_model_organization(0, "sentence-transformers")
    writer.add_base_model_repo_url(0, "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2")
    writer.add_string("ggrank.gelu", "tanh")  # it was trained with what llama.cpp computes


def tensors(weights: dict[str, torch.Tensor], *, layers: int) -> list[tuple[str, NDArray]]:
    """Name in the GGUF and float32 values of every tensor."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, layers)
    result = []
    for ours, theirs in original_names(layers).items():
        for name, part in zip(theirs, weights[f"bert.{ours}"].chunk(len(theirs)), strict=True):
            place = names.get_name(name, try_suffixes=(".weight", ".bias"))
            # Both token types are the one that was trained.
            values = torch.stack([part, part]) if ours == "token_type" else part
            result.append((place, values.float().numpy()))
    for ours, place in HEAD.items():
        result += [(f"{place}.{kind}", weights[f"{ours}.{kind}"].numpy()) for kind in ("weight", "bias")]
    return result


if __name__ == "__main__":
    main()
