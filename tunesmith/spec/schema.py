"""The whole vocabulary of a spec. Each field is declared once; help, JSON schema, forms and reference come from here.

A field that is None by default is *derived*: `spec/defaults.py` fills it from the data and the model, and
`resolved.yaml` shows the value with the rule that set it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from tunesmith.spec.adaptation import Adapt as Adapt
from tunesmith.spec.answering import Answering as Answering
from tunesmith.spec.augmentation import Augment as Augment
from tunesmith.spec.augmentation import Beams as Beams
from tunesmith.spec.augmentation import Paraphrase as Paraphrase
from tunesmith.spec.augmentation import Sampled as Sampled
from tunesmith.spec.craft import Averaging as Averaging
from tunesmith.spec.craft import Distill as Distill
from tunesmith.spec.craft import Ema as Ema
from tunesmith.spec.craft import Mixup as Mixup
from tunesmith.spec.craft import RDrop as RDrop
from tunesmith.spec.craft import Regularization as Regularization
from tunesmith.spec.craft import Soup as Soup
from tunesmith.spec.craft import Swa as Swa
from tunesmith.spec.craft import WiseFT as WiseFT
from tunesmith.spec.generation import BeamSearch as BeamSearch
from tunesmith.spec.generation import Generation as Generation
from tunesmith.spec.generation import Greedy as Greedy
from tunesmith.spec.heads import KNN as KNN
from tunesmith.spec.heads import MLP as MLP
from tunesmith.spec.heads import Head as Head
from tunesmith.spec.kinds import WITHOUT_ROW_FEATURES, Kind, TaskName, kind_of
from tunesmith.spec.optimization import SGD as SGD
from tunesmith.spec.optimization import Adafactor as Adafactor
from tunesmith.spec.optimization import Adam as Adam
from tunesmith.spec.optimization import AdamW as AdamW
from tunesmith.spec.optimization import CrossEntropy as CrossEntropy
from tunesmith.spec.optimization import Focal as Focal
from tunesmith.spec.optimization import GeneralizedCrossEntropy as GeneralizedCrossEntropy
from tunesmith.spec.optimization import Loss as Loss
from tunesmith.spec.optimization import Optimizer as Optimizer
from tunesmith.spec.optimization import SymmetricCrossEntropy as SymmetricCrossEntropy
from tunesmith.spec.part import Part as Part
from tunesmith.spec.part import Paths as Paths
from tunesmith.spec.part import as_tuple
from tunesmith.spec.ranking import Cosine as Cosine
from tunesmith.spec.ranking import Embedding as Embedding
from tunesmith.spec.ranking import InBatch as InBatch
from tunesmith.spec.ranking import Ranking as Ranking
from tunesmith.spec.ranking import Triplet as Triplet
from tunesmith.spec.strategy import IA3 as IA3
from tunesmith.spec.strategy import BitFit as BitFit
from tunesmith.spec.strategy import Features as Features
from tunesmith.spec.strategy import Full as Full
from tunesmith.spec.strategy import Gradual as Gradual
from tunesmith.spec.strategy import Layers as Layers
from tunesmith.spec.strategy import Lora as Lora
from tunesmith.spec.strategy import Prompts as Prompts
from tunesmith.spec.strategy import Strategy as Strategy

Share = Annotated[float, Field(ge=0.0, le=0.5)]

TextColumns = Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=2)]
LabelColumns = str | Annotated[tuple[str, ...], Field(min_length=2)]


class Stratified(Part):
    """Rows are set apart by hash, and every class with enough rows is in every split."""

    kind: Literal["stratified"] = "stratified"
    """Selects this rule."""


class Random(Part):
    """Rows are set apart by hash alone."""

    kind: Literal["random"]
    """Selects this rule."""


class ByTime(Part):
    """The newest rows are the test, those before them validation: how the model will meet new rows."""

    kind: Literal["time"]
    """Selects this rule."""
    column: str = Field(min_length=1)
    """Column with the date or time of a row: dates, ISO 8601 text, or seconds since 1970."""


class ByColumn(Part):
    """A column says to which split a row belongs."""

    kind: Literal["column"]
    """Selects this rule."""
    column: str = Field(min_length=1)
    """Column that holds train, validation (or valid, val, dev) and test; rows with anything else are dropped and counted."""


SplitRule = Annotated[Stratified | Random | ByTime | ByColumn, Field(discriminator="kind")]


class NearDuplicates(Part):
    """What counts as the same text said twice. Such rows never straddle splits that are made here."""

    jaccard: float = Field(default=0.8, ge=0.5, le=1.0)
    """Least Jaccard similarity of the sets of four consecutive characters, of letters and digits in lower case."""
    cosine: float = Field(default=0.98, gt=0.0, le=1.0)
    """Least cosine of frozen features at which a test row counts as leaked. It is checked when the splits are made."""
    in_train: Literal["keep", "drop"] = "keep"
    """Near-duplicates within the training split: keep them all, or the first row of each cluster and label."""


class ReportSuspects(Part):
    """Labels that are probably wrong are reported and written to a review file; training sees them as they are."""

    kind: Literal["report"] = "report"
    """Selects this rule."""


class DropSuspects(Part):
    """Training rows whose label is probably wrong are not trained on. The report counts and names them."""

    kind: Literal["drop"]
    """Selects this rule."""


class CorrectSuspects(Part):
    """Training rows whose label is probably wrong are trained on with the suggested label. The report counts and names them."""

    kind: Literal["correct"]
    """Selects this rule."""


class DownWeightSuspects(Part):
    """Training rows whose label is probably wrong count less in the loss. The report counts and names them."""

    kind: Literal["down_weight"]
    """Selects this rule."""
    weight: float = Field(default=0.3, gt=0.0, lt=1.0)
    """Weight of a suspect row in the loss; other rows have 1."""


SuspectRule = Annotated[ReportSuspects | DropSuspects | CorrectSuspects | DownWeightSuspects, Field(discriminator="kind")]


class Data(Part):
    """Where the labelled rows are, which columns matter, and how they are cleaned and split."""

    train: Paths
    """Labelled rows: tables or Label Studio JSON: path, glob, `a.zip/t.csv`, `sqlite:///f.db?table=t`, `hf://o/n`, `s3://…`; a list."""
    weights: tuple[Annotated[float, Field(gt=0.0)], ...] | None = None
    """A weight for each entry of `train`: their shares of the rows, as many rows as there can be without repeating one."""
    validation: Paths | None = None
    """Table to select the model on. Without it, `validation_share` of the training rows is set aside."""
    test: Paths | None = None
    """Table for the one final score. Without it, `test_share` of the training rows is set aside."""
    text: TextColumns | None = None
    """Column with the text; two columns for sentence pairs. Inferred from the columns when left out."""
    label: LabelColumns | None = None
    """Column with the label, inferred from the columns when left out; or a list of columns, the labels of one annotator in each."""
    annotator: str | None = None
    """Column that says who gave the label, in a table with a row for each judgement: a text is trained on once, with the consensus."""
    consensus: Literal["majority", "dawid_skene"] = "majority"
    """Label of a text that several judged: that of most, or the most probable by Dawid and Skene (1979). Ties are dropped and counted."""
    multi_label: bool = False
    """True when a row can carry several labels, or none."""
    label_separator: str | None = Field(default=None, min_length=1)
    """What separates the labels in a text cell when `multi_label` is true; list columns need none."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """Column delimiter of CSV files. Detected from the file when left out."""
    encoding: str | None = None
    """Text encoding of CSV and JSON files. Detected (UTF-8, UTF-16, then Windows-1252, with a warning) when left out."""
    on_conflict: Literal["drop", "majority"] = "drop"
    """Rows with the same text and different labels: drop them all, or keep one with the label of the majority."""
    negative: str | None = None
    """Column with a text, or a list of texts, that are not relevant to the query, where texts are ranked; found by its name."""
    corpus: Paths | None = None
    """Tables with further texts that queries are ranked against: their columns are those of data.label, or one named text or passage."""
    group: str | None = None
    """Column that says which rows belong together (patient, speaker, source): a group is never in two splits."""
    answer_start: str | None = None
    """Column with the start of the answer in characters, where answers are texts; found by its name, or the answer is searched."""
    contexts: Literal["together", "apart"] = "together"
    """Questions about one text, or queries for one, are never in two splits that are made here ("together"), as with `group`."""
    split: SplitRule = Stratified()
    """How rows are set apart when there is no validation or test table."""
    near_duplicates: NearDuplicates | None = NearDuplicates()
    """What counts as a near-duplicate; null looks for none, and the certificate says so."""
    suspects: SuspectRule | None = ReportSuspects()
    """What is done with training labels that are probably wrong; null looks for none."""
    standardise: tuple[Literal["mojibake", "html", "compatibility", "missing", "label_spelling", "label_format", "label_perhaps"], ...] = ()
    """Rules applied to texts and labels before cleaning. The report proposes those that would change rows; none is applied unasked."""
    mask: tuple[
        Literal[
            "url_with_credentials", "email", "iban", "card", "french_insee", "brazilian_cpf", "polish_pesel", "spanish_id", "dutch_bsn",
            "us_ssn", "ip_address", "phone",
        ],
        ...,
    ] = ()  # fmt: skip
    """Personal data replaced by the name of its kind, such as [EMAIL], in every text that is trained on, tested or predicted."""
    decisions: Paths | None = None
    """Review files with decisions of people (keep, relabel, drop), applied by row id before rows are split."""
    validation_share: Share = 0.1
    """Share of the training rows set aside for selection when there is no validation table."""
    test_share: Share = 0.1
    """Share of the training rows set aside for the test when there is no test table."""


class Model(Part):
    """The pretrained model to start from."""

    name: str = "starter"
    """"starter" (the embedded MiniLM encoder, works offline), a local folder, or a Hugging Face model id."""
    revision: str | None = None
    """Git revision of a Hugging Face model id: branch, tag or commit."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Leave it false unless you have read that code."""
    max_length: int | None = Field(default=None, ge=4, le=131072)
    """Tokens kept per row; longer texts are cut and counted."""
    adapt: Adapt | None = None
    """Unlabelled texts that the model is adapted to before the task is learned; none when left out."""


