"""A picture of a program as SVG: shapes by role, arrows with the parameter they fill."""

from __future__ import annotations

from html import escape

from lpml.graph.enclosing import Enclosure, enclosures
from lpml.graph.folding import Arrow, Picture, Shown
from lpml.graph.layout import Place, Route, lay_out
from lpml.graph.roles import Shape, look_of

_MARGIN = 24.0
_TITLE = 30.0
_LEGEND = 34.0
_LOOP = 34.0  # height of the arrow of a node to itself
_FONT = "system-ui, 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif"
_STYLE = f"""
  text {{ font-family: {_FONT}; fill: #212529; text-anchor: middle; }}
  .title {{ font-size: 15px; font-weight: 600; text-anchor: start; }}
  .name {{ font-size: 13px; font-weight: 600; }}
  .service {{ font-size: 11px; fill: #495057; }}
  .parameter {{ font-size: 11px; fill: #495057; }}
  .legend {{ font-size: 11px; fill: #495057; text-anchor: start; }}
  .group {{ font-size: 11px; fill: #868e96; text-anchor: start; }}
  .arrow {{ fill: none; stroke: #868e96; stroke-width: 1.4; }}
"""
_HEAD = (
    '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
    'orient="auto-start-reverse"><path d="M0,1 L9,5 L0,9 z" fill="#868e96"/></marker>'
)


def render(shown: Picture) -> str:
    """The picture as the text of an SVG file."""
    loops = {arrow.source for arrow in shown.arrows if arrow.source == arrow.target}
    layout = lay_out(
        {one.key: _size(one, one.key in loops) for one in shown.nodes},
        [(arrow.source, arrow.target) for arrow in shown.arrows],
        [(text_width(arrow.label, 11) + 10, 16.0) for arrow in shown.arrows],
    )
    routed = list(zip(shown.arrows, layout.routes, strict=True))
    groups = enclosures(shown, layout.boxes)
    x, y = min([0.0, *(box.left for box in groups)]), min([0.0, *(box.top for box in groups)])
    drawn_width = max([layout.width, *(box.right for box in groups)]) - x
    drawn_height = max([layout.height, *(box.bottom for box in groups)]) - y
    legend = _legend(shown)
    inner = max(drawn_width, legend[1], text_width(shown.name, 15) * 1.1)
    width = inner + 2 * _MARGIN
    height = drawn_height + 2 * _MARGIN + _TITLE + (_LEGEND if legend[0] else 0)
    left, top = _MARGIN + (inner - drawn_width) / 2 - x, _MARGIN + _TITLE - y
    size = f'width="{width:.0f}" height="{height:.0f}"'
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width:.0f} {height:.0f}">',
        f"<title>{escape(shown.name)}</title>",
        f"<style>{_STYLE}</style>",
        f"<defs>{_HEAD}</defs>",
        f'<rect {size} rx="8" fill="#ffffff"/>',
        f'<text class="title" x="{_MARGIN}" y="{_MARGIN + 12}">{escape(shown.name)}</text>',
        f'<g transform="translate({left:.1f},{top:.1f})">',
        *map(_group, groups),
        *(_curve(arrow, route) for arrow, route in routed if route is not None),
        *(_node(one, layout.boxes[one.key], one.key in loops) for one in shown.nodes),
        *(_loop(arrow, layout.boxes[arrow.source]) for arrow, route in routed if route is None),
        "</g>",
        f'<g transform="translate({_MARGIN},{height - _MARGIN - 6:.1f})">{legend[0]}</g>',
        "</svg>",
    ]
    return "\n".join(body) + "\n"


def text_width(text: str, size: float) -> float:
    """About how wide a text is, in the usual sans-serif fonts."""
    return size * sum(map(_ems, text))


def _ems(letter: str) -> float:
    if letter in "fijlrt.,:;|!'()[]/ I":
        return 0.36
    if letter in "mwMWQO@%":
        return 0.9
    return 0.68 if letter.isupper() else 0.58


def _size(one: Shown, loop: bool) -> tuple[float, float]:
    lines = [text_width(one.label, 13) * 1.06, *(text_width(text, 11) for text in _small(one))]
    room = {"cylinder": 28, "hexagon": 52, "trapezoid": 60, "pill": 40}
    width = max(lines) + room.get(look_of(one.role).shape, 30)
    height = 30.0 + 15 * len(_small(one)) + (8 if look_of(one.role).shape == "cylinder" else 0)
    return max(92.0, width), height + (2 * _LOOP if loop else 0)


def _small(one: Shown) -> list[str]:
    shared = [f"in process {one.colocation}"] if one.colocation else []
    return [one.service, *shared]


# --- nodes ---------------------------------------------------------------------------------------


