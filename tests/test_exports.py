"""What lpml shows of itself: the names of its face, and what may be done with its classes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lpml

ROOT = Path(__file__).resolve().parent.parent

# The names that a user types after `lpml.`, by what they are for.
FACE = {
    "the graph": "Program Node Resources Restart compile launch Run",
    "inside a node": "context Context Checkpointable",
    "methods": "concurrent batched idempotent",
    "calls": "Future Stream Shared future acall stream broadcast first deadline",
    "errors": """Error UsageError GraphError LaunchError NodeError ProgramStopped CallError
        RemoteError NodeUnavailable CallTimeout CallCancelled ProtocolError""",
}


def public_names(module: object) -> set[str]:
    """What a module re-exports: public names that are no submodules."""
    kinds = {name: type(value).__name__ for name, value in vars(module).items()}
    return {name for name, kind in kinds.items() if not name.startswith("_") and kind != "module"}


@pytest.mark.parametrize("purpose", FACE)
def test_the_face_has_every_name(purpose: str) -> None:
    assert set(FACE[purpose].split()) <= public_names(lpml)


def test_the_face_has_no_name_that_is_not_documented() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(page.read_text() for page in pages)
    unheard = {name for name in public_names(lpml) if f"lpml.{name}" not in text}
    assert not unheard, "name each as lpml.NAME in docs/"


def test_every_public_thing_has_a_docstring() -> None:
    silent = [name for name in sorted(public_names(lpml)) if not getattr(lpml, name).__doc__]
    assert not silent


def public_classes() -> Iterator[tuple[str, ast.ClassDef]]:
    """Every public class at the top of a module of the core and of the nodes, with its place."""
    for folder in ("lpml", "nodes"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT)
            if inside.parts[:2] in (("lpml", "nodes"), ("lpml", "agents")):
                continue
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    yield f"{inside}:{node.lineno} {node.name}", node


def test_every_public_class_is_abstract_or_final() -> None:
    wrong = [place for place, node in public_classes() if not (is_final(node) or is_open(node))]
    assert not wrong, "decorate with typing.final, or derive from ABC or Protocol"


def is_final(node: ast.ClassDef) -> bool:
    """Said to be final, or a frozen value."""
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    return any(text.endswith("final") or "frozen=True" in text for text in decorators)


def is_open(node: ast.ClassDef) -> bool:
    """Meant to be derived from, or of a kind that cannot be."""
    bases = " ".join(ast.unparse(base) for base in node.bases)
    kinds = ("ABC", "Protocol", "Error", "Exception", "NamedTuple", "Enum", "TypedDict")
    lower = node.name[0].islower()  # a context manager that is used like a function
    return lower or any(kind in bases for kind in kinds) or node.name.startswith("Abstract")
