"""Hundreds of damaged copies of tiny models: each loads and answers, or is refused; none ends the process.

Worker processes try one copy after the other and say what came of each, so that a copy which ends
its process is known by name. A name is a recipe: `mutants` makes the same bytes from it every time.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import gguf
import pytest

import gguf_bytes
import tiny_models
from ggrank.errors import GgrankError
from ggrank.gguf import open_gguf
from gguf_bytes import DTYPES, Gguf

KINDS = ("bert-mean", "xlmr-reranker", "modernbert-reranker-cls", "qwen3-reranker")
N_WORKERS = 2
TIMEOUT_SECONDS = 120
TEXTS = ["Llamas live in the Andes.", "", "漢字 émoji 🎉 \0 ﬁ", "one " * 200]
EXTREMES = {"f": (0.0, -1.0, float("inf")), "b": (False, True)}


class Mutants:
    """Damaged copies of one file: pairs of a name and the bytes."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind, self.whole, self.file = kind, path.read_bytes(), gguf_bytes.read(path)
        tensors = open_gguf(path).tensors.values()
        self.weights = min(tensor.offset for tensor in tensors)

    def all(self) -> Iterator[tuple[str, bytes]]:
        """Those that are loaded."""
        yield from self.cut(10)
        yield from self.flipped(14)
        yield from self.overwritten(14)
        yield from self.spoiled_weights(3)
        yield from self.swapped_counts(8)
        yield from self.rewritten(12)
        yield from self.extremes()

    def damaged(self, name: str, seed: int) -> tuple[str, bytearray, random.Random]:
        name = f"{self.kind}-{name}-{seed}"
        return name, bytearray(self.whole), random.Random(name)

    def cut(self, count: int) -> Iterator[tuple[str, bytes]]:
        """Cut off before and behind a word of the header, in its middle, and among the weights."""
        for seed in range(count):
            name, data, choose = self.damaged("cut", seed)
            place = self.place_of_a_word(choose) if seed % 3 else choose.randrange(self.weights, len(data))
            yield name, bytes(data[: place + choose.choice([0, 1, 8])])

    def flipped(self, count: int) -> Iterator[tuple[str, bytes]]:
        """One to four bits of the header turned over."""
        for seed in range(count):
            name, data, choose = self.damaged("flipped", seed)
            for _ in range(choose.choice([1, 1, 1, 4])):
                data[self.place(choose)] ^= 1 << choose.randrange(8)
            yield name, bytes(data)

    def overwritten(self, count: int) -> Iterator[tuple[str, bytes]]:
        """Bytes of the header replaced, alone or by a stretch from elsewhere in it."""
        for seed in range(count):
            name, data, choose = self.damaged("overwritten", seed)
            place, other, length = self.place(choose), self.place(choose), choose.choice([1, 1, 4, 64])
            new = bytes([choose.choice([0, 1, 127, 255])]) if length == 1 else data[other : other + length]
            data[place : place + len(new)] = new
            yield name, bytes(data)

    def spoiled_weights(self, count: int) -> Iterator[tuple[str, bytes]]:
        """A stretch of the weights replaced by chance."""
        for seed in range(count):
            name, data, choose = self.damaged("spoiled", seed)
            place = choose.randrange(self.weights, len(data) - 600)
            data[place : place + 600] = choose.randbytes(600)
            yield name, bytes(data)

    def swapped_counts(self, count: int) -> Iterator[tuple[str, bytes]]:
        """Two numbers of the header that changed places, of 4 or of 8 bytes."""
        for seed in range(count):
            name, data, choose = self.damaged("swapped", seed)
            size = choose.choice([4, 8])
            one, two = sorted(choose.sample([8, 16, *self.places_of_values()], 2))
            data[one : one + size], data[two : two + size] = data[two : two + size], data[one : one + size]
            yield name, bytes(data)

    def rewritten(self, count: int) -> Iterator[tuple[str, bytes]]:
        """A whole file again, with one thing in it that does not fit the rest."""
        for seed in range(count):
            name, _, choose = self.damaged("rewritten", seed)
            changes = (self.without_key, self.without_tensor, self.with_lists, self.with_types)
            yield name, changes[seed % len(changes)](choose).to_bytes()

    def without_key(self, choose: random.Random) -> Gguf:
        return self.file.without_key(choose.choice(self.file.keys).name)

    def without_tensor(self, choose: random.Random) -> Gguf:
        gone = choose.choice(self.file.tensors)
        return replace(self.file, tensors=tuple(one for one in self.file.tensors if one is not gone))

    def with_lists(self, choose: random.Random) -> Gguf:
        """A list that is shorter by one, or in which some values are also at another place."""
        key = choose.choice([key for key in self.file.keys if key.items is not None])
        values = list(key.value[:-1] if choose.random() < 0.3 else key.value)
        for _ in range(choose.choice([1, 100]) if values else 0):
            values[choose.randrange(len(values))] = choose.choice(values)
        return self.file.with_key(key.name, values)

    def with_types(self, choose: random.Random) -> Gguf:
        """A tensor stored as another type, with as many bytes as that type needs."""
        tensor = choose.choice(self.file.tensors)
        n_numbers, kinds = len(tensor.data) // 4, gguf.GGML_QUANT_SIZES.items()
        fitting = [(kind, sizes) for kind, sizes in kinds if tensor.shape[0] % sizes[0] == 0]
        kind, (block, block_bytes) = choose.choice(fitting)
        data = choose.randbytes(n_numbers // block * block_bytes)
        return self.file.with_tensor(tensor.name, type=int(kind), data=data)

    def extremes(self) -> Iterator[tuple[str, bytes]]:
        """Every number of the metadata set to 0, to -1 and to the largest there is."""
        for key in self.file.keys:
            if key.type not in DTYPES:
                continue
            dtype = DTYPES[key.type]
            bits = 8 * dtype.itemsize
            for value in EXTREMES.get(dtype.kind, (0, (1 << bits) - 1, (1 << bits - 1) - 1)):
                if value != key.value:
                    file = self.file.with_key(key.name, value)
                    yield f"{self.kind}-{key.name}={value}", file.to_bytes()

    def place(self, choose: random.Random) -> int:
        """Somewhere in the header, each time as likely before the vocabulary as anywhere."""
        return choose.randrange(self.weights if choose.random() < 0.5 else 600)

    def place_of_a_word(self, choose: random.Random) -> int:
        return choose.choice(self.places_of_values())

    def places_of_values(self) -> list[int]:
        names = [key.name.encode() for key in self.file.keys]
        names += [tensor.name.encode() for tensor in self.file.tensors]
        return [self.whole.index(len(name).to_bytes(8, "little") + name) + 8 + len(name) for name in names]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutated")


@pytest.fixture(scope="module")
def paths(directory: Path) -> list[Path]:
    """The files of all mutants, in an order that shares out the slow ones."""
    found = []
    for kind in KINDS:
        source = tiny_models.write(kind, directory / "sound")
        for name, data in Mutants(kind, source).all():
            path = directory / f"{name}.gguf"
            path.write_bytes(data)
            found.append(path)
    random.Random(1).shuffle(found)
    return found


@pytest.fixture(scope="module")
def outcomes(paths: list[Path]) -> dict[str, str]:
    """What came of each mutant, by its name."""
    with ThreadPoolExecutor(N_WORKERS) as pool:
        found = pool.map(outcomes_of, [paths[i::N_WORKERS] for i in range(N_WORKERS)])
    return {name: outcome for part in found for name, outcome in part.items()}


def outcomes_of(paths: list[Path]) -> dict[str, str]:
    """Tries files in a child process, and in another from the one behind a file that ended it."""
    found: dict[str, str] = {}
    while len(found) < len(paths):
        rest = paths[len(found) :]
        child = subprocess.run(
            [sys.executable, __file__],
            input="\n".join(map(str, rest)),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_SECONDS * 10,
            check=False,
        )
        said = [line[8:] for line in child.stdout.splitlines() if line.startswith("outcome ")]
        found.update({path.stem: outcome for path, outcome in zip(rest, said, strict=False)})
        if len(said) < len(rest):
            found[rest[len(said)].stem] = f"died: {child.returncode} {child.stderr[-500:]}"
    return found


def test_no_damaged_file_ends_the_process(outcomes: dict[str, str]) -> None:
    assert len(outcomes) >= 300
    assert {name: said for name, said in outcomes.items() if said.startswith("died")} == {}


def test_every_damaged_file_answers_or_raises_our_error(outcomes: dict[str, str]) -> None:
    words = ("answered", "refused", "died")
    assert {name: said for name, said in outcomes.items() if not said.startswith(words)} == {}


def test_damage_that_changes_nothing_important_is_not_refused(outcomes: dict[str, str]) -> None:
    assert sum(said == "answered" for said in outcomes.values()) >= 30


def test_a_sound_copy_answers(directory: Path) -> None:
    sound = [tiny_models.write(kind, directory / "sound") for kind in KINDS]
    assert set(outcomes_of(sound).values()) == {"answered"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_header_raises_nothing_but_our_error(kind: str, directory: Path) -> None:
    """Many more, without llama.cpp."""
    mutants = Mutants(kind, tiny_models.write(kind, directory / "sound"))
    path = directory / f"{kind}-header.gguf"
    for make in (mutants.cut, mutants.flipped, mutants.overwritten, mutants.swapped_counts):
        for _, data in make(120):
            path.write_bytes(data)
            with contextlib.suppress(GgrankError):
                open_gguf(path)


def attempt(path: str) -> str:
    """Loads a file as a user does, and asks it something."""
    from ggrank import Llama

    try:
        with Llama.load(path, n_threads=1) as llama:
            llama.rank("Where do llamas live?", TEXTS)
            llama.count_tokens(TEXTS[2])
    except GgrankError as error:
        return f"refused: {type(error).__name__}"
    except Exception as error:
        return f"raised {error!r}"
    return "answered"


def main() -> None:
    """A worker: paths on stdin, an outcome for each on stdout."""
    warnings.simplefilter("ignore")
    for path in sys.stdin.read().splitlines():
        print("outcome", " ".join(attempt(path).split()), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
