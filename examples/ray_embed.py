"""Embed a Ray dataset with two actors, and compare with the same rows without Ray.

    pip install 'ggrank[ray]' && examples/run.sh ray_embed

Starts a Ray on this machine, of which nothing is sent anywhere. In a cluster it is `ray.init("auto")`, and
`ray.data.read_parquet` and `write_parquet` in place of the lists.
"""

from __future__ import annotations

import os
import sys

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before Ray reads it

import numpy as np
import ray
import ray.data

from ggrank import LlamaParams
from ggrank.integrations.ray import map_step
from ggrank.jobs import EmbedStep

PASSAGES = [
    "Bees dance to tell each other where flowers are.",
    "Cars rust where salt is strewn on the roads.",
    "Llamas graze on the Altiplano.",
    "Cooked rice keeps three to four days in the fridge.",
]


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else "all-minilm-l6-v2"
    step = EmbedStep(LlamaParams(model))
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"id": i, "text": text} for i, text in enumerate(PASSAGES)]

    dataset = map_step(ray.data.from_items(rows, override_num_blocks=2), step, workers=2)
    found = {row["id"]: row for row in dataset.take_all()}
    ray.shutdown()

    alone = step({"text": PASSAGES})["embedding"]
    vectors = np.array([found[i]["embedding"] for i in range(len(PASSAGES))])
    print(f"{len(vectors)} vectors of {vectors.shape[1]} numbers by 2 actors")
    print(f"The same without Ray: {np.allclose(vectors, alone, atol=1e-3)}")


if __name__ == "__main__":
    main()
