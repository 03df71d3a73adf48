"""Remote models: the published examples of each API, what goes wrong on the way, and ggrank's own server.

The first servers answer on loopback what the documentation of each API shows; the last is ours, whose answers
must equal those of the same models in this process.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggrank import (
    ClosedError,
    GgrankError,
    Index,
    InputError,
    InputTypeError,
    Llama,
    LlamaParams,
    ModelModeError,
    Pipeline,
    RemoteEmbedder,
    RemoteError,
    RemoteInputError,
    RemoteReranker,
)
from ggrank.remote.dialects import EMBED, RERANK
from ggrank.server import ServerSettings
from ggrank.server.service import Service
from remote_server import Answer, Stub, remote_server
from serving import EMBEDDER, RERANKER, running, wait_until

PAGE = Path(__file__).resolve().parent.parent / "docs" / "remote.md"
SECRET = "hf_" + "s3cr3T" * 5
QUERY = "What is Deep Learning?"
DOCUMENTS = ["Deep Learning is not...", "Deep learning is...", "Llamas graze."]

PUBLISHED = json.loads((Path(__file__).parent / "data" / "remote_answers.json").read_text("utf-8"))
"""The examples that each API's documentation shows."""
TEI_INFO = PUBLISHED["tei_info"]


@pytest.fixture
def server() -> Iterator[Stub]:
    with remote_server() as stub:
        yield stub


def tei_scores(body: dict[str, Any]) -> Answer:
    """Each text's own number, worst first: a client that takes the answer's order gets it wrong."""
    ranks = [{"index": i, "score": float(text)} for i, text in enumerate(body["texts"])]
    return Answer(sorted(ranks, key=lambda rank: float(str(rank["score"]))))


def reranker(server: Stub, dialect: str = "tei", **options: Any) -> RemoteReranker:
    key = f"{SECRET}\n"  # as a file ends
    return RemoteReranker(server.url, **{"api_key": key, "dialect": dialect, "model": "m", **options})


# What each API documents

NAMED = {"model": "me/my model", "query": QUERY, "documents": DOCUMENTS}
ALONE = {**NAMED, "return_documents": False}
UNNAMED = {"inputs": {"query": QUERY, "texts": DOCUMENTS}}
COHERE_SCORES = [0.32713068, 0.999071, 0.1867867]
LOGITS = [-1.10701847, 6.5, -10.25]


@pytest.mark.parametrize(
    ("dialect", "path", "answer", "scores", "scale", "body"),
    [
        ("cohere", "/v2/rerank", PUBLISHED["cohere"], COHERE_SCORES, "probability", NAMED),
        ("jina", "/v1/rerank", PUBLISHED["jina"], [0.8783142567, 0.1, 0.762467587], "probability", ALONE),
        ("jina-logits", "/v1/rerank", PUBLISHED["llama_server"], LOGITS, "logit", ALONE),
        ("llama-server", "/v1/reranking", PUBLISHED["llama_server"], LOGITS, "logit", NAMED),
        (
            "huggingface",
            "/models/me/my%20model/pipeline/text-ranking",
            PUBLISHED["hugging_face"],
            [0.00027905524, 0.83948773, 0.5],
            "probability",
            UNNAMED,
        ),
    ],
)
def test_scores_come_in_input_order_and_the_model_is_never_renamed(
    server: Stub,
    dialect: str,
    path: str,
    answer: Any,
    scores: list[float],
    scale: str,
    body: dict[str, Any],
) -> None:
    server.on(path, Answer(answer))
    remote = reranker(server, dialect, model="me/my model")
    found = remote.rerank(QUERY, DOCUMENTS)
    np.testing.assert_allclose(found, scores, rtol=1e-6)
    assert (found.dtype, remote.score_scale, remote.model) == (np.float32, scale, "me/my model")
    assert (server.seen[0].body, server.seen[0].key) == (body, f"Bearer {SECRET}")


INPUT = {"model": "m", "input": ["a", "b"]}
INPUTS = {"inputs": ["a", "b"], "normalize": False, "truncate": True}
VECTORS = [[3, 0, 4], [0, 2.0, 0]]


@pytest.mark.parametrize(
    ("dialect", "path", "answer", "body"),
    [
        ("openai", "/v1/embeddings", PUBLISHED["openai"], {**INPUT, "encoding_format": "base64"}),
        ("openai", "/v1/embeddings", PUBLISHED["openai_base64"], {**INPUT, "encoding_format": "base64"}),
        ("llama-server", "/v1/embeddings", PUBLISHED["openai"], {**INPUT, "embd_normalize": -1}),
        ("tei", "/embed", VECTORS, INPUTS),
        ("huggingface", "/models/m/pipeline/feature-extraction", VECTORS, INPUTS),
    ],
)
def test_vectors_come_in_input_order_and_of_length_1_unless_asked_otherwise(
    server: Stub, dialect: str, path: str, answer: Any, body: dict[str, Any]
) -> None:
    server.on(path, Answer(answer))
    remote = RemoteEmbedder(server.url, model="m", dialect=dialect)
    np.testing.assert_allclose(remote.embed_many(["a", "b"], normalize=False), [[3, 0, 4], [0, 2, 0]])
    assert server.seen[0].body == body
    np.testing.assert_allclose(remote.embed_many(["a", "b"]), [[0.6, 0, 0.8], [0, 1, 0]], rtol=1e-6)
    assert remote.n_embd == 3


def test_tei_is_sent_prefixes_and_asked_to_refuse_what_is_too_long(server: Stub) -> None:
    server.on("/embed", Answer([[1.0, 0.0]]))
    RemoteEmbedder(server.url, dialect="tei").embed("a", prefix="query: ", truncate="error")
    assert server.seen[0].body == {"inputs": ["query: a"], "normalize": True, "truncate": False}


