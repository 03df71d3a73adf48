"""`CrossEncoder` as in sentence-transformers 5 and 6: https://sbert.net/docs/package_reference/cross_encoder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.compat.model import Model, Pairs, check_options, listed, logits, open_reranker
from ggrank.errors import InputError
from ggrank.scoring import sigmoid
from ggrank.text.inputs import check_texts


class CrossEncoder:
    """Scores pairs of texts as ``sentence_transformers.CrossEncoder`` does, from a GGUF file.

    Args:
        model_name_or_path: an original's name (``BAAI/bge-reranker-base``), a preset, a path to a GGUF file,
            a Hugging Face repo with GGUF files, or a loaded `ggrank.Llama`.
        num_labels: 1 or None; a reranker has one.
        max_length: longest pair in tokens; else 512, or less where the model has less.
        activation_fn: makes scores of logits, shape (n, 1): a torch tensor where torch is loaded, else a
            NumPy array. None is the sigmoid, as in the original for one label. Some originals' configurations
            name another, which no GGUF file holds: of ms-marco's models it is ``lambda logits: logits``.
        device: "cpu", else a GPU where llama.cpp was built for one.
        filename: which file of a repo, where it has several.
        cache_folder, revision, local_files_only, token: as in the original, for downloads.
        cache_dir, default_activation_function: old names of ``cache_folder`` and ``activation_fn``.
        options: those that change no score, such as ``backend``, have no effect; others raise.

    Attributes:
        llama: the loaded model; ``llama.close()`` frees it.

    Raises:
        ModelNotFoundError, DownloadError: no such model; the message names those that are known.
        ModelModeError: an embedding model.
        InputError: more than one label, a ``max_length`` that the model does not have, or one of the options
            that would change scores, such as ``prompts`` or ``tokenizer_kwargs``.

    Example:
        >>> from ggrank.compat import CrossEncoder
        >>> model = CrossEncoder("ggrank-reranker-mini")
        >>> scores = model.predict([("Who lives in Peru?", "Llamas."), ("Who lives in Peru?", "Paris.")])
        >>> scores.shape, scores.dtype.name
        ((2,), 'float32')
        >>> model.rank("Where do llamas live?", ["Paris is a city", "Llamas live in Peru"])[0]["corpus_id"]
        1
    """

    def __init__(
        self,
        model_name_or_path: Model,
        num_labels: int | None = None,
        max_length: int | None = None,
        activation_fn: Callable[[Any], Any] | None = None,
        device: object = None,
        *,
        filename: str | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        token: bool | str | None = None,
        default_activation_function: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> None:
        check_options("CrossEncoder", options)
        if num_labels not in (None, 1):
            raise InputError(f"num_labels must be 1 or None, found {num_labels!r}: rerankers have one")
        self.activation_fn = activation_fn or default_activation_function
        self.llama = open_reranker(
            model_name_or_path,
            device=device,
            n_ctx=max_length,
            filename=filename,
            revision=revision,
            token=token if isinstance(token, str) else None,
            cache_dir=cache_folder or cache_dir,
            local_files_only=local_files_only,
        )

    @property
    def max_length(self) -> int:
        """The longest pair in tokens; it is chosen when the model is loaded."""
        return self.llama.n_ctx

    def predict(
        self,
        inputs: Pairs,
        *,
        activation_fn: Callable[[Any], Any] | None = None,
        activation_fct: Callable[[Any], Any] | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        **options: Any,
    ) -> Any:
        """Scores of pairs, in input order.

        Args:
            inputs: pairs of texts, or one pair.
            activation_fn: replaces the model's for this call; ``activation_fct`` is its old name.
            convert_to_numpy, convert_to_tensor: choose the result; both kinds of tensors need torch.
            options: ``batch_size``, ``show_progress_bar`` and others that change no score have no effect.

        Returns:
            As in the original: an array of shape (n,), float32; with ``convert_to_tensor=True`` a tensor of
            the same shape; with ``convert_to_numpy=False`` a list of tensors without dimensions. Of one pair
            its item alone.

        Raises:
            InputError: not pairs of strings, tensors without torch, or options such as ``prompt``.
        """
        check_options("predict", options)
        pairs, is_one_pair = listed(inputs)
        activation_fn = activation_fn or activation_fct or self.activation_fn
        # float64 for no pairs, as there
        scores = _scores(logits(self.llama, pairs), activation_fn) if pairs else np.array([])
        result = scores if convert_to_numpy and not convert_to_tensor else _tensors(scores, convert_to_tensor)
        return result[0] if is_one_pair else result

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Documents in order, best score first, ties in input order.

        Args:
            top_k: keep this many at most.
            return_documents: put the text beside the score.
            options: those of `predict`; scores are floats, also where tensors are asked for.

        Returns:
            A dict for each document: ``corpus_id`` (its position in the input), ``score``, and ``text``.

        Raises:
            InputError: not strings, or what `predict` refuses.
        """
        texts = list(check_texts(documents, "document"))
        options = {**options, "convert_to_numpy": True, "convert_to_tensor": False}
        scores = self.predict([(query, text) for text in texts], **options).tolist()
        results = [
            {"corpus_id": i, "score": score, **({"text": texts[i]} if return_documents else {})}
            for i, score in enumerate(scores)
        ]
        return sorted(results, key=lambda result: result["score"], reverse=True)[:top_k]


def _scores(values: NDArray[np.float32], activation_fn: Callable[[Any], Any] | None) -> NDArray[np.float32]:
    if activation_fn is None:
        return sigmoid(values)
    torch = sys.modules.get("torch")  # loaded where the caller's function is torch's, and expects a tensor
    column: Any = values[:, np.newaxis]
    scores = np.asarray(activation_fn(column if torch is None else torch.from_numpy(column)), np.float32)
    if scores.size != len(values):
        raise InputError(f"activation_fn must give a score a pair: {len(values)}, found shape {scores.shape}")
    return scores.reshape(len(values))


def _tensors(scores: NDArray[np.floating[Any]], as_one: bool) -> Any:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "convert_to_tensor=True and convert_to_numpy=False give torch tensors, and torch is not "
            "installed. Leave both out and take the NumPy array, or pip install torch."
        ) from error
    tensor = torch.from_numpy(scores.astype(np.float32))
    return tensor if as_one else list(tensor)
