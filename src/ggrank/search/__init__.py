"""Search: `ggrank.search.index` over files on disk, `ggrank.search.pipeline` over documents in memory."""
