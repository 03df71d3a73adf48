"""What is answered on which path, in the words of the services whose clients ask.

`rerank` and `embed` compute; `models` lists the models, `tokens` makes tokens of texts and texts of tokens.
`fields` holds what requests share.
"""

from __future__ import annotations

from fastapi import APIRouter

from ggrank.server.dialects import embed, models, rerank, tokens

ROUTERS: tuple[APIRouter, ...] = (rerank.router, embed.router, tokens.router, models.router)
