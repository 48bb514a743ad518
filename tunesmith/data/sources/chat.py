"""Conversations as JSON lines or a JSON list: `messages`, ShareGPT's `conversations`, or Alpaca's instruction and output."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import polars as pl

from tunesmith.data.sources.base import Items, Left, Reason, counted, dropped_table, frame, held, warning
from tunesmith.data.sources.place import Place

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user", "assistant": "assistant",
    "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant", "tool": "tool", "function": "tool",
    "observation": "tool",
}  # fmt: skip
MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
Form = Literal["messages", "sharegpt", "alpaca"]
FORMS: dict[Form, str] = {
    "messages": "`messages` with role and content",
    "sharegpt": "ShareGPT's `conversations` with from and value",
    "alpaca": "Alpaca's instruction and output",
}
READ: dict[Form, frozenset[str]] = {
    "messages": frozenset(("messages",)),
    "sharegpt": frozenset(("conversations", "system")),
    "alpaca": frozenset(("instruction", "input", "output", "system")),
}
OWN = {"source": "source_in_file", "messages": "messages_in_file"}  # names that the table uses itself
Turn = tuple[object, object]  # role, content


def recognise(place: Place) -> str | None:
    """Why these are conversations: one of the three shapes in the first objects; None otherwise."""
    forms = Counter(form for record in place.first_objects if (form := _form(record)))
    return f"the objects of {place.name} have {FORMS[forms.most_common(1)[0][0]]}" if forms else None


def read(place: Place, why: str) -> Items:
    """A row per conversation, its `messages` with the roles system, user, assistant and tool.

    Other keys with single values become text columns. A conversation is left out whole when a turn of it is empty, has
    an unknown role, calls a tool or is no text, or when no turn is the assistant's.

    Raises:
        DataError: no conversation is left.
    """
    left: list[Left] = []
    rows: list[dict[str, Any]] = []
    forms: Counter[Form] = Counter()
    extra: dict[str, Any] = {}
    nested: Counter[str] = Counter()
    for source, record in place.objects(left):
        form = _form(record)
        if form is None:
            left.append((source, Reason.MALFORMED, "none of messages, conversations, and instruction with output"))
            continue
        turns = _messages(source, _turns(record, form), left)
        if turns is None:
            continue
        forms[form] += 1
        rest = {OWN.get(name, name): value for name, value in record.items() if name not in READ[form] and value is not None}
        nested.update(name for name, value in rest.items() if isinstance(value, (dict, list)))
        plain = {name: _text(value) for name, value in rest.items() if not isinstance(value, (dict, list))}
        extra |= dict.fromkeys(plain, pl.String)
        rows.append({**plain, "source": source, "messages": turns})
    schema = {"source": pl.String, "messages": MESSAGES} | extra
    table = held(str(place.path), frame(rows, schema), left)
    issues = list(place.encoding[1])
    if len(forms) > 1:
        found = ", ".join(f"{count:,} {form}" for form, count in forms.most_common())
        issues.append(warning(place.name, "should hold conversations of one shape", found, "Each was read by its own."))
    issues += [i for name, n in nested.most_common() for i in counted(place.name, n, f"{name!r} should be a single value", "are not read")]
    return Items("chat", "chat-jsonl", why, None, table, dropped_table(left), tuple(issues))


def _form(record: dict[str, Any]) -> Form | None:
    if isinstance(record.get("messages"), list):
        return "messages"
    if isinstance(record.get("conversations"), list):
        return "sharegpt"
    return "alpaca" if isinstance(record.get("instruction"), str) and "output" in record else None


def _turns(record: dict[str, Any], form: Form) -> list[Turn | None]:
    """Pairs of role and content as they were written; None for a turn that is no object."""
    if form == "alpaca":
        given = record.get("input")
        asked = f"{record['instruction']}\n\n{given}" if isinstance(given, str) and given.strip() else record["instruction"]
        turns: list[Turn | None] = [("user", asked), ("assistant", record["output"])]
    elif form == "sharegpt":
        given = record["conversations"]
        turns = [(t.get("from", t.get("role")), t.get("value", t.get("content"))) if isinstance(t, dict) else None for t in given]
    else:
        turns = [_turn(t) if isinstance(t, dict) else None for t in record["messages"]]
    system = record.get("system")
    if form != "messages" and isinstance(system, str) and system.strip():
        turns.insert(0, ("system", system))
    return turns


def _turn(turn: dict[str, Any]) -> Turn:
    if turn.get("tool_calls") or turn.get("function_call"):
        return turn.get("role"), Reason.TOOL_CALLS
    content = turn.get("content")
    if isinstance(content, list) and content and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        content = "".join(part["text"] for part in content)
    return turn.get("role"), content


def _messages(source: str, turns: list[Turn | None], left: list[Left]) -> list[dict[str, str]] | None:
    """The conversation in our roles; None, and the reason in `left`, for one that cannot be used."""
    messages = []
    for number, turn in enumerate(turns, start=1):
        problem, detail = _problem(turn)
        if problem or turn is None:
            left.append((source, problem or Reason.MALFORMED, f"turn {number}{detail}"))
            return None
        messages.append({"role": ROLES[str(turn[0]).strip().lower()], "content": str(turn[1])})
    if all(message["role"] != "assistant" for message in messages):
        left.append((source, Reason.NO_ASSISTANT, f"{len(messages)} turns"))
        return None
    return messages


def _problem(turn: Turn | None) -> tuple[Reason | None, str]:
    if turn is None:
        return Reason.MALFORMED, " is not a JSON object"
    role, content = turn
    if not isinstance(role, str) or role.strip().lower() not in ROLES:
        return Reason.UNKNOWN_ROLE, f" has the role {str(role)[:40]!r}"
    if content is Reason.TOOL_CALLS:
        return Reason.TOOL_CALLS, ""
    if content is None or (isinstance(content, str) and not content.strip()):
        return Reason.EMPTY_CONTENT, f" ({role})"
    return (None, "") if isinstance(content, str) else (Reason.MALFORMED, " holds no text")


def _text(value: object) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
