"""From a file to a running engine.

    params.py       the options of `ggrank.Llama.load`, and the rules for those that are left open
    heads.py        how a file pools and pairs, and which of its outputs is the score
    tuning.py       settings for this machine: rules, and what `ggrank tune` has measured
    preflight.py    a first try in a child process, which may crash
    model.py        all of these together: `load_model`
    cache.py        results on disk, so that each is computed once

llama.cpp may end the process over a damaged file, so every check comes before llama.cpp sees the file.
"""
