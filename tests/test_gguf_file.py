"""What a file says about itself, and what is said of a path that holds no model."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import gguf
import pytest

import tiny_models
from ggrank.errors import GgrankError, ModelFileError, ModelModeError, ModelNotFoundError
from ggrank.gguf import GgufFile, check_usable, open_gguf
from ggrank.gguf.checks import TOKENS
from ggrank.gguf.format import GgufArray
from ggrank.hub import find_model
from ggrank.types import PoolingType
from gguf_bytes import DTYPES, N_CTX, N_EMBD, N_FF, WORDS, Gguf, Type, f32, small

LABELS = "bert.classifier.output_labels"
KINDS = ["bert-reranker", "modernbert-reranker-mean", "qwen3-reranker", "nomic-mean"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def written(path: Path, file: Gguf) -> Path:
    path.write_bytes(file.to_bytes())
    return path


def refusal(path: Path, kind: type[GgrankError] = ModelFileError) -> str:
    with pytest.raises(kind) as caught:
        open_gguf(path)
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.fixture(scope="module", params=["bundled", *KINDS])
def twice(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[GgufFile, gguf.GGUFReader]:
    """One file, read here and by the gguf package."""
    if request.param == "bundled":
        path = find_model("all-minilm-l6-v2").path
    else:
        path = tiny_models.write(request.param, tmp_path_factory.getbasetemp() / "tiny")
    return open_gguf(path), gguf.GGUFReader(path)


def test_every_key_is_what_the_gguf_package_reads(twice: tuple[GgufFile, gguf.GGUFReader]) -> None:
    file, reader = twice
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert list(file.metadata) == list(fields)
    for name, field in fields.items():
        value = file.metadata[name]
        if not isinstance(value, GgufArray):
            assert value == field.contents()
        elif value.type == "string":
            assert file.strings(name) == field.contents()
        else:
            assert file.numbers(name).tolist() == field.contents()


def test_every_tensor_is_where_the_gguf_package_finds_it(twice: tuple[GgufFile, gguf.GGUFReader]) -> None:
    file, reader = twice
    found = [(one.name, one.shape, one.type, one.offset, one.n_bytes) for one in file.tensors.values()]
    assert found == [
        (one.name, tuple(one.shape), one.tensor_type.name.lower(), one.data_offset, one.n_bytes)
        for one in reader.tensors
    ]
    assert file.n_bytes == file.path.stat().st_size


VALUES = dict.fromkeys(DTYPES, 1) | {Type.FLOAT32: 0.5, Type.FLOAT64: 0.1, Type.BOOL: True}


@pytest.mark.parametrize("type", DTYPES)
def test_every_type_of_value_is_what_the_gguf_package_reads(path: Path, type: Type) -> None:
    file = small().with_key("one", VALUES[type], type=type)
    written(path, file.with_key("many", [VALUES[type], 0, VALUES[type]], type=Type.ARRAY, items=type))
    file, reader = open_gguf(path), gguf.GGUFReader(path)
    assert file.metadata["one"] == reader.fields["one"].contents()
    assert file.numbers("many").tolist() == reader.fields["many"].contents()


def test_a_reranker_says_what_it_is(tmp_path: Path) -> None:
    file = open_gguf(tiny_models.write("qwen3-reranker", tmp_path))
    assert (file.architecture, file.pooling_type, file.has_head) == ("qwen3", PoolingType.RANK, True)
    assert (file.labels, file.tokenizer_model, file.tokenizer_pre) == (("yes", "no"), "gpt2", "qwen2")
    assert "{query}" in file.rerank_template


def test_what_a_file_does_not_say_is_empty(path: Path) -> None:
    file = open_gguf(written(path, small().without_key("bert.pooling_type").without_key(LABELS)))
    assert file.pooling_type is PoolingType.UNSPECIFIED
    assert (file.rerank_template, file.tokenizer_pre, file.labels) == ("", "", ())


@pytest.mark.parametrize(("code", "name"), [(7, "q8_0"), (15, "q4_k_m"), (1, "f16")])
def test_the_quantization_is_the_one_that_the_file_names(path: Path, code: int, name: str) -> None:
    assert open_gguf(written(path, small().with_key("general.file_type", code))).quantization == name


def test_the_quantization_is_that_of_most_bytes_where_the_file_names_none(path: Path) -> None:
    file = small()
    for name, rows in {"blk.0.ffn_up": N_FF, "position_embd": N_CTX, "token_embd": len(WORDS)}.items():
        file = file.with_tensor(f"{name}.weight", type=8, data=bytes(N_EMBD // 32 * rows * 34))
    assert open_gguf(written(path, file)).quantization == "q8_0"


def test_an_array_is_read_as_what_it_is_or_not_at_all(path: Path) -> None:
    file = open_gguf(written(path, small()))
    with pytest.raises(TypeError):
        file.numbers(TOKENS)
    with pytest.raises(TypeError):
        file.strings("tokenizer.ggml.token_type")
    with pytest.raises(TypeError):
        file.strings("general.architecture")
    with pytest.raises(KeyError):
        file.strings("no such key")


def test_a_large_vocabulary_stays_in_the_file(path: Path) -> None:
    words = [f"word {i}" for i in range(250_000)]
    data = bytes(N_EMBD * len(words) // 32 * 34)
    many = small().with_key(TOKENS, words).without_key("tokenizer.ggml.token_type")
    many = many.with_tensor("token_embd.weight", shape=(N_EMBD, len(words)), data=data, type=8)
    written(path, many)
    tracemalloc.start()
    file = open_gguf(path)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert file.metadata[TOKENS].count == 250_000
    assert kept < 1_000_000
    assert peak < 40_000_000
    assert file.strings(TOKENS) == words


def test_a_missing_file_is_not_found(path: Path) -> None:
    for missing in (path, path / "below" / "it.gguf", Path("with a \0.gguf")):
        message = refusal(missing, ModelNotFoundError)
        assert "does not exist. Expected the path of a .gguf file" in message


def test_a_directory_is_refused_and_its_models_are_listed(tmp_path: Path) -> None:
    assert "there is no .gguf file in it" in refusal(tmp_path)
    for name in ("b.gguf", "a.gguf", "notes.txt"):
        (tmp_path / name).touch()
    assert "it holds a.gguf, b.gguf: name one of them" in refusal(tmp_path)


def test_an_empty_file_is_refused(path: Path) -> None:
    path.touch()
    assert "is empty: expected a .gguf file, found 0 bytes" in refusal(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_without_waiting_for_it(path: Path) -> None:
    os.mkfifo(path)
    assert "is a device, pipe or socket" in refusal(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="permissions work differently here")
def test_a_file_without_permission_is_refused(path: Path) -> None:
    written(path, small()).chmod(0)
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:  # root may read everything
                os.setuid(65534)
            open_gguf(path)
        except ModelFileError as error:
            os._exit(17 if "permission denied" in str(error) and "chmod a+r" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17


def unusable(file: GgufFile, pooling_type: PoolingType) -> str:
    with pytest.raises(ModelModeError) as caught:
        check_usable(file, pooling_type)
    return str(caught.value)


def test_a_chat_model_is_refused_unless_somebody_says_how_to_pool(tmp_path: Path) -> None:
    file = open_gguf(tiny_models.write("chat", tmp_path))
    message = unusable(file, file.pooling_type)
    assert "looks like a chat model (qwen3" in message
    assert "all-minilm-l6-v2" in message
    assert "set pooling_type to last" in message
    check_usable(file, PoolingType.LAST)


def test_an_encoder_that_does_not_say_how_it_pools_is_refused(tmp_path: Path) -> None:
    file = open_gguf(tiny_models.write("bert-without-pooling-type", tmp_path))
    assert "no bert.pooling_type" in unusable(file, file.pooling_type)
    check_usable(file, PoolingType.MEAN)


def test_a_model_without_a_head_cannot_rerank(tmp_path: Path) -> None:
    file = open_gguf(tiny_models.write("rank-without-head", tmp_path))
    assert "it cannot rerank" in unusable(file, PoolingType.RANK)
    check_usable(file, PoolingType.CLS)


def test_a_pooler_is_no_head(path: Path) -> None:
    pooler = f32("cls.weight", N_EMBD, N_EMBD)
    file = open_gguf(written(path, Gguf(small().keys, (*small().tensors[:-1], pooler))))
    assert "has a pooler (cls.weight) but no classification layer" in unusable(file, PoolingType.RANK)


@pytest.mark.parametrize("kind", ["bert-reranker", "jina-reranker", "modernbert-reranker-cls"])
def test_every_kind_of_head_can_rerank(tmp_path: Path, kind: str) -> None:
    check_usable(open_gguf(tiny_models.write(kind, tmp_path)), PoolingType.RANK)
