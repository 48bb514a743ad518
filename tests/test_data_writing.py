"""Scripts, languages and wrongly decoded texts, on sentences of many languages."""

from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.writing import MARGIN, UNKNOWN, guess, languages, repaired, repaired_text, script_facts, writing

SENTENCES = {
    "en": ["The delivery was late and nobody told me when it would come.", "I would like to change my address before the next invoice."],
    "de": ["Die Lieferung kam zu spät und niemand hat mir etwas gesagt.", "Ich möchte meine Adresse ändern, bevor die Rechnung kommt."],
    "fr": ["La livraison est arrivée en retard et personne ne m'a prévenu.", "Je voudrais changer mon adresse avant la prochaine facture."],
    "es": ["El pedido llegó tarde y nadie me dijo nada sobre el retraso.", "Quiero cambiar mi dirección antes de la próxima factura."],
    "pt": ["A entrega chegou atrasada e ninguém me disse nada sobre isso.", "Você não tem uma resposta para os meus pedidos?"],
    "it": ["La consegna è arrivata in ritardo e nessuno mi ha detto niente.", "Vorrei cambiare il mio indirizzo prima della fattura."],
    "nl": ["De levering was te laat en niemand heeft mij iets gezegd.", "Ik wil graag mijn adres wijzigen voordat de rekening komt."],
    "sv": ["Leveransen var sen och ingen sade något till mig om det.", "Jag vill ändra min adress innan nästa faktura kommer från er."],
    "da": ["Leveringen var forsinket, og ingen sagde noget til mig af den grund.", "Hvad skal jeg gøre, og hvordan bliver jeg hjulpet?"],
    "fi": ["Toimitus oli myöhässä eikä kukaan kertonut minulle mitään.", "Haluan muuttaa osoitteeni, koska se ei ole enää oikein."],
    "pl": ["Dostawa się spóźniła i nikt mi nic nie powiedział.", "Chciałbym zmienić adres, zanim przyjdzie następna faktura."],
    "cs": ["Dodávka přišla pozdě a nikdo mi nic neřekl, když jsem volal.", "Chtěl bych změnit svou adresu, než přijde účet."],
    "hu": ["A szállítás késett, és senki nem mondta meg, hogy miért.", "Szeretném megváltoztatni a címemet, mert ez már nem jó."],
    "ro": ["Livrarea a întârziat și nimeni nu mi-a spus de ce.", "Vreau să schimb adresa pentru că nu mai este bună."],
    "tr": ["Teslimat çok geç geldi ve kimse bana bir şey söylemedi.", "Adresimi değiştirmek istiyorum ama nasıl olduğunu bilmiyorum."],
    "id": ["Barang ini datang terlambat dan tidak ada orang yang memberi tahu.", "Saya ingin mengubah alamat karena sudah tidak benar."],
    "vi": ["Hàng đã đến muộn và không ai nói gì với tôi.", "Tôi muốn thay đổi địa chỉ của mình vì nó không còn đúng."],
    "ca": ["El paquet ha arribat tard i ningú no m'ha dit per què amb això.", "Vull canviar la meva adreça perquè aquesta no és bona."],
    "et": ["Saadetis jäi hiljaks ja keegi ei öelnud mulle, miks see nii oli.", "Ma tahan oma aadressi muuta, sest see ei ole enam õige."],
    "lv": ["Sūtījums bija ļoti vēls, un neviens man neteica, kas notiek.", "Es gribu mainīt savu adresi, jo tā vairs nav pareiza."],
    "lt": ["Siunta buvo labai vėlai ir niekas man nepasakė, kas atsitiko.", "Noriu pakeisti savo adresą, nes jis jau yra neteisingas."],
    "sw": ["Mzigo huo ulichelewa sana na hakuna mtu wa kuniambia kwa nini.",
           "Mimi ni mteja wa benki hii na ninahitaji msaada kutoka kwa watu."],
    "tl": ["Ang padala ay huli na at hindi sinabi sa akin kung bakit.", "Gusto ko na palitan ang mga numero ko dahil mali ito."],
    "ru": ["Доставка опоздала, и мне никто ничего не сказал, что было очень плохо.",
           "Я хочу изменить свой адрес, потому что он уже не тот."],
    "uk": ["Доставка запізнилася, і мені ніхто нічого не сказав.", "Я хочу змінити свою адресу, тому що вона вже не та."],
    "bg": ["Доставката закъсня и никой не ми каза нищо, когато питах.", "Аз искам да сменя адреса си, защото той вече не е същият."],
    "sr": ["Испорука је каснила и нико ми није рекао шта се десило.", "Желим да променим своју адресу јер она више није добра."],
    "ar": ["وصلت الشحنة في وقت متأخر ولم يخبرني أحد عن ذلك", "أريد تغيير العنوان قبل الفاتورة لأن هذا غير صحيح"],
    "fa": ["بسته خیلی دیر رسید و هیچ کس به من چیزی نگفت که چرا", "من می خواهم آدرس خود را عوض کنم اگر ممکن است"],
    "ur": ["سامان بہت دیر سے آیا اور کسی نے مجھے نہیں بتایا", "میں اپنے گھر کا پتہ بدلنا چاہتا ہوں کیا یہ ہو سکتا ہے"],
    "hi": ["सामान बहुत देर से आया और मुझे किसी ने नहीं बताया", "मैं अपने घर का पता बदलना चाहता हूँ लेकिन यह नहीं हो रहा है"],
    "mr": ["सामान खूप उशिरा आले आणि मला काय झाले ते सांगितले नाही", "मी माझे घर बदलले आहे"],
    "el": ["Η παράδοση άργησε και κανείς δεν μου είπε τίποτα."],
    "he": ["המשלוח הגיע באיחור ואף אחד לא אמר לי כלום"],
    "th": ["สินค้ามาช้ามากและไม่มีใครบอกฉัน"],
    "ko": ["배송이 늦었고 아무도 저에게 말해 주지 않았습니다.", "漢字 한국어 문장입니다"],
    "ja": ["配達が遅れたのに、誰も教えてくれませんでした。", "日本語の文章"],
    "zh": ["快递晚了很多天,没有人告诉我。"],
    "ta": ["பொருள் தாமதமாக வந்தது"],
    "ka": ["მიწოდება დაგვიანდა და არავინ მითხრა"],
}  # fmt: skip


