"""Lists as requests carry them: counted first, then read item by item, in a thread.

Knows texts and token ids as items. A body may hold millions of them: a list that is too long is refused
before any is looked at, and none is looked at on the event loop, so that nobody else waits for it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, PlainValidator
from starlette.concurrency import run_in_threadpool

from ggrank.server.dialects.errors import found
from ggrank.server.dialects.options import wrong
from ggrank.server.errors import FieldError
from ggrank.server.limits import check_number
from ggrank.server.service import Service
from ggrank.text.inputs import check_text

T = TypeVar("T")

LAST_TOKEN_ID = 2**31 - 1


async def read(
    service: Service, items: Sequence[Any], read_item: Callable[[Any, str], T], name: str
) -> list[T]:
    """Every item as ``read_item`` gives it, which is told the item's name, such as "texts.3".

    Raises:
        TooLargeError: there are more than a request may have; none was looked at.
        FieldError: what ``read_item`` raises.
    """
    check_number(service.settings, items, name)
    return await run_in_threadpool(
        lambda: [read_item(item, f"{name}.{i}") for i, item in enumerate(items)],
    )


async def read_one_or_many(
    service: Service, value: Any, read_item: Callable[[Any, str], T], name: str
) -> list[T]:
    """As `read`; one text, or the token ids of one, is a list of one."""
    if isinstance(value, str) or type(value[0]) is int:
        return [await run_in_threadpool(read_item, value, name)]
    return await read(service, value, read_item, name)


def wrong_item(message: str, name: str) -> FieldError:
    """An error of one item, worded as `ggrank.server.answers` words those of fields."""
    return FieldError(f"{message}; /docs describes every field", field=name)


def read_text(item: object, name: str) -> str:
    """A string, as `ggrank.server.dialects.options.Text` has it."""
    if not isinstance(item, str):
        raise wrong_item(f"must be a string, found {found(item)}", name)
    return check_text(item, name)


def read_ids(item: object, name: str) -> list[int]:
    """A list of one token id or more."""
    if not isinstance(item, list) or not item:
        raise wrong_item(f"must be a list of at least one token id, found {found(item)}", name)
    # Without a step of Python's for each: there may be millions.
    if set(map(type, item)) == {int} and min(item) >= 0 and max(item) <= LAST_TOKEN_ID:
        return item
    raise wrong_item(f"token ids must be whole numbers from 0 to {LAST_TOKEN_ID}", name)


def read_input(item: object, name: str) -> str | list[int]:
    """What is embedded: a string, also in an object, or token ids."""
    if isinstance(item, dict) and isinstance(item.get("text"), str):
        item = item["text"]
    if isinstance(item, str):
        return check_text(item, name)
    if isinstance(item, list):
        return read_ids(item, name)
    raise wrong_item(f"must be a string or a list of token ids, found {found(item)}", name)


def _some(value: object, *, expected: str) -> object:
    """A string, or a list with something in it; what that is, nobody looks at here."""
    if isinstance(value, str) or (isinstance(value, list) and value):
        return value
    raise wrong(f"must be {expected}, found {found(value)}")


class TextObject(BaseModel):
    """A text in an object, as Jina's clients write it."""

    text: str


TokenId = Annotated[int, Field(ge=0, le=LAST_TOKEN_ID)]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]
"""For OpenAPI only: `read_ids` is what checks."""

Inputs = Annotated[
    Any,
    PlainValidator(
        partial(_some, expected="a string, a list of token ids, or a list of at least one of those"),
        json_schema_input_type=str
        | Annotated[list[str], Field(min_length=1)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1)]
        | Annotated[list[TextObject], Field(min_length=1)],
    ),
]
"""What to embed: one text or several, strings or the token ids of this model; `read_input` reads one."""

Strings = Annotated[
    Any,
    PlainValidator(
        partial(_some, expected="a string or a list of at least one string"),
        json_schema_input_type=str | Annotated[list[str], Field(min_length=1)],
    ),
]
"""What to tokenise: one text or several; `read_text` reads one."""

Ids = Annotated[
    Any,
    PlainValidator(
        partial(_some, expected="a list of at least one token id"), json_schema_input_type=TokenIds
    ),
]

IdLists = Annotated[
    Any,
    PlainValidator(
        partial(_some, expected="a list of at least one token id, or a list of such lists"),
        json_schema_input_type=TokenIds | Annotated[list[TokenIds], Field(min_length=1)],
    ),
]
"""What to make texts of: the token ids of one or several; `read_ids` reads them."""


def as_base64(vector: NDArray[np.float32]) -> str:
    """A vector's float32 numbers, little-endian."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
