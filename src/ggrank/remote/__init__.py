"""`RemoteReranker` and `RemoteEmbedder`: the calls of `Llama`, answered by a server.

    texts -> requests of some texts each -> a dialect's JSON -> HTTP -> scores | vectors -> ranking

`models` has the two classes, `dialects` writes requests and reads answers, `connection` sends them.
"""

from __future__ import annotations

from ggrank.remote.models import RemoteEmbedder as RemoteEmbedder
from ggrank.remote.models import RemoteReranker as RemoteReranker
