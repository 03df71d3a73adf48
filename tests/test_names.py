"""What a name means: presets, paths and repos, and what is offered for a name that means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ggrank.errors import InputError, InputTypeError, ModelNotFoundError
from ggrank.hub.client import HubFile
from ggrank.hub.names import read_name
from ggrank.hub.presets import presets


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs in an empty directory, since names that are paths are looked up there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_bundled_preset_is_a_file_of_the_package() -> None:
    location, preset = read_name("all-minilm-l6-v2")
    assert isinstance(location, Path)
    assert location.is_file()
    assert preset is presets()["all-minilm-l6-v2"]


def test_another_preset_is_a_file_of_its_repo_with_what_is_pinned() -> None:
    preset = presets()["bge-reranker-v2-m3"]
    location, found = read_name("bge-reranker-v2-m3")
    assert location == HubFile(preset.repo, preset.file, preset.revision, preset.sha256, preset.size)
    assert found is preset


def test_another_file_of_a_presets_repo_keeps_the_preset_but_not_the_pinned_sum() -> None:
    location, preset = read_name("bge-small-en-v1.5", filename="bge-small-en-v1.5-f16.gguf")
    assert location == HubFile(
        "CompendiumLabs/bge-small-en-v1.5-gguf",
        "bge-small-en-v1.5-f16.gguf",
        presets()["bge-small-en-v1.5"].revision,
    )
    assert preset is presets()["bge-small-en-v1.5"]


def test_another_revision_of_a_preset_drops_the_pinned_sum() -> None:
    location, _ = read_name("bge-reranker-v2-m3", revision="main")
    assert location == HubFile(
        "gpustack/bge-reranker-v2-m3-GGUF", "bge-reranker-v2-m3-Q4_K_M.gguf", revision="main"
    )


def test_a_repo_id_is_a_repo() -> None:
    found = read_name("org/some_model.v1-GGUF", filename="m.gguf", revision="v2")
    assert found == (HubFile("org/some_model.v1-GGUF", "m.gguf", "v2"), None)


@pytest.mark.parametrize("name", ["model.gguf", "MODEL.GGUF", "org/model.gguf"])
def test_a_string_that_ends_in_gguf_is_a_path(here: Path, name: str) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).touch()
    assert read_name(name)[0] == Path(name)


def test_a_string_with_a_separator_that_exists_is_a_path_even_if_it_looks_like_a_repo(here: Path) -> None:
    (here / "org" / "model").mkdir(parents=True)
    assert read_name("org/model")[0] == Path("org/model")


def test_a_path_object_is_a_path_even_with_a_presets_name(here: Path) -> None:
    (here / "bge-small-en-v1.5").touch()
    assert read_name(Path("bge-small-en-v1.5"))[0] == Path("bge-small-en-v1.5")
    with pytest.raises(ModelNotFoundError, match="There is no file"):
        read_name(Path("org/model"))


def test_a_tilde_is_the_home_directory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("USERPROFILE", str(here))
    (here / "m.gguf").touch()
    assert read_name("~/m.gguf")[0] == here / "m.gguf"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("modle-q8_0.gguf", "Did you mean 'model-q8_0.gguf'?"),
        ("zzz.gguf", "The .gguf files there: model-q8_0.gguf."),
        ("models/zzz.gguf", "There is no directory 'models' either."),
        ("org/repo/file.gguf", "given as 'org/repo' with the filename 'file.gguf'"),
        ("BGE-small-en-v1.5-Q4_K_M.gguf", "'ggrank models download bge-small-en-v1.5'"),
    ],
)
def test_a_missing_path_says_what_may_have_been_meant(here: Path, name: str, said: str) -> None:
    (here / "model-q8_0.gguf").touch()
    with pytest.raises(ModelNotFoundError) as caught:
        read_name(name)
    assert f"There is no file '{name}'." in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"), [("bge-smal-en", "bge-small-en-v1.5"), ("BGE-Reranker-Base", "bge-reranker-base")]
)
def test_an_unknown_name_offers_the_nearest_presets_and_the_command_that_lists_them(
    name: str, meant: str
) -> None:
    with pytest.raises(ModelNotFoundError, match=f"Did you mean '{meant}'") as caught:
        read_name(name)
    assert "'ggrank models' lists the presets" in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "name", ["", " ", "a/b/c", "/no/such/place", "org/", "a\x00b", "x" * 9999, "org/mo del"]
)
def test_a_name_that_cannot_be_anything_is_one_clear_error(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="Expected a preset, a path"):
        read_name(name)


def test_a_file_without_a_separator_is_told_how_to_be_meant(here: Path) -> None:
    (here / "mymodel").touch()
    with pytest.raises(ModelNotFoundError, match=r"write './mymodel'"):
        read_name("mymodel")


@pytest.mark.parametrize("option", ["filename", "revision"])
@pytest.mark.parametrize("name", ["all-minilm-l6-v2", "here.gguf"])
def test_a_file_has_no_filename_or_revision_to_choose(here: Path, name: str, option: str) -> None:
    (here / "here.gguf").touch()
    with pytest.raises(InputError, match=f"{option} 'x' chooses inside a Hugging Face repo"):
        read_name(name, **{option: "x"})


@pytest.mark.parametrize("model", [None, 3, b"model.gguf", ["model.gguf"]])
def test_a_model_that_is_no_string_or_path_is_a_type_error(model: object) -> None:
    with pytest.raises(InputTypeError, match="A model is given by a string or a path"):
        read_name(model)  # type: ignore[arg-type]
