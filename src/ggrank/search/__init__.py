"""Search: files, folders and documents, by meaning and by words, on disk or in memory.

    readers, sections, html   a file becomes documents: text, sections with their headings, metadata
    chunking                  a document becomes passages, spans of its text
    words, lexical            what a query and a word are in every script, and BM25
    folder, store, vectors    an index's folder, its SQLite tables, and its vector file
    writing                   documents become passages, vectors and words in the store
    files, update             which files are documents, and one update of an index
    ranking, where            how passages are ordered, scored and filtered
    models, settings          what an index asks of its models, and what it was made with
    opening                   which store counts while indexes are rebuilt
    index, pipeline, hits     the public faces: `Index`, `Pipeline`, and the `Hit`s that both give

An update goes ``files -> documents -> passages -> vectors and words -> one transaction``; a search goes
``query -> candidates of one committed state -> hits -> reranked hits``.
"""
