"""Personal data in texts: e-mail addresses, telephone, card and account numbers, national ids; counted, shown masked, or replaced.

A row is looked at closely only if a regular expression over the whole column says that it may hold something; then the shape is
matched and, where the number has a public checksum, verified. What has a weak checksum or an ambiguous shape (nine bare digits, a
version number) needs a word before it that says what it is, so the counts are those of what can be told, not of everything there is:
names and postal addresses are not looked for.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle
from typing import Any

import polars as pl

EXAMPLES = 3


class Kind(StrEnum):
    """What was found. Earlier kinds are looked for first, and no two matches share a character."""

    URL = "url_with_credentials"
    EMAIL = "email"
    IBAN = "iban"
    CARD = "card"
    FRENCH_INSEE = "french_insee"
    BRAZILIAN_CPF = "brazilian_cpf"
    POLISH_PESEL = "polish_pesel"
    SPANISH_ID = "spanish_id"
    DUTCH_BSN = "dutch_bsn"
    US_SSN = "us_ssn"
    IP_ADDRESS = "ip_address"
    PHONE = "phone"


EXPLANATIONS: dict[Kind, str] = {
    Kind.URL: "An address of the web with a user and password, or a secret among its parameters.",
    Kind.EMAIL: "An e-mail address.",
    Kind.IBAN: "A bank account number: length of its country, remainder modulo 97.",
    Kind.CARD: "A payment card number: range of an issuer, length, Luhn digit.",
    Kind.FRENCH_INSEE: "A French social security number with its key.",
    Kind.BRAZILIAN_CPF: "A Brazilian taxpayer number with both check digits.",
    Kind.POLISH_PESEL: "A Polish personal number: date of birth and check digit.",
    Kind.SPANISH_ID: "A Spanish DNI or NIE with its check letter.",
    Kind.DUTCH_BSN: "A Dutch citizen number: the eleven test, and dots in it or a word before it that says so.",
    Kind.US_SSN: "A United States social security number by its shape, without the ranges that were never issued.",
    Kind.IP_ADDRESS: "An internet address, other than those of the machine itself.",
    Kind.PHONE: "A telephone number: international, or in a usual national shape.",
}


@dataclass(frozen=True)
class Found:
    """How often one kind was found: rows with at least one, matches in all, and a few matches, masked."""

    rows: int
    matches: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Personal:
    """Rows looked at, rows with anything found, and each kind, also those of which there is nothing."""

    rows: int
    rows_with: int
    kinds: dict[Kind, Found]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        kinds = {
            str(kind): {"rows": found.rows, "matches": found.matches, "examples": list(found.examples), "explanation": EXPLANATIONS[kind]}
            for kind, found in self.kinds.items()
        }
        return {"rows": self.rows, "rows_with": self.rows_with, "kinds": kinds}


@dataclass(frozen=True)
class Span:
    """A match: its kind, and characters `start` up to `end` of the text."""

    kind: Kind
    start: int
    end: int


def scan(texts: pl.Series) -> Personal:
    """What personal data the texts hold; null counts as a row without any."""
    rows, matches = dict.fromkeys(Kind, 0), dict.fromkeys(Kind, 0)
    examples: dict[Kind, dict[str, None]] = {kind: {} for kind in Kind}
    rows_with = 0
    candidates = _candidates(texts)
    for text, filters in zip(candidates["text"].to_list(), candidates["filters"].to_list(), strict=True):
        found = _spans(text, filters)
        rows_with += bool(found)
        for kind in {span.kind for span in found}:
            rows[kind] += 1
        for span in found:
            matches[span.kind] += 1
            if len(examples[span.kind]) < EXAMPLES:
                examples[span.kind][masked_example(span.kind, text[span.start : span.end])] = None
    kinds = {kind: Found(rows[kind], matches[kind], tuple(examples[kind])) for kind in Kind}
    return Personal(len(texts), rows_with, kinds)


def masked(texts: pl.Series, kinds: Collection[Kind]) -> tuple[pl.Series, dict[Kind, int]]:
    """The texts with each match of these kinds replaced by its name, such as [EMAIL], and how many were; null stays null.

    A scan of what comes back finds none of them: what a replacement lays open is replaced as well.
    """
    counts = dict.fromkeys(kinds, 0)
    candidates = _candidates(texts)
    pairs = zip(candidates["text"].to_list(), candidates["filters"].to_list(), strict=True)
    replaced = [_masked_text(text, filters, counts) for text, filters in pairs]
    out = texts.clone().cast(pl.String)
    if replaced:
        out = out.scatter(candidates["row"], pl.Series(replaced, dtype=pl.String))
    return out, counts


def spans(text: str) -> list[Span]:
    """Every match in one text, in their order in it."""
    return _spans(text, ALL_FILTERS)


def masked_example(kind: Kind, value: str) -> str:
    """The match with most of it hidden: j***@e***.com, **** **** **** 1111; never the value itself."""
    if kind == Kind.EMAIL:
        name, _, domain = value.rpartition("@")
        return f"{_first(name)}@{_first(domain.rpartition('.')[0])}.{domain.rpartition('.')[2]}"
    if kind == Kind.URL:
        return f"{value.partition('://')[0]}://***"
    if kind == Kind.CARD:
        return f"**** **** **** {re.sub(r'[ -]', '', value)[-4:]}"
    if kind == Kind.IBAN:
        return f"{value[:2]}** **** **{value[-2:]}"
    if kind == Kind.IP_ADDRESS:
        return re.sub(r"(?<=[.:])[0-9A-Fa-f]+", "*", value)
    shown = [place for place, character in enumerate(value) if character.isalnum()][-2:]
    return "".join("*" if character.isalnum() and place not in shown else character for place, character in enumerate(value))


def _first(word: str) -> str:
    return f"{word[0]}***" if len(word) > 2 else "***"


def _masked_text(text: str, filters: int, counts: dict[Kind, int]) -> str:
    """Each pass that replaces anything leaves fewer digits and at-signs, so this ends."""
    while found := [span for span in _spans(text, filters) if span.kind in counts]:
        filters = ALL_FILTERS
        for span in reversed(found):
            text = f"{text[: span.start]}[{span.kind.name}]{text[span.end :]}"
            counts[span.kind] += 1
    return text


def _candidates(texts: pl.Series) -> pl.DataFrame:
    """`row`, `text` and `filters` (a bit for each of RULES) of the rows that may hold something."""
    column = pl.col("text")
    bits = pl.sum_horizontal(column.str.contains(rule.rows).cast(pl.UInt32) * (1 << bit) for bit, rule in enumerate(RULES))
    return (
        texts.cast(pl.String)
        .to_frame("text")
        .with_row_index("row")
        .with_columns(bits.fill_null(0).alias("filters"))
        .filter(pl.col("filters") > 0)
    )


def _spans(text: str, filters: int) -> list[Span]:
    found: list[Span] = []
    for bit, rule in enumerate(RULES):
        if filters >> bit & 1:
            for match in rule.shape.finditer(text):
                free = all(match.end() <= span.start or match.start() >= span.end for span in found)
                if free and rule.holds(match):
                    found.append(Span(rule.kind, match.start(), match.end()))
    return sorted(found, key=lambda span: span.start)


@dataclass(frozen=True)
class _Rule:
    """A kind: the filter that rows must pass, the shape of a match, and what must hold besides."""

    kind: Kind
    rows: str
    shape: re.Pattern[str]
    holds: Callable[[re.Match[str]], bool]


def _luhn(digits: str) -> bool:
    """Whether the last digit is the Luhn check digit (ISO/IEC 7812-1, annex B) of those before it."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def _card(digits: str) -> bool:
    """Whether it is a payment card number: the range of an issuer, a length it uses, and the Luhn digit."""
    known = any(len(digits) in lengths and re.match(start, digits) for start, lengths in CARDS)
    return known and len(set(digits)) > 1 and _luhn(digits)