@pytest.mark.parametrize(
    ("url", "dialect"),
    [
        ("https://api.cohere.com", "cohere"),
        ("https://api.cohere.ai/v1", "cohere"),
        ("https://api.jina.ai/v1", "jina"),
        ("https://router.huggingface.co", "huggingface"),
    ],
)
def test_a_hosted_service_is_known_by_its_address_without_asking(url: str, dialect: str) -> None:
    with RemoteReranker(url, model="m", retries=0) as remote:
        assert (remote.dialect, remote.model) == (dialect, "m")
    with RemoteEmbedder(url, model="m", retries=0) as embedder:
        assert embedder.dialect == ("huggingface" if dialect == "huggingface" else "openai")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (RemoteReranker, {"base_url": "https://api.cohere.com"}),
        (RemoteReranker, {"base_url": "http://localhost", "dialect": "jina-logits"}),
        (RemoteEmbedder, {"base_url": "https://api.openai.com/v1"}),
        (RemoteEmbedder, {"base_url": "http://localhost", "dialect": "huggingface"}),
    ],
)
def test_a_dialect_that_needs_a_model_says_so(kind: Any, options: dict[str, str]) -> None:
    with pytest.raises(InputError, match="needs the model's name at the service: give model"):
        kind(**options).rank("q", ["a"])
    assert RemoteReranker().model == "BAAI/bge-reranker-v2-m3"  # Hugging Face's, unless another is named


# Finding the dialect


def test_tei_is_known_by_its_info_and_asked_for_raw_scores_of_as_many_texts_as_it_takes(
    server: Stub,
) -> None:
    server.on("/info", Answer(TEI_INFO))
    server.on("/rerank", tei_scores)
    with RemoteReranker(server.url) as remote:
        assert remote.rerank("q", ["3", "-1", "2", "7.5", "0"]).tolist() == [3, -1, 2, 7.5, 0]
        assert (remote.dialect, remote.score_scale) == ("tei", "logit")
    assert [seen.body for seen in server.asked("/rerank")] == [
        {"query": "q", "texts": texts, "raw_scores": True, "truncate": True}
        for texts in (["3", "-1"], ["2", "7.5"], ["0"])
    ]


def test_llama_server_is_known_by_its_list_of_models(server: Stub) -> None:
    server.on("/v1/models", Answer(PUBLISHED["llama_server_models"]))
    server.on("/v1/reranking", Answer(PUBLISHED["llama_server"]))
    with RemoteReranker(f"{server.url}/v1/") as remote:
        ranking = remote.rank("q", DOCUMENTS, top_n=2, score="sigmoid")
    assert [ranked.index for ranked in ranking] == [1, 0]
    assert (ranking.scale, ranking.n_tokens) == ("sigmoid", 10)
    assert (ranking[0].logit, ranking[0].document) == (6.5, DOCUMENTS[1])
    assert ranking[0].score == pytest.approx(1 / (1 + np.exp(-6.5)))


def test_the_dialect_is_asked_for_once_however_many_threads_begin(server: Stub) -> None:
    server.on("/info", Answer(TEI_INFO))
    server.on("/rerank", tei_scores)
    with RemoteReranker(server.url) as remote, ThreadPoolExecutor(8) as pool:
        lists = [[str(i), str(-i), "0.5"] for i in range(24)]
        found = list(pool.map(lambda texts: remote.rerank("q", texts).tolist(), lists))
    assert found == [[i, -i, 0.5] for i in range(24)]
    assert len(server.asked("/info")) == len(server.asked("/v1/models")) == 1


@pytest.mark.parametrize("info", [{}, {"model_id": "x"}, ["a list"], None])
def test_a_server_that_says_nothing_of_itself_is_a_clear_error(server: Stub, info: Any) -> None:
    server.on("/v1/models", Answer(info))
    server.on("/info", Answer(info))
    with pytest.raises(
        RemoteError, match=r"does not say which dialect.*name the dialect: one of 'ggrank', 'tei'"
    ):
        RemoteReranker(server.url).rerank("q", ["a"])


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answer({"error": "db down"}, status=500), "answered 500: db down"),
        (
            Answer("", status=301, headers={"Location": "https://there/v1/models"}),
            "moved to https://there/v1",
        ),
        (
            Answer("", status=308, headers={"Location": "/login?next=1"}),
            "moved to http://127.0.0.1:.*/login. G",
        ),
        (Answer("", status=304), "answered 304: no reason given"),
        (
            Answer("<html><style>p{}</style><h1>Sign\nin.</h1></html>"),
            "something else than JSON: Sign in. Check base_url",
        ),
    ],
)
def test_the_error_for_a_server_that_does_not_say_what_it_is_has_its_own_words(
    server: Stub, answer: Answer, says: str
) -> None:
    server.on("/v1/models", answer)
    server.on("/info", answer)
    for kind in (RemoteReranker, RemoteEmbedder):
        with pytest.raises(RemoteError, match=says):
            kind(server.url, retries=0).rank("q", ["a"])


@pytest.mark.parametrize("path", ["/rerank", "/v2/rerank/", "/v1/embeddings"])
@pytest.mark.parametrize("dialect", ["auto", "tei"])
def test_the_error_for_an_address_with_a_request_s_path_names_the_right_one(
    ours: str, path: str, dialect: Any
) -> None:
    right = ours.rstrip("/")
    for call in (
        lambda url: RemoteReranker(url, api_key=SECRET, dialect=dialect).rerank("q", ["a"]),
        lambda url: RemoteEmbedder(url, api_key=SECRET, dialect=dialect).embed("a"),
    ):
        with pytest.raises(RemoteError, match=f"base_url ends in {path.rstrip('/')}, .* give {right}$"):
            call(right + path)
        assert len(call(right)) > 0


