"""Corpus jobs: rows of files to rows with vectors or scores, in parts, stopped and resumed at any moment.

    sources   which files                      steps     what is computed: `EmbedStep`, `ScoreStep`
    rows      files to rows, from any place    workers   in one process or several
    blocks    rows to what belongs together    parts     on the disk, whole or not at all

`ggrank.corpus.job` says how they meet. A step is all that other machinery needs: a plain value that can be
pickled, from a table of columns to the same table with new ones.
"""

from __future__ import annotations

from ggrank.corpus.blocks import BadRow as BadRow
from ggrank.corpus.forms import Format as Format
from ggrank.corpus.job import Job as Job
from ggrank.corpus.job import run as run
from ggrank.corpus.job import stream as stream
from ggrank.corpus.outcome import Progress as Progress
from ggrank.corpus.outcome import Summary as Summary
from ggrank.corpus.sources import Source as Source
from ggrank.corpus.sources import find_sources as find_sources
from ggrank.corpus.steps import EmbedStep as EmbedStep
from ggrank.corpus.steps import ScoreStep as ScoreStep
from ggrank.corpus.vectors import VectorForm as VectorForm
