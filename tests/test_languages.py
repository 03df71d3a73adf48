"""A text that a model cannot read says so, once; texts that it can read never do."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import gguf_bytes
import tiny_models
from ggrank import GgrankWarning, Llama
from ggrank.hub.presets import bundled_path, presets
from ggrank.text.tokenizer import _SCRIPTS, foreign_script

EMBEDDER, RERANKER = "all-minilm-l6-v2", "ggrank-reranker-mini"
THAI = "ลามะอาศัยอยู่ในประเทศเปรู"
RUSSIAN = "Ламы живут в Перу."
CHINESE = "中国人民大学"


@pytest.fixture
def llama() -> Iterator[Llama]:
    with Llama.load(EMBEDDER) as model:
        yield model


def test_a_text_of_unknown_tokens_warns_and_names_a_model_for_many_languages(llama: Llama) -> None:
    with pytest.warns(GgrankWarning, match=r"over half of the tokens.*'multilingual-e5-small'"):
        vectors = llama.embed_many([THAI, "แมวของฉันชอบนอน"])
    # What the warning is about: the texts say different things.
    assert float(vectors[0] @ vectors[1]) > 0.999


@pytest.mark.parametrize(("text", "script"), [(RUSSIAN, "Cyrillic"), (CHINESE, "Chinese")])
def test_a_text_in_a_script_of_another_language_warns(text: str, script: str, llama: Llama) -> None:
    with pytest.warns(GgrankWarning, match=rf"trained for en, but most letters of a text are {script}"):
        llama.embed(text)


def test_a_model_warns_once(llama: Llama) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        llama.embed_many([RUSSIAN, THAI, CHINESE])
        llama.embed(RUSSIAN)
    assert len(told) == 1


@pytest.mark.parametrize("prefix", ["Represent this sentence for searching relevant passages: "])
@pytest.mark.parametrize("text", [CHINESE, "ลามะ"])
def test_the_prefix_of_a_text_does_not_hide_it(text: str, prefix: str, llama: Llama) -> None:
    with pytest.warns(GgrankWarning):
        llama.embed(text, prefix=prefix)


@pytest.mark.parametrize("query_and_document", [(RUSSIAN, "Llamas live in Peru."), ("Where?", RUSSIAN)])
def test_a_reranker_reads_both_texts_and_names_a_reranker(query_and_document: tuple[str, str]) -> None:
    with Llama.load(RERANKER) as llama, pytest.warns(GgrankWarning, match=r"'bge-reranker-v2-m3'"):
        llama.score_pairs([query_and_document])


def test_a_model_is_known_by_its_file_s_name(tmp_path: Path) -> None:
    path = tmp_path / "bge-reranker-base-x.gguf"
    file = gguf_bytes.read(bundled_path(presets()[RERANKER])).without_key("general.languages")
    path.write_bytes(file.to_bytes())
    with Llama.load(path) as llama:
        assert llama.languages == ("en", "zh")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            llama.rerank("Where do llamas live?", [CHINESE])
        with pytest.warns(GgrankWarning, match="trained for en, zh, but .* Cyrillic"):
            llama.rerank("Where do llamas live?", [RUSSIAN])


def test_nothing_is_said_of_a_model_whose_languages_are_not_known(tmp_path: Path) -> None:
    with Llama.load(tiny_models.write("qwen3-last", tmp_path)) as llama, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert llama.languages == ()
        llama.embed_many([THAI, RUSSIAN, CHINESE])


def test_texts_that_the_model_reads_are_quiet(llama: Llama) -> None:
    english = Path(__file__, "..", "data", "english.txt").resolve().read_text("utf-8").split("\n")
    texts = [
        *english[:100],
        "“Curly quotes” — and dashes… 🎉",
        "Crème brûlée, Ångström, naïve, Łódź",
        "Tokyo (東京, とうきょう) is the capital of Japan",
        "The symbol π (Greek: пи in Russian) is 3.14159",
        "",
        "12345 !!!",
        "🙂",
        "🙂 ok",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        llama.embed_many(texts)


@pytest.mark.parametrize(
    ("text", "languages", "script"),
    [
        ("лама llama", ["en"], None),  # as many of one as of the other
        ("ламы llama", ["en", "ru"], None),
        ("ラマはペルーに住んでいる", ["en", "zh"], "Hiragana"),
        ("ラマはペルーに住んでいる", ["en", "ja"], None),
        ("라마는 페루에 산다", ["en"], "Hangul"),
        ("لاما تعيش في بيرو", ["ar"], None),
        ("Πού ζουν τα λάμα;", ["en"], "Greek"),
        ("Ｆｕｌｌ ｗｉｄｔｈ and 𝐛𝐨𝐥𝐝", ["en"], None),  # noqa: RUF001  such letters are what this is about
        (f"{'a' * 1000}{RUSSIAN * 1000}", ["en"], None),
    ],
)
def test_the_script_of_most_letters_counts(text: str, languages: list[str], script: str | None) -> None:
    assert foreign_script(text, languages) == script


def test_the_scripts_of_all_languages_in_the_catalogue_are_known() -> None:
    listed = {
        code for preset in presets().values() for code in preset.languages if not preset.is_multilingual
    }
    assert listed <= set(_SCRIPTS)


def test_the_languages_that_a_file_names_come_before_a_guess_by_its_name(tmp_path: Path) -> None:
    file = gguf_bytes.read(bundled_path(presets()[EMBEDDER]))
    path = tmp_path / "all-minilm-l6-v2-mine.gguf"
    path.write_bytes(file.with_key("general.languages", ["en", "ru"]).to_bytes())
    with Llama.load(path) as llama, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert llama.languages == ("en", "ru")
        llama.embed(RUSSIAN)
