"""Text on its way to the engine; all of it takes plain values.

    inputs.py       checks of callers' arguments
    tokenizer.py    text to token ids, and a warning of text that the model cannot read
    pairing.py      query and document to one sequence, cut if it does not fit
    packing.py      sequences to micro-batches

The engine itself is passed in.
"""
