"""Text on its way to the engine.

inputs.py       checks of callers' arguments
tokenizer.py    text to token ids
languages.py    finds texts that a model cannot read
pairing.py      query and document to one sequence, cut if it does not fit
packing.py      sequences to micro-batches
"""
