"""Rows of files: read and written in one place for the whole package.

reading     `read_rows`: JSON lines, JSON, CSV, TSV, Parquet and plain lines, one `Row` at a time
encodings   `decode`: bytes to text, whatever encoding they are in
documents   `Document`, and the one rule for which fields of a row are its id, title and text
parquet     Parquet with pyarrow: batches, tables, and which model computed a column
writing     `written`: a file is there whole or not at all; JSON lines; a lock
records     small facts that ggrank remembers between runs
"""
