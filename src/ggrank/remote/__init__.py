"""`RemoteReranker` and `RemoteEmbedder`: the calls of `Llama`, answered by a server.

    texts -> requests of some texts each -> a dialect's JSON -> HTTP -> scores | vectors -> ranking

`connection` sends and tries again, `dialects` words the requests, `finding` asks a server which dialect it
speaks, `reading` checks what comes back. Needs httpx (extra: remote), imported when an object is made.
"""

from __future__ import annotations

from ggrank.remote.embedder import RemoteEmbedder as RemoteEmbedder
from ggrank.remote.reranker import RemoteReranker as RemoteReranker
