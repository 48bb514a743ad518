"""What texts are written in: scripts, direction, emoji, a guess of the language, and bytes that were read in the wrong encoding.

The language is a guess from frequent function words, letters that few languages use, and the script alone where one language has it;
no model and no network. It says "unknown" where the evidence is thin or two languages are close.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import polars as pl

SCRIPTS = (
    "Latin", "Greek", "Cyrillic", "Armenian", "Hebrew", "Arabic", "Syriac", "Thaana", "Devanagari", "Bengali", "Gurmukhi", "Gujarati",
    "Oriya", "Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala", "Thai", "Lao", "Tibetan", "Myanmar", "Georgian", "Hangul", "Ethiopic",
    "Khmer", "Mongolian", "Cherokee", "Tifinagh", "Hiragana", "Katakana", "Bopomofo", "Han",
)  # fmt: skip
# Scripts that one text uses together, as Japanese and Korean do: they count as the first of them.
TOGETHER = {"Katakana": "Kana", "Hiragana": "Kana"}
NAMES = tuple(dict.fromkeys(TOGETHER.get(script, script) for script in SCRIPTS))
RIGHT_TO_LEFT = ("Hebrew", "Arabic", "Syriac", "Thaana")
OTHER, NONE, UNKNOWN = "other", "none", "unknown"
MIXED_SHARE = 0.1
EMOJI = r"\p{Emoji_Presentation}|\p{Emoji}\x{FE0F}"
LOOKALIKE = r"\p{Latin}[\p{Cyrillic}\p{Greek}]|[\p{Cyrillic}\p{Greek}]\p{Latin}"
GUESSED_ROWS = 20_000
EXAMPLES = 3

# Frequent function words of languages that share a script; a word of several languages counts for less.
WORDS: dict[str, str] = {
    "en": "a into while like get am now go one two its who over did off back him her got want need know see only other some people any "
    "after before here where why too us much more most should again still through down around because these those each both near "
    "next the of and to in is that it was for on are with as his they be at have this from or had by not but what all were we when "
    "your can said there an which their if will how do my you i me she he has been would could about don't it's i'm no so just up "
    "out than then them very",
    "de": "möchte meine mein bevor unser der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an "
    "werden aus er hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur "
    "bis mehr durch man ich wir kein keine mir mich du ihr sein kann habe bin wenn was wo",
    "fr": "le la les de des et à en un une du que qui dans est pour pas au ce il sur se plus par ne avec sont tout mais je nous vous "
    "elle on cette ses son sa aux ou comme était fait être ont leur bien sans peut même j'ai c'est n'est d'un d'une très où mon ma "
    "mes si tu été suis avoir",
    "es": "el la los las de que y en un una ser se no por con para su es al lo como más pero sus le ya o fue este ha sí porque esta "
    "entre cuando muy sin sobre también me hasta hay donde quien desde todo nos durante mi yo del te están tiene son era tengo "
    "quiero puedo hacer antes eso está he si",
    "pt": "o a os as de que e do da em um uma para com não é se na por mais dos como mas foi ao ele das tem à seu sua ou ser quando "
    "muito há nos já está eu também só pelo pela até isso ela entre era depois sem mesmo aos ter seus quem nas me esse eles estão "
    "você tinha são meu minha",
    "it": "il lo la i gli le di che e è un una in per non con del della dei delle si da al come più ma anche sono ha nel nella alla se "
    "questo questa ci io mi suo sua o era dal dalla ho hanno tutto molto quando cosa perché stato essere mio mia loro fa così bene "
    "c'è sul sulla dove",
    "nl": "de het een van en in is dat op te zijn met voor niet aan er die om ook als dan maar bij nog uit door naar ik je hij ze we wij "
    "was heeft hebben worden wordt deze dit over tot kan geen wat meer of al mijn zo hun werd waar veel zou heb ben moet",
    "sv": "och i att det som en på är av för den till med inte har de ett om var jag han men så sig från vi kan när nu man du ska hade "
    "där eller vid efter alla hon dem mycket bara mig här oss hur min också vara blev varit något",
    "da": "og i at det som en på er af for den til med ikke har de et om var jeg han men så sig fra vi kan når nu man du skal havde der "
    "eller ved efter alle hun dem meget kun mig her os hvor min også være hvad blev været noget bliver hvordan",
    "nb": "og i at det som en på er av for den til med ikke har de et om var jeg han men så seg fra vi kan når nå man du skal hadde der "
    "eller ved etter alle hun dem mye bare meg her oss hvor min også være hva ble vært noe blir hvordan mer bli",
    "fi": "eikä kukaan mitään minulle koska enää haluan vielä ole ja on ei se että oli hän en mutta ovat joka kun niin mitä kuin minä "
    "myös sen tämä olen vain jos nyt ne hänen tai sitä siitä kaikki olla mukaan ollut sekä jo sinä me te he minun hyvin eivät voi "
    "ennen jälkeen ettei siellä",
    "pl": "zanim chciałbym mój swój gdyby i w na z się nie do że to jest o jak ale po co tak za od przez dla są tym być może już tylko "
    "czy ja ty on ona jego jej ich był była było bardzo gdy kiedy gdzie mnie mi tego które który która oraz ze też jeszcze lub",
    "cs": "bych chtěl svou svůj než a v na se je že s z do to o i k ve pro jsem by jako ale po za jsou byl tak když co si od aby už jeho "
    "která který které není být bylo byla jen nebo také více při jak tento můj má mám já jsme podle velmi",
    "sk": "a v na sa je že s z do to o aj k vo pre som by ako ale po za sú bol tak keď čo si od aby už jeho ktorá ktorý ktoré nie byť "
    "bolo bola len alebo tiež viac pri tento môj má mám ja sme podľa veľmi",
    "hu": "a az és hogy nem is egy ez de van volt meg csak már még el mint ha vagy azt ki ami én te ő mi nagyon lehet kell minden ezt "
    "sem lesz voltak ezek után akkor itt ott hogyan szerint pedig majd aki be nincs",
    "ro": "și în de la a nu că pe cu este o un din care pentru mai se ce au fost sunt să am ai ale lui ei dar sau după fi era prin "
    "această acest foarte cum eu tu el ea noi când doar decât lor meu mea fără fiecare",
    "tr": "ve bir bu da de için ile çok ne o ama gibi daha var en olarak ben sen biz mi değil olan kadar sonra her şey ki yok hiç bana "
    "beni neden nasıl ya veya göre ise bunu şu ancak onun oldu olduğu tarafından iyi",
    "id": "yang dan di ini itu dengan untuk tidak dari dalam akan pada juga saya ke karena ada orang bisa sudah oleh lebih adalah atau "
    "mereka seperti kami kita anda dia telah tetapi hanya harus sangat banyak belum jika apa bukan aku kamu lagi sebagai",
    "vi": "và của là có không được cho một những trong các với người này đã để khi tôi đến như ra nhưng về từ anh cũng rất thì nó đó sẽ "
    "làm nhiều hơn chúng ta bạn tại vào bị vì phải nếu còn",
    "ca": "el la els les de que i en un una per amb no es és al com més però ha del dels a va ser són aquest aquesta molt també ho hi jo "
    "meu meva quan perquè fer tot sense sobre entre hem han tinc està on després només si",
    "hr": "i u je na se da su za od s a ne što to kao o koji iz ali bi sam ili biti bio samo koja koje već po do vrlo jer kako sve još "
    "nije ja ti on ona mi vi oni prema nakon bila bilo gdje kada ovo",
    "sl": "in v je na se da so za od s z ne kar to kot o ki iz ali bi sem biti bil samo že po do zelo ker kako vse še ni jaz ti on ona "
    "mi vi oni pri bila bilo kje kdaj pa tudi lahko ima",
    "et": "ja on ei et see oli ta kui ma ka oma mis aga siis kes ning või nii seda olid välja veel pärast väga nagu üle juba kõik mida "
    "ole mind sa me te nad saab minu tema kus olen",
    "lv": "un ir ar no uz ka par es tas to bet kā vai ne nav tika pēc arī pie viņš viņa ja tikai ļoti bija būs šis šī mēs jūs kas kad "
    "vēl līdz tā savu man tiek",
    "lt": "ir yra kad į su tai iš o bet ne kaip buvo už jis ji ar tik labai dar apie nuo po mes jūs aš kas kai bus būti šis ši savo jo "
    "taip pat per man nėra",
    "af": "die en van in is nie het dat te 'n wat vir met op sy hy was aan om ek ons jy hulle sal kan maar ook dit daar uit as by na "
    "deur baie word of moet my geen nog toe",
    "sw": "na ya wa kwa ni katika la za hii kuwa cha alikuwa yake huo hiyo sana lakini kama mimi wewe yeye sisi watu pia au hadi baada "
    "kutoka huyu ili bila kila yangu hawa si",
    "tl": "ang ng sa na mga ay at hindi ako siya ito para kung may mo ko ka niya namin natin sila pero lang din rin nang kanyang dahil "
    "wala ba kami isang po iyon maging",
    "ru": "и в не на я что он с как это а по но она к из у за то все так его от же мы для бы вы ты о меня было ее мне только был еще "
    "если когда уже до или ни быть очень они их были этого есть где чем",
    "uk": "і в не на я що він з як це а по але вона до із у за то все так його від же ми для би ви ти про мене було її мені тільки був "
    "ще якщо коли вже або ні бути дуже вони їх були цього є де та й чи",
    "bg": "и в не на аз че той с как това а по но тя към от у за то всички така неговия ще ние да бях вие ти ме беше мен само още ако "
    "когато вече до или нито бъде много те са един една съм има който където със",
    "sr": "и у је на се да су за од с а не што то као о који из али би сам или бити био само која које већ по до врло јер како све још "
    "није ја ти он она ми ви они након била било где када ово",
    "be": "і ў не на я што ён з як гэта а па але яна да са у за то усе так яго ад жа мы для бы вы ты пра мяне было яе мне толькі быў "
    "яшчэ калі ужо або ні быць вельмі яны іх былі ёсць дзе",
    "ar": "في من على إلى أن هذا التي الذي هذه عن مع كان لا ما هو هي كل قد بعد لم أو ذلك كما بين عند حتى إذا ثم أنا نحن كانت لكن أي غير "
    "قبل فقط هناك يمكن جدا",
    "fa": "و در به از که این را با است برای آن یک خود تا بر هم نیز شده من ما او اما هر یا می بود کرد شد باید نمی‌ هستم همه چه اگر بسیار "
    "دارد بودند آنها هستند",
    "ur": "کے کی میں ہے کا اور سے کو نے پر یہ ہیں کہ نہیں ایک اس کر بھی تھا وہ ہو تو جو گیا لئے لیے ہم آپ تھے میرا مجھے کیا تھی بہت لیکن "
    "اپنے ساتھ",
    "hi": "के का की में है और से को हैं पर यह ने एक नहीं कि भी था इस वह हो कर तो जो लिए मैं हम आप थे मुझे क्या थी बहुत लेकिन अपने साथ "
    "मेरा",
    "mr": "आणि आहे या व तो ती हे मध्ये नाही मी आहेत की ते होते होता आपण हा एक पण साठी करून तर माझे माझा खूप काय असे आम्ही होती त्यांनी",
    "ne": "र छ को मा हो यो छन् पनि थियो ले लाई भने गर्न तर म एक हामी उनी छैन के भएको गरेको धेरै मेरो हुन् त्यो हुन्छ",
}  # fmt: skip
# Letters that few of these languages use.
LETTERS: dict[str, str] = {
    "de": "ßäöü", "fr": "çœêèàùîôëïâû", "es": "ñ¿¡", "pt": "ãõç", "sv": "åäö", "da": "åæø", "nb": "åæø", "fi": "äö", "pl": "łąęśźżćń",
    "cs": "řěůčšžýť", "sk": "ľĺŕôčšžýť", "hu": "őűáéöü", "ro": "țșăâîşţ", "tr": "ğışçöü", "vi":
    "đơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ", "ca": "çàèòŀ", "hr": "čćđšž", "sl": "čšž", "et": "õäöü", "lv": "āēīūģķļņčšž",
    "lt": "ėįųūąęčšž", "ru": "ыэъё", "uk": "їєґі", "bg": "ъщ", "sr": "ђћџљњј", "be": "ўі", "fa": "پچژگکی", "ur": "ٹڈڑںےہھ", "ar": "ةىيك",
    "mr": "ळ", "it": "àèìòù",
}  # fmt: skip
# Scripts that one language has nearly alone.
ALONE = {
    "Greek": "el", "Armenian": "hy", "Hebrew": "he", "Bengali": "bn", "Gurmukhi": "pa", "Gujarati": "gu", "Oriya": "or", "Tamil": "ta",
    "Telugu": "te", "Kannada": "kn", "Malayalam": "ml", "Sinhala": "si", "Thai": "th", "Lao": "lo", "Tibetan": "bo", "Myanmar": "my",
    "Georgian": "ka", "Hangul": "ko", "Ethiopic": "am", "Khmer": "km", "Kana": "ja", "Han": "zh", "Thaana": "dv", "Cherokee": "chr",
}  # fmt: skip
# Not \W, which would cut words at the vowel signs of India.
BETWEEN_WORDS = re.compile(r"[\s\d.,;:!?…\"“”„«»()\[\]{}<>/\\|।،؟۔*#~_+=—–-]+")
SHARED = ("Latin", "Cyrillic", "Arabic", "Devanagari")
EVIDENCE = 1.2
MARGIN = 0.2
WORD_WEIGHT, LETTER_WEIGHT, COMMON_WEIGHT = 1.0, 0.4, 0.15


@dataclass(frozen=True)
class Writing:
    """Rows per dominant script and per guessed language, and of what else a model may not expect; `as_dict` is JSON-ready.

    mixed: rows with two scripts, each with a tenth of the letters (those of Japanese and of Korean do not count as two).
    lookalikes: rows with a word that mixes Latin with Cyrillic or Greek letters. guessed: rows whose language was guessed.
    """

    rows: int
    scripts: dict[str, int]
    mixed: int
    right_to_left: int
    emoji: int
    without_letters: int
    lookalikes: int
    guessed: int
    languages: dict[str, int]
    mojibake: int
    mojibake_examples: tuple[tuple[str, str], ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return asdict(self)


def writing(texts: pl.Series) -> Writing:
    """What the texts are written in; null counts as empty. The language is guessed on at most 20,000 rows, evenly spread."""
    filled = texts.cast(pl.String).fill_null("").rename("text")
    facts = script_facts(filled)
    step = max(1, -(-len(filled) // GUESSED_ROWS))
    guesses = languages(filled.gather_every(step))
    repairs = repaired(filled)
    wrong = repairs != filled
    pairs = zip(filled.filter(wrong).head(EXAMPLES).to_list(), repairs.filter(wrong).head(EXAMPLES).to_list(), strict=True)
    return Writing(
        rows=len(filled),
        scripts=_counts(facts["script"]),
        mixed=int(facts["mixed"].sum()),
        right_to_left=int(facts["script"].is_in(RIGHT_TO_LEFT).sum()),
        emoji=int(filled.str.contains(EMOJI).sum()),
        without_letters=int((facts["script"] == NONE).sum()),
        lookalikes=int(filled.str.contains(LOOKALIKE).sum()),
        guessed=len(guesses),
        languages=_counts(guesses),
        mojibake=int(wrong.sum()),
        mojibake_examples=tuple((before[:200], after[:200]) for before, after in pairs),
    )


def script_facts(texts: pl.Series) -> pl.DataFrame:
    """`script` with most letters in each text ("other" if it is none of SCRIPTS, "none" without a letter) and `mixed`."""
    frame = texts.fill_null("").to_frame("text").with_row_index("row")
    plain = (pl.col("text").str.len_bytes() == pl.col("text").str.len_chars()).alias("plain")
    latin = pl.when(pl.col("text").str.contains("[A-Za-z]")).then(pl.lit("Latin")).otherwise(pl.lit(NONE))
    frame = frame.with_columns(plain, latin.alias("script"), pl.lit(False).alias("mixed"))
    rest = frame.filter(~pl.col("plain")).select("row", "text")
    if not rest.height:
        return frame.select("script", "mixed")
    rest = rest.with_columns(pl.lit("").alias("best"), pl.lit(0, pl.UInt32).alias("most"), pl.lit(0, pl.UInt32).alias("known"))
    rest = rest.with_columns(pl.col("text").str.replace_all(r"[^\p{L}\p{M}]+", "").alias("letters"))
    for name in NAMES:
        outside = "".join(rf"\p{{{script}}}" for script in SCRIPTS if TOGETHER.get(script, script) == name)
        count = pl.col("letters").str.replace_all(f"[^{outside}]+", "").str.len_chars()
        rest = rest.with_columns(count.alias("count")).with_columns(
            pl.when(pl.col("count") > pl.col("most")).then(pl.lit(name)).otherwise("best").alias("best"),
            pl.max_horizontal("most", "count").alias("most"),
            (pl.col("known") + pl.col("count")).alias("known"),
            pl.col("count").alias(name),
        )
    return frame.select("row", "script", "mixed").update(_judged(rest), on="row").select("script", "mixed")


def _judged(counts: pl.DataFrame) -> pl.DataFrame:
    """`row`, `script` and `mixed` from the letters of each script. Han belongs to the script of Japanese or Korean beside it."""
    partner = pl.when(pl.col("Kana") > 0).then(pl.lit("Kana")).when(pl.col("Hangul") > 0).then(pl.lit("Hangul")).otherwise(pl.lit("Han"))
    best = pl.when(pl.col("best") == "Han").then(partner).otherwise("best")
    script = (
        pl.when(~pl.col("letters").str.contains(r"\p{L}")).then(pl.lit(NONE)).when(pl.col("most") == 0).then(pl.lit(OTHER)).otherwise(best)
    )
    east = pl.sum_horizontal("Kana", "Hangul", "Han", "Bopomofo")
    shares = [pl.col(name) for name in NAMES if name not in ("Kana", "Hangul", "Han", "Bopomofo")]
    many = pl.sum_horizontal((share >= MIXED_SHARE * pl.col("known")) & (share > 0) for share in (*shares, east)) > 1
    return counts.select("row", script.alias("script"), many.alias("mixed"))


def languages(texts: pl.Series) -> pl.Series:
    """A guess of each text's language as its ISO 639 code, or "unknown"."""
    scripts = script_facts(texts)["script"]
    pairs = zip(texts.fill_null("").to_list(), scripts.to_list(), strict=True)
    return pl.Series("language", [_guess(text, script)[0] for text, script in pairs], pl.String)


