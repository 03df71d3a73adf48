"""Hugging Face folder -> GGUF that carries everything its scores need.

    original.py     reads a folder or repo: settings, tensors of safetensors
    vocabulary.py   writes its tokenizer in llama.cpp's keys
    heads.py        finds the pooling, and a reranker's last layers
    network.py      all of it in llama.cpp's names and numbers
    writing.py      writes the GGUF
    checking.py     compares the GGUF with the original

Needs the extra ``convert``, but no torch; only ``check`` computes the original too.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ggrank.conversion.checking import Comparison, check_file, require_originals
from ggrank.conversion.network import Network, read_network
from ggrank.conversion.original import Json, Original, find_original, read_json
from ggrank.conversion.writing import OnProgress, ignore_progress, import_gguf, replacing, write_model
from ggrank.engine.library import FILE_TYPES
from ggrank.errors import InputError
from ggrank.hub.presets import presets

FORMATS = ("f32", *FILE_TYPES)

_MOST_N_CTX = 2048
"""A longer limit of the original is not written: work buffers grow with it, and few texts need it."""


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
        The file's path. A file that is not complete never gets this name.

    Raises:
        InputError: an option cannot be used, or a package is missing.
        ModelNotFoundError: there is no such folder or repo.
        ModelFileError: the model cannot be converted, or the file computes something else.
        ModelModeError: the model neither embeds nor reranks.
        DownloadError: the hub could not be reached, or refused.

    Example:
        >>> from ggrank import convert
        >>> convert("no/such-folder/here")
        Traceback (most recent call last):
        ggrank.errors.ModelNotFoundError: Expected a folder with a model of transformers, or a Hugging ...
    """
    return convert_model(source, output, quantize=quantize, revision=revision, check=check, force=force)[0]


def convert_model(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    quantize: str = "q8_0",
    revision: str | None = None,
    check: bool = False,
    force: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> tuple[Path, Comparison | None]:
    """`convert` with reports of its progress, and with what ``check`` found."""
    if quantize not in FORMATS:
        raise InputError(f"quantize must be one of {', '.join(FORMATS)}, found {quantize!r}")
    import_gguf()
    if check:
        require_originals()
    original = find_original(os.fspath(source), revision=revision)
    path = Path(output or f"{original.name}-{quantize}.gguf").expanduser()
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"expected the path of a file to write in a folder that exists, found {path}")
    if path.exists() and not force:
        raise InputError(
            f"{path} exists already: give --force (force in Python) to replace it, or another name"
        )
    network = read_network(original)
    with replacing(path) as temporary:
        own_keys = {**_origin(original), **_own_keys(original, network)}
        write_model(temporary, network, own_keys, quantize, on_progress)
        on_progress("checking", 0, 1)
        comparison = check_file(temporary, original, network, quantization=quantize, compare=check)
    on_progress("checking", 1, 1)
    return path, comparison


def _origin(original: Original) -> Json:
    """Name, licence and source of the model, as far as it names them."""
    card, organization = original.card, original.repo.partition("/")[0]
    languages = card.get("language") or []
    page = f"https://huggingface.co/{original.repo}" if original.repo else ""
    keys: Json = {
        "general.name": original.name,
        "general.organization": organization,
        "general.license": card.get("license"),
        "general.languages": [languages] if isinstance(languages, str) else list(map(str, languages)),
        "general.source.url": f"{page}/tree/{original.commit}" if original.commit else page,
        "general.source.repo_url": page,
    }
    return {key: value for key, value in keys.items() if value and isinstance(value, (str, list))}


def _own_keys(original: Original, network: Network) -> Json:
    """What scores depend on and llama.cpp has no keys for: prefixes, length, trained widths."""
    query, document = ("", "") if network.is_reranker else _prefixes(original)
    keys = {
        "ggrank.query_prefix": query,
        "ggrank.document_prefix": document,
        "ggrank.n_ctx": _n_ctx(original, network),
        "ggrank.dimensions": _dimensions(original, network),
    }
    return {key: value for key, value in keys.items() if value}


def _prefixes(original: Original) -> tuple[str, str]:
    """As sentence-transformers' ``encode_query`` and ``encode_document`` choose them; else a preset's."""
    settings = read_json(original.root / "config_sentence_transformers.json")
    prompts = settings.get("prompts") or {}
    usual = prompts.get(settings.get("default_prompt_name") or "", "")
    names = (("query",), ("document", "passage", "corpus"))
    query, document = (next((prompts[one] for one in group if one in prompts), usual) for group in names)
    known = presets().get(original.name.lower())
    if known is not None and not (query or document):
        return known.query_prefix, known.document_prefix
    return str(query), str(document)


def _n_ctx(original: Original, network: Network) -> int:
    """The length at which the original cuts; 0 if it is not known, or above `_MOST_N_CTX`."""
    limits = (
        original.json("sentence_bert_config.json").get("max_seq_length"),
        original.json("tokenizer_config.json").get("model_max_length"),
    )
    limit = next((limit for limit in limits if isinstance(limit, int)), 0)
    n_ctx = min(limit, network.fact("context_length"))
    return n_ctx if 16 <= n_ctx <= _MOST_N_CTX else 0


def _dimensions(original: Original, network: Network) -> list[int]:
    """The widths that Matryoshka training names, in config.json or in the card that its trainer writes."""
    found = original.config.get("matryoshka_dimensions") or []
    in_card = re.search(r'"matryoshka_dims":\s*\[([\d\s,]+)\]', original.readme)
    if not found and in_card:
        found = re.findall(r"\d+", in_card[1])
    return sorted({int(width) for width in found if 0 < int(width) < network.fact("embedding_length")})
