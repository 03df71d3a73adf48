"""The page at ``/``: one HTML file, sent with a policy that lets it do nothing but ask this server.

Knows the file and its headers; what the page asks is answered by ``/v1/models`` and ``/rerank``.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter()


@router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
def page() -> HTMLResponse:
    """The page, needing no key: it holds nothing, and asks for one when the server does."""
    return HTMLResponse(
        html(),
        headers={
            "Cache-Control": "no-store",
            "Content-Security-Policy": content_security_policy(html()),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        },
    )


@cache
def html() -> str:
    """The file's text."""
    return resources.files(__name__).joinpath("index.html").read_text("utf-8")


@cache
def content_security_policy(document: str) -> str:
    """A policy that allows this document's own styles and scripts, by their hashes, and this server.

    Where the browser knows Trusted Types, no script can turn a string into HTML.
    Source: https://www.w3.org/TR/CSP3/ and https://www.w3.org/TR/trusted-types/.

    Example:
        >>> policy = content_security_policy("<style>p{}</style><script>1</script>")
        >>> policy.split("; ")[:2]
        ["default-src 'none'", "script-src 'sha256-a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s='"]
    """
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash_of('script', document)}",
            f"style-src {_hash_of('style', document)}",
            "img-src data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ]
    )


def _hash_of(element: str, document: str) -> str:
    inside = re.findall(rf"<{element}>(.*?)</{element}>", document, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inside]
    return " ".join(f"'sha256-{digest}'" for digest in digests)