def test_an_openai_server_is_enough_to_embed_and_not_to_rerank(server: Stub) -> None:
    server.on("/v1/models", Answer({"object": "list", "data": [{"id": "m", "owned_by": "me"}]}))
    with pytest.raises(RemoteError, match="speak 'jina'"):
        RemoteReranker(server.url).rerank("q", ["a"])
    assert RemoteEmbedder(server.url, model="m").dialect == "openai"


def test_a_server_that_was_down_is_asked_again_by_the_next_call(server: Stub) -> None:
    server.on("/rerank", tei_scores)
    server.on("/v1/models", Answer("down", status=500), Answer("nothing here", status=404))
    remote = RemoteReranker(server.url, retries=0)
    with pytest.raises(RemoteError):
        remote.rerank("q", ["1"])
    server.on("/info", Answer(TEI_INFO))
    assert remote.rerank("q", ["1"]).tolist() == [1]


@pytest.mark.parametrize(
    ("kind", "model_type"),
    [(RemoteReranker, {"embedding": {"pooling": "cls"}}), (RemoteEmbedder, TEI_INFO["model_type"])],
)
def test_a_server_with_a_model_for_the_other_job_is_refused(
    server: Stub, kind: Any, model_type: object
) -> None:
    server.on("/info", Answer({**TEI_INFO, "model_type": model_type}))
    with pytest.raises(ModelModeError, match="BAAI/bge-reranker-large is served as"):
        kind(server.url).rank("q", ["a"])


# Scores that do not fit

GOOD = [{"index": 0, "score": 1.0}, {"index": 1, "score": 2.0}]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (GOOD[:1], r"one score for each of 2 documents, .* positions \[0\]"),
        ([], r"positions \[\]"),
        ([*GOOD, {"index": 2, "score": 1.0}], r"positions \[0, 1, 2\]"),
        ([*GOOD, {"index": 1, "score": 1.0}], r"positions \[0, 1, 1\]"),
        ([GOOD[0], {"index": -1, "score": 1.0}], r"positions \[0, -1\]"),
        ([GOOD[0], {"index": True, "score": 1.0}], r"positions \[0, True\]"),
        ([GOOD[0], {"index": "1", "score": 1.0}], r"positions \[0, '1'\]"),
        ([GOOD[0], {"score": 1.0}], r"positions \[0, None\]"),
        ([GOOD[0], 1.0], r"positions \[0, None\]"),
        ([GOOD[0], {"index": 1, "score": None}], "finite number"),
        ([GOOD[0], {"index": 1, "score": "0.5"}], "finite number"),
        ([GOOD[0], {"index": 1, "score": True}], "finite number"),
        ([GOOD[0], {"index": 1}], "finite number"),
        ([GOOD[0], {"index": 1, "score": float("nan")}], "finite number"),
        ([GOOD[0], {"index": 1, "score": float("inf")}], "finite number"),
        ([GOOD[0], {"index": 1, "score": 1e39}], "finite number"),
        ({"results": GOOD}, "should hold a list"),
        (None, "should hold a list"),
        (b"[[[", "something else than JSON"),
        (b"[" * 100_000, "something else than JSON"),
        (b"\xff\xfe\x00", "something else than JSON"),
        (b"<html><body>It works!</body></html>", "something else than JSON"),
        (b"", "something else than JSON: no reason given"),
    ],
)
def test_scores_that_are_missing_extra_or_no_numbers_raise(server: Stub, answer: Any, says: str) -> None:
    server.on("/rerank", Answer(answer))
    with pytest.raises(RemoteError, match=says):
        reranker(server).rerank("q", ["a", "b"])


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ([[1.0, 2.0]], r"one vector for each of 2 texts, .* positions \[0\]"),
        ([[1.0, 2.0]] * 3, r"positions \[0, 1, 2\]"),
        ([[1.0, 2.0], [1.0]], "vectors of 1 and 2 numbers"),
        ([[1.0, 2.0], []], "should be a list of finite numbers"),
        ([[1.0, 2.0], None], "should be a list of finite numbers"),
        ([[1.0, 2.0], [1.0, None]], "should be a list of finite numbers"),
        ([[1.0, 2.0], [1.0, "2"]], "should be a list of finite numbers"),
        ([[1.0, 2.0], [1.0, float("nan")]], "finite number"),
        ([[1.0, 2.0], [1.0, 1e39]], "finite number"),
        ([[1.0, 2.0], [[1.0], [2.0]]], "should be a list of finite numbers"),
        ([[1.0, 2.0], [[1.0], [2.0, 3.0]]], "should be a list of finite numbers"),
        ([[1.0, 2.0], "AAAA"], "base64"),
        ([[1.0, 2.0], "%%%"], "base64"),
        ([[1.0, 2.0], base64.b64encode(np.float32([1, np.nan]).tobytes()).decode()], "finite numbers"),
    ],
)
def test_vectors_that_are_missing_extra_or_no_numbers_raise(server: Stub, answer: Any, says: str) -> None:
    server.on("/embed", Answer(answer))
    with pytest.raises(RemoteError, match=says):
        RemoteEmbedder(server.url, dialect="tei").embed_many(["a", "b"])


def test_vectors_of_another_width_in_a_later_request_raise(server: Stub) -> None:
    server.on("/embed", Answer([[1.0, 2.0]]), Answer([[1.0]]))
    with pytest.raises(RemoteError, match="vectors of 1 and 2 numbers"):
        RemoteEmbedder(server.url, dialect="tei", batch_size=1).embed_many(["a", "b"])


