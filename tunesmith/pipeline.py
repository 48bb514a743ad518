"""The whole journey, stage by stage. Read this page first.

    prepare   read, clean and split the table            data/
    resolve   fill every open value of the spec           resolved.yaml
    adapt     the model goes on with unlabelled texts, if asked   adapted/
    embed     what the frozen model says, computed once   features/
    certify   what the splits have in common               data/certificate.json
    inspect   labels that are probably wrong, outliers        data/suspects.parquet  review/
    augment   changed copies of training rows, if they help    data/augmented.parquet
    train     fit the weights that the strategy names     model/  history.jsonl  checkpoints/ while it lasts
    evaluate  the validation split, then the test, once   predictions/
    crossvalidate  models of folds, where the test has few rows    predictions/folds*.parquet
    document  report and card, from the ledger            report.html  MODEL_CARD.md

A stage reads files of earlier stages and writes its own; `core/rundir.py` lets the finished ones be skipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tunesmith.core.errors import DataError, RunError, SpecError
from tunesmith.core.interrupt import stoppable
from tunesmith.core.records import Finding, Issue, Progress
from tunesmith.core.rundir import RunDir, StageWriter, sha256_json
from tunesmith.data.prepare import input_hashes
from tunesmith.document.report import render_data_report
from tunesmith.models.quantized import missing_for
from tunesmith.spec.check import check_spec
from tunesmith.spec.defaults import flatten
from tunesmith.spec.load import dump_spec, load_spec, read_yaml
from tunesmith.spec.schema import Spec
from tunesmith.stages import adapt, augment, certify, crossvalidate, document, embed, evaluate, inspect, prepare, resolve, train
from tunesmith.stages.context import Context, stage_inputs
from tunesmith.tasks.make import metric_names

Watch = Callable[[Progress], None]
Stage = Callable[[Context, StageWriter], None]

STAGES: tuple[tuple[str, Stage], ...] = (
    ("prepare", prepare.prepare),
    ("resolve", resolve.resolve),
    ("adapt", adapt.adapt),
    ("embed", embed.embed),
    ("certify", certify.certify),
    ("inspect", inspect.inspect),
    ("augment", augment.augment),
    ("train", train.train),
    ("evaluate", evaluate.evaluate),
    ("crossvalidate", crossvalidate.crossvalidate),
    ("document", document.document),
)
CHECKS = tuple((name, stage) for name, stage in STAGES[:6] if name != "adapt")
"""What a check of the data alone does: everything before training, and no adaptation."""

BEGUN = (".lock", "spec.yaml", ".manifest.json.writing")
"""What a run leaves that was killed before its manifest was there."""


@dataclass(frozen=True)
class Run:
    """A finished run. `path` is its directory; `model_path` loads with plain `from_pretrained` (of PEFT after prompt and prefix tuning)."""

    path: Path

    @property
    def model_path(self) -> Path:
        """Folder of the model, in Hugging Face layout."""
        return self.path / "model"

    @property
    def report_path(self) -> Path:
        """The report, one self-contained HTML file."""
        return self.path / "report.html"

    @property
    def findings(self) -> dict[str, Finding]:
        """Every fact that the run learned, by id."""
        return RunDir(self.path).findings


def run(spec: Spec, runs: Path | str = "runs", watch: Watch | None = None) -> Run:
    """Do the whole job, or what is left of it: finished stages are skipped, an interrupted one goes on.

    Args:
        spec: what is wanted.
        runs: folder of all runs; this one gets the subfolder `spec.name`.
        watch: hears of progress; nothing is printed without it.

    Raises:
        TunesmithError: one of its kinds, with the remedy; everything finished is kept.
    """
    rundir = RunDir(Path(runs) / spec.name)
    with _context(spec, rundir, watch) as context:
        _claim(rundir, spec)
        _do(context, STAGES)
        shutil.rmtree(rundir.path / "checkpoints", ignore_errors=True)  # the model is saved and tested: nothing left to resume
    return Run(rundir.path)


def check(spec: Spec, checks: Path | str = "checks", watch: Watch | None = None) -> Path:
    """Do only what concerns the data: every stage before training, and a report about the data alone.

    Args:
        spec: what is wanted; how to train does not matter.
        checks: folder of all checks; this one gets the subfolder `spec.name`, which is cleared when it is about other data.
        watch: hears of progress; nothing is printed without it.

    Returns:
        The folder, with data_report.html.

    Raises:
        TunesmithError: one of its kinds, with the remedy.
    """
    rundir = RunDir(Path(checks) / spec.name)
    with _context(spec, rundir, watch) as context:
        try:
            _claim(rundir, spec)
        except (DataError, RunError):
            if not set(rundir.manifest.get("stages", {"unknown": None})) <= {name for name, _ in CHECKS}:
                raise
            for path in rundir.path.iterdir():
                if path.name != ".lock":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            _claim(rundir, spec)
        _do(context, CHECKS)
        (rundir.path / "data_report.html").write_text(render_data_report(rundir), "utf-8")
    return rundir.path


@contextmanager
def _context(spec: Spec, rundir: RunDir, watch: Watch | None) -> Iterator[Context]:
    """The run directory held for writing; Ctrl-C stops at the next safe point."""
    issues = [*check_spec(spec, metric_names(spec)), *missing_for(spec.strategy)]
    if issues:
        raise SpecError(issues)
    with stoppable() as stop, rundir.locked():
        yield Context(spec, rundir, watch or (lambda _progress: None), stop)


def _do(context: Context, stages: Sequence[tuple[str, Stage]]) -> None:
    """Do the stages that are not finished, in order."""
    for name, stage in stages:
        inputs = stage_inputs(context.rundir, name, version("tunesmith"))
        if context.rundir.is_finished(name, inputs):
            context.watch(Progress(name, 1, 1, note="finished earlier"))
        else:
            with context.rundir.stage(name, inputs, {"tunesmith": version("tunesmith")}) as writer:
                stage(context, writer)


def _claim(rundir: RunDir, spec: Spec) -> None:
    """Bind the directory to this spec and these data, or refuse when it belongs to others."""
    try:
        data = input_hashes(spec.data, spec.model.adapt.texts if spec.model.adapt else ())
    except OSError as error:
        raise DataError(Issue(str(error.filename), "must be readable", error.strerror or str(error))) from error
    manifest, remedy = rundir.manifest, "Give this one another name (--name NAME), or delete the directory."
    if not manifest:
        foreign = sorted(p.name for p in rundir.path.iterdir() if p.name not in BEGUN)
        if foreign:
            raise RunError(Issue(str(rundir.path), "must be empty or a run directory", f"a folder with {', '.join(foreign[:5])}", remedy))
        (rundir.path / "spec.yaml").write_text(dump_spec(spec), "utf-8")
        rundir.update_manifest(spec=sha256_json(flatten(spec)), data=data, stages={})
        return
    if manifest["spec"] != sha256_json(flatten(spec)):
        before, now = flatten(load_spec(read_yaml(rundir.path / "spec.yaml"))), flatten(spec)
        changed = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        found = "; ".join(f"{k} was {before.get(k)!r}, is {now.get(k)!r}" for k in changed)
        raise RunError(Issue(str(rundir.path), "belongs to another spec", found, remedy))
    changed = sorted(path for path in data.keys() | manifest["data"].keys() if data.get(path) != manifest["data"].get(path))
    if changed:
        raise RunError(Issue(str(rundir.path), "was begun with other data", f"changed: {', '.join(changed)}", remedy))
