"""Corpus jobs: rows of files to rows with vectors or scores, in parts, stopped and resumed at any moment.

    sources   which files                      steps     what is computed: `EmbedStep`, `ScoreStep`
    rows      files to rows, from any place    workers   in one process or several
    blocks    rows to what belongs together    parts     on the disk, whole or not at all

`ggrank.jobs.job` says how they meet. A step is all that other machinery needs: a plain value that can be
pickled, from a table of columns to the same table with new ones.
"""

from __future__ import annotations

from ggrank.jobs.blocks import BadRow as BadRow
from ggrank.jobs.forms import Format as Format
from ggrank.jobs.job import Job as Job
from ggrank.jobs.job import run as run
from ggrank.jobs.job import stream as stream
from ggrank.jobs.outcome import Progress as Progress
from ggrank.jobs.outcome import Summary as Summary
from ggrank.jobs.sources import Source as Source
from ggrank.jobs.sources import find_sources as find_sources
from ggrank.jobs.steps import EmbedStep as EmbedStep
from ggrank.jobs.steps import ScoreStep as ScoreStep
from ggrank.jobs.vectors import VectorForm as VectorForm
