"""Makes the goldens that tests compare with: what the original models answer, computed by torch.

    python scripts/make_goldens.py                  tests/goldens/tiny, for every kind of tiny model
    python scripts/make_goldens.py bert-mean        for some kinds
    python scripts/make_goldens.py --tokenizers     first trains the tiny tokenizers again

Needs the packages of requirements/parity.txt, and sentencepiece and protobuf for ``--tokenizers``. The
results are committed, so that `make test` needs no torch; `make parity` computes them again and compares.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from tiny import goldens, models, texts


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kinds", nargs="*", choices=[*models.KINDS, []], help="all when none is named")
    parser.add_argument("--tokenizers", action="store_true", help="train the tiny tokenizers again")
    arguments = parser.parse_args()
    if arguments.tokenizers:
        from tiny import training

        training.train_all()
    make_texts()
    for kind in arguments.kinds or models.KINDS:
        make(kind)
    make_segments()


def make_texts() -> None:
    """The pairs and texts, with some that fill a model's ``n_ctx`` exactly, by one less and by one more."""
    from tiny.torch_reference import exact_pairs, exact_texts

    fitted_pairs = [pair for kind in models.KINDS for pair in exact_pairs(models.build(kind))]
    fitted_texts = [text for kind in models.KINDS for text in exact_texts(models.build(kind))]
    all_pairs = list(dict.fromkeys([*texts.pairs(), *fitted_pairs]))
    goldens.save_texts(all_pairs, list(dict.fromkeys([*texts.texts(), *fitted_texts])))


def make(kind: str) -> None:
    from tiny.torch_reference import golden

    answer = golden(models.build(kind))
    goldens.save(kind, answer)
    size = (goldens.DIRECTORY / f"{kind}.npz").stat().st_size
    print(f"{kind}: {len(answer.ids)} sequences, {size} bytes")


def make_segments() -> None:
    from tiny.torch_reference import SEGMENT_KINDS, segment_logits, segment_pairs

    pairs = segment_pairs()
    logits = [segment_logits(kind, pairs) for kind in SEGMENT_KINDS]
    goldens.save_segments(pairs, {name: found for group in logits for name, found in group.items()})


if __name__ == "__main__":
    main()