@settings(max_examples=20)
@given(
    scores=st.lists(st.floats(-1e6, 1e6, width=32), max_size=40),
    batch_size=st.integers(1, 12),
    threshold=st.none() | st.floats(-10, 10, width=32),
    top_n=st.none() | st.integers(1, 50),
)
def test_whatever_the_batches_scores_keep_their_places(
    server: Stub, scores: list[float], batch_size: int, threshold: float | None, top_n: int | None
) -> None:
    server.on("/rerank", tei_scores)
    with reranker(server, batch_size=batch_size) as remote:
        texts = [str(score) for score in scores]
        assert remote.rerank("q", iter(texts)).tolist() == scores
        ranking = remote.rank("q", texts, threshold=threshold, top_n=top_n)
    best = sorted(range(len(scores)), key=lambda i: -scores[i])
    kept = [i for i in best if threshold is None or scores[i] >= threshold][:top_n]
    assert [(one.index, one.score, one.logit, one.document) for one in ranking] == [
        (i, scores[i], scores[i], texts[i]) for i in kept
    ]
    assert all(len(seen.body["texts"]) <= batch_size for seen in server.seen)
    server.seen.clear()


@pytest.mark.parametrize(("dialect", "path"), [("jina", "/v1/rerank"), ("cohere", "/v2/rerank")])
@pytest.mark.parametrize("score", [7.0, -2.5])
def test_logits_where_a_dialect_has_0_to_1_are_refused_with_the_dialect_for_them(
    server: Stub, dialect: str, path: str, score: float
) -> None:
    answer = {"results": [{"index": 1, "relevance_score": score}, {"index": 0, "relevance_score": 0.5}]}
    for served in (path, "/v1/rerank"):
        server.on(served, Answer(answer))
    with pytest.raises(
        RemoteError, match=rf"'{dialect}' .* document 1 the score {score:g}\. .*'jina-logits'"
    ):
        reranker(server, dialect).rank("q", ["a", "b"], score="sigmoid")
    remote = reranker(server, "jina-logits")
    assert remote.rerank("q", ["a", "b"]).tolist() == [0.5, score]
    assert remote.score_scale == "logit"
    ranking = remote.rank("q", ["a", "b"], score="sigmoid")
    assert [one.score for one in ranking] == pytest.approx(
        sorted((1 / (1 + np.exp(-logit)) for logit in (0.5, score)), reverse=True)
    )


@pytest.mark.parametrize("score", [1.0, 0.0, -0.125])
def test_a_cosine_of_a_listwise_model_is_no_logit(server: Stub, score: float) -> None:
    server.on("/v1/rerank", Answer({"results": [{"index": 0, "relevance_score": score}]}))
    assert reranker(server, "jina").rerank("q", ["a"]).tolist() == [score]


# What goes wrong on the way


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"error": "Model is overloaded", "error_type": "overloaded"}, "Model is overloaded"),
        ({"error": {"message": "too large to process", "type": "server_error"}}, "too large to process"),
        ({"message": "invalid api token"}, "invalid api token"),
        ({"detail": "Unauthenticated"}, "Unauthenticated"),
        ({"detail": [{"loc": ["body", "query"], "msg": "field required"}]}, "body.query: field required"),
        ("<html><head><style>x{}</style></head><h1>Oh\nno</h1></html>", ": Oh no."),
        ({"strange": 1}, "strange"),
        ("", "no reason given"),
        ("\x1b[31mred\x07", "red"),
        ("x" * 10_000, "x" * 400),
    ],
)
def test_an_error_keeps_the_server_s_message_and_status(server: Stub, body: Any, says: str) -> None:
    server.on("/rerank", Answer(body, status=500))
    with pytest.raises(RemoteError) as error:
        reranker(server).rerank("q", ["a"])
    assert says in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 700
    assert error.value.status == 500
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_server_finds_wrong_with_the_texts_is_an_input_error(server: Stub, status: int) -> None:
    server.on("/rerank", Answer({"error": "`inputs` must have less than 512 tokens"}, status=status))
    with pytest.raises(InputError, match="less than 512 tokens") as error:
        reranker(server).rerank("q", ["a"])
    assert isinstance(error.value, RemoteInputError)
    assert error.value.status == status


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again_a_bounded_number_of_times(server: Stub, status: int) -> None:
    busy = Answer({"error": "busy"}, status=status, headers={"Retry-After": "0"})
    server.on("/rerank", busy, busy, tei_scores)
    assert reranker(server).rerank("q", ["1"]).tolist() == [1]
    server.on("/rerank", busy)
    with pytest.raises(RemoteError, match=f"answered {status}: busy"):
        reranker(server, retries=2).rerank("q", ["1"])
    assert len(server.seen) == 3 + 3


@pytest.mark.parametrize(
    "value", ["0.05", "-3", "soon", "nan", "1e400", "Mon, 99 Foo", "", "Mon, 01 Jan 2024 00:00:00 GMT"]
)
def test_any_value_of_retry_after_leads_to_another_attempt(server: Stub, value: str) -> None:
    server.on("/rerank", Answer({}, status=503, headers={"Retry-After": value}), tei_scores)
    assert reranker(server).rerank("q", ["1"]).tolist() == [1]


