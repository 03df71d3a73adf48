"""Small seeded models: weights, vocabularies, their GGUF form and, for the parity tests, their torch form."""
