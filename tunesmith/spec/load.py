"""Specs from YAML, JSON or keyword arguments. Every problem is reported at once, with its line and the closest right key."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from tunesmith.core.errors import SpecError
from tunesmith.core.records import Issue
from tunesmith.spec.addresses import anchored
from tunesmith.spec.schema import Spec

Lines = dict[tuple[str | int, ...], int]


def load_spec(source: str | Path | Mapping[str, Any], overrides: Iterable[str] = ()) -> Spec:
    """The Spec in a YAML or JSON file, or in a mapping.

    Args:
        source: path of the file, or the mapping itself. Paths of data in a file are relative to that file.
        overrides: "a.b=c" strings, applied in order; c is read as YAML.

    Raises:
        SpecError: with every problem found: unknown keys (the closest right one is named), wrong values, bad YAML.
    """
    if isinstance(source, Mapping):
        raw, origin, folder = dict(source), "spec", None
        lines: Lines = {}
    else:
        path = Path(source)
        raw, lines = _read(path)
        origin, folder = path.name, path.parent
        raw.setdefault("name", path.stem)
    for override in overrides:
        _apply(raw, override)
    try:
        spec = Spec.model_validate(raw)
    except ValidationError as error:
        raise SpecError([_issue(raw, problem, lines, origin) for problem in error.errors()]) from error
    return spec if folder is None else _anchored(spec, folder)


def dump_spec(spec: Spec) -> str:
    """The spec as YAML; loading it again gives an equal Spec."""
    return yaml.safe_dump(spec.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file that this program wrote."""
    return dict(yaml.safe_load(path.read_text("utf-8")))