@pytest.mark.parametrize(("language", "text"), [(language, text) for language, texts in SENTENCES.items() for text in texts])
def test_the_language_is_guessed(language: str, text: str) -> None:
    found, lead = guess(text)
    assert found == language
    assert lead >= MARGIN
    assert guess(text.upper())[0] == language


@pytest.mark.parametrize("text", ["", "12345", "!!!", "xylophone", "Kubernetes Docker", "hej", "og i at det som en", "🙂", "ok", "no"])
def test_thin_evidence_is_unknown(text: str) -> None:
    assert guess(text)[0] == UNKNOWN


def test_a_column_is_guessed_as_its_texts_are() -> None:
    texts = [text for group in SENTENCES.values() for text in group]
    assert languages(pl.Series([*texts, None])).to_list() == [*(guess(text)[0] for text in texts), UNKNOWN]


@pytest.mark.parametrize(
    ("text", "script", "mixed"),
    [
        ("hello", "Latin", False), ("Größe", "Latin", False), ("привет", "Cyrillic", False), ("привет hello", "Cyrillic", True),
        ("γειά", "Greek", False), ("שלום", "Hebrew", False), ("مرحبا", "Arabic", False), ("नमस्ते", "Devanagari", False),
        ("ひらカタ漢字", "Kana", False), ("漢字漢字の", "Kana", False), ("한국어", "Hangul", False), ("漢字", "Han", False),
        ("สวัสดี", "Thai", False),
        ("வணக்கம்", "Tamil", False), ("ⵜⴰⵎⴰⵣⵉⵖⵜ", "Tifinagh", False), ("𐌰𐌱", "other", False), ("123 €", "none", False),
        ("", "none", False),
        (None, "none", False), ("e\u0301te\u0301", "Latin", False), ("漢字 and more english", "Latin", True),
        ("a long latin text é я", "Latin", False),
    ],
)  # fmt: skip
def test_the_dominant_script(text: str | None, script: str, mixed: bool) -> None:
    facts = script_facts(pl.Series([text, "plain"], dtype=pl.String))
    assert facts.row(0) == (script, mixed)
    assert facts.row(1) == ("Latin", False)


