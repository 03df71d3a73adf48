"""Downloads that go wrong, with the real client: one error in plain words, and never half a file.

What huggingface_hub reads from the environment it reads at import, so that part runs in processes of
its own.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ggrank.errors import ChecksumError, DownloadError, InputError, ModelNotFoundError
from ggrank.hub import download, find_model, plan
from ggrank.hub.client import HubAccess
from hub_server import Hub, serve

REPO = "org/model-GGUF"
FILE = "model-q8_0.gguf"
# The client writes in pieces of 10 MiB: only what is longer can be cut in the middle and resumed.
DATA = random.Random(0).randbytes(24 << 20)
SUM = hashlib.sha256(DATA).hexdigest()
MIDDLE = 15 << 20


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one repo; caches of this test's own, and the network switched on."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(tmp_path / "records"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(time, "sleep", lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.05)))
    with serve() as server:
        server.add(REPO, {FILE: DATA})
        yield server


def environment(hub: Hub, tmp_path: Path, **more: str) -> dict[str, str]:
    """The variables of a process that talks to this hub and keeps its files here."""
    own = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf home"), "HF_HUB_OFFLINE": "0"}
    own |= {"GGRANK_CACHE_DIR": str(tmp_path / "records"), "NO_PROXY": "127.0.0.1,localhost"}
    return {**os.environ, **own, **more}


def run(code: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"from ggrank.hub import *\nfrom ggrank.errors import *\n{code}"]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)


FIND = f"print(find_model({REPO!r}).path)"
CAUGHT = f"try: {FIND}\nexcept GgrankError as error: print(type(error).__name__, error)"


def test_without_permission_the_error_names_the_token_variable(hub: Hub) -> None:
    hub.faults.status = 401
    with pytest.raises(DownloadError, match=r"refuses .* \(status 401\): HF_TOKEN"):
        find_model(REPO, endpoint=hub.endpoint)


def test_a_gated_repo_says_where_to_ask_and_opens_with_a_token(hub: Hub) -> None:
    hub.add("org/gated", {FILE: b"gated"}, gated=True)
    with pytest.raises(DownloadError, match=f"accept its terms at {hub.endpoint}/org/gated") as caught:
        find_model("org/gated", endpoint=hub.endpoint)
    assert "HF_TOKEN" in str(caught.value)
    assert find_model("org/gated", endpoint=hub.endpoint, token=hub.token).path.read_bytes() == b"gated"


def test_a_private_repo_and_a_missing_one_look_the_same_and_the_error_says_both(hub: Hub) -> None:
    hub.add("org/private", {FILE: b"private"}, private=True)
    for repo in ("org/private", "org/missing"):
        with pytest.raises(ModelNotFoundError, match=f"has no repo '{repo}', or it is private") as caught:
            find_model(repo, endpoint=hub.endpoint)
        assert "HF_TOKEN" in str(caught.value)
    assert find_model("org/private", endpoint=hub.endpoint, token=hub.token).path.read_bytes() == b"private"


def test_a_missing_revision_says_so(hub: Hub) -> None:
    with pytest.raises(ModelNotFoundError, match="has no revision 'v9'"):
        find_model(REPO, revision="v9", endpoint=hub.endpoint)


@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
def test_every_other_answer_is_one_error_with_its_status(hub: Hub, status: int) -> None:
    hub.faults.status = status
    with pytest.raises(ModelNotFoundError if status == 404 else DownloadError, match=f"status {status}"):
        find_model(REPO, endpoint=hub.endpoint)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://hub.invalid"])
def test_a_hub_that_cannot_be_reached_is_one_error_without_a_chain(hub: Hub, endpoint: str) -> None:
    with pytest.raises(DownloadError, match=f"Could not download {REPO} from {endpoint}") as caught:
        find_model(REPO, endpoint=endpoint)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize(
    "options",
    [{"filename": "../outside.gguf"}, {"filename": "/etc/outside.gguf"}, {"endpoint": "no-address"}],
)
def test_options_that_the_client_refuses_are_one_error(hub: Hub, options: dict[str, str]) -> None:
    with pytest.raises((InputError, DownloadError, ModelNotFoundError)):
        find_model(REPO, **{"endpoint": hub.endpoint, **options})


def test_a_connection_cut_in_the_middle_is_resumed_where_it_broke(hub: Hub) -> None:
    hub.faults.cut_after, hub.faults.cuts = MIDDLE, 1
    assert find_model(REPO, endpoint=hub.endpoint).path.read_bytes() == DATA
    ranges = [request.range for request in hub.seen if request.server == "cdn"]
    assert ranges == [None, f"bytes={10 << 20}-"]


def test_a_connection_that_is_reset_is_tried_again(hub: Hub) -> None:
    hub.faults.cut_after, hub.faults.cuts, hub.faults.reset = MIDDLE, 1, True
    assert find_model(REPO, endpoint=hub.endpoint).path.read_bytes() == DATA


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("into_directory", [True, False])
def test_a_connection_that_keeps_breaking_is_one_error_and_leaves_no_file(
    hub: Hub, tmp_path: Path, reset: bool, into_directory: bool
) -> None:
    hub.faults.cut_after, hub.faults.cuts, hub.faults.reset = 1000, 99, reset
    directory = tmp_path / "models" if into_directory else None
    with pytest.raises(DownloadError, match="Check the network and try again") as caught:
        download(REPO, directory=directory, endpoint=hub.endpoint)
    assert caught.value.__context__ is None
    assert list(tmp_path.rglob("*.gguf")) == []
    hub.faults.cuts = 0
    assert download(REPO, directory=directory, endpoint=hub.endpoint).path.read_bytes() == DATA


def test_corrupted_bytes_are_refused_with_both_sums_then_and_later(hub: Hub) -> None:
    hub.faults.corrupt = True
    arrived = hashlib.sha256(DATA[:-1] + bytes([DATA[-1] ^ 1])).hexdigest()
    for _ in range(2):
        with pytest.raises(ChecksumError) as caught:
            find_model(REPO, endpoint=hub.endpoint)
        assert arrived in str(caught.value)
        assert f"expected sha256 {SUM}" in str(caught.value)
    assert hub.count("HEAD") == 1, "the second time, the file that lies here is refused"


def test_what_the_error_about_corrupted_bytes_says_to_do_mends_it(hub: Hub) -> None:
    hub.faults.corrupt = True
    with pytest.raises(ChecksumError) as caught:
        find_model(REPO, endpoint=hub.endpoint)
    Path(str(caught.value).split("It lies at ")[1].split(": delete it")[0]).unlink()
    hub.faults.corrupt = False
    assert find_model(REPO, endpoint=hub.endpoint).path.read_bytes() == DATA


@pytest.mark.parametrize("into_directory", [True, False])
def test_a_killed_download_leaves_nothing_that_looks_whole(
    hub: Hub, tmp_path: Path, into_directory: bool
) -> None:
    hub.faults.pause_after = MIDDLE
    directory = str(tmp_path / "models") if into_directory else None
    code = f"from ggrank.hub import download; download({REPO!r}, directory={directory!r})"
    env = environment(hub, tmp_path)
    with subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not any(
            part.stat().st_size for part in tmp_path.rglob("*.incomplete") if part.exists()
        ):
            time.sleep(0.01)
        process.kill()
    assert process.returncode != 0, "the process ended before it could be killed"
    assert list(tmp_path.rglob("*.gguf")) == []
    again = f"print(download({REPO!r}, directory={directory!r}).path)"
    assert "not on this machine" in run(CAUGHT, {**env, "HF_HUB_OFFLINE": "1"}).stdout
    hub.faults.pause_after = None
    assert Path(run(again, env).stdout.strip()).read_bytes() == DATA


def test_a_full_disk_is_one_error_that_says_how_much_is_needed(hub: Hub, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9 << 20, 9 << 20))"
    done = run(f"{limit}\n{CAUGHT}", environment(hub, tmp_path))
    assert "DownloadError No room to write org/model-GGUF/model-q8_0.gguf (25,165,824 bytes)" in done.stdout
    assert "bytes are free there" in done.stdout
    assert list(tmp_path.rglob("*.gguf")) == []


@pytest.mark.parametrize("place", ["file", "file/cache"])
def test_a_place_that_cannot_be_written_to_is_one_error(hub: Hub, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=f"{tmp_path / 'file'}.* cannot be written to"):
        find_model(REPO, endpoint=hub.endpoint, cache_dir=tmp_path / place)
    with pytest.raises(DownloadError, match=f"{tmp_path / 'file'}.* cannot be written to"):
        download(REPO, endpoint=hub.endpoint, directory=tmp_path / place)


def test_the_environment_chooses_hub_cache_and_offline(hub: Hub, tmp_path: Path) -> None:
    env = environment(hub, tmp_path)
    offline = {**env, "HF_HUB_OFFLINE": "1"}
    assert "ModelNotFoundError org/model-GGUF is not on this machine" in run(CAUGHT, offline).stdout
    assert hub.seen == []
    found = run(FIND, env)
    assert Path(found.stdout.strip()).is_relative_to(tmp_path / "hf home" / "hub")
    assert "%" not in found.stderr, "a progress bar, though nobody looks at a terminal"
    hub.seen.clear()
    assert run(CAUGHT, offline).stdout == found.stdout
    assert hub.seen == []


SHOW_EVERYTHING = f"""
import logging, sys, traceback
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
from ggrank.hub.client import HubAccess
print(repr(HubAccess(sys.argv[1] if len(sys.argv) > 1 else None)), plan({REPO!r}))
for name in ({REPO!r}, "org/gated", "org/missing"):
    try: print(find_model(name), plan(name), verify(name))
    except Exception as error: print(repr(error)); traceback.print_exc(file=sys.stdout)
