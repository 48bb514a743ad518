"""Pascal VOC: an XML file per picture. Corners are pixel numbers that start at 1 and belong to the box.

So xmin=1, xmax=10 is ten pixels wide and becomes x=0, width=10. Files whose corners start at 0 come out one pixel
further left; such a box is clipped at the edge and counted. XML is read without entities; DOCTYPE is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.data.decode import readable
from tunesmith.data.sources.base import Items, Reason, counted
from tunesmith.data.sources.boxes import Pictures
from tunesmith.data.sources.place import IMAGES, SPLIT_NAMES, Place, ending_of, split_of

MAX_XML_BYTES = 16 << 20
SAMPLE = 5


class _Doctype(ValueError):
    """The XML declares a document type."""


def recognise(place: Place) -> str | None:
    """Why this is Pascal VOC: XML files whose outer element is `annotation`; None otherwise."""
    names = _annotations(place)
    good = next((name for name in names[:SAMPLE] if not isinstance(_root(place.path / name), str)), None)
    return f"{good} and {len(names) - 1} other XML files hold an <annotation>" if good else None


def read(place: Place, why: str) -> Items:
    """Pictures with their boxes, and a `split` from ImageSets/Main or from folders called train, val, test.

    A picture is the image that the XML names, or of the same name as the XML: in its folder, in JPEGImages, or
    wherever there is just one of that name. Pictures without an XML file are left out: nobody looked at them.

    Raises:
        DataError: no picture is left.
    """
    splits = _image_sets(place)
    files = _annotations(place)
    has_splits = bool(splits) or any(split_of(name) for name in files)
    pictures = Pictures(place.path, {"split": pl.String} if has_splits else {}, left=list(place.listing.left))
    images = _Images(place)
    for name in files:
        root = _root(place.path / name)
        if isinstance(root, str):
            reason = Reason.XML_DOCTYPE if root == "DOCTYPE" else Reason.MALFORMED
            pictures.left.append((name, reason, "" if root == "DOCTYPE" else root))
            continue
        row = _picture(name, root, images, pictures)
        if row is not None:
            row["split"] = splits.get(Path(name).stem) or split_of(name)
    unseen = [image for image in images.all if image not in images.used]
    pictures.left += [(image, Reason.NOT_ANNOTATED, "no XML file") for image in unseen]
    issues = counted(place.name, len(unseen), "each image should have an XML file", "images have none and are left out")
    issues += counted(place.name, place.listing.hidden, "hidden files are passed over", "hidden files or folders were found")
    return pictures.items("voc", why, place, issues)


def _annotations(place: Place) -> list[str]:
    return place.listing.ending(frozenset((".xml",)))


def _root(path: Path) -> ElementTree.Element | str:
    """The outer element, or what is wrong with the file ("DOCTYPE" for a document type)."""
    builder = ElementTree.TreeBuilder()

    def refuse(*_: object) -> None:
        raise _Doctype

    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, attributes: builder.start(name, attributes)
    parser.EndElementHandler = lambda name: builder.end(name)
    parser.CharacterDataHandler = lambda text: builder.data(text)
    parser.StartDoctypeDeclHandler = refuse
    try:
        with readable(path):
            content = path.read_bytes() if path.stat().st_size <= MAX_XML_BYTES else b""
        parser.Parse(content, True)
        root = builder.close()
    except _Doctype:
        return "DOCTYPE"
    except DataError as error:
        return error.issues[0].found
    except (expat.ExpatError, ValueError, LookupError, AssertionError, RecursionError) as error:
        return f"damaged XML: {error}"
    return root if root.tag == "annotation" else "the outer element is not <annotation>"


class _Images:
    """The images of the folder, to be found by the name in an XML file; `used` are those that were found."""

    def __init__(self, place: Place) -> None:
        self.all = place.listing.ending(IMAGES)
        self.used: set[str] = set()
        self._by_name: dict[str, list[str]] = {}
        for path in self.all:
            name = path.rpartition("/")[2]
            for key in {name, name.rpartition(".")[0]}:
                self._by_name.setdefault(key, []).append(path)

    def of(self, xml: str, named: str) -> str | None:
        """The path of the image for an XML file that names `named`; None where it is missing or not just one."""
        folder, _, file = xml.rpartition("/")
        name = named.replace("\\", "/").rpartition("/")[2]
        stem = name.rpartition(".")[0] if ending_of(name) in IMAGES else name
        for key in (name, stem, file.rpartition(".")[0]):
            found = self._by_name.get(key, []) if key else []
            above = folder.rpartition("/")[0]
            for place in (folder, f"{above}/JPEGImages".lstrip("/"), f"{above}/images".lstrip("/")):
                near = [path for path in found if path.rpartition("/")[0] == place]
                if len(near) == 1:
                    return near[0]
            if len(found) == 1:
                return found[0]
        return None


def _picture(name: str, root: ElementTree.Element, images: _Images, pictures: Pictures) -> dict[str, Any] | None:
    objects = root.findall("object")
    named = (root.findtext("filename") or "").strip()
    image = images.of(name, named)
    if image is None:
        pictures.left.append((name, Reason.MISSING_FILE, f"{named or 'no file name'}, with its {len(objects)} boxes"))
        return None
    images.used.add(image)
    row = pictures.picture(name, image, (root.findtext("size/width"), root.findtext("size/height")), len(objects))
    for number, thing in enumerate(objects, start=1):
        if row is not None:
            _box(f"{name} object {number}", thing, row, pictures)
    return row


def _box(source: str, thing: ElementTree.Element, row: dict[str, Any], pictures: Pictures) -> None:
    label = (thing.findtext("name") or "").strip()
    texts = [thing.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    if not label or None in texts:
        pictures.left.append((source, Reason.MALFORMED, "an object needs a name and a bndbox with four corners"))
        return
    try:
        x_min, y_min, x_max, y_max = (float(text or "") for text in texts)
    except ValueError:
        pictures.left.append((source, Reason.BOX_NOT_FINITE, f"{label} {texts}"))
        return
    pictures.box(source, row, label, (x_min - 1, y_min - 1, x_max - x_min + 1, y_max - y_min + 1))


def _image_sets(place: Place) -> dict[str, str]:
    """The split of each image stem, from ImageSets/Main/train.txt and its like."""
    splits: dict[str, str] = {}
    for name in place.listing.files:
        folder, _, file = name.rpartition("/")
        split = SPLIT_NAMES.get(file.removesuffix(".txt").lower())
        if folder.endswith("ImageSets/Main") and file.endswith(".txt") and split:
            for _, line in Place(place.path / name).lines():
                if line.split():
                    splits.setdefault(line.split()[0], split)
    return splits
