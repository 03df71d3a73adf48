"""`RemoteReranker` and `RemoteEmbedder`: the calls of `Llama`, answered by a server.

    texts -> requests of some texts each -> a dialect's JSON -> HTTP -> scores | vectors -> ranking

`models` has the two classes, `dialects` words the requests and finds out which dialect a server speaks,
`connection` sends and tries again, `answers` checks what comes back, `errors` says what went wrong.
"""

from __future__ import annotations

from ggrank.remote.models import RemoteEmbedder as RemoteEmbedder
from ggrank.remote.models import RemoteReranker as RemoteReranker
