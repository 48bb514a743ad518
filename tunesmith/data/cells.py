"""JSON that stands in a cell of a table, or in a line of a file."""

from __future__ import annotations

import json
import re
from typing import Any

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def json_value(text: str) -> Any:
    """The value that a text is JSON of.

    Raises:
        json.JSONDecodeError: it is no JSON.
        ValueError: it is JSON that no table can hold: nested too deeply, a number of too many digits, half a surrogate pair.
    """
    try:
        value = json.loads(text)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError("half a surrogate pair") from error
    return value
