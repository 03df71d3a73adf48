"""Adapters for frameworks: one file each, and an extra of the same name; see docs/integrations.md.

Scores and vectors are those of `Llama`. Importing this package loads no framework.
"""
