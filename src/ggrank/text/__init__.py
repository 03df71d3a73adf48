"""Text on its way to the engine: checks of what callers give, tokens, sequences of pairs, micro-batches.

`inputs` checks texts, `tokenizer` makes token ids, `pairing` joins query and document, `packing` fills
micro-batches.
"""