def test_a_pause_that_is_too_long_is_not_waited_for(server: Stub) -> None:
    server.on("/rerank", Answer({"error": "quota"}, status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(RemoteError, match=r"quota.*a pause of 3600 s"):
        reranker(server).rerank("q", ["1"])
    assert len(server.seen) == 1


def test_an_answer_that_is_cut_off_is_asked_for_again(server: Stub) -> None:
    server.on("/rerank", Answer(GOOD, promised=500), tei_scores)
    assert reranker(server).rerank("q", ["1"]).tolist() == [1]
    server.on("/rerank", Answer(GOOD, promised=500))
    with pytest.raises(RemoteError, match="gave no answer") as error:
        reranker(server, retries=0).rerank("q", ["1"])
    assert error.value.status is None


def test_a_server_that_computes_for_ever_is_left(server: Stub) -> None:
    never = threading.Event()
    server.on("/rerank", Answer(GOOD, after=never))
    try:
        with pytest.raises(RemoteError, match=r"sent nothing for 0.2 s.*timeout"):
            reranker(server, timeout=0.2).rerank("q", ["1", "2"])
        wait_until(lambda: len(server.seen) > 0)  # the server may be the slower one
        assert len(server.seen) == 1
    finally:
        never.set()


def test_a_server_that_is_not_there_is_an_error() -> None:
    with socket.socket() as taken:  # bound and not listening: no other process gets the port
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RemoteError, match="Check base_url"):
            RemoteReranker(address, retries=0).rerank("q", ["1"])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(server: Stub, status: int) -> None:
    with remote_server() as other:
        other.on("/rerank", tei_scores)
        target = other.url.replace("127.0.0.1", "user:word@localhost") + "/rerank?token=1"
        server.on("/rerank", Answer(status=status, body="", headers={"Location": target}))
        with pytest.raises(RemoteError, match="it has moved to http://localhost:") as error:
            reranker(server).rerank("q", ["1"])
        assert other.seen == []
    assert "word" not in str(error.value)
    assert "token=1" not in str(error.value)


# The key


@pytest.mark.parametrize(
    "answer",
    [
        Answer({"error": f"bad key {SECRET}"}, status=401),
        Answer(f"Bearer {SECRET}", status=500),
        Answer(f"not JSON {SECRET}"),
        Answer([{"index": 0, "score": "x"}]),
        Answer(GOOD, promised=500),
    ],
)
def test_the_key_is_nowhere_to_be_seen(
    server: Stub, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.on("/rerank", Answer("busy", status=503, headers={"Retry-After": "0"}), answer)
    remote = reranker(server, retries=1)
    with pytest.raises(RemoteError) as error:
        remote.rerank("q", ["1"])
    assert server.seen[-1].key == f"Bearer {SECRET}"
    shown = "".join(traceback.format_exception(error.value))
    for text in (shown, str(error.value), repr(error.value), repr(remote), caplog.text, repr(vars(remote))):
        assert SECRET not in text
    chain = [error.value.__cause__, error.value.__context__]
    assert chain == [None, None]


ODD = "s3cr3T/+\"'\\%=" * 2
"""A key of characters that JSON, Python and addresses write in other ways."""


@pytest.mark.parametrize("key", [SECRET, ODD, "none"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda key: Answer({"headers": {"Authorization": f"Bearer {key}"}}),
        lambda key: Answer({"results": f"{'x ' * 20} {key}"}),
        lambda key: Answer({"results": [{"relevance_score": 1.0, "index": f"{'x' * 50} {key}"}]}),
        lambda key: Answer({"results": [{"index": 0, "relevance_score": key}]}),
        lambda key: Answer(json.dumps({"told": key}), status=400),
        lambda key: Answer(f"{'x' * 400} {key * 20}"),
        lambda key: Answer("", status=307, headers={"Location": f"http://there/{quote(key)}"}),
        lambda key: Answer("", status=302, headers={"Location": f"http://{quote(key, safe='')}.there/"}),
    ],
)
def test_a_key_that_the_server_sends_back_is_hidden_wherever_it_stands(
    server: Stub, wrap: Any, key: str
) -> None:
    for path in ("/v1/rerank", "/v1/embeddings", "/v1/models"):
        server.on(path, wrap(key))
    options: Any = {"api_key": key, "model": "m", "retries": 0}
    for remote in (
        RemoteReranker(server.url, dialect="jina", **options),
        RemoteReranker(server.url, **options),
        RemoteEmbedder(server.url, dialect="openai", **options),
    ):
        with pytest.raises(RemoteError) as error:
            remote.rank("q", ["a"])
        assert not re.search(r"s3cr3t|\bnone\b", str(error.value), re.IGNORECASE)


@pytest.mark.parametrize("named", [SECRET, f"me/{SECRET}"])
def test_a_model_s_name_that_is_the_key_is_hidden_too(server: Stub, named: str) -> None:
    meta = {"mode": "rerank", "score_scale": "probability"}
    server.on("/v1/models", Answer({"data": [{"id": named, "owned_by": "ggrank", "meta": meta}]}))
    calls: list[Any] = [
        lambda: RemoteReranker(server.url, api_key=SECRET, model="other").model,
        lambda: RemoteReranker(f"{server.url}/{named}", api_key=SECRET, dialect="tei").rank(
            "q", [], score="cosine"
        ),
        lambda: reranker(server, "huggingface", model=named).rerank("q", ["a"]),
    ]
    for call in calls:
        with pytest.raises(GgrankError, match=r"\*\*\*") as error:
            call()
        assert SECRET not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("key", [f"{SECRET}\nX: y", f"{SECRET}ü", f"{SECRET} x", "", " ", 7])
def test_a_key_that_no_header_can_hold_is_refused_unseen(key: Any) -> None:
    with pytest.raises(InputError) as error:
        RemoteReranker("http://localhost", api_key=key)
    assert SECRET not in str(error.value)


# Arguments


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"base_url": SECRET}, "http:// or https://"),
        ({"base_url": "ftp://x"}, "http:// or https://"),
        ({"base_url": "http://"}, "http:// or https://"),
        ({"base_url": "http://[::1"}, "http:// or https://"),
        ({"base_url": "http://x:99999"}, "http:// or https://"),
        ({"base_url": f"https://me:{SECRET}@host"}, "without user"),
        ({"base_url": f"https://host?key={SECRET}"}, "without user"),
        ({"base_url": 5}, "must be a string"),
        ({"dialect": "esperanto"}, "dialect must be one of 'auto', 'ggrank'"),
        ({"model": ""}, "model must be"),
        ({"model": 3}, "model must be"),
        ({"path": ""}, "path must be"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"retries": -1}, "retries"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": None}, "timeout"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused(options: Any, says: str) -> None:
    for kind in (RemoteReranker, RemoteEmbedder):
        with pytest.raises(InputError, match=says) as error:
            kind(**{"base_url": "http://localhost", **options})
        assert SECRET not in str(error.value)


