"""Hugging Face folder -> GGUF that carries everything its scores need. `convert` is the way in.

    original.py     folder or repo: settings, tensors of safetensors
    vocabulary.py   its tokenizer, and llama.cpp's keys for it
    network.py      its architecture, and llama.cpp's names and numbers for it
    heads.py        pooling, and a reranker's last layers
    writing.py      the one writer of GGUF
    checking.py     the proof that the file is the original

Needs the extra ``convert``, but no torch; only ``check`` computes the original too.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggrank.conversion.checking import Comparison, prove, require_originals
from ggrank.conversion.network import Network, read_network
from ggrank.conversion.original import Json, Original, find_original
from ggrank.conversion.writing import (
    Progress,
    import_gguf,
    quiet,
    refuse_to_overwrite,
    unfinished,
    write_gguf,
)
from ggrank.engine.quantizer import FILE_TYPES
from ggrank.engine.quantizer import quantize as quantize_file
from ggrank.errors import InputError, ModelFileError
from ggrank.hub.presets import presets

FORMATS = ("f32", *FILE_TYPES)
SMALL = 512
"""Up to this width a model keeps its value projections in float16 beside q8_0 (`f16_tensors`)."""

MOST_N_CTX = 2048
"""A longer limit of the original is not written: work buffers grow with it, and few texts need it."""


@dataclass(frozen=True)
class Converted:
    """A written file, and how near it is to its original where that was asked."""

    path: Path
    comparison: Comparison | None


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    quantize: str = "q8_0",
    revision: str | None = None,
    check: bool = False,
    force: bool = False,
) -> Path:
    """Writes an embedder or reranker of Hugging Face as one GGUF file, and computes with it.

    Args:
        source: a folder as transformers or sentence-transformers save it, or a repo id ``org/name``.
        output: the file; else ``NAME-q8_0.gguf`` in the current folder.
        quantize: "f32", "f16", "q8_0" or "q4_k_m".
        revision: a repo's branch, tag or commit.
        check: compare 100 texts or pairs with the original, which needs sentence-transformers.
        force: replace a file that exists.

    Returns:
        The file's path. It appears whole or not at all.

    Raises:
        InputError: an option cannot be used, or a package is missing.
        ModelNotFoundError: there is no such folder or repo.
        ModelFileError: the original cannot be converted, or the file is not the original.
        ModelModeError: the original neither embeds nor reranks.
        DownloadError: the hub could not be reached, or refused.

    Example:
        >>> from ggrank import convert
        >>> convert("no/such-folder/here")
        Traceback (most recent call last):
        ggrank.errors.ModelNotFoundError: Expected a folder with a model of transformers, or a Hugging ...
    """
    return convert_model(source, output, quantize=quantize, revision=revision, check=check, force=force).path


def convert_model(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    quantize: str = "q8_0",
    revision: str | None = None,
    check: bool = False,
    force: bool = False,
    progress: Progress = quiet,
) -> Converted:
    """`convert`, for those who show its progress and what it found."""
    if quantize not in FORMATS:
        raise InputError(f"quantize must be one of {', '.join(FORMATS)}, found {quantize!r}")
    import_gguf()
    if check:
        require_originals()
    original = find_original(os.fspath(source), revision=revision)
    path = Path(output or f"{original.name}-{quantize}.gguf").expanduser()
    refuse_to_overwrite(path, force=force)
    network = read_network(original)
    with unfinished(path, force=force) as written:
        write_model(written, network, {**about(original), **own_keys(original, network)}, quantize, progress)
        progress("checking", 0, 1)
        comparison = prove(written, original, network, quantization=quantize, check=check)
        if comparison is not None and not comparison.is_near:
            raise ModelFileError(
                f"{original.name} as {quantize} differs from the original by more than this format's noise: "
                f"of {comparison.n} {comparison.what}s one is {comparison.deviation:.2g} off, and the rank "
                f"correlation is {comparison.correlation:.4f}. Nothing was written. Try --quantize f32: "
                "if that passes, the model suffers from quantization; if not, this is an error of ggrank's."
            )
    progress("checking", 1, 1)
    return Converted(path, comparison)


def write_model(
    path: Path, network: Network, own: Json, quantization: str, progress: Progress = quiet
) -> None:
    """Writes the network in that format; meanwhile a float32 file lies beside it."""
    keys = {
        "general.type": "model",
        **own,
        "general.file_type": 0,
        "general.quantization_version": 2,
        **network.keys,
        **network.vocabulary.keys,
    }
    f32 = path if quantization == "f32" else path.with_name(f"{path.name}.f32")
    write_gguf(f32, network.architecture, keys, network.tensors, progress=progress)
    if quantization != "f32":
        progress("quantizing", 0, 1)
        quantize_file(f32, path, quantization=quantization, f16_tensors=f16_tensors(network, quantization))
        f32.unlink()


def f16_tensors(network: Network, quantization: str) -> str:
    """What stays float16 in a quantized file, as a regular expression.

    llama.cpp rounds what it multiplies with q8_0 weights to 8 bits as well, and in the value projections that
    hurts most.
    """
    width = network.keys[f"{network.architecture}.embedding_length"]
    return r"attn_v\.weight" if quantization == "q8_0" and width <= SMALL else ""


def about(original: Original) -> Json:
    """Where the model comes from, as far as it says so."""
    card, organization = original.card, original.repo.partition("/")[0]
    languages = card.get("language") or []
    page = f"https://huggingface.co/{original.repo}" if original.repo else ""
    keys: dict[str, Any] = {
        "general.name": original.name,
        "general.organization": organization,
        "general.license": card.get("license"),
        "general.languages": [languages] if isinstance(languages, str) else list(map(str, languages)),
        "general.source.url": f"{page}/tree/{original.commit}" if original.commit else page,
        "general.source.repo_url": page,
    }
    return {key: value for key, value in keys.items() if value and isinstance(value, (str, list))}


def own_keys(original: Original, network: Network) -> Json:
    """What scores need and llama.cpp has no keys for: prefixes, length, trained widths."""
    query, document = _prefixes(original) if not network.head.is_reranker else ("", "")
    keys = {
        "ggrank.query_prefix": query,
        "ggrank.document_prefix": document,
        "ggrank.n_ctx": _n_ctx(original, network),
        "ggrank.dimensions": _dimensions(original, network),
    }
    return {key: value for key, value in keys.items() if value}


def _prefixes(original: Original) -> tuple[str, str]:
    """As sentence-transformers' ``encode_query`` and ``encode_document`` choose them; else a preset's."""
    settings = _settings(original)
    prompts = settings.get("prompts") or {}
    usual = prompts.get(settings.get("default_prompt_name") or "", "")
    names = (("query",), ("document", "passage", "corpus"))
    query, document = (next((prompts[one] for one in group if one in prompts), usual) for group in names)
    known = presets().get(original.name.lower())
    if known is not None and not (query or document):
        return known.query_prefix, known.document_prefix
    return str(query), str(document)


def _settings(original: Original) -> Json:
    from ggrank.conversion.original import read_json

    return read_json(original.root / "config_sentence_transformers.json")


def _n_ctx(original: Original, network: Network) -> int:
    """The length that the original cuts at; 0 where it does not say, or it is above `MOST_N_CTX`."""
    limits = (
        original.json("sentence_bert_config.json").get("max_seq_length"),
        original.json("tokenizer_config.json").get("model_max_length"),
    )
    said = [limit for limit in limits if isinstance(limit, int)]
    n_ctx = min([*said[:1], network.keys[f"{network.architecture}.context_length"]]) if said else 0
    return n_ctx if 16 <= n_ctx <= MOST_N_CTX else 0


def _dimensions(original: Original, network: Network) -> list[int]:
    """The widths that Matryoshka training names, in config.json or in the card that its trainer writes."""
    found = original.config.get("matryoshka_dimensions") or []
    in_card = re.search(r'"matryoshka_dims":\s*\[([\d\s,]+)\]', original.readme)
    if not found and in_card:
        found = [int(number) for number in re.findall(r"\d+", in_card[1])]
    width = network.keys[f"{network.architecture}.embedding_length"]
    return sorted({int(number) for number in found if 0 < int(number) < width})
