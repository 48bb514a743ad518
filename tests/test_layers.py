"""Imports may only point down, also inside functions; siblings on one row may not see each other."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "tunesmith"
ROWS = [  # lower rows first; names on one row are siblings
    {"core"},
    {"spec"},
    {"data", "tracking"},
    {"tasks"},
    {"models"},
    {"train", "evaluate"},
    {"robust", "export", "tune"},
    {"document", "serve", "federated", "writer"},
    {"stages"},
    {"pipeline"},
    {"quick"},
    {"cli", "studio"},
]
RANK = {name: row for row, names in enumerate(ROWS) for name in names}


def imports_of(path: Path) -> set[str]:
    """Top-level units of PACKAGE that a file imports, at module level or inside functions; type-only ones are free."""
    tree = ast.parse(path.read_text())
    free = {id(n) for t in ast.walk(tree) if isinstance(t, ast.If) and "TYPE_CHECKING" in ast.unparse(t.test) for n in ast.walk(t)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in free:
            continue
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                here = path.relative_to(PACKAGE.parent).with_suffix("").parts
                base = here[: len(here) - node.level]
                names |= {".".join([*base, node.module or a.name]) for a in node.names}
            else:
                names |= {f"{node.module}.{a.name}" for a in node.names}
    return {n.split(".")[1] for n in names if n.startswith(f"{PACKAGE.name}.") and n.split(".")[1] in RANK}


def test_imports_point_down() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        unit = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for target in imports_of(path) - {unit}:
            if unit in RANK and RANK[target] >= RANK[unit]:
                wrong.append(f"{path}: {unit} (row {RANK[unit]}) imports {target} (row {RANK[target]})")
    assert not wrong, "\n".join(wrong)


def test_every_part_has_a_row() -> None:
    parts = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in PACKAGE.rglob("*.py")} - {"__init__"}
    assert parts <= set(RANK), sorted(parts - set(RANK))


def test_subpackages_export_nothing() -> None:
    assert all(not p.read_text().strip() for p in PACKAGE.rglob("*/__init__.py"))
