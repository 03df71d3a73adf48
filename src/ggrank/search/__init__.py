"""Search: files, folders and documents, by meaning and by words, on disk or in memory.

    readers, sections, html   a file becomes documents: text, sections with their headings, metadata
    chunking                  a document becomes passages, spans of its text
    words, lexical            what a query and a word are in every script, and BM25
    store, vectors            an index's SQLite tables and connections, and its vector file
    writing                   documents become passages, vectors and words in the store
    files, update             which files are documents, and one update of an index
    ranking, where            how passages are ordered, scored and filtered
    models, settings          what an index asks of its models, and what it was made with
    generations               which store of an index counts while it is rebuilt, and who may write
    lookup                    one document by its id or path, and the vector that stands for it
    index, pipeline, hits     the public faces: `Index`, `Pipeline`, and the `Hit`s that both give

An update goes ``files -> documents -> passages -> vectors and words -> one transaction``; a search goes
``query -> candidates of one committed state -> hits -> reranked hits``.
"""