def _iban_shape() -> re.Pattern[str]:
    """A pattern for account numbers of every country, with single spaces anywhere between their characters."""
    shapes = (rf"(?:{'|'.join(names.split())})[0-9]{{2}}(?:[ ]?[A-Z0-9]){{{length}}}" for length, names in IBAN_LENGTHS.items())
    return re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(shapes)})(?![A-Za-z0-9])")


def _iban(account: str) -> bool:
    """Whether the account number leaves the remainder 1 modulo 97 (ISO 13616)."""
    return int("".join(str(int(character, 36)) for character in account[4:] + account[:4])) % 97 == 1


def _calling_code(digits: str) -> bool:
    """Whether an international number begins with the code of a country; North America's go on with 2 to 9 and have 11 digits."""
    if digits.startswith("1"):
        return len(digits) == 11 and digits[1] in "23456789"
    return bool(CALLING.match(digits))


def _spanish_id(value: str) -> bool:
    """Whether the letter of a DNI (8 digits) or NIE (X, Y or Z and 7 digits) is that of its number modulo 23."""
    number = value[:-1]
    number = str("XYZ".index(number[0])) + number[1:] if number[0] in "XYZ" else number
    return len(number) in (7, 8) and SPANISH[int(number) % 23] == value[-1]


def _french_insee(value: str) -> bool:
    """Whether a number of 13 characters and its key sum to a multiple of 97; 2A and 2B are Corsica. Months beyond 12 are special."""
    month = int(value[3:5])
    if not (1 <= month <= 12 or 20 <= month <= 42 or month >= 50):
        return False
    number = value[:13].replace("2A", "19").replace("2B", "18") if value[5:7] in ("2A", "2B") else value[:13]
    return number.isdigit() and 97 - int(number) % 97 == int(value[13:])