def _read(path: Path) -> tuple[dict[str, Any], Lines]:
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else [], 1)
        remedy = f"Did you mean {near[0]}?" if near else "Make one with: tunesmith init DATA."
        raise SpecError(Issue(str(path), "must be a spec file", "no such file", remedy))
    try:
        text = path.read_bytes().decode("utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        raw = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise SpecError(Issue(str(path), "must be readable", error.strerror or str(error))) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        line = f" line {mark.line + 1}" if mark else ""
        reason = str(error.problem if isinstance(error, yaml.MarkedYAMLError) else error).splitlines()[0]
        raise SpecError(
            Issue(f"{path.name}{line}", "must be YAML or JSON in UTF-8", reason, "Check indentation, colons and quotes there.")
        ) from error
    if not isinstance(raw, dict):
        raise SpecError(Issue(path.name, "must hold keys and values, such as `task: text-classification`", type(raw).__name__))
    lines: Lines = {}
    duplicates = list(_index(node, (), lines))
    if duplicates:
        raise SpecError(
            Issue(f"{path.name} line {line}", f"{key} must appear once", "a second one", "Delete one.") for key, line in duplicates
        )
    return raw, lines


def _index(node: yaml.Node | None, at: tuple[str | int, ...], lines: Lines) -> Iterable[tuple[str, int]]:
    """Fill `lines` with the 1-based line of each key; yield keys that appear twice."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                yield ".".join(map(str, (*at, name))), line
            seen.add(name)
            lines[(*at, name)] = line
            yield from _index(value, (*at, name), lines)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            lines[(*at, number)] = value.start_mark.line + 1
            yield from _index(value, (*at, number), lines)


def _apply(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise SpecError(Issue(f"--set {override}", "must look like a.b=value"))
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(Issue(f"--set {override}", "must have a YAML value", text, "Put it in quotes.")) from error
    *parents, last = key.strip().split(".")
    here = raw
    for name in parents:
        inside = here.get(name)
        here[name] = dict(inside) if isinstance(inside, dict) else {}
        here = here[name]
    if last == "kind" and here.get("kind") != value:
        here.clear()  # another member of a tagged union: settings of the old one mean nothing to it
    here[last] = value


def _issue(raw: dict[str, Any], problem: Any, lines: Lines, origin: str) -> Issue:
    """A pydantic error in the project's words, its location freed of the union tags that pydantic inserts."""
    location = _own_location(raw, problem["loc"])
    where = ".".join(map(str, location)) or "spec"
    line = next((lines[location[:n]] for n in range(len(location), 0, -1) if location[:n] in lines), None)
    at = f" ({origin} line {line})" if line else ""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        keys = _keys_at(location[:-1], raw)
        near = difflib.get_close_matches(str(location[-1]), keys, 1, 0.5)
        remedy = f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(keys)}."
        return Issue(where, "is not a known key" + at, "", remedy)
    if kind == "missing":
        return Issue(where, "must be given" + at)
    if kind.startswith("union_tag"):
        return Issue(where, f"must have a kind among {context.get('expected_tags', 'the known ones')}{at}", str(context.get("tag", "")))
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be").replace("String should", "must")
    message = message.replace("greater than or equal to", ">=").replace("less than or equal to", "<=")
    message = message.replace("greater than", ">").replace("less than", "<").replace("must match pattern", "must match")
    return Issue(
        where,
        message + at,
        _short(problem["input"]),
        "Remove it to use the default." if len(location) > 1 and location[0] != "data" else "",
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _own_location(raw: Any, location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Keep the parts of a location that the user wrote; the last part stays, for keys that are missing."""
    kept: list[str | int] = []
    here: Any = raw
    for number, part in enumerate(location):
        last = number == len(location) - 1
        inside = isinstance(here, dict) and part in here
        if inside or (isinstance(part, int) and isinstance(here, list) and part < len(here)):
            here = here[part]
        elif not (last and isinstance(here, dict)):
            continue
        kept.append(part)
    return tuple(kept)


def _keys_at(location: tuple[str | int, ...], raw: dict[str, Any]) -> list[str]:
    """Names of the fields that the schema knows at a location of `raw`."""
    model: type[BaseModel] = Spec
    here: Any = raw
    for part in location:
        here = here.get(part) if isinstance(here, dict) else None
        field = model.model_fields.get(str(part))
        parts = (
            [a for a in (field.annotation, *get_args(field.annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
            if field
            else []
        )
        if not parts:
            return []
        kind = here.get("kind") if isinstance(here, dict) else None
        model = next((p for p in parts if "kind" in p.model_fields and kind in get_args(p.model_fields["kind"].annotation)), parts[0])
    return list(model.model_fields)


def _anchored(spec: Spec, folder: Path) -> Spec:
    """The spec with data paths, and a model folder, made relative to the current directory instead of its file's."""

    def anchor(paths: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if paths is None else tuple(anchored(p, folder) for p in paths)

    data: dict[str, Any] = {
        name: anchor(getattr(spec.data, name))
        for name in ("train", "validation", "test", "decisions")
        if name in spec.data.model_fields_set
    }
    update: dict[str, Any] = {"data": spec.data.model_copy(update=data)}
    model: dict[str, Any] = {}
    if spec.model.name != "starter" and (folder / spec.model.name).is_dir():
        model["name"] = str(folder / spec.model.name)
    if spec.model.adapt:
        model["adapt"] = spec.model.adapt.model_copy(update={"texts": anchor(spec.model.adapt.texts)})
    if model:
        update["model"] = spec.model.model_copy(update=model)
    distill = spec.train.distill
    if distill and (folder / distill.teacher).is_dir():
        anchored_teacher = distill.model_copy(update={"teacher": str(folder / distill.teacher)})
        update["train"] = spec.train.model_copy(update={"distill": anchored_teacher})
    augment = spec.train.augment
    if augment and augment.paraphrase and (folder / augment.paraphrase.model).is_dir():
        paraphrase = augment.paraphrase.model_copy(update={"model": str(folder / augment.paraphrase.model)})
        augmented = {"augment": augment.model_copy(update={"paraphrase": paraphrase})}
        update["train"] = update.get("train", spec.train).model_copy(update=augmented)
    return spec.model_copy(update=update)
