"""Jobs over files of rows: vectors or scores for each row; stopped at any moment, the same command goes on.

    sources   which files                           steps     what is computed: `EmbedStep`, `ScoreStep`
    shards    rows to units, shards and blocks      workers   in one process or several
    job       `run`: how all of them meet           output    the folder of shards, or one file in its place

A step is a plain value that can be pickled, from a table of columns to the same table with new ones, and all
that other machinery needs.
"""

from __future__ import annotations

from ggrank.jobs.job import Job as Job
from ggrank.jobs.job import Progress as Progress
from ggrank.jobs.job import Summary as Summary
from ggrank.jobs.job import run as run
from ggrank.jobs.job import stream as stream
from ggrank.jobs.output import Format as Format
from ggrank.jobs.sources import find_sources as find_sources
from ggrank.jobs.steps import EmbedStep as EmbedStep
from ggrank.jobs.steps import ScoreStep as ScoreStep