def _dutch_bsn(digits: str) -> bool:
    """Whether nine digits pass the eleven test: weights 9 … 2 and -1."""
    return digits != "000000000" and sum(int(d) * w for d, w in zip(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1), strict=True)) % 11 == 0


def _polish_pesel(digits: str) -> bool:
    """Whether eleven digits begin with a date of birth from 1910 on (20 is added to months after 1999) and end with their check digit."""
    month, day = int(digits[2:4]), int(digits[4:6])
    month = month - 20 if month > 20 else month if digits[0] != "0" else 0
    total = sum(int(d) * w for d, w in zip(digits[:10], cycle((1, 3, 7, 9)), strict=False))
    return 1 <= month <= 12 and 1 <= day <= 31 and (10 - total % 10) % 10 == int(digits[10])


def _brazilian_cpf(digits: str) -> bool:
    """Whether both check digits of eleven are right; eleven equal digits are none."""
    if len(set(digits)) == 1:
        return False
    for length in (9, 10):
        total = sum(int(d) * w for d, w in zip(digits[:length], range(length + 1, 1, -1), strict=True))
        if (total * 10) % 11 % 10 != int(digits[length]):
            return False
    return True


def _digits(match: re.Match[str]) -> str:
    return re.sub(r"[^0-9]", "", match[0])


def _plain(match: re.Match[str]) -> str:
    return re.sub(r"[^0-9A-Z]", "", match[0].upper())


def _after(match: re.Match[str], words: re.Pattern[str]) -> bool:
    """Whether one of the words ends right before the match, up to a few characters."""
    return bool(words.search(match.string[max(0, match.start() - 40) : match.start()]))


def _public(match: re.Match[str]) -> bool:
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or _after(match, VERSION_WORDS))


def _dutch(match: re.Match[str]) -> bool:
    return _dutch_bsn(_digits(match)) and ("." in match[0] or _after(match, BSN_WORDS))


def _international(match: re.Match[str]) -> bool:
    digits = _digits(match).removeprefix("00")
    return 8 <= len(digits) <= 15 and _calling_code(digits) and not _after(match, ORDER_WORDS)


def _national(match: re.Match[str]) -> bool:
    """9 to 12 digits (7 to 12 after a word for telephone) that are no date and no order number."""
    digits = _digits(match)
    if DATE.search(match[0]) or _after(match, ORDER_WORDS) or len(set(digits)) < 3:
        return False
    return bool(match["sure"] and 9 <= len(digits) <= 12) or (7 <= len(digits) <= 12 and _after(match, PHONE_WORDS))


def _pattern(*parts: str) -> re.Pattern[str]:
    """The parts as alternatives of one pattern in which \\d is an ASCII digit."""
    return re.compile("|".join(parts).replace(r"\d", "[0-9]"))


def _words(*words: str) -> re.Pattern[str]:
    """The end of a text that is one of the words, and perhaps "number", "is" or such after it."""
    number = r"[\W_]{0,3}(?:(?:number|num|no|nr|id|is|are|at|on|me|us|numéro|número|nummer)\b[\W_]{0,3}){0,3}"
    return re.compile(rf"(?i)(?<![^\W\d_])(?:{'|'.join(words)})s?\.?{number}$")


