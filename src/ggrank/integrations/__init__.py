"""ggrank in other people's frameworks: one thin file each, and an extra of the same name.

Each file turns a framework's own types into a call of `Llama`, and back; nothing is computed here, so scores
and vectors are those of `Llama`. Importing this package loads no framework. See docs/integrations.md.
"""
