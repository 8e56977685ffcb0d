"""Check the size of the product's modules and functions: at most 350 lines a module, and 60 a function."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "gateway"
MAX_MODULE_LINES = 350
MAX_FUNCTION_LINES = 60


def problems(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(PACKAGE.parent)
    lines = text.count("\n")
    if lines > MAX_MODULE_LINES:
        yield f"{name}: {lines} lines (the limit is {MAX_MODULE_LINES}): split it by noun"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield f"{name}:{node.lineno}: {node.name}: {lines} lines (limit: {MAX_FUNCTION_LINES})"


found = [problem for path in sorted(PACKAGE.rglob("*.py")) for problem in problems(path)]
print("\n".join(found) or "modules and functions are within their size limits")
sys.exit(bool(found))