def test_what_the_record_counts() -> None:
    texts = pl.Series(["hello", "привет", "שלום", "مرحبا بك", "ok 🙂", "12", None, "pаypal", "1️⃣", "© 5", "cafÃ© du nord"])
    record = writing(texts)
    assert record.rows == 11
    assert record.scripts == {"Latin": 4, "none": 4, "Arabic": 1, "Cyrillic": 1, "Hebrew": 1}
    assert (record.right_to_left, record.emoji, record.without_letters, record.lookalikes) == (2, 2, 4, 1)
    assert (record.mojibake, record.mojibake_examples) == (1, (("cafÃ© du nord", "café du nord"),))
    assert sum(record.languages.values()) == record.guessed == record.rows
    assert json.loads(json.dumps(record.as_dict()))["scripts"]["Latin"] == 4


def test_an_empty_column_has_a_record() -> None:
    record = writing(pl.Series([], dtype=pl.String))
    assert (record.rows, record.scripts, record.guessed, record.languages) == (0, {}, 0, {})


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("CafÃ©", "Café"), ("itâ€™s", "it’s"), ("â€œquotedâ€\x9d", "“quoted”"), ("â\x80\x99", "’"), ("ÃƒÂ©tÃƒÂ©", "été"),
        ("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "привет"),
        ("ðŸ™‚ fine", "🙂 fine"), ("Â£5", "£5"), ("ï»¿start", "\ufeffstart"), ("naÃ¯ve 漢字", "naïve 漢字"), ("æ—¥æœ¬", "日本"),
    ],
)  # fmt: skip
def test_wrongly_decoded_texts_are_put_right(wrong: str, right: str) -> None:
    assert repaired_text(wrong) == right
    assert repaired(pl.Series([wrong, None, "plain"])).to_list() == [right, None, "plain"]


@pytest.mark.parametrize(
    "text",
    [
        "Café",
        "naïve",
        "Spaß“",
        "„Spaß“ ist gut",
        "«CAFÉ»",
        "AMANHÃ»",
        "“CORAÇÃO”",
        "A IRMÃ”",
        "É»",
        "5 °C",
        "€ 5",
        "ação",
        "日本",
        "Ååå",
        "Ö‰",
    ],
)
def test_right_texts_stay(text: str) -> None:
    assert repaired_text(text) == text
    assert repaired(pl.Series([text])).to_list() == [text]


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=30), st.sampled_from(["cp1252", "latin-1"]))
def test_repairing_twice_changes_nothing(text: str, codec: str) -> None:
    wrong = text.encode().decode(codec, errors="ignore")
    once = repaired_text(wrong)
    assert repaired_text(once) == once
    assert repaired(pl.Series([wrong])).to_list() == [once]


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("aeiou éèàçñöüß’“”–€漢字привет"), min_size=2, max_size=30))
def test_what_was_damaged_comes_back(text: str) -> None:
    wrong = text.encode().decode("latin-1")
    count = sum(ord(character) > 127 for character in text)
    if count > 1 and repaired_text(text) == text:
        assert repaired_text(wrong) == text


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="ascii"), max_size=30))
def test_ascii_is_never_touched(text: str) -> None:
    assert repaired_text(text) == text