def _node(one: Shown, place: Place, loop: bool) -> str:
    look = look_of(one.role)
    width, height = place.width, place.height - (2 * _LOOP if loop else 0)
    x, y = place.x - width / 2, place.y - height / 2
    style = f'fill="{look.fill}" stroke="{look.line}" stroke-width="1.4"'
    behind = [_shape(look.shape, x + d, y - d, width, height, style) for d in (8.0, 4.0)]
    parts = behind if one.count > 1 else []
    parts = [*parts, _shape(look.shape, x, y, width, height, style)]
    first = y + height / 2 - 7.5 * len(_small(one)) + (11 if look.shape == "cylinder" else 4.5)
    parts.append(f'<text class="name" x="{place.x:.1f}" y="{first:.1f}">{escape(one.label)}</text>')
    for index, text in enumerate(_small(one)):
        line = first + 15 * (index + 1)
        parts.append(
            f'<text class="service" x="{place.x:.1f}" y="{line:.1f}">{escape(text)}</text>'
        )
    tip = f"{one.role}: {', '.join(one.names)}"
    return f"<g><title>{escape(tip)}</title>{''.join(parts)}</g>"


def _shape(shape: Shape, x: float, y: float, w: float, h: float, style: str) -> str:
    if shape in ("box", "round", "pill"):
        radius = {"box": 3.0, "round": 12.0}.get(shape, h / 2)
        return _rect(x, y, w, h, radius, style)
    if shape == "double":
        return _rect(x, y, w, h, 4, style) + _rect(x + 4, y + 4, w - 8, h - 8, 2, style)
    if shape == "cylinder":
        lid = 7.0
        arc = f"a{w / 2:.1f},{lid} 0 0"
        side = f"M{x:.1f},{y + lid:.1f} v{h - 2 * lid:.1f} {arc},0 {w:.1f},0 v{-(h - 2 * lid):.1f}"
        return f'<path d="{side} {arc},0 {-w:.1f},0 {arc},0 {w:.1f},0" {style}/>'
    inset = 14.0
    if shape == "hexagon":
        points = [(0, h / 2), (inset, 0), (w - inset, 0), (w, h / 2), (w - inset, h), (inset, h)]
    else:  # a trapezoid, broad where arrows come in
        points = [(0, h), (inset, 0), (w - inset, 0), (w, h)]
    text = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in points)
    return f'<polygon points="{text}" stroke-linejoin="round" {style}/>'


def _rect(x: float, y: float, w: float, h: float, radius: float, style: str) -> str:
    box = f'x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}"'
    return f'<rect {box} rx="{radius:.1f}" {style}/>'


def _group(box: Enclosure) -> str:
    style = 'fill="#f8f9fa" stroke="#ced4da" stroke-dasharray="5 4"'
    frame = _rect(box.left, box.top, box.right - box.left, box.bottom - box.top, 8, style)
    where = f'x="{box.left + 8:.1f}" y="{box.top + 12:.1f}"'
    return f'{frame}<text class="group" {where}>{escape(box.label)}</text>'


# --- arrows --------------------------------------------------------------------------------------


def _curve(arrow: Arrow, route: Route) -> str:
    (x, y), *others = route.points
    path = [f"M{x:.1f},{y:.1f}"]
    for next_x, next_y in others:
        bend = (next_x - x) / 2
        path.append(
            f"C{x + bend:.1f},{y:.1f} {next_x - bend:.1f},{next_y:.1f} {next_x:.1f},{next_y:.1f}"
        )
        x, y = next_x, next_y
    line = f'<path class="arrow" d="{" ".join(path)}" marker-end="url(#head)"/>'
    return line + _label(arrow.label, route.label.x, route.label.y)


def _loop(arrow: Arrow, place: Place) -> str:
    top = place.y - place.height / 2 + _LOOP
    x = place.x
    path = f"M{x - 18:.1f},{top:.1f} c-8,-34 44,-34 36,0"
    line = f'<path class="arrow" d="{path}" marker-end="url(#head)"/>'
    return line + _label(arrow.label, x, top - 26)


def _label(text: str, x: float, y: float) -> str:
    width = text_width(text, 11) + 8
    back = f'<rect x="{x - width / 2:.1f}" y="{y - 8:.1f}" width="{width:.1f}" height="16" rx="4"'
    words = f'<text class="parameter" x="{x:.1f}" y="{y + 4:.1f}">{escape(text)}</text>'
    return f'{back} fill="#ffffff" fill-opacity="0.92"/>{words}'


def _legend(shown: Picture) -> tuple[str, float]:
    """A swatch and a word for each role; nothing where all nodes are plain services."""
    roles = list(dict.fromkeys(one.role for one in shown.nodes))
    if roles in ([], ["service"]):
        return "", 0.0
    x, parts = 0.0, []
    for role in roles:
        look = look_of(role)
        parts.append(_rect(x, -9, 14, 11, 3, f'fill="{look.fill}" stroke="{look.line}"'))
        parts.append(f'<text class="legend" x="{x + 20:.1f}" y="0">{escape(role)}</text>')
        x += 20 + text_width(role, 11) + 22
    return "".join(parts), x