def guess(text: str) -> tuple[str, float]:
    """The guessed language of one text and by how much it leads the next one: 0 to 1, "unknown" below MARGIN."""
    return _guess(text, script_facts(pl.Series([text]))["script"][0])


def _guess(text: str, script: str) -> tuple[str, float]:
    if script not in SHARED:
        language = ALONE.get(script, UNKNOWN)
        return language, 0.0 if language == UNKNOWN else 1.0
    words, letters = _profiles()
    scores: dict[str, float] = defaultdict(float)
    lower = text.lower().replace("’", "'")
    for word in BETWEEN_WORDS.split(lower):
        for language, weight in words.get(word) or words.get(word.strip("'"), ()):
            scores[language] += weight
    for letter in set(lower) & letters.keys():
        for language, weight in letters[letter]:
            scores[language] += weight
    best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:2]
    if not best or best[0][1] < EVIDENCE:
        return UNKNOWN, 0.0
    lead = 1.0 if len(best) == 1 else (best[0][1] - best[1][1]) / best[0][1]
    return (best[0][0], lead) if lead >= MARGIN else (UNKNOWN, lead)


Weights = dict[str, tuple[tuple[str, float], ...]]


@cache
def _profiles() -> tuple[Weights, Weights]:
    """For each word and each letter the languages that use it, each with WORD_WEIGHT (or LETTER_WEIGHT) / their number + COMMON_WEIGHT."""
    words = {language: set(text.split()) for language, text in WORDS.items()}
    return _shared_weights(words, WORD_WEIGHT), _shared_weights({language: set(text) for language, text in LETTERS.items()}, LETTER_WEIGHT)