class Train(Part):
    """How the weights are fitted."""

    epochs: int | None = Field(default=None, ge=1, le=10000)
    """Passes over the training rows."""
    batch_size: int | None = Field(default=None, ge=1, le=65536)
    """Rows per optimiser step."""
    gradient_accumulation_steps: int = Field(default=1, ge=1, le=4096)
    """Pieces a batch is computed in. Saves memory and does not change the result."""
    learning_rate: Annotated[float, Field(gt=0.0, le=10.0)] | Literal["find"] | None = None
    """Peak learning rate of the top block and the head; "find": a range test of a few dozen steps on a copy suggests it (Smith 2017)."""
    optimizer: Optimizer = AdamW()
    """Optimiser and its own settings."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Course of the learning rate after warm-up."""
    warmup_ratio: float = Field(default=0.1, ge=0.0, le=1.0)
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float = Field(default=0.01, ge=0.0, le=1.0)
    """Weight decay; never on biases and norms."""
    max_grad_norm: float | None = Field(default=1.0, gt=0.0)
    """Gradients are scaled down to this norm; null turns it off."""
    dropout: float | None = Field(default=None, ge=0.0, lt=1.0)
    """Dropout of the trained blocks and the head; the model's own when left out."""
    head_start: Literal["fitted", "random"] = "fitted"
    """"fitted": the head starts as a regression on frozen features (Kumar et al. 2022). "random": as transformers draws it."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the target spread evenly over the classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """"balanced" weights each class by rows / (classes × rows of the class)."""
    loss: Loss = CrossEntropy()
    """What is minimised."""
    mlm_probability: float = Field(default=0.15, gt=0.0, le=0.5)
    """Share of the tokens that are hidden and learned, for fill-mask and model.adapt (0.15: Devlin et al. 2019); at least one a row."""
    averaging: Averaging | None = None
    """Averages of weights that are kept instead of the weights themselves; left out: wise_ft for vectors of embedders, else none."""
    regularization: Regularization | None = None
    """What is asked of the model besides a low loss on its rows; nothing when left out."""
    distill: Distill | None = None
    """A finished run whose answers are learned besides the labels; none when left out."""
    sampling: Literal["none", "balanced", "square_root"] = "none"
    """Draws of an epoch, as many as rows: each row once; classes equally often; or as often as the square root of their rows."""
    augment: Augment | None = None
    """Changed copies of training rows; none when left out."""
    evaluations_per_epoch: int = Field(default=1, ge=1, le=1000)
    """How often the validation score is taken in an epoch."""
    patience: Literal["auto"] | Annotated[int, Field(ge=1)] | None = "auto"
    """Stop after this many evaluations without improvement; null never stops. The best weights are kept either way."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """"auto" measures both on this machine and takes bfloat16 when it is faster."""
    activation_checkpointing: Literal["auto"] | bool = "auto"
    """Blocks are computed again in the backward pass instead of kept: less memory, the same numbers. "auto": where memory is short."""
    checkpoint_minutes: float = Field(default=2.0, gt=0.0)
    """Longest training time that an interruption can cost."""


