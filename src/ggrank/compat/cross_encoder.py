"""`CrossEncoder` as in sentence-transformers 5 and 6: ``predict`` and ``rank``.

Knows the arguments and results of the original (https://sbert.net/docs/package_reference/cross_encoder);
torch is imported only where a caller asks for tensors.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.compat.cross_encoder_options import check_options
from ggrank.compat.model import Model, Pairs, is_gpu, listed, logits, open_reranker
from ggrank.errors import InputError, InputTypeError
from ggrank.scoring import sigmoid
from ggrank.text.inputs import check_texts


class CrossEncoder:
    """Scores pairs of texts as ``sentence_transformers.CrossEncoder`` does, from a GGUF file.

    Attributes:
        llama: the loaded model; ``llama.close()`` frees it.
        activation_fn: what makes scores of logits; None means the sigmoid.

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
        """Loads the model.

        Args:
            model_name_or_path: an original's name (``BAAI/bge-reranker-base``), a preset, a path to a GGUF
                file, a Hugging Face repo with GGUF files, or a loaded `ggrank.Llama`.
            num_labels: 1 or None; a reranker has one.
            max_length: longest pair in tokens; else 512, or less where the model has less.
            activation_fn: applied to logits, shape (n, 1): a torch tensor where torch is loaded, else a NumPy
                array. None is the sigmoid, as in the original for one label. Some originals' configurations
                name another, which no GGUF file holds: of ms-marco's models it is ``lambda logits: logits``.
            device: "cpu", else a GPU where llama.cpp was built for one.
            filename: which file of a repo, where it has several.
            cache_folder, revision, local_files_only, token: as in the original, for downloads.
            cache_dir, default_activation_function: old names of ``cache_folder`` and ``activation_fn``.
            options: the original's others. Those that change no score (``backend``, ``trust_remote_code``,
                ``model_kwargs={"torch_dtype": ...}``) are accepted, without effect.

        Raises:
            ModelNotFoundError, DownloadError: no such model; the message names those that are known.
            ModelModeError: an embedding model.
            InputError: more than one label, a ``max_length`` that the model does not have, or one of the
                options that would change scores, such as ``prompts`` or ``tokenizer_kwargs``.
        """
        check_options("CrossEncoder", options)
        if num_labels not in (None, 1):
            raise InputError(f"num_labels must be 1 or None, found {num_labels!r}: rerankers have one")
        self.activation_fn = activation_fn or default_activation_function
        self.llama = open_reranker(
            model_name_or_path,
            n_ctx=max_length,
            filename=filename,
            revision=revision,
            token=token if isinstance(token, str) else None,
            cache_dir=cache_folder or cache_dir,
            local_files_only=local_files_only,
            on_gpu=is_gpu(device),
        )

    @property
    def max_length(self) -> int:
        """The longest pair in tokens; ``max_seq_length`` is its name since sentence-transformers 5.4."""
        return self.llama.n_ctx

    @max_length.setter
    def max_length(self, value: int) -> None:
        if value != self.llama.n_ctx:
            raise InputError(
                f"max_length is {self.llama.n_ctx}, and is chosen when the model is loaded: make a new "
                f"CrossEncoder(..., max_length={value!r})"
            )

    max_seq_length = max_length

    def predict(
        self,
        inputs: Pairs | None = None,
        *,
        sentences: Pairs | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        num_workers: int = 0,
        activation_fn: Callable[[Any], Any] | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        activation_fct: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> Any:
        """Scores of pairs, in input order.

        Args:
            inputs: pairs of texts, or one pair; ``sentences`` is its name before sentence-transformers 5.4.
            activation_fn: in the place of the model's, for this call; ``activation_fct`` is its old name.
            convert_to_numpy, convert_to_tensor: choose the result; both kinds of tensors need torch.
            batch_size, show_progress_bar, num_workers, apply_softmax: accepted, without effect: batches are
                made by tokens, and a softmax over one label is none.
            options: ``device`` and ``chunk_size`` are accepted, without effect: the model stays where it was
                loaded.

        Returns:
            As in the original: an array of shape (n,), float32; with ``convert_to_tensor=True`` a tensor of
            the same shape; with ``convert_to_numpy=False`` a list of tensors without dimensions. Of one pair
            its item alone.

        Raises:
            InputError: not pairs of strings, a batch size below 1, tensors without torch, or ``prompt``,
                ``prompt_name`` or ``pool``.
        """
        check_options("predict", options)
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, found {batch_size}")
        if (inputs is None) == (sentences is None):
            raise InputTypeError("predict takes pairs, as its first argument, inputs or sentences; once")
        pairs = listed(inputs if sentences is None else sentences)
        is_one_pair = bool(pairs) and not isinstance(pairs[0], (list, tuple))
        scores = self._scores([pairs] if is_one_pair else pairs, activation_fn or activation_fct)
        result = _converted(scores, as_numpy=convert_to_numpy, as_tensor=convert_to_tensor)
        return result[0] if is_one_pair else result

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        *,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        num_workers: int = 0,
        activation_fn: Callable[[Any], Any] | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        activation_fct: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Documents in order, best score first, ties in input order.

        Args:
            top_k: keep this many at most.
            return_documents: put the text beside the score.
            activation_fn, activation_fct, options: as for `predict`; other arguments are accepted, without
                effect.

        Returns:
            A dict a document: ``corpus_id`` (its place in the input), ``score`` (a float), and ``text``.

        Raises:
            InputError: not strings, or what `predict` refuses.
        """
        check_options("rank", options)
        texts = list(check_texts(documents, "document"))
        pairs = [(query, text) for text in texts]
        activation_fn = activation_fn or activation_fct
        scores = self.predict(pairs, batch_size=batch_size, activation_fn=activation_fn).tolist()
        results = [
            {"corpus_id": i, "score": score, **({"text": texts[i]} if return_documents else {})}
            for i, score in enumerate(scores)
        ]
        return sorted(results, key=lambda result: result["score"], reverse=True)[:top_k]

    def _scores(
        self, pairs: list[Any], activation_fn: Callable[[Any], Any] | None
    ) -> NDArray[np.floating[Any]]:
        if not pairs:
            return np.array([])  # float64, as the original's
        values = logits(self.llama, pairs)
        activation_fn = activation_fn or self.activation_fn
        return sigmoid(values) if activation_fn is None else _activated(values, activation_fn)


def _activated(values: NDArray[np.float32], activation_fn: Callable[[Any], Any]) -> NDArray[np.float32]:
    """Whoever has an activation of torch's has loaded torch, and the function expects a tensor."""
    torch = sys.modules.get("torch")
    column: Any = values[:, np.newaxis]
    scores = np.asarray(activation_fn(column if torch is None else torch.from_numpy(column)), np.float32)
    if scores.size != len(values):
        raise InputError(f"activation_fn must give a score a pair: {len(values)}, found shape {scores.shape}")
    return scores.reshape(len(values))


def _converted(scores: NDArray[np.floating[Any]], *, as_numpy: bool, as_tensor: bool) -> Any:
    if as_numpy and not as_tensor:
        return scores
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "convert_to_tensor=True and convert_to_numpy=False give torch tensors, and torch is not "
            "installed. Leave both out and take the NumPy array, or pip install torch."
        ) from error
    tensor = torch.from_numpy(scores.astype(np.float32))
    return tensor if as_tensor else list(tensor)
