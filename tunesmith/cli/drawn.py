"""Rows as the model reads them, in short, as coloured text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from tunesmith.document.seen.see import Seen
from tunesmith.document.seen.tokens import Gap, Strip, Token
from tunesmith.document.seen.view import Chip, SeenRow

STRIPS, PIECES = 3, 60
"""Texts of a row, and tokens of a text, that a terminal shows."""
HUES = ("cyan", "magenta", "yellow", "green", "blue", "red")
TONES = {"good": "green", "bad": "red"}
JOINT = "·"


def drawn(seen: Seen) -> Iterator[Text]:
    """Lines to print: each row with its labels, and its tokens with `·` where a word goes on in the next token."""
    yield Text(f"Tokens as the model reads them: {JOINT} joins those of one word, what is cut is struck out.", "dim")
    for row in seen.rows:
        yield Text("")
        yield _head(row)
        for strip in row.strips[:STRIPS]:
            yield _line(strip)
        more = row.more + max(len(row.strips) - STRIPS, 0)
        if more:
            yield Text(f"  … and {more:,} more texts", "dim")
        for note in row.notes:
            yield Text(f"  {note}", "yellow")
    for note in _ends(seen):
        yield Text(note, "dim")


def _ends(seen: Seen) -> Iterator[str]:
    yield ""
    yield from seen.about.notes
    if seen.missed:
        yield f"Not shown: {', '.join(seen.missed[:10])}{', …' if len(seen.missed) > 10 else ''}. Show more with --rows N."


def _head(row: SeenRow) -> Text:
    text = Text().append(f"{row.id}  ", "bold")
    for chip in row.chips:
        text.append(chip.text, f"bold {_colour(chip)}").append(f"  {chip.note}  " if chip.note else "  ", "dim")
    return text.append(row.why, "dim")


def _colour(chip: Chip) -> str:
    return TONES.get(chip.tone, "") if chip.hue is None else HUES[chip.hue % len(HUES)]


def _line(strip: Strip) -> Text:
    limit = f" of {strip.limit:,}" if strip.limit else ""
    cut = f", {strip.lost:,} cut" if strip.lost else ""
    text = Text("  ").append(f"{strip.name} ", TONES.get(strip.tone, "bold")).append(f"({len(strip.ids):,}{limit} tokens{cut})", "dim")
    for piece in strip.pieces[:PIECES]:
        if isinstance(piece, Gap):
            text.append(f" … {piece.count:,} {'cut' if piece.lost else 'more'} …", "dim red" if piece.lost else "dim")
        else:
            _add(text, piece)
    hidden = len(strip.pieces) - PIECES
    return text.append(f" … {hidden:,} more", "dim") if hidden > 0 else text


def _add(text: Text, token: Token) -> None:
    """Add a token, and its tag where it has one that says something; nothing for the rest of a character."""
    if not token.text:
        return
    text.append(JOINT if token.joined else " ", "dim").append(token.text, _style(token))
    if token.mark.tag not in ("", "O"):
        text.append(f"/{token.mark.tag}", f"italic {_style(token)}")


def _style(token: Token) -> str:
    if token.lost:
        return "dim strike red"
    if token.special or token.mark.faint:
        return "dim"
    if token.unknown:
        return "reverse"
    hue = "" if token.mark.hue is None else HUES[token.mark.hue % len(HUES)]
    return hue or ("blue" if token.part else "")
