"""Rows and records in files: documents as JSON lines, and the small facts that ggrank remembers."""