class Evaluate(Part):
    """How the result is judged."""

    metric: str | None = None
    """Metric that selects the weights and leads the report; the task's first when left out."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)
    """Coverage of the bootstrap intervals."""
    resamples: int = Field(default=1000, ge=100, le=100000)
    """Bootstrap resamples."""
    baselines: tuple[Literal["majority", "features", "copy", "retrieval", "lexical", "dictionary", "untrained"], ...] = (
        "majority",
        "features",
    )
    """Compared with the model; "majority": the most frequent class or answer, or the mean number. Those of the task, if left out."""
    folds: Annotated[int, Field(ge=2, le=20)] | Literal["auto"] | None = "auto"
    """Models trained for a cross-validated score beside that of the test; "auto": 5 where the test has few rows; null: none."""
    mistakes: int = Field(default=20, ge=0, le=1000)
    """How many of the worst mistakes the report shows: the most confident ones, or the largest."""


class Card(Part):
    """What only a person can say about the model. It enters the card as declared, and as unknown when left out."""

    license: str | None = None
    """Licence identifier of the model, such as apache-2.0."""
    language: tuple[str, ...] | None = None
    """Language codes of the data, such as en."""
    intended_use: str | None = None
    """What the model is meant for."""
    out_of_scope: str | None = None
    """What it is not meant for."""
    data_origin: str | None = None
    """Where the data come from, who labelled them and how."""
    contact: str | None = None
    """Who answers for the model."""


class Store(Part):
    """The frozen-prefix store: what untrained lower blocks say of a row is computed once, and kept for epochs, folds and other runs."""

    mode: Literal["auto", "always", "never"] = "auto"
    """"auto" uses it when it pays, and says so; "always" fails, with the reason, where it cannot be had."""
    dtype: Literal["float32", "float16"] = "float32"
    """Number format on disk. float16 takes half the room, and rounds what is stored to 11 bits."""
    max_gb: float = Field(default=20.0, gt=0.0)
    """Largest size of the store in gigabytes; what was used longest ago is removed first."""
    folder: str | None = None
    """Where it is; ".store" beside the run directories when left out. `tunesmith store` looks after it."""


class Spec(Part):
    """Everything a run needs to know."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[\w][\w.\- ]*$")
    """Name of the run; its directory is runs/NAME."""
    task: TaskName = "text-classification"
    """What the model learns: classes, a number, likeness of two texts, answers in a text, spans of it, a text to write, to find texts."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Every random stream of the run derives from it."""
    data: Data
    """Where the labelled rows are."""
    model: Model = Model()
    """The pretrained model."""
    strategy: Strategy = Full(kind="full")
    """Which weights are trained."""
    train: Train = Train()
    """How they are fitted."""
    answers: Answering = Answering()
    """How answers are found in a text."""
    embedding: Embedding = Embedding()
    """How texts become vectors."""
    ranking: Ranking = Ranking()
    """What a query is ranked against."""
    store: Store = Store()
    """Frozen work is done once."""
    generation: Generation = Generation()
    """How answers are written, where labels are texts."""
    evaluate: Evaluate = Evaluate()
    """How the result is judged."""
    card: Card = Card()
    """What only a person can say about the model."""

    @property
    def kind(self) -> Kind:
        """What a row's label is."""
        return kind_of(self.task, self.data.multi_label)

    @property
    def has_row_features(self) -> bool:
        """False where an encoded row is a window or a pair: one frozen vector does not stand for a row then."""
        return self.task not in WITHOUT_ROW_FEATURES