print(list_models())
"""


@pytest.mark.parametrize(
    ("token", "debug"),
    [
        ("hf_" + "s3CrEt" * 6, "0"),
        ("hf_" + "s3CrEt" * 6, "1"),
        ("an-odd-secret-of-somebody", "0"),
        ("a “secret” that nobody can send", "0"),
        ("a secret\x01that nobody can send", "1"),
    ],
)
def test_the_token_is_used_and_never_shown(hub: Hub, tmp_path: Path, token: str, debug: str) -> None:
    hub.token = token
    hub.add("org/gated", {FILE: b"gated"}, gated=True)
    hub.faults.cut_after, hub.faults.cuts = MIDDLE, 1
    done = run(SHOW_EVERYTHING, environment(hub, tmp_path, HF_TOKEN=token, HF_DEBUG=debug))
    assert done.returncode == 0
    assert token not in done.stdout + done.stderr
    assert token not in "".join(path.read_text() for path in (tmp_path / "records").glob("*"))
    if "nobody" not in token:
        assert f"Bearer {token}" in {request.authorization for request in hub.seen}
        assert {request.authorization for request in hub.seen if request.server == "cdn"} == {None}


def test_a_token_argument_is_sent_to_the_hub_only_and_never_shown(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = hub.token = "my-own-secret"
    assert find_model(REPO, endpoint=hub.endpoint, token=token).path.read_bytes() == DATA
    assert {request.authorization for request in hub.seen if request.server == "hub"} == {f"Bearer {token}"}
    assert {request.authorization for request in hub.seen if request.server == "cdn"} == {None}
    with pytest.raises(ModelNotFoundError) as caught:
        find_model("org/missing", endpoint=hub.endpoint, token=token)
    assert token not in caplog.text + str(caught.value) + repr(caught.value) + repr(HubAccess(token))


@pytest.mark.parametrize("token", ["hf_secret\n", "hf secret", "“hf_secret”", ""])
def test_a_token_that_cannot_be_one_is_refused_unseen(hub: Hub, token: str) -> None:
    with pytest.raises(InputError, match="characters that no token has") as caught:
        find_model(REPO, endpoint=hub.endpoint, token=token)
    assert "secret" not in str(caught.value)
    assert hub.seen == []


def test_a_password_in_the_hubs_address_is_not_shown(hub: Hub) -> None:
    address = hub.endpoint.replace("//", "//name:pa55phrase@")
    assert "pa55phrase" not in repr(plan(REPO, endpoint=address))
    hub.faults.status = 401
    with pytest.raises(DownloadError) as caught:
        find_model(REPO, endpoint=address)
    assert "pa55phrase" not in str(caught.value)