ORDER_WORDS = _words(
    "order", "invoice", "ticket", "case", "tracking", "reference", "ref", "sku", "isbn", "issn", "ean", "serial", "item", "article",
    "bestellung", "bestellnummer", "rechnung", "commande", "facture", "pedido", "factura", "ordine", "zamówienie", "#", "parcel",
)  # fmt: skip
PHONE_WORDS = _words(
    "telephone", "phone", "tel", "tlf", "call", "ring", "dial", "mobile", "mob", "cell", "fax", "whatsapp", "sms", "txt", "telefono",
    "teléfono", "téléphone", "telefon", "telefone", "handy", "móvil", "portable", "cellulare", "gsm", "kom", "телефон", "тел", "hotline",
)  # fmt: skip
OTHER_WORDS = re.compile(f"{ORDER_WORDS.pattern}|{PHONE_WORDS.pattern.removeprefix('(?i)')}", re.IGNORECASE)
BSN_WORDS = _words("bsn", "burgerservicenummer", "sofi", "sofinummer")
VERSION_WORDS = _words("version", "release", "ver", "v", "build", "firmware", "driver")
DATE = _pattern(r"(?<!\d)\d{4}([-/.])\d{1,2}\1\d{1,2}(?!\d)", r"(?<!\d)\d{1,2}([-/.])\d{1,2}\2\d{4}(?!\d)")
SECRETS = "token|api_?key|password|passwd|pwd|secret|access_token|auth|sig|signature|client_secret|session_?id"

