"""How a file pools, how it pairs a query with a document, and which of its outputs is the score."""

from __future__ import annotations

from collections.abc import Iterator

from ggrank.errors import ModelModeError, warn
from ggrank.gguf import GgufFile
from ggrank.text.pairing import PairFormat, TextFrame, bert_pair, roberta_pair, template_pair
from ggrank.types import Engine, PoolingType, Scale, SpecialTokens

SOFTMAX_ARCHITECTURES = ("qwen3", "qwen3vl")
"""Architectures whose rank head ends in a softmax: ``build_pooling`` in llama.cpp's ``llama-graph.cpp``."""

_NOT_WORDPIECE = ("multilingual-e5", "paraphrase-multilingual-minilm")
"""BertModels with XLM-R's tokenizer: llama.cpp's converter gives every BertModel a WordPiece vocabulary."""

YES_LABELS = ("yes", "true", "1", "relevant")


def choose_pooling(file: GgufFile, *, asked: PoolingType | None, preset: PoolingType | None) -> PoolingType:
    """The pooling to load with: the caller's, else the file's, else the preset's, else RANK if it has a head.

    UNSPECIFIED if none is known, which `ggrank.gguf.check_usable` refuses.
    """
    answers = (asked, file.pooling_type, preset, PoolingType.RANK if file.has_head else None)
    known = (one for one in answers if one is not None and one is not PoolingType.UNSPECIFIED)
    return next(known, PoolingType.UNSPECIFIED)


def warn_of_doubts(file: GgufFile, pooling: PoolingType) -> None:
    """Warns of a file whose scores or vectors are not the original model's."""
    for doubt in _doubts(file, pooling):
        warn(f"{file.path.name} {doubt}")


def _doubts(file: GgufFile, pooling: PoolingType) -> Iterator[str]:
    if pooling is not PoolingType.RANK and file.pooling_type is PoolingType.RANK:
        yield (
            f"is a reranker; with pooling_type {pooling.name.lower()} it gives vectors that it was not "
            "trained to give. Use pooling_type rank, and rank with it."
        )
    is_bert = (file.architecture, file.tokenizer_model) == ("bert", "bert")
    if pooling is PoolingType.RANK and is_bert and "cls.weight" not in file.tensors:
        yield (
            "has lost its pooler (no cls.weight): the original BERT model has a dense layer and tanh before "
            "its last one, so these scores are not the original's and may rank badly. Convert the original "
            "with 'ggrank convert', which keeps it."
        )
    # Known faults in published conversions of certain models.
    name = f"{file.metadata.get('general.name')} {file.path.name}".lower().replace(" ", "-").replace("_", "-")
    is_granite = file.architecture == "modern-bert" and "granite" in name and "multilingual" in name
    if is_granite and "modern-bert.hidden_activation" not in file.metadata:
        yield (
            "does not say which activation it was trained with (no modern-bert.hidden_activation): llama.cpp "
            "takes GELU, and if it was SiLU the vectors are far from the original's. Use a newer conversion, "
            "such as 'granite-embedding-97m-multilingual-r2'."
        )
    if file.tokenizer_model == "bert" and any(one in name for one in _NOT_WORDPIECE):
        yield (
            "has a WordPiece vocabulary, but this model was trained with SentencePiece's: its tokens are "
            "wrong, and its vectors useless. Use a right conversion, such as 'multilingual-e5-small'."
        )
    if file.architecture == "gemma-embedding" and "dense_2.weight" not in file.tensors:
        yield (
            "lacks the two dense layers that EmbeddingGemma ends in (no dense_2.weight): its vectors are not "
            "the original's. Use a conversion that kept them, such as 'embeddinggemma-300m'."
        )


def logit_column(file: GgufFile, n_outputs: int) -> int:
    """The position of the score in a rank head's outputs: the only one, or the one labelled "yes"."""
    labels = [label.lower() for label in file.labels]
    if file.architecture in SOFTMAX_ARCHITECTURES and n_outputs < 2:
        raise ModelModeError(
            f"{file.path.name} ends in a softmax over one output, which is always 1; a reranker of this kind "
            "needs two, yes and no. Use another conversion of this model."
        )
    if n_outputs == 1:
        return 0
    for word in YES_LABELS:
        if word in labels:
            return labels.index(word)
    if file.architecture in SOFTMAX_ARCHITECTURES:
        return 0  # llama.cpp's own converter writes yes first.
    raise ModelModeError(
        f"{file.path.name} is a classifier with {n_outputs} outputs ({', '.join(file.labels) or 'unnamed'}), "
        "not a reranker: a reranker has one, or one named 'yes'."
    )


def pair_format(file: GgufFile, engine: Engine) -> PairFormat:
    """The format in which this model was trained to read a query and a document."""
    special = engine.special
    if file.rerank_template:
        return template_pair(
            file.rerank_template,
            control_tokens=engine.control_tokens(),
            tokenize_template=lambda text: engine.tokenize(text, parse_special=True),
        )
    if file.tokenizer_model == "bert":
        return bert_pair(special)
    if file.tokenizer_model == "t5":
        return roberta_pair(special)
    if file.tokenizer_model == "gpt2" and min(special.bos, special.eos) >= 0 and special.sep >= 0:
        ends_like_roberta = file.strings("tokenizer.ggml.tokens")[special.eos] == "</s>"
        return roberta_pair(special) if ends_like_roberta else bert_pair(special)
    raise ModelModeError(
        f"{file.path.name} does not say how to join a query and a document: no chat template named 'rerank', "
        f"and the tokenizer {file.tokenizer_model!r} ({file.tokenizer_pre or 'no pre'}) has no known pair "
        "format. Use a conversion that carries the template (Qwen3-Reranker's do)."
    )


def text_frame(file: GgufFile, special: SpecialTokens) -> TextFrame:
    """The special tokens before and after a single text; WordPiece models always have both."""
    if file.tokenizer_model == "bert":
        return TextFrame(head=(special.bos,), tail=(special.sep,))
    return TextFrame(
        head=(special.bos,) if special.add_bos and special.bos >= 0 else (),
        tail=(special.eos,) if special.add_eos and special.eos >= 0 else (),
    )


def own_scale(file: GgufFile) -> Scale:
    """The scale of a reranker's own scores: logits, or 0..1 where its head ends in a softmax."""
    return "probability" if file.architecture in SOFTMAX_ARCHITECTURES else "logit"
