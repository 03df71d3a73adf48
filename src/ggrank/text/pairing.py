"""A query and a document become one sequence, which is cut if it does not fit.

Every format has one shape::

    head  query  between  document  tail

    BERT, ModernBERT    [CLS]   q   [SEP]       d   [SEP]
    XLM-R, RoBERTa      <s>     q   </s></s>    d   </s>
    rerank template     the text of the file's own template around {query} and {document}

A template's text may touch the user's text without a special token between them (``<Query>: {query}``). The
original tokenizer sees both at once, so ``query_lead``, ``query_trail`` and ``document_lead`` are tokenised
together with the user's text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ggrank.errors import InputError, InputTooLongError, ModelFileError
from ggrank.types import SpecialTokens, TokenIds, TokenSequence, Truncate

Tokenize = Callable[[str], TokenIds]
"""Plain text to token ids; the text of a special token is plain text like any other."""

CHUNK_OVERLAP = 4
"""``truncate="chunk"``: neighbouring windows share one part in this many."""


@dataclass(frozen=True)
class PairFormat:
    """The token ids around a query and a document, and the template text that touches them."""

    head: tuple[int, ...]
    between: tuple[int, ...]
    tail: tuple[int, ...]
    query_lead: str = ""
    query_trail: str = ""
    document_lead: str = ""


@dataclass(frozen=True)
class TextFrame:
    """The special tokens before and after a single text."""

    head: tuple[int, ...]
    tail: tuple[int, ...]


def single_sequence(
    tokens: TokenIds, frame: TextFrame, *, n_ctx: int, name: str, truncate: Truncate
) -> TokenSequence:
    """A text between its special tokens, cut at its end to ``n_ctx`` tokens in total."""
    room = n_ctx - len(frame.head) - len(frame.tail)
    if len(tokens) > room and truncate == "error":
        raise InputTooLongError(
            f"{name} has {len(tokens)} tokens; n_ctx {n_ctx} leaves room for {room}",
            "Shorten it, load the model with a larger n_ctx, or set truncate to end.",
        )
    framed = np.concatenate([_ids(frame.head), tokens[:room], _ids(frame.tail)])
    if len(framed) == 0:
        raise InputError(f"{name} is empty, and this model adds no special tokens: nothing to compute")
    return TokenSequence(tokens=framed, truncated=len(tokens) > room)


def _ids(tokens: tuple[int, ...]) -> TokenIds:
    return np.array(tokens, dtype=np.int32)


def bert_pair(special: SpecialTokens) -> PairFormat:
    """``[CLS] q [SEP] d [SEP]``."""
    return PairFormat(head=(special.bos,), between=(special.sep,), tail=(special.sep,))


def roberta_pair(special: SpecialTokens) -> PairFormat:
    """``<s> q </s></s> d </s>``, two ``</s>``, whatever the file's ``add_sep_token`` says.

    Source: ``build_inputs_with_special_tokens`` of RoBERTa's and XLM-R's tokenizers in transformers.
    """
    eos = special.eos
    return PairFormat(head=(special.bos,), between=(eos, eos), tail=(eos,))


def template_pair(template: str, *, control_tokens: Iterable[str], tokenize_template: Tokenize) -> PairFormat:
    """The format that a chat template named ``rerank`` describes.

    Args:
        template: text with ``{query}`` and ``{document}``, in this order, once each.
        control_tokens: the texts of the vocabulary's special tokens, such as ``<|im_end|>``.
        tokenize_template: tokenises the template's own text, with special tokens.
    """
    before, found_query, rest = template.partition("{query}")
    middle, found_document, after = rest.partition("{document}")
    if not (found_query and found_document) or "{query}" in after or "{document}" in before:
        raise ModelFileError(
            "the file's chat template 'rerank' should hold {query} and then {document}, once each; "
            f"found {template[:200]!r}. Use another conversion of this model."
        )
    control = tuple(control_tokens)
    head, query_lead = _split_after_last(before, control)
    query_trail, between, document_lead = _split_middle(middle, control)
    return PairFormat(
        head=tuple(tokenize_template(head).tolist()),
        between=tuple(tokenize_template(between).tolist()),
        tail=tuple(tokenize_template(after).tolist()),
        query_lead=query_lead,
        query_trail=query_trail,
        document_lead=document_lead,
    )


def _split_after_last(text: str, control: tuple[str, ...]) -> tuple[str, str]:
    end = max((text.rfind(token) + len(token) for token in control if token in text), default=0)
    return text[:end], text[end:]


def _split_middle(text: str, control: tuple[str, ...]) -> tuple[str, str, str]:
    """The text that touches the query, the text between special tokens, the text that touches the document.

    Text without a special token is split before its last space: byte-pair tokenizers of the GPT family join a
    space to the word after it, never to the one before it.
    """
    start = min((text.find(token) for token in control if token in text), default=None)
    if start is None:
        trail = text.rstrip(" ")
        return trail, "", text[len(trail) :]
    between, document_lead = _split_after_last(text[start:], control)
    return text[:start], between, document_lead


@dataclass(frozen=True)
class PairBuilder:
    """Makes sequences of at most ``n_ctx`` tokens from queries and documents in one format."""

    format: PairFormat
    n_ctx: int
    tokenize: Tokenize
    detokenize: Callable[[TokenIds], str]

    def query_part(self, query: str, *, truncate: Truncate) -> TokenSequence:
        """Everything before a document, which is the same for a whole list.

        The query is cut only if it is longer than three quarters of ``n_ctx``.
        """
        limit = 3 * self.n_ctx // 4
        tokens = self.tokenize(query)
        part = self._with_template(query) if self._touches_query else self._framed(tokens)
        if len(tokens) <= limit and len(part) + len(self.format.tail) <= self.n_ctx:
            return TokenSequence(tokens=part, truncated=False)
        if truncate == "error":
            raise InputTooLongError(
                f"the query has {len(tokens)} tokens; three quarters of n_ctx {self.n_ctx} is {limit}",
                "Shorten it, load the model with a larger n_ctx, or set truncate to end.",
                is_query=True,
            )
        return TokenSequence(tokens=self._cut_query(tokens, limit), truncated=True)

    def pairs(
        self, query: TokenSequence, document: str, *, name: str, truncate: Truncate
    ) -> list[TokenSequence]:
        """The sequences that score a document: one, or with "chunk" one for each window of it.

        Args:
            query: its part, from `query_part`.
            name: of the document in errors.
        """
        tokens = self.tokenize(self.format.document_lead + document)
        room = self.n_ctx - len(query.tokens) - len(self.format.tail)
        if len(tokens) <= room:
            return [self._sequence(query, tokens, truncated=query.truncated)]
        if truncate == "error":
            raise InputTooLongError(
                f"{name} has {len(tokens)} tokens and the query with its special tokens {len(query.tokens)}; "
                f"n_ctx {self.n_ctx} leaves room for {room} of the document",
                "Shorten it, load the model with a larger n_ctx, or set truncate to end or chunk.",
            )
        if truncate == "chunk" and room > 0:
            windows = _windows(tokens, room)
            return [self._sequence(query, window, truncated=query.truncated) for window in windows]
        return [self._sequence(query, tokens[: max(room, 0)], truncated=True)]

    def _sequence(self, query: TokenSequence, document: TokenIds, *, truncated: bool) -> TokenSequence:
        tokens = np.concatenate([query.tokens, document, _ids(self.format.tail)])
        return TokenSequence(tokens=tokens, truncated=truncated)

    @property
    def _touches_query(self) -> bool:
        return bool(self.format.query_lead or self.format.query_trail)

    def _with_template(self, query: str) -> TokenIds:
        return self._framed(self.tokenize(self.format.query_lead + query + self.format.query_trail))

    def _framed(self, query: TokenIds) -> TokenIds:
        return np.concatenate([_ids(self.format.head), query, _ids(self.format.between)])

    def _cut_query(self, tokens: TokenIds, limit: int) -> TokenIds:
        """Keeps the query's beginning: as text if template text touches it, else as tokens."""
        room = self.n_ctx - len(self.format.tail)
        keep = min(limit, room - len(self._with_template("")))
        if not self._touches_query:
            return self._framed(tokens[: max(keep, 0)])
        while keep >= 0:
            part = self._with_template(self.detokenize(tokens[:keep]))
            if len(part) <= room:
                return part
            keep -= len(part) - room
        raise InputError(
            f"n_ctx {self.n_ctx} has no room for the model's own template; load it with a larger n_ctx."
        )


def _windows(tokens: TokenIds, width: int) -> list[TokenIds]:
    """Overlapping windows of ``width`` tokens that cover all; the last one ends with the text."""
    step = max(width - width // CHUNK_OVERLAP, 1)
    starts = [*range(0, max(len(tokens) - width, 0), step), len(tokens) - width]
    return [tokens[start : start + width] for start in starts]
