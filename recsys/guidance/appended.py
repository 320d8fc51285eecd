"""One more control in the text that an editor wrote: comments, order and layout stay as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping

import yaml

from recsys.errors import PolicyError
from recsys.guidance.documents import read_tree

_WIDE = 1 << 20


def with_control(text: str, control: Mapping[str, object]) -> str | None:
    """The YAML text with a control as the last of its `controls`; None where they are no list that one can be put to.

    The caller reads the answer again: what was meant must come out of it.

    >>> print(with_control("controls:\\n  - {id: a}  # ours\\n", {"id": "b", "share": 0.02}))
    controls:
      - {id: a}  # ours
      - {id: b, share: 0.02}
    <BLANKLINE>
    """
    try:
        root = read_tree(text)
    except PolicyError:
        return None
    keys = root.value if isinstance(root, yaml.MappingNode) else []
    said = next((value for key, value in keys if key.value == "controls"), None)
    if not isinstance(said, yaml.SequenceNode) or not said.value:
        return None
    line = yaml.safe_dump(
        dict(control), default_flow_style=True, allow_unicode=True, sort_keys=False, width=_WIDE
    ).strip()
    if "\n" in line:  # a note of several lines
        line = json.dumps(control, ensure_ascii=False)
    if said.flow_style:
        end = said.end_mark.index - 1
        return f"{text[:end].rstrip()}, {line}{text[end:]}"
    lines = text.splitlines(keepends=True)
    last = _last_line(said)
    lines[last] = lines[last].rstrip("\r\n") + "\n"
    lines.insert(last + 1, f"{' ' * said.start_mark.column}- {line}\n")
    return "".join(lines)


def _last_line(node: yaml.Node) -> int:
    """The last line (0-based) that belongs to a node; what follows are comments and blank lines."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last)
    end = node.end_mark
    return end.line - 1 if end.column == 0 and end.line > node.start_mark.line else end.line
