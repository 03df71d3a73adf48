"""From a name to a file, with the real client and a hub on this machine."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ggrank.errors import ChecksumError, InputError, ModelNotFoundError
from ggrank.hub import download, find_model, list_models, plan, presets, verify
from ggrank.rows import records
from hub_server import Hub, serve

REPO = "org/model-GGUF"
FILE = "model-q8_0.gguf"
DATA = b"GGUF, says the file, and goes on " * 999
SUM = hashlib.sha256(DATA).hexdigest()
PRESET = presets()["bge-reranker-large"]
V2_M3 = presets()["bge-reranker-v2-m3"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one repo; caches of this test's own, and the network switched on."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(tmp_path / "records"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with serve() as server:
        server.add(REPO, {FILE: DATA, "README.md": b"read me"})
        server.add(PRESET.repo, {PRESET.file: DATA})
        yield server


def test_a_repo_of_one_gguf_file_is_downloaded_and_checked(hub: Hub, tmp_path: Path) -> None:
    source = find_model(REPO, endpoint=hub.endpoint)
    assert source.path.read_bytes() == DATA
    assert source.path.name == FILE
    assert source.path.is_relative_to(tmp_path / "hf")
    assert source.preset is None


def test_a_preset_is_downloaded_and_comes_with_what_is_known_of_it(hub: Hub) -> None:
    source = find_model("bge-reranker-large", endpoint=hub.endpoint)
    assert source.path.read_bytes() == DATA
    assert source.preset is PRESET


@pytest.mark.parametrize("name", [REPO, "bge-reranker-large"])
def test_a_file_that_is_present_needs_no_request(hub: Hub, name: str) -> None:
    first = find_model(name, endpoint=hub.endpoint)
    hub.seen.clear()
    assert find_model(name, endpoint=hub.endpoint) == first
    assert find_model(name, endpoint=hub.endpoint, local_files_only=True) == first
    assert hub.seen == []


def test_a_file_in_the_cache_needs_no_request_even_when_the_records_are_lost(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = find_model(REPO, filename=FILE, endpoint=hub.endpoint)
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(tmp_path / "other records"))
    hub.seen.clear()
    assert find_model(REPO, filename=FILE, endpoint=hub.endpoint) == first
    assert hub.seen == []


def test_a_cache_dir_is_where_the_file_goes_and_where_it_is_found(hub: Hub, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    source = find_model(REPO, endpoint=hub.endpoint, cache_dir=chosen)
    assert source.path.is_relative_to(chosen)
    hub.seen.clear()
    assert find_model(REPO, endpoint=hub.endpoint, cache_dir=chosen) == source
    assert hub.seen == []
    assert find_model(REPO, endpoint=hub.endpoint, cache_dir=tmp_path / "second").path != source.path


def test_a_revision_is_the_commit_that_is_fetched(hub: Hub) -> None:
    old = hub.add("org/moves", {FILE: b"old bytes"})
    hub.add("org/moves", {FILE: b"new bytes"})
    assert find_model("org/moves", endpoint=hub.endpoint, revision=old).path.read_bytes() == b"old bytes"
    assert find_model("org/moves", endpoint=hub.endpoint).path.read_bytes() == b"new bytes"


def test_several_gguf_files_need_a_filename_and_the_error_lists_them(hub: Hub) -> None:
    names = ["m-q4_k_m.gguf", "m-q8_0.gguf", "mmproj-m.gguf", "m-f32-00001-of-00002.gguf"]
    hub.add("org/many", {name: name.encode() for name in names})
    with pytest.raises(ModelNotFoundError, match=r"has 2 \.gguf files") as caught:
        find_model("org/many", endpoint=hub.endpoint)
    assert "(filename in Python): m-q4_k_m.gguf, m-q8_0.gguf" in str(caught.value)
    source = find_model("org/many", filename="m-q8_0.gguf", endpoint=hub.endpoint)
    assert source.path.read_bytes() == b"m-q8_0.gguf"


@pytest.mark.parametrize(
    "others", [["mmproj-m.gguf"], ["m-f32-00001-of-00002.gguf", "sub/mmproj-x.gguf"], []]
)
def test_shards_and_projectors_do_not_count(hub: Hub, others: list[str]) -> None:
    hub.add("org/one", {name: name.encode() for name in ["m-q8_0.gguf", *others]})
    assert find_model("org/one", endpoint=hub.endpoint).path.name == "m-q8_0.gguf"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["README.md"], "has no .gguf file"),
        (["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"], "only in several pieces"),
    ],
)
def test_a_repo_without_a_whole_gguf_file_says_so(hub: Hub, files: list[str], said: str) -> None:
    hub.add("org/none", {name: name.encode() for name in files})
    with pytest.raises(ModelNotFoundError, match=said):
        find_model("org/none", endpoint=hub.endpoint)


def test_a_file_that_the_repo_lacks_is_answered_with_those_that_it_has(hub: Hub) -> None:
    with pytest.raises(ModelNotFoundError, match=f"Did you mean '{FILE}'"):
        find_model(REPO, filename="model-q8.gguf", endpoint=hub.endpoint)


def test_offline_a_cached_file_is_found_and_another_is_not(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    source = find_model(REPO, endpoint=hub.endpoint)
    hub.seen.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert find_model(REPO, endpoint=hub.endpoint) == source
    with pytest.raises(ModelNotFoundError, match="not on this machine, and HF_HUB_OFFLINE"):
        find_model("bge-reranker-large", endpoint=hub.endpoint)
    assert hub.seen == []


def test_a_directory_gets_a_plain_file_that_is_found_there_later(hub: Hub, tmp_path: Path) -> None:
    models = tmp_path / "models"
    source = download("bge-reranker-large", directory=models, endpoint=hub.endpoint)
    assert source.path == models / PRESET.file
    assert source.path.read_bytes() == DATA
    assert not source.path.is_symlink()
    hub.seen.clear()
    assert download("bge-reranker-large", directory=models, endpoint=hub.endpoint) == source
    assert find_model("bge-reranker-large", endpoint=hub.endpoint) == source
    assert hub.seen == []


def test_a_directory_is_filled_from_the_cache_without_a_request(hub: Hub, tmp_path: Path) -> None:
    find_model("bge-reranker-large", endpoint=hub.endpoint)
    hub.seen.clear()
    source = download("bge-reranker-large", directory=tmp_path / "models", endpoint=hub.endpoint)
    assert source.path.read_bytes() == DATA
    assert hub.seen == []


def test_a_file_in_the_directory_that_is_another_one_is_refused_and_kept(hub: Hub, tmp_path: Path) -> None:
    download("bge-reranker-large", directory=tmp_path / "models", endpoint=hub.endpoint)
    mine = tmp_path / "models" / PRESET.file
    mine.write_bytes(b"my own")
    with pytest.raises(ChecksumError, match="was not deleted"):
        download("bge-reranker-large", directory=tmp_path / "models", endpoint=hub.endpoint)
    assert mine.read_bytes() == b"my own"


def test_a_bundled_model_is_copied_to_a_directory(tmp_path: Path) -> None:
    source = download("all-minilm-l6-v2", directory=tmp_path)
    assert source.path.parent == tmp_path
    assert verify(source).sha256 == presets()["all-minilm-l6-v2"].sha256
    assert download("all-minilm-l6-v2").path == find_model("all-minilm-l6-v2").path


def test_a_path_cannot_be_downloaded(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    for action in (download, plan):
        with pytest.raises(InputError, match="there is nothing to download"):
            action(str(tmp_path / "m.gguf"))


def test_the_sum_of_the_first_download_is_held_when_the_hub_changes_the_file(hub: Hub) -> None:
    find_model(REPO, endpoint=hub.endpoint).path.unlink()
    hub.add(REPO, {FILE: b"other bytes"})
    with pytest.raises(ChecksumError, match="Nothing was downloaded") as caught:
        find_model(REPO, endpoint=hub.endpoint)
    assert SUM in str(caught.value)
    assert hashlib.sha256(b"other bytes").hexdigest() in str(caught.value)
    assert [request for request in hub.seen[3:] if request.server == "cdn"] == []


def test_a_pinned_sum_is_held_before_anything_is_downloaded(hub: Hub) -> None:
    assert V2_M3.sha256
    hub.add(V2_M3.repo, {V2_M3.file: DATA}, commit=V2_M3.revision)
    with pytest.raises(ChecksumError, match="as ggrank's catalogue pins it") as caught:
        find_model("bge-reranker-v2-m3", endpoint=hub.endpoint)
    assert SUM in str(caught.value)
    assert V2_M3.sha256 in str(caught.value)
    assert hub.count("HEAD") == 0


def test_a_file_in_a_folder_of_its_repo_is_found_again(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/folders", {f"gguf/{FILE}": DATA})
    source = find_model("org/folders", filename=f"gguf/{FILE}", endpoint=hub.endpoint)
    copied = download("org/folders", filename=f"gguf/{FILE}", directory=tmp_path / "m", endpoint=hub.endpoint)
    assert (source.path.name, copied.path) == (FILE, tmp_path / "m" / "gguf" / FILE)
    hub.seen.clear()
    assert find_model("org/folders", filename=f"gguf/{FILE}", endpoint=hub.endpoint).path.read_bytes() == DATA
    assert hub.seen == []


def test_a_plan_says_what_where_and_how_big_without_a_request(hub: Hub, tmp_path: Path) -> None:
    planned = plan("bge-reranker-v2-m3", directory=tmp_path / "models", endpoint=hub.endpoint)
    assert planned.here is None
    assert planned.url == f"{hub.endpoint}/{V2_M3.repo}/resolve/{V2_M3.revision}/{V2_M3.file}"
    assert planned.target == tmp_path / "models" / V2_M3.file
    assert (planned.size, planned.sha256) == (438_376_864, V2_M3.sha256)
    assert plan("bge-reranker-v2-m3", endpoint=hub.endpoint).target.parent == tmp_path / "hf"
    assert plan(REPO, endpoint=hub.endpoint).url == f"{hub.endpoint}/{REPO}"
    assert hub.seen == []
    assert not (tmp_path / "models").exists()


def test_a_plan_knows_what_is_here(hub: Hub) -> None:
    source = find_model(REPO, endpoint=hub.endpoint)
    planned = plan(REPO, endpoint=hub.endpoint)
    assert planned.here == source.path
    assert (planned.size, planned.sha256) == (len(DATA), SUM)
    assert plan("all-minilm-l6-v2").here == find_model("all-minilm-l6-v2").path


def test_the_list_says_which_presets_are_here(hub: Hub) -> None:
    find_model("bge-reranker-large", endpoint=hub.endpoint)
    here = [status.preset.name for status in list_models() if status.path is not None]
    assert here == ["all-minilm-l6-v2", "ggrank-reranker-mini", "bge-reranker-large"]
    assert len(list_models()) == len(presets())


def test_verify_reads_the_file_again_and_finds_what_changed(hub: Hub) -> None:
    source = find_model("bge-reranker-large", endpoint=hub.endpoint)
    for model in ("bge-reranker-large", source, source.path):
        verified = verify(model)
        assert (verified.sha256, verified.expected, verified.size) == (SUM, SUM, len(DATA))
    source.path.resolve().write_bytes(DATA[:-1] + b"!")
    for model in ("bge-reranker-large", source, source.path):
        with pytest.raises(ChecksumError, match=SUM):
            verify(model)


def test_verify_of_a_bundled_model_and_of_an_unknown_file(tmp_path: Path) -> None:
    assert verify("all-minilm-l6-v2").expected == presets()["all-minilm-l6-v2"].sha256
    (tmp_path / "mine.gguf").write_bytes(DATA)
    verified = verify(tmp_path / "mine.gguf")
    assert (verified.sha256, verified.expected) == (SUM, None)


def test_verify_of_a_file_that_is_not_here_asks_nobody(hub: Hub) -> None:
    with pytest.raises(ModelNotFoundError, match="not on this machine"):
        verify("bge-reranker-large")
    assert hub.seen == []


@pytest.mark.parametrize("value", [3, {}, {"path": 3, "sha256": None, "size": None}])
def test_damaged_records_are_no_error(hub: Hub, value: object) -> None:
    source = find_model(REPO, filename=FILE, endpoint=hub.endpoint)
    for name in ("downloads", "verified"):
        damaged = dict.fromkeys(records.recall(name), value)
        assert damaged
        (records.cache_dir() / f"{name}.json").write_text(json.dumps(damaged))
    assert find_model(REPO, filename=FILE, endpoint=hub.endpoint) == source
    assert verify(source).sha256 == SUM


def test_a_bundled_model_and_a_path_load_no_network_code(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    code = (
        "import sys; from ggrank.hub import find_model, verify\n"
        "find_model('all-minilm-l6-v2'); find_model(sys.argv[1]); verify('all-minilm-l6-v2')\n"
        "print({name.split('.')[0] for name in sys.modules} & {'huggingface_hub', 'httpx', 'httpx2'})"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m.gguf")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "set()"
