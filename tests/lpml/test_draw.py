"""Drawings of programs: Mermaid, DOT and SVG."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lpml
from lpml import Node, Program
from lpml.graph.draw import dot, mermaid, svg
from lpml.graph.enclosing import enclosures
from lpml.graph.folding import Picture, picture
from lpml.graph.layout import Place, lay_out

FORMATS = [mermaid, dot, svg]


class Server:
    lpml_role: ClassVar[str] = "parameter server"

    def pull(self) -> int:
        return 0


class Worker:
    lpml_role: ClassVar[str] = "worker"

    def __init__(self, server: Any = None, **others: Any) -> None: ...

    def run(self) -> None: ...


def program_with(workers: int) -> Program:
    program = Program("training")
    server = program.add_node(Node(Server))
    with program.group("worker"):
        for index in range(workers):
            program.add_node(Node(Worker, server, shard=index))
    return program


def test_mermaid_draws_roles_groups_and_parameters() -> None:
    assert mermaid(program_with(2)) == (
        "flowchart LR\n"
        '  n0[("<b>server</b><br/>Server")]\n'
        '  subgraph g1 ["worker"]\n'
        '    n1("<b>worker/0</b><br/>Worker")\n'
        '    n2("<b>worker/1</b><br/>Worker")\n'
        "  end\n"
        '  n1 -- "server" --> n0\n'
        '  n2 -- "server" --> n0\n'
        "  classDef role0 fill:#d9e8fb,stroke:#2b6cb0,color:#212529\n"
        "  class n0 role0\n"
        "  classDef role1 fill:#ddf3dc,stroke:#2f855a,color:#212529\n"
        "  class n1,n2 role1\n"
    )


def test_dot_draws_roles_groups_and_parameters() -> None:
    text = dot(program_with(2))
    assert text.startswith('digraph "training" {\n  rankdir=LR;\n')
    assert '  n0 [label="server\\nServer", shape=cylinder, style=filled, fillcolor=' in text
    assert '  subgraph cluster_g1 { label="worker"; ' in text
    assert '  n1 -> n0 [label="server"];\n' in text
    assert text.count("{") == text.count("}")


def test_svg_shows_names_services_parameters_and_roles() -> None:
    root = xml.etree.ElementTree.fromstring(svg(program_with(2)))
    texts = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    for expected in ("training", "server", "worker/0", "Worker", "parameter server"):
        assert expected in texts
    assert texts.count("server") == 3  # the node, and what each of two arrows fills
    assert texts.count("worker") == 2  # the box of the group, and the role


def places_of(picture: Picture) -> dict[str, Place]:
    arrows = [(arrow.source, arrow.target) for arrow in picture.arrows]
    sizes = {one.key: (80.0, 40.0) for one in picture.nodes}
    return dict(lay_out(sizes, arrows, [(30.0, 16.0)] * len(arrows)).boxes)


def test_a_box_holds_the_nodes_of_its_group_and_the_boxes_within() -> None:
    program = Program("p")
    server = program.add_node(Node(Server))
    with program.group("outer"):
        for label in ("a", "b"):
            with program.group(label):
                for index in range(2):
                    program.add_node(Node(Worker, server, **{f"{label}{index}": 1}))
    shown = picture(program)
    places = places_of(shown)
    outer, *inner = enclosures(shown, places)
    assert [box.label for box in (outer, *inner)] == ["outer", "a", "b"]
    for box in inner:
        assert outer.left < box.left < box.right < outer.right
        assert outer.top < box.top < box.bottom < outer.bottom
    assert not inner[0].meets(inner[1])
    first = places[shown.nodes[1].key]
    assert inner[0].left < first.x - 40
    assert inner[0].top < first.y - 20


def test_a_group_among_whose_nodes_others_stand_gets_no_box() -> None:
    program = Program("p")
    server = program.add_node(Node(Server))
    with program.group("ends"):
        first = program.add_node(Node(Worker, server))
    middle = program.add_node(Node(Worker, first), label="middle")
    with program.group("ends"):
        program.add_node(Node(Worker, middle))
    shown = picture(program)
    assert enclosures(shown, places_of(shown)) == []
    assert 'class="group"' not in svg(program)


@pytest.mark.parametrize("draw", FORMATS)
def test_many_nodes_that_are_alike_are_drawn_as_one(draw: Callable[[Program], str]) -> None:
    text = draw(program_with(8))
    assert "worker × 8" in text
    assert "worker/0<" not in text
    assert draw(program_with(8)) == draw(program_with(8))


def test_a_node_that_differs_from_its_group_is_drawn_by_itself() -> None:
    program = program_with(1)
    first = program.nodes[1].node.handle()
    with program.group("worker"):
        for _ in range(4):
            program.add_node(Node(Worker, program.nodes[0].node.handle()))
    program.add_node(Node(Worker, first), label="evaluator")
    text = mermaid(program)
    assert "worker/0" in text
    assert "worker × 4" in text


def test_a_ring_of_nodes_is_one_node_that_holds_itself() -> None:
    program = Program("ring")
    nodes: list[Node[..., Worker]] = [Node.declare(Worker) for _ in range(5)]
    for node in nodes:
        program.add_node(node)
    for node, following in itertools.pairwise([*nodes, nodes[0]]):
        node.configure(next=following.handle())
    assert '  n0 -- "next" --> n0\n' in mermaid(program)
    assert "worker × 5" in svg(program)


def test_a_pipeline_is_not_folded() -> None:
    program = Program("stages")
    previous = None
    for _ in range(4):
        previous = program.add_node(Node(Worker, previous))
    assert mermaid(program).count('-- "server" -->') == 3


def test_groups_that_share_a_process_say_so() -> None:
    program = Program("p")
    with program.group("all", colocate=True), program.group("inner"):
        program.add_node(Node(Worker, program.add_node(Node(Server))))
    assert '["all (one process)"]' in mermaid(program)
    assert "in process all" in svg(program)


@pytest.mark.parametrize("draw", FORMATS)
def test_names_are_escaped(draw: Callable[[Program], str]) -> None:
    service = type('A<b>&"c"', (), {"run": lambda self: None})
    program = Program("p")
    program.add_node(Node(service), label="x")
    text = draw(program)
    assert "A<b>&" not in text or draw is dot
    if draw is svg:
        xml.etree.ElementTree.fromstring(text)


@pytest.mark.parametrize("draw", FORMATS)
def test_a_program_without_nodes_is_an_empty_drawing(draw: Callable[[Program], str]) -> None:
    assert draw(Program("nothing"))


@pytest.mark.parametrize("draw", FORMATS)
def test_a_faulty_program_is_not_drawn(draw: Callable[[Program], str]) -> None:
    program = Program("p")
    program.add_node(Node.declare(Worker))
    with pytest.raises(lpml.GraphError, match="never given any"):
        draw(program)


def test_a_role_that_is_not_known_looks_like_a_service() -> None:
    service = type("Odd", (), {"lpml_role": "oracle", "run": lambda self: None})
    program = Program("p")
    program.add_node(Node(service))
    assert '  n0["<b>odd</b>' in mermaid(program)


# --- the layout ----------------------------------------------------------------------------------


def boxes(count: int) -> dict[str, tuple[float, float]]:
    return {str(i): (80.0 + 10 * (i % 3), 40.0) for i in range(count)}


def test_arrows_lead_from_left_to_right() -> None:
    layout = lay_out(boxes(3), [("0", "1"), ("1", "2"), ("0", "2")], [(40.0, 16.0)] * 3)
    assert layout.boxes["0"].x < layout.boxes["1"].x < layout.boxes["2"].x
    for route in layout.routes:
        assert route is not None
        xs = [x for x, _ in route.points]
        assert xs == sorted(xs)


def test_arrows_that_need_not_cross_do_not() -> None:
    arrows = [("0", "5"), ("1", "4"), ("2", "3")]
    layout = lay_out(boxes(6), arrows, [(40.0, 16.0)] * 3)
    sources = sorted(arrows, key=lambda arrow: layout.boxes[arrow[0]].y)
    targets = sorted(arrows, key=lambda arrow: layout.boxes[arrow[1]].y)
    assert sources == targets


GRAPHS = st.integers(1, 9).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=20, unique=True),
    )
)


@settings(max_examples=60)
@given(GRAPHS)
def test_nothing_overlaps_and_every_arrow_ends_at_its_boxes(
    graph: tuple[int, list[tuple[int, int]]],
) -> None:
    count, pairs = graph
    arrows = [(str(a), str(b)) for a, b in pairs]
    layout = lay_out(boxes(count), arrows, [(30.0, 16.0)] * len(arrows))
    labels = [route.label for route in layout.routes if route is not None]
    for one, two in itertools.combinations([*layout.boxes.values(), *labels], 2):
        apart_x = abs(one.x - two.x) - (one.width + two.width) / 2
        apart_y = abs(one.y - two.y) - (one.height + two.height) / 2
        assert max(apart_x, apart_y) > -1e-6
    for (source, target), route in zip(arrows, layout.routes, strict=True):
        if route is None:
            assert source == target
            continue
        for point, box in ((route.points[0], source), (route.points[-1], target)):
            place = layout.boxes[box]
            assert abs(abs(point[0] - place.x) - place.width / 2) < 1e-6
            assert abs(point[1] - place.y) <= place.height / 2
    for place in layout.boxes.values():
        assert place.width / 2 - 1e-6 <= place.x <= layout.width - place.width / 2 + 1e-6
        assert place.height / 2 - 1e-6 <= place.y <= layout.height - place.height / 2 + 1e-6


def test_arrows_stay_inside_the_picture() -> None:
    text = svg(program_with(2))
    width = float(re.findall(r'width="(\d+)"', text)[0])
    assert all(float(x) <= width for x in re.findall(r"M([\d.]+),", text))
