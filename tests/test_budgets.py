"""Size and shape of the package, held from the first commit: see CONTRIBUTING.md for the reasons."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tunesmith"
FILES = sorted(PACKAGE.rglob("*.py"))
FILE_LINES, FUNCTION_LINES, FUNCTION_LINES_P90, PARAMETERS, SPEC_FIELDS = 400, 60, 35, 7, 180
HEAVY = ("torch", "transformers", "polars", "sklearn", "numpy", "matplotlib")


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_files_fit_in_the_budget() -> None:
    long = {str(p.relative_to(PACKAGE)): n for p in FILES if (n := len(p.read_text().splitlines())) > FILE_LINES}
    assert not long


def test_functions_fit_on_a_screen() -> None:
    long = [f"{p.relative_to(PACKAGE)}:{f.name} {length(f)}" for p in FILES for f in functions(p) if length(f) > FUNCTION_LINES]
    assert not long
    lengths = sorted(length(f) for p in FILES for f in functions(p))
    assert lengths[int(0.9 * len(lengths))] <= FUNCTION_LINES_P90


def test_functions_have_few_parameters() -> None:
    def count(f: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        names = [a.arg for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs)]
        return len([n for n in names if n not in ("self", "cls")])

    many = [f"{p.relative_to(PACKAGE)}:{f.name} {count(f)}" for p in FILES for f in functions(p) if count(f) > PARAMETERS]
    assert not many


def test_foreign_modules_are_looked_into_in_one_place() -> None:
    found = []
    for path in FILES:
        if path.relative_to(PACKAGE) == Path("models/anatomy.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            literal = isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(node.args[1], ast.Constant)
            if literal and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert not found


def test_no_error_is_swallowed() -> None:
    found = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
                empty = all(isinstance(n, (ast.Pass, ast.Continue)) for n in node.body)
                if broad or empty:
                    found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert not found


def test_public_functions_are_documented() -> None:
    found = []
    for path in FILES:
        tree = ast.parse(path.read_text())
        if path.name != "__init__.py" and not ast.get_docstring(tree):
            found.append(str(path.relative_to(PACKAGE)))
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_") and not ast.get_docstring(node):
                found.append(f"{path.relative_to(PACKAGE)}:{node.name}")
    assert not found


def test_no_drawer_of_unrelated_things() -> None:
    words = ("util", "helper", "common", "manager", "base_", "_v2", "misc")
    allowed = {"tasks/base.py"}
    names = {str(p.relative_to(PACKAGE)) for p in FILES} - allowed
    assert not [n for n in names if any(word in n for word in words)]


def test_spec_stays_small() -> None:
    from pydantic import BaseModel

    from tunesmith.spec import schema

    parts = [v for v in vars(schema).values() if isinstance(v, type) and issubclass(v, BaseModel) and v is not schema.Part]
    # `kind` chooses a member of a union and is no dial: see LOG.md.
    fields = [f"{part.__name__}.{name}" for part in parts for name in part.model_fields if name != "kind"]
    assert len(fields) <= SPEC_FIELDS
    undocumented = [f"{part.__name__}.{n}" for part in parts for n, field in part.model_fields.items() if not field.description]
    assert not undocumented


@pytest.mark.parametrize("statement", ["import tunesmith", "import tunesmith.spec.load", "import tunesmith.cli.main"])
def test_the_door_is_light(statement: str) -> None:
    code = f"import sys; {statement}; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
