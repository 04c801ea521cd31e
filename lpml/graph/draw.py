"""A program as Mermaid, DOT or SVG. An arrow leads from who calls to who is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lpml.graph.folding import Picture, Shown, picture
from lpml.graph.program import Program
from lpml.graph.roles import Shape, look_of
from lpml.graph.svg import render

_MERMAID: dict[Shape, tuple[str, str]] = {
    "box": ("[", "]"),
    "double": ("[[", "]]"),
    "round": ("(", ")"),
    "pill": ("([", "])"),
    "cylinder": ("[(", ")]"),
    "hexagon": ("{{", "}}"),
    "trapezoid": ("[/", "\\]"),
}
_DOT: dict[Shape, str] = {
    "box": "shape=box, style=filled",
    "double": "shape=box, peripheries=2, style=filled",
    "round": 'shape=box, style="filled,rounded"',
    "pill": "shape=ellipse, style=filled",
    "cylinder": "shape=cylinder, style=filled",
    "hexagon": "shape=hexagon, style=filled",
    "trapezoid": "shape=trapezium, style=filled",
}


def mermaid(program: Program) -> str:
    """The program as a Mermaid flowchart, which GitHub and notebooks render.

    Raises:
      GraphError: the program has faults.
    """
    shown = picture(program)
    lines = ["flowchart LR"]
    lines += _nested(shown, _mermaid_node, _mermaid_open, "end")
    for arrow in shown.arrows:
        lines.append(f'  {arrow.source} -- "{_mermaid_text(arrow.label)}" --> {arrow.target}')
    for number, role in enumerate(_roles(shown)):
        look = look_of(role)
        members = ",".join(one.key for one in shown.nodes if one.role == role)
        lines.append(f"  classDef role{number} fill:{look.fill},stroke:{look.line},color:#212529")
        lines.append(f"  class {members} role{number}")
    return "\n".join(lines) + "\n"


def dot(program: Program) -> str:
    """The program in the language of Graphviz.

    Raises:
      GraphError: the program has faults.
    """
    shown = picture(program)
    lines = [f"digraph {_quoted(shown.name)} {{", "  rankdir=LR;"]
    lines.append('  node [fontname="Helvetica", fontsize=11];')
    lines.append('  edge [fontname="Helvetica", fontsize=9, color="#868e96"];')
    lines += _nested(shown, _dot_node, _dot_open, "}")
    for arrow in shown.arrows:
        lines.append(f"  {arrow.source} -> {arrow.target} [label={_quoted(arrow.label)}];")
    return "\n".join([*lines, "}"]) + "\n"


def svg(program: Program) -> str:
    """The program as an SVG image. Needs no other package.

    Raises:
      GraphError: the program has faults.
    """
    return render(picture(program))


def _mermaid_node(one: Shown) -> str:
    left, right = _MERMAID[look_of(one.role).shape]
    text = f"<b>{_mermaid_text(one.label)}</b><br/>{_mermaid_text(one.service)}"
    return f'{one.key}{left}"{text}"{right}'


def _mermaid_open(key: str, label: str) -> str:
    return f'subgraph {key} ["{_mermaid_text(label)}"]'


def _mermaid_text(text: str) -> str:
    escapes = {"&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "[": "#91;", "]": "#93;"}
    return "".join(escapes.get(letter, letter) for letter in text)


def _dot_node(one: Shown) -> str:
    look = look_of(one.role)
    label = f"{one.label}\n{one.service}"
    colours = f'fillcolor="{look.fill}", color="{look.line}"'
    return f"{one.key} [label={_quoted(label)}, {_DOT[look.shape]}, {colours}];"


def _dot_open(key: str, label: str) -> str:
    style = 'style="rounded,dashed"; color="#adb5bd"; fontname="Helvetica"; fontsize=10;'
    return f"subgraph cluster_{key} {{ label={_quoted(label)}; {style}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _roles(shown: Picture) -> list[str]:
    return list(dict.fromkeys(one.role for one in shown.nodes))


def _nested(
    shown: Picture,
    node: Callable[[Shown], str],
    opening: Callable[[str, str], str],
    closing: str,
) -> list[str]:
    """The lines of all nodes, those of one group between the lines of its box."""
    groups = shown.groups()

    def block(path: tuple[str, ...], indent: str) -> Iterator[str]:
        group = groups.get(path)
        if group is not None:
            yield indent + opening(f"g{list(groups).index(path)}", group.label)
        deeper = indent if group is None else indent + "  "
        yield from (deeper + node(one) for one in shown.nodes if one.group == "/".join(path))
        for inner in groups:
            if inner[:-1] == path:
                yield from block(inner, deeper)
        if group is not None:
            yield indent + closing

    return list(block((), "  "))
