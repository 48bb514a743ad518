"""The data path in order: load, choose columns, clean, split, profile. Then the files of the prepare stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Finding, Issue
from tunesmith.core.rundir import StageWriter, sha256_file
from tunesmith.data.certificate import Searched, empty_search, text_part
from tunesmith.data.clean import (
    SPLITS,
    Cleaned,
    by_place,
    clean,
    clean_across,
    clean_relevant,
    clean_targets,
    clean_texts,
    cleaned_text,
    empty_dropped,
    in_order,
    without_moment,
    without_near_duplicates,
    without_unknown_labels,
)
from tunesmith.data.columns import Columns, check_labels, choose_columns, plain_table, require_columns
from tunesmith.data.consensus import agree, judgements, unnamed_annotators
from tunesmith.data.decide import decide
from tunesmith.data.leaks import group_leaks, text_leaks
from tunesmith.data.load import Loaded
from tunesmith.data.marked import read_spans
from tunesmith.data.near import NearDuplicates, near_duplicates, whole_text
from tunesmith.data.open import Source, open_tables, source_hashes
from tunesmith.data.profile import Story, findings, label_counts, pointers, profile
from tunesmith.data.relevant import corpus_of, read_relevant, refuse_unread
from tunesmith.data.spans import read_answers
from tunesmith.data.split import Shares, Split, split, split_by_time, units_of
from tunesmith.data.survey import survey
from tunesmith.data.targets import check_targets
from tunesmith.data.uniform import uniform
from tunesmith.spec.check import matching_files
from tunesmith.spec.kinds import NEVER_COPIES, OF_CLASSES, TEXT_LABELS, UNSTRATIFIED
from tunesmith.spec.schema import ByTime, Data, Random, Spec


@dataclass(frozen=True)
class Prepared:
    """Clean splits, the rows that left, the classes, and what there is to say about them. `issues` are warnings."""

    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame
    dropped: pl.DataFrame
    labels: list[str]
    profile: dict[str, Any]
    findings: list[Finding]
    issues: list[Issue]
    search: Searched
    consensus: pl.DataFrame | None
    corpus: pl.DataFrame | None

    @property
    def is_pair(self) -> bool:
        """True when a row has two texts."""
        return "text_pair" in self.train.columns


def prepare(spec: Spec) -> Prepared:
    """Tables of the spec as clean splits.

    Raises:
        DataError: with every problem that makes training impossible.
    """
    loaded, sources = _load(spec)
    columns, tables, placed = _plain(loaded, spec)
    unnamed = unnamed_annotators(loaded["train"].table, columns, spec.data)
    files = {name: table.files for name, table in loaded.items()}
    warnings = [issue for table in loaded.values() for issue in table.issues]
    del loaded
    writes, plain = spec.kind in TEXT_LABELS, spec.kind in (*TEXT_LABELS, "answers", "relevant")
    _refuse_labels(tables["train"]["label"], writes, "data.text" if spec.kind == "masked" else "data.label")
    made = uniform(tables, spec.data, spec.kind)
    agreed = agree(made.tables, spec.data)
    tables, gone = agreed.tables, [agreed.dropped]
    if columns.place:
        tables, unplaced = by_place(tables["train"])
        gone.append(unplaced)
    cleaned = {name: _cleaned(tables.pop(name), spec) for name in list(tables)}
    kept, across = clean_across({name: part.kept for name, part in cleaned.items()})
    kept, reviewed, decided = decide(kept, spec.data)
    if columns.moment:
        kept["train"], timeless = without_moment(kept["train"])
        gone.append(timeless)
    near = near_duplicates(whole_text(in_order(kept)), spec.data.near_duplicates.jaccard) if spec.data.near_duplicates else None
    parts, splits, cut = _apart(kept, near, spec)
    dropped = pl.concat([*gone, reviewed, *(part.dropped for part in cleaned.values()), across, *cut], how="diagonal")
    _refuse_too_few(splits, dropped, parts, spec)
    grouped = group_warnings(kept["train"]) if spec.data.group else []  # groups of questions about one text were not asked for
    warnings += [*unnamed, *placed, *agreed.issues, *_warnings(splits, cleaned, parts, classes=not writes), *grouped, *decided.issues]
    labels = [] if writes else sorted(label_counts(splits["train"]["label"]))
    corpus = _corpus(splits, columns, spec.data) if spec.kind == "relevant" else None
    story = Story(
        files,
        columns,
        sum(part.normalised for part in cleaned.values()),
        across.height,
        parts,
        tuple(warnings),
        text_part(searched := _searched(kept, splits, near), spec.data),
        decided.told,
        made,
        survey({name: rows.drop("label") for name, rows in splits.items()} if plain else splits),
        sources,
        agreed.told,
    )
    content = profile(splits, dropped, labels, story) | ({} if corpus is None else {"corpus": len(corpus)})
    return Prepared(
        **splits,
        dropped=dropped,
        labels=labels,
        profile=content,
        findings=findings(content),
        issues=warnings,
        search=searched,
        consensus=agreed.consensus,
        corpus=corpus,
    )


def _refuse_labels(label: pl.Series, writes: bool, named: str) -> None:
    """Nothing.

    Raises:
        DataError: the labels of the training table make training impossible.
    """
    issues = check_targets(label, named) if writes else check_labels(label)
    if issues:
        raise DataError(issues)


def write(prepared: Prepared, stage: StageWriter) -> None:
    """Write the files of data/ and add the findings, each with the artefact that its value stands in."""
    tables = {"train": prepared.train, "validation": prepared.validation, "test": prepared.test, "dropped": prepared.dropped}
    for name, table in tables.items():
        stage.write(f"data/{name}.parquet", table.write_parquet)
    stage.write_text("data/labels.json", json.dumps(prepared.labels, ensure_ascii=False, indent=1) + "\n")
    artefact = stage.write_text("data/profile.json", json.dumps(prepared.profile, ensure_ascii=False, indent=1) + "\n")
    where = pointers(prepared.profile)
    stage.write("data/alike.parquet", prepared.search.leaks.write_parquet)
    if prepared.corpus is not None:
        stage.write("data/corpus.parquet", prepared.corpus.write_parquet)
    if prepared.consensus is not None:
        stage.write("data/consensus.parquet", prepared.consensus.write_parquet)
    stage.find(*(replace(finding, artefact=replace(artefact, pointer=where[finding.id])) for finding in prepared.findings))


def input_hashes(data: Data, texts: Sequence[str] = ()) -> dict[str, str]:
    """SHA-256 of all that the spec's data paths name (see `source_hashes`), and of `texts` that a model is adapted to: what a run depends
    on besides the spec."""
    patterns = [pattern for patterns in (data.train, data.validation, data.test, data.corpus, texts) for pattern in patterns or ()]
    reviewed = {path: sha256_file(Path(path)) for pattern in data.decisions or () for path in matching_files(pattern)}
    return {**source_hashes(patterns), **reviewed}


def _load(spec: Spec) -> tuple[dict[str, Loaded], list[dict[str, Any]]]:
    """The tables of the spec, and what was read of each source of the training table."""
    data, loaded, issues = spec.data, {}, []
    sources: list[Source] = []
    for name, patterns in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        if patterns is not None:
            try:
                loaded[name], found = open_tables(patterns, data, data.weights if name == "train" else None, spec.seed, (spec.task,))
                sources = found if name == "train" else sources
            except DataError as error:
                issues += [issue for issue in error.issues if issue not in issues]
    if issues:
        raise DataError(issues)
    return loaded, [source.as_dict() for source in sources]


def _plain(loaded: dict[str, Loaded], spec: Spec) -> tuple[Columns, dict[str, pl.DataFrame], list[Issue]]:
    """The chosen columns, the plain tables, and what became of answers that were not at their place."""
    data, told = spec.data, list[Issue]()
    tables = {name: judgements(part.table, data)[0] for name, part in loaded.items()}
    data = judgements(loaded["train"].table.head(0), data)[1]
    columns = choose_columns(tables["train"], data, spec.task)
    issues = [issue for name, table in tables.items() for issue in require_columns(table, columns, name)]
    if issues:
        raise DataError(issues)
    for name in tables if columns.kind == "answers" else ():
        tables[name], more = read_answers(tables[name], (columns.text[1], str(columns.label)), data.answer_start, f"data.{name}")
        told += more
    for name in tables if columns.kind == "relevant" else ():
        tables[name], more = read_relevant(tables[name], columns.text, str(columns.label), columns.negative, f"data.{name}")
        told += more
    for name in tables if columns.kind == "spans" else ():
        tables[name], warned = read_spans(tables[name], (columns.text[0], str(columns.label)), columns.why)
        told += warned
    if columns.kind == "relevant":  # what was in a second column of texts is in the label by now
        columns = replace(columns, text=columns.text[:1], found=columns.text[1] if len(columns.text) > 1 else columns.label)
    return columns, {name: plain_table(table, columns, data) for name, table in tables.items()}, told


def _corpus(splits: dict[str, pl.DataFrame], columns: Columns, data: Data) -> pl.DataFrame:
    """Every text that a query can find: those of the splits, and those of the tables that the spec names."""
    further: list[str] = []
    if data.corpus is not None:
        table = open_tables(data.corpus, data, tasks=("text-ranking",))[0].table
        names = [str(columns.found), "text", "passage", "document", "item", *table.columns]
        texts = table[next(name for name in names if name in table.columns)].cast(pl.String)
        refuse_unread(texts, "data.corpus")
        further = texts.to_frame("text").select(cleaned_text(pl.col("text"))).to_series().to_list()
    return corpus_of([rows["label"] for rows in splits.values()], further)


def _cleaned(table: pl.DataFrame, spec: Spec) -> Cleaned:
    if spec.kind == "text":
        return clean_targets(table, copies=spec.task not in NEVER_COPIES)
    if spec.kind == "relevant":
        return clean_relevant(table, together=spec.data.contexts == "together")
    if spec.kind == "masked":
        return clean_texts(table)
    return clean(table, spec.data.on_conflict)


def _apart(
    kept: dict[str, pl.DataFrame], near: NearDuplicates | None, spec: Spec
) -> tuple[Split, dict[str, pl.DataFrame], list[pl.DataFrame]]:
    """What was cut, the rows of each split, and those dropped: as repeated in training, and for a label that training has not.

    Given splits stay, others are cut from the training table by unit.
    """
    data, train = spec.data, kept["train"]
    clusters_N = near.clusters_N[: len(train)] if near else None
    units = units_of(train["id"], clusters_N, train["group"] if "group" in train.columns else None)
    shares = Shares(*(0.0 if name in kept else data.model_dump()[f"{name}_share"] for name in ("validation", "test")))
    if isinstance(data.split, ByTime):
        parts = split_by_time(train, units, train["moment"].to_numpy(), shares)
    else:
        parts = split(train, units, spec.seed, shares, stratified=not isinstance(data.split, Random) and spec.kind not in UNSTRATIFIED)
    parts = replace(parts, validation=kept.get("validation", parts.validation), test=kept.get("test", parts.test))
    repeated = empty_dropped()
    if clusters_N is not None and data.near_duplicates is not None and data.near_duplicates.in_train != "keep":
        numbers = parts.train.join(train.select("id", cluster=clusters_N), on="id", maintain_order="left")["cluster"]
        rest, repeated = without_near_duplicates(parts.train, numbers, labelled=spec.kind != "masked")
        parts = replace(parts, train=rest)
    splits = {name: _timed(vars(parts)[name], name == "train" or name not in kept) for name in SPLITS}
    splits, unknown = (splits, empty_dropped()) if spec.kind in TEXT_LABELS else without_unknown_labels(splits)
    return parts, splits, [repeated, unknown]


def _timed(rows: pl.DataFrame, made: bool) -> pl.DataFrame:
    """Rows of a split that was made here keep their moment, for folds by time; in a given table it means nothing."""
    return rows if made else rows.drop("moment", strict=False)


def _searched(kept: dict[str, pl.DataFrame], splits: dict[str, pl.DataFrame], near: NearDuplicates | None) -> Searched:
    """What is alike across the splits, by text and by group."""
    rows = in_order(kept).with_row_index("row")
    places = pl.concat([splits[name].select("id", place=pl.lit(number)) for number, name in enumerate(SPLITS)])
    placed = rows.join(places, on="id", maintain_order="left")
    place_N, found = placed["place"].to_numpy(), empty_search()
    tables = [(found.leaks, found.pairs)]
    if near:
        tables.append(text_leaks(replace(near, group_N=near.group_N[placed["row"].to_numpy()]), placed["id"], place_N))
    groups = None
    if "group" in rows.columns:
        tables.append(group_leaks(placed["group"], placed["id"], place_N))
        groups = rows["group"].drop_nulls().n_unique()
    return Searched(near, groups, pl.concat([leaks for leaks, _ in tables]), pl.concat([pairs for _, pairs in tables]))


def group_warnings(rows: pl.DataFrame) -> list[Issue]:
    """What is odd about the groups of a table: each row its own, a few that hold nearly all, rows without one."""
    if "group" not in rows.columns or not rows.height:
        return []
    where, issues = "data.group", []
    sizes = rows["group"].drop_nulls().value_counts()["count"]
    missing = rows["group"].null_count()
    if missing:
        found = f"{missing} of {rows.height} rows without one"
        issues.append(Issue(where, "should name a group for every row", found, "Each of them counts as a group of its own.", fatal=False))
    largest = int(sizes.sort()[-1]) if sizes.len() else 0
    if largest == 1:
        found = f"{sizes.len()} groups of one row: it looks like a row id"
        issues.append(Issue(where, "should hold rows together", found, "Choose the column of the patient, speaker or source.", fatal=False))
    if largest > rows.height / 2:
        found = f"one with {largest} of {rows.height} rows"
        issues.append(Issue(where, "should have groups smaller than the splits", found, "It stays in training, whole.", fatal=False))
    return issues


def _refuse_too_few(splits: dict[str, pl.DataFrame], dropped: pl.DataFrame, parts: Split, spec: Spec) -> None:
    data = spec.data
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped["reason"].value_counts().iter_rows()))
    after = f" after {dropped.height} were dropped ({reasons})" if dropped.height else ""
    issues = []
    for name in SPLITS:
        if splits[name].height == 0:
            more = "Add labelled rows: a class needs three to be in every split." if spec.kind not in UNSTRATIFIED else "Add rows."
            remedy = "Check that table." if data.model_dump()[name] else more
            if isinstance(data.split, ByTime):
                remedy = "Too many rows share a moment to be cut there: choose another data.split, or give the tables."
            elif parts.units < len(splits["train"]) / 2:
                apart = APART_TEXTS if spec.kind == "relevant" and data.contexts == "together" else APART
                remedy = f"All rows belong to {parts.units} clusters of near-duplicates or groups, which are never cut: {apart}"
            issues.append(Issue(f"the {name} split", "must have rows", f"none{after}", remedy))
    classes = label_counts(splits["train"]["label"])
    if spec.kind in OF_CLASSES and splits["train"].height and len(classes) < 2:
        found = f"{len(classes)}{after}"
        issues.append(Issue("the train split", "must have at least two classes", found, "Add rows of other classes, or set data.label."))
    issues += _too_many_folds(parts.units, spec)
    if issues:
        raise DataError(issues)


def _too_many_folds(units: int, spec: Spec) -> list[Issue]:
    """A problem when there are more folds than clusters and groups; folds by time need one part more, which is only trained on."""
    asked, needed = spec.evaluate.folds, isinstance(spec.data.split, ByTime)
    if not isinstance(asked, int) or asked + needed <= units:
        return []
    remedy = "Lower it, or set evaluate.folds: null."
    return [Issue("evaluate.folds", f"must be at most {units - needed}, for {units} clusters and groups", str(asked), remedy)]


APART_TEXTS = "set data.contexts: apart to let queries for one text part, or data.near_duplicates: null to let look-alikes part."
APART = "raise data.near_duplicates.jaccard, or set data.near_duplicates: null to let look-alikes part."


def _warnings(splits: dict[str, pl.DataFrame], cleaned: dict[str, Cleaned], parts: Split, *, classes: bool) -> list[Issue]:
    """What does not stop a run but should be known before its score is believed."""
    issues = []
    if parts.late:
        found = f"{parts.late} that are not"
        remedy = "They belong to clusters or groups that begin earlier, which are never cut."
        issues.append(Issue("data.split", "should have training rows older than the test", found, remedy, fatal=False))
    if parts.large:
        found = f"{parts.large} that are larger"
        remedy = f"They stay in training, whole. If they are not really alike, {APART}"
        issues.append(Issue("data.train", "should have clusters and groups smaller than the splits", found, remedy, fatal=False))
    if parts.rare_classes:
        names = ", ".join(parts.rare_classes[:5]) + (", …" if len(parts.rare_classes) > 5 else "")
        found = f"{len(parts.rare_classes)} with fewer: {names}"
        issues.append(
            Issue(
                "data.train",
                "should have three rows or more of each class, in three clusters or groups",
                found,
                "They stay in training and are not tested.",
                fatal=False,
            )
        )
    counted = label_counts(splits["train"]["label"]) if classes else {}
    lower: dict[str, list[str]] = {}
    for name in sorted(counted):
        lower.setdefault(name.casefold(), []).append(name)
    for same in (group for group in lower.values() if len(group) > 1):
        issues.append(
            Issue("data.label", "should spell a class one way", " and ".join(same), "They are learned as different classes.", fatal=False)
        )
    for name in ("validation", "test"):
        missing = sorted(set(counted) - set(label_counts(splits[name]["label"])) - set(parts.rare_classes))
        if missing:
            found = f"none of {len(missing)}: {', '.join(missing[:5])}" + (", …" if len(missing) > 5 else "")
            issues.append(Issue(f"the {name} split", "should have rows of every class", found, "Their scores are unknown.", fatal=False))
    share = sum(part.dropped.height for part in cleaned.values()) / max(
        1, sum(part.kept.height + part.dropped.height for part in cleaned.values())
    )
    if share > 0.2:
        issues.append(
            Issue(
                "data", "should lose few rows to cleaning", f"{share:.0%} dropped", "See data/dropped.parquet for the reasons.", fatal=False
            )
        )
    return issues
