"""A file is held to its sum, and read again only when it may have changed."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest

from ggrank.errors import ChecksumError
from ggrank.hub.checksums import VERIFIED, Expected, check, sha256_of
from ggrank.rows.records import recall, remember

RIGHT = b"the right bytes"
WRONG = b"the wrong bytes"
SUM = hashlib.sha256(RIGHT).hexdigest()
PINNED = Expected(SUM, len(RIGHT), "as the catalogue pins it")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(tmp_path / "records"))
    path = tmp_path.resolve() / "model.gguf"
    path.write_bytes(RIGHT)
    return path


def change_unseen(file: Path, content: bytes) -> None:
    """Changes the bytes, but neither size nor time of change, as rsync and tar may."""
    before = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_sum_is_the_files_sha256(file: Path) -> None:
    assert sha256_of(file) == SUM


def test_the_right_bytes_pass(file: Path) -> None:
    assert check(file, PINNED) == SUM
    assert check(file, Expected()) == SUM


def remember_another_sum(file: Path) -> str:
    """Only who reads the file can see that its remembered sum is not its own."""
    facts = recall(VERIFIED)[str(file)]
    remember(VERIFIED, {str(file): {**facts, "sha256": "0" * 64}})
    return "0" * 64


def test_a_checked_file_is_not_read_again(file: Path) -> None:
    check(file, PINNED)
    assert remember_another_sum(file) == check(file, Expected())


def test_a_checked_file_is_read_again_on_demand(file: Path) -> None:
    check(file, PINNED)
    remember_another_sum(file)
    assert check(file, PINNED, again=True) == SUM


@pytest.mark.skipif(
    sys.platform == "win32", reason="Windows keeps no time of the last change that cannot be set"
)
def test_another_file_of_the_same_size_and_time_is_read_again(file: Path) -> None:
    check(file, PINNED)
    change_unseen(file, WRONG)
    with pytest.raises(ChecksumError):
        check(file, PINNED)


def test_a_changed_file_is_read_again(file: Path) -> None:
    check(file, PINNED)
    file.write_bytes(WRONG)
    os.utime(file, ns=(0, 0))
    with pytest.raises(ChecksumError):
        check(file, PINNED)


def test_without_a_place_for_records_every_check_reads_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(file / "not-a-directory"))
    check(file, PINNED)
    change_unseen(file, WRONG)
    with pytest.raises(ChecksumError):
        check(file, PINNED)


@pytest.mark.parametrize("content", [WRONG, RIGHT[:-1], RIGHT + b"!", b""])
def test_a_mismatch_says_both_sums_and_what_to_do_and_deletes_nothing(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ChecksumError) as caught:
        check(file, PINNED)
    message = str(caught.value)
    assert hashlib.sha256(content).hexdigest() in message
    assert SUM in message
    assert "as the catalogue pins it" in message
    assert f"It lies at {file}: delete it, then download again" in message
    assert file.read_bytes() == content


def test_a_mismatch_in_a_cache_names_the_real_file_not_the_link(file: Path) -> None:
    blob = file.rename(file.with_name("blob"))
    try:
        file.symlink_to(blob)
    except OSError:
        pytest.skip("no symbolic links here")
    with pytest.raises(ChecksumError) as caught:
        check(file, Expected("0" * 64, None, "as recorded"))
    assert f"It lies at {blob}:" in str(caught.value)