# Length of the account number of each country after its two letters and two check digits (SWIFT's registry of IBAN formats).
IBAN_LENGTHS = {
    11: "NO", 12: "BE", 14: "DK FI FK FO GL NL SD", 15: "MK SI", 16: "AT BA EE KZ LT LU MN XK", 17: "CH HR LI LV",
    18: "BG BH CR DE GB GE IE ME RS VA", 19: "AE GI IL IQ OM SO TL", 20: "AD CZ ES MD PK RO SA SE SK TN VG", 21: "LY PT ST", 22: "IS TR",
    23: "BI DJ FR GR IT MC MR SM", 24: "AL AZ BY CY DO GT HU LB NI PL SV", 25: "BR EG PS QA UA",
    26: "JO KW MU YE", 27: "MT SC", 28: "LC", 29: "RU",
}  # fmt: skip
# Beginnings of card numbers and the lengths that issuers use with them (ISO/IEC 7812).
CARDS = (
    (r"4", (13, 16, 19)), (r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", (16,)), (r"3[47]", (15,)), (r"30[0-5]|36|3[89]", (14, 16, 19)),
    (r"35(?:2[89]|[3-8])|6011|64[4-9]|65|62|220[0-4]", (16, 17, 18, 19)), (r"50|5[6-8]|6304|6759|676[1-3]", tuple(range(13, 20))),
)  # fmt: skip
# Country calling codes (ITU E.164); zone 1 and 7 have one digit.
CALLING = re.compile(
    r"1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|2[1-689]\d|3[578]\d|42[013]|5[09]\d|67\d|68\d|69\d|8[058]\d|9[679]\d"
)
SPANISH = "TRWAGMYFPDXBNJZSQVHLCKE"
# For each kind the rows that may hold it, for the regular expressions of polars (no look-around; wider than the shape), the shape
# in a text, and what must hold besides.
RULES: Sequence[_Rule] = (
    _Rule(Kind.URL, rf"://[^\s/@]*:[^\s/]*@|(?i:[?&](?:{SECRETS})=)", re.compile(
        rf"(?i)(?<![a-z0-9])[a-z][a-z0-9+.\-]{{1,19}}://(?:[^\s/@:]+:[^\s/@]+@[^\s()<>]+|[^\s?#]+\?[^\s#]*?(?<=[?&])(?:{SECRETS})=[^\s&#()<>]{{6,}}[^\s()<>]*)"
    ), lambda match: True),
    _Rule(Kind.EMAIL, r"\S@\S", re.compile(
        r"(?<![\w.+%\-])[\w+%\-][\w.+%'\-]{0,63}@(?:[^\W_](?:[\w\-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![^\W_])"
    ), lambda match: ".." not in match[0]),
    _Rule(Kind.IBAN, r"[A-Z]{2}[0-9]{2}[ ]?[A-Z0-9]", _iban_shape(), lambda match: _iban(_plain(match))),
    _Rule(Kind.CARD, r"(?:[0-9][ \-]?){12}[0-9]", _pattern(
        r"(?<!\d)(?<!\d[.,])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?|\d{4}([ -])\d{6}\2\d{4,5})(?!\d)"
    ), lambda match: _card(_digits(match))),
    _Rule(Kind.FRENCH_INSEE, r"[12] ?[0-9]{2} ?[0-9]{2} ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}", _pattern(
        r"(?<!\w)[12] ?\d\d ?\d\d ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d(?!\w)"
    ), lambda match: _french_insee(_plain(match))),
    _Rule(Kind.BRAZILIAN_CPF, r"[0-9]{9}-?[0-9]{2}|[0-9]{3}\.[0-9]{3}\.[0-9]{3}-", _pattern(
        r"(?<![\w.\-])(?:\d{3}\.\d{3}\.\d{3}-\d\d|\d{9}-\d\d|\d{11})(?![\w\-])"
    ), lambda match: _brazilian_cpf(_digits(match)) and not _after(match, OTHER_WORDS)),
    _Rule(Kind.POLISH_PESEL, "[0-9]{11}", _pattern(
        r"(?<![\w.\-+])\d{11}(?![\w\-])"
    ), lambda match: _polish_pesel(match[0]) and not _after(match, OTHER_WORDS)),
    _Rule(Kind.SPANISH_ID, "[0-9]{3}-?[A-Z]", _pattern(
        r"(?<!\w)(?:\d{8}-?|\d{1,2}\.\d{3}\.\d{3}-?|[XYZ]-?\d{7}-?)[A-Z](?!\w)"
    ), lambda match: _spanish_id(_plain(match))),
    _Rule(Kind.DUTCH_BSN, r"[0-9]{9}|[0-9]{4}\.[0-9]{2}\.[0-9]{3}", _pattern(
        r"(?<![\w.\-])(?:\d{9}|\d{4}\.\d{2}\.\d{3})(?![\w\-])"
    ), _dutch),
    _Rule(Kind.US_SSN, "[0-9]{3}[ -][0-9]{2}[ -][0-9]{4}", _pattern(
        r"(?<![\w\-])(?!000|666|9)\d{3}([ -])(?!00)\d{2}\1(?!0000)\d{4}(?![\w\-])"
    ), lambda match: not _after(match, ORDER_WORDS)),
    _Rule(Kind.IP_ADDRESS, r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|[0-9A-Fa-f]{3,4}:[0-9A-Fa-f:]*:", _pattern(
        r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)",
        r"(?<![\w:.])[0-9A-Fa-f]{3,4}:[0-9A-Fa-f:]{2,32}(?:(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])",
    ), _public),
    _Rule(Kind.PHONE, r"(?:\+|00) ?[1-9]", _pattern(r"(?<![\w+])(?:\+ ?|00 ?)[1-9](?:\)?[ .\-/]?\(?\d){7,14}(?!\w)"), _international),
    _Rule(Kind.PHONE, r"(?:[0-9][ ./()+\-]{0,3}){6}[0-9]", _pattern(
        r"(?<![\w.+\-/])(?<!\d[ ])(?:(?P<sure>"
        r"(?:1[ .\-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .\-])[2-9]\d\d[ .\-]\d{4}"  # North America
        r"|0[1-9](?:[ .\-]\d\d){4}"  # France
        r"|0[1-9]\d{8,9}|\(0\d{2,4}\)[ ]?\d{3,4}[ \-]?\d{3,4}"  # Europe, without and with brackets
        r"|0[1-9]\d{0,3}[ /\-]\d{3,8}(?:[ \-]\d{2,6}){0,3}"  # Europe, with a gap after the area
        r")|[1-9]\d\d(?:[ \-]\d{2,4}){2,3}|[1-9]\d{6,11})(?!\w|[.\-/]\d)"
    ), _national),
)  # fmt: skip
ALL_FILTERS = (1 << len(RULES)) - 1