def test_texts_are_checked_as_a_llama_checks_them(server: Stub) -> None:
    server.on("/rerank", tei_scores)
    remote = reranker(server)
    for documents in ("one string", ["1", 2], 5):
        with pytest.raises(InputTypeError):
            remote.rerank("q", documents)  # type: ignore[arg-type]
    with pytest.raises(InputTypeError):
        remote.rerank(None, ["1"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="top_n"):
        remote.rank("q", ["1"], top_n=0)
    with pytest.raises(InputError, match="threshold"):
        remote.rank("q", ["1"], threshold=float("nan"))
    with pytest.raises(InputError, match="truncate"):
        remote.rerank("q", ["1"], truncate="middle")  # type: ignore[arg-type]
    assert remote.rerank("q", []).shape == (0,)
    assert remote.score_pairs([]).shape == (0,)


def test_pairs_of_one_query_go_together_and_come_back_in_their_places(server: Stub) -> None:
    server.on("/rerank", tei_scores)
    scores = reranker(server).score_pairs([("a", "1"), ("b", "2"), ("a", "3")])
    assert scores.tolist() == [1, 2, 3]
    assert [seen.body["query"] for seen in server.seen] == ["a", "b"]


def test_a_score_or_a_cut_that_cannot_be_had_is_refused(server: Stub) -> None:
    server.on("/v2/rerank", Answer(PUBLISHED["cohere"]))
    server.on("/rerank", tei_scores)
    cohere, tei = reranker(server, "cohere"), reranker(server, "tei")
    for remote, score in ((cohere, "logit"), (cohere, "cosine"), (tei, "cosine")):
        with pytest.raises(ModelModeError, match=f"score.'{score}'"):
            remote.rank("q", DOCUMENTS, score=score)  # type: ignore[arg-type]
    for remote, truncate in ((cohere, "error"), (cohere, "chunk"), (tei, "chunk")):
        with pytest.raises(ModelModeError, match=f"truncate='{truncate}'"):
            remote.rank("q", DOCUMENTS, truncate=truncate)  # type: ignore[arg-type]
    assert server.seen == []
    ranking = cohere.rank("q", DOCUMENTS, score="sigmoid")
    assert (ranking.scale, ranking[0].logit) == ("probability", None)
    assert ranking[0].score == pytest.approx(0.999071)


def test_nothing_is_asked_before_the_first_call_nor_after_the_end(server: Stub) -> None:
    for kind in (RemoteReranker, RemoteEmbedder):
        with kind(server.url) as remote:
            pass
        remote.close()
        with pytest.raises(ClosedError):
            remote.rank("q", ["1"])
    assert server.seen == []


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_either_of_the_libraries_that_huggingface_hub_brings_is_enough(library: str) -> None:
    other = {"httpx": "httpx2", "httpx2": "httpx"}[library]
    code = (
        f"import sys; sys.modules[{other!r}] = None\n"
        "from ggrank import RemoteError, RemoteReranker\n"
        f"assert {library!r} not in sys.modules\n"
        "try: RemoteReranker('http://127.0.0.1:9', retries=0).rank('q', ['a'])\n"
        "except RemoteError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "gave no answer" in done.stdout


# Our own server, and the same models here

TEXTS = [
    "Llamas live in the Andes.",
    "",
    "Paris is a city in France.",
    "Llamas live in the Andes.",
    "naïve 日本語 🦙 \ud800",
    "word " * 600,
]


EXACT = 1e-6


def same(name: str) -> LlamaParams:
    """What both sides load. Each text is computed by itself: company in a micro-batch moves a logit by up to
    0.04 (docs/llama-cpp.md), and the server may pack texts otherwise than a call here does.
    """
    return LlamaParams(name, engine="llama.cpp", n_threads=1, n_seq_max=1)


@pytest.fixture(scope="module")
def ours() -> Iterator[str]:
    settings = ServerSettings(api_key=SECRET)
    service = Service(settings)
    service.load([same(EMBEDDER), same(RERANKER)])
    with running(service, settings) as client:
        yield str(client.base_url)


@pytest.fixture(scope="module")
def local_reranker() -> Iterator[Llama]:
    with Llama.load(same(RERANKER)) as llama:
        yield llama


@pytest.fixture(scope="module")
def local_embedder() -> Iterator[Llama]:
    with Llama.load(same(EMBEDDER)) as llama:
        yield llama


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("dialect", ["auto", "ggrank", "tei", "llama-server"])
def test_our_server_gives_the_scores_of_the_same_model_here(
    ours: str, local_reranker: Llama, dialect: Any, batch_size: int | None
) -> None:
    query, pairs = (
        "Where do llamas live?",
        [("llamas", TEXTS[0]), ("Paris", TEXTS[2]), ("llamas", ""), ("", "")],
    )
    with RemoteReranker(ours, api_key=SECRET, dialect=dialect, batch_size=batch_size) as remote:
        np.testing.assert_allclose(
            np.append(remote.rerank(query, TEXTS), remote.score_pairs(pairs)),
            np.append(local_reranker.rerank(query, TEXTS), local_reranker.score_pairs(pairs)),
            rtol=0,
            atol=EXACT,
        )
        assert (remote.score_scale, remote.mode) == (local_reranker.score_scale, local_reranker.mode)


@pytest.mark.parametrize("dialect", ["cohere", "jina"])
def test_our_server_gives_its_sigmoid_in_the_dialects_that_have_no_logits(
    ours: str, local_reranker: Llama, dialect: Any
) -> None:
    expected = local_reranker.rank("llamas", TEXTS, score="sigmoid")
    with RemoteReranker(ours, api_key=SECRET, model=RERANKER, dialect=dialect) as remote:
        found = remote.rank("llamas", TEXTS)
    assert found.scale == "probability"
    np.testing.assert_allclose([one.score for one in found], [one.score for one in expected], atol=EXACT)


@pytest.mark.parametrize(("score", "truncate"), [("auto", "end"), ("sigmoid", "end"), ("logit", "chunk")])
def test_our_server_gives_the_ranking_of_the_same_model_here(
    ours: str, local_reranker: Llama, score: Any, truncate: Any
) -> None:
    options: Any = {"score": score, "truncate": truncate, "top_n": 5, "threshold": -20.0}
    expected = local_reranker.rank("Where do llamas live?", TEXTS, **options)
    with RemoteReranker(ours, api_key=SECRET, model=RERANKER) as remote:
        found = remote.rank("Where do llamas live?", TEXTS, **options)
    assert (found.scale, found.n_tokens, len(found)) == (expected.scale, expected.n_tokens, len(expected))
    for one, other in zip(found, expected, strict=True):
        assert (one.index, one.document, one.truncated) == (other.index, other.document, other.truncated)
        assert (one.score, one.logit) == pytest.approx((other.score, other.logit), abs=EXACT)


@pytest.mark.parametrize(
    ("dialect", "normalize"), [("auto", True), ("auto", False), ("tei", False), ("llama-server", True)]
)
def test_our_server_gives_the_vectors_of_the_same_model_here(
    ours: str, local_embedder: Llama, dialect: Any, normalize: bool
) -> None:
    options: Any = {"prefix": "about: ", "normalize": normalize}
    with RemoteEmbedder(ours, api_key=SECRET, dialect=dialect) as remote:
        found = remote.embed_many((text for text in TEXTS), **options)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, local_embedder.embed_many(TEXTS, **options), rtol=0, atol=EXACT)
        assert remote.embed("a").shape == (remote.n_embd,) == (local_embedder.n_embd,)
        assert remote.embed_many([]).shape == (0, local_embedder.n_embd)


def test_our_server_s_embedder_ranks_as_the_same_model_does_here(ours: str, local_embedder: Llama) -> None:
    expected = local_embedder.rank("Where do llamas live?", TEXTS)
    with RemoteEmbedder(ours, api_key=SECRET) as remote:
        found = remote.rank("Where do llamas live?", TEXTS)
        assert len(remote.rank("a query", [])) == 0
    assert (found.scale, found.n_tokens) == (expected.scale, expected.n_tokens)
    for one, other in zip(found, expected, strict=True):
        assert (one.index, one.logit, one.truncated) == (other.index, None, other.truncated)
        assert one.score == pytest.approx(other.score, abs=EXACT)


def test_what_a_llama_refuses_our_server_refuses_with_an_error_of_the_same_family(ours: str) -> None:
    with RemoteReranker(ours, api_key=SECRET) as remote:
        with pytest.raises(InputError, match="tokens"):
            remote.rerank("q", TEXTS, truncate="error")
        assert remote.rerank("q", TEXTS).shape == (len(TEXTS),)
    with pytest.raises(InputError, match=f"no model 'bge' for this; it has '{RERANKER}'"):
        RemoteReranker(ours, api_key=SECRET, model="bge").rerank("q", ["a"])
    with pytest.raises(InputError, match=f"it has '{RERANKER}'"):
        RemoteReranker(ours, api_key=SECRET, model=EMBEDDER).rerank("q", ["a"])
    with pytest.raises(RemoteError) as error:
        RemoteReranker(ours, api_key="wrong").rerank("q", ["a"])
    assert error.value.status == 401


def test_a_pipeline_takes_remote_models(ours: str, local_embedder: Llama, local_reranker: Llama) -> None:
    with RemoteEmbedder(ours, api_key=SECRET) as embedder, RemoteReranker(ours, api_key=SECRET) as rerank:
        here, there = Pipeline(local_embedder, local_reranker), Pipeline(embedder, rerank)
        for pipeline in (here, there):
            pipeline.add(TEXTS[:4], ids=range(4))
            pipeline.add(["The Louvre is in Paris."])
        for by in ("meaning", "both"):
            expected = here.search("museums in Paris", by=by)  # type: ignore[arg-type]
            found = there.search("museums in Paris", by=by)  # type: ignore[arg-type]
            assert [(one.text, one.id) for one in found] == [(one.text, one.id) for one in expected]
            for one, other in zip(found, expected, strict=True):
                assert (one.score, one.cosine) == pytest.approx((other.score, other.cosine), abs=EXACT)
        assert Pipeline(embedder).search("anything") == []


def test_a_pipeline_refuses_a_remote_model_in_the_other_one_s_place(ours: str) -> None:
    with pytest.raises(GgrankError, match="first stage"):
        Pipeline(RemoteReranker(ours))  # type: ignore[arg-type]
    with pytest.raises(GgrankError, match="reranker"):
        Pipeline(RemoteEmbedder(ours, api_key=SECRET), RemoteEmbedder(ours))  # type: ignore[arg-type]


def test_an_index_takes_remote_models(
    ours: str, local_embedder: Llama, local_reranker: Llama, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("\n\n".join(TEXTS[:4]))
    with Index.open(tmp_path / "index", embedder=local_embedder) as index:
        index.update([tmp_path / "notes.txt"])
        expected = index.search("museums in Paris", reranker=local_reranker)
        with RemoteReranker(ours, api_key=SECRET) as reranker:
            found = index.search("museums in Paris", reranker=reranker)
    assert [one.text for one in found] == [one.text for one in expected]
    assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=EXACT)
    query = "museums in Paris"
    with RemoteEmbedder(ours, api_key=SECRET) as remote:
        with Index.open(tmp_path / "far", embedder=remote) as index:
            index.update([tmp_path / "notes.txt"])
            best = index.search(query, by="meaning")[0]
        assert best.cosine == pytest.approx(float(remote.embed(query) @ remote.embed(best.text)), abs=EXACT)
    with Index.open(tmp_path / "far") as without:
        assert without.search("Paris", by="words")
        with pytest.raises(GgrankError, match="RemoteEmbedder"):
            without.search(query)


def test_what_the_page_in_docs_shows_runs(ours: str, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    for code in blocks:
        exec(code.replace("http://127.0.0.1:8080", ours).replace('"secret"', repr(SECRET)), {})
    assert re.fullmatch(r"ggrank logit \S+ The office pays\.\n", capsys.readouterr().out)


def test_the_page_in_docs_names_every_dialect_and_how_many_texts_it_takes() -> None:
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    for dialect in (*RERANK.values(), *EMBED.values()):
        row = next(line for line in rows if f"`{dialect.name}`" in line)
        assert f"`{dialect.path}`" in row or "pipeline" in row
        assert re.search(rf"\b{dialect.batch_size:,} \|", row)


# Addresses and proxies


@pytest.mark.parametrize("base", ["/v1", "/v1/", "/v1/openai", "/v1beta/openai/", "/api/v3", "/a/v2/b"])
def test_an_address_with_a_path_of_its_own_is_joined_as_openai_s_client_does(server: Stub, base: str) -> None:
    theirs = openai.OpenAI(base_url=server.url + base, api_key=SECRET, max_retries=0)
    with theirs, pytest.raises(openai.NotFoundError):
        theirs.embeddings.create(model="m", input=["a"])
    with pytest.raises(RemoteError):
        RemoteEmbedder(server.url + base, api_key=SECRET, model="m", dialect="openai").embed("a")
    assert server.seen[0] == server.seen[1]


@pytest.mark.parametrize(
    ("base", "path", "asked"),
    [
        ("", None, "/v2/rerank"),
        ("/v1", None, "/v2/rerank"),
        ("/ggrank", None, "/ggrank/v2/rerank"),
        ("/v1", "/score/{model}", "/v1/score/a/b"),
        ("/v1/x", "score", "/v1/x/score"),
    ],
)
def test_a_path_of_the_caller_s_is_put_after_the_address_as_it_stands(
    server: Stub, base: str, path: str | None, asked: str
) -> None:
    server.on(asked, Answer(PUBLISHED["cohere"]))
    remote = RemoteReranker(server.url + base, model="a/b", dialect="cohere", path=path)
    assert len(remote.rank("q", DOCUMENTS)) == 3


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Sets the environment's proxy, in all its names."""
    for name in (
        "no_proxy",
        "NO_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    return lambda name, url: monkeypatch.setenv(name, url)


@pytest.mark.parametrize("name", ["http_proxy", "all_proxy"])
def test_loopback_needs_no_proxy(server: Stub, proxy: Any, name: str) -> None:
    proxy(name, "http://127.0.0.1:9")  # nothing listens there
    server.on("/rerank", tei_scores)
    assert reranker(server, retries=0).rerank("q", ["1"]).tolist() == [1]


@pytest.mark.parametrize("user", ["", "me:hunter2@"])
def test_a_key_passes_no_proxy_in_plain_text_and_the_proxy_s_password_is_not_shown(
    proxy: Any, user: str
) -> None:
    url, key = "http://ranker.example.com", "secret"
    proxy("http_proxy", f"http://{user}proxy.example.com:3128")
    with pytest.raises(
        InputError, match=r"pass the proxy .*proxy\.example\.com:3128 in plain text"
    ) as caught:
        RemoteReranker(url, api_key=key)
    assert "hunter2" not in str(caught.value)
    RemoteReranker(url)
    RemoteReranker(url.replace("http:", "https:"), api_key=key)
    proxy("no_proxy", "ranker.example.com")
    RemoteReranker(url, api_key=key)


@pytest.mark.parametrize(
    ("address", "says"),
    [("socks5://me:hunter2@x:1080", "pip install socksio"), ("foo://me:hunter2@x:1", "no known scheme")],
)
def test_a_proxy_that_cannot_be_used_is_one_clear_error(
    proxy: Any, monkeypatch: pytest.MonkeyPatch, address: str, says: str
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    proxy("all_proxy", address)
    with pytest.raises(InputError, match=says) as caught:
        RemoteReranker("https://ranker.example.com")
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