def _shared_weights(sets: dict[str, set[str]], weight: float) -> Weights:
    users: dict[str, list[str]] = {}
    for language, members in sets.items():
        for member in members:
            users.setdefault(member, []).append(language)
    return {member: tuple((language, weight / len(used) + COMMON_WEIGHT) for language in used) for member, used in users.items()}


def _counts(column: pl.Series) -> dict[str, int]:
    """How often each value stands in the column, the most frequent first, then by name."""
    counts = Counter(column.to_list())
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _sloppy() -> dict[str, int]:
    """The byte of each character of Windows-1252, its holes filled as browsers do, and of Latin-1's control characters."""
    table = {chr(byte): byte for byte in range(128, 256)}
    for byte in range(128, 160):
        try:
            table[bytes([byte]).decode("cp1252")] = byte
        except UnicodeDecodeError:
            table[chr(byte)] = byte
    return table


BYTES = _sloppy()
_TAIL = "".join(re.escape(character) for character, byte in BYTES.items() if byte < 192)
SEQUENCE = rf"[\u00c2-\u00df][{_TAIL}]|[\u00e0-\u00ef][{_TAIL}]{{2}}|[\u00f0-\u00f4][{_TAIL}]{{3}}"
# What no text has on purpose, also where the rest of the text was read rightly. Closing quotes may follow a capital Ã.
SURE = re.compile(rf"[\u00c2\u00c3](?![“”’»])[{_TAIL}]|\u00e2[€\u0080][{_TAIL}]|\u00f0[Ÿ\u009f][{_TAIL}]{{2}}|\u00ef»¿")


def repaired(texts: pl.Series) -> pl.Series:
    """The texts with UTF-8 that was read as Windows-1252 or Latin-1 put right ("CafÃ©" to "Café"); others and null as they are.

    A text is decoded whole if all of it can be; otherwise only the sequences that no text has on purpose. What does not encode
    back to the same characters stays.
    """
    frame = texts.to_frame("text").with_row_index("row").filter(pl.col("text").str.contains(SEQUENCE))
    if not frame.height:
        return texts
    return texts.clone().scatter(frame["row"], pl.Series([repaired_text(text) for text in frame["text"].to_list()], dtype=pl.String))


def repaired_text(text: str) -> str:
    """The text put right, as often as it was damaged; itself if it is not damaged. Each repair makes it shorter."""
    while True:
        whole = _decoded(text) if len(re.findall(SEQUENCE, text)) > 1 or SURE.search(text) else None
        better = whole if whole is not None else SURE.sub(lambda match: _decoded(match[0]) or match[0], text)
        if better == text:
            return text
        text = better


def _decoded(text: str) -> str | None:
    """The text whose UTF-8 bytes these characters are; None if they are not, or a character has no byte."""
    try:
        return bytes(BYTES[character] if ord(character) > 127 else ord(character) for character in text).decode()
    except (KeyError, UnicodeDecodeError):
        return None
