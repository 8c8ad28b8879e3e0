"""Write docs/TABLES.md and the list in docs/DESIGN.md again from `helpers.schema`."""

from __future__ import annotations

import re
from pathlib import Path

from helpers.schema import write_overview, write_reference

DOCS = Path(__file__).parent
HEAD = """\
# The tables

Every table that a study writes, below `outputs/<study>/`: the tables are the interface, and another tool may write or
read them. Made from `src/helpers/schema.py` by `make tables`. Types: text is empty, never missing, where nothing was
said; a number or a count that could not be measured is missing, never 0; a flag is True or False. `<attribute>`,
`<group>`, `<model>` and `<organ>` stand for the study's own names.

"""


def main() -> None:
    """Write both."""
    (DOCS / "TABLES.md").write_text(HEAD + write_reference(), encoding="utf-8")
    design = DOCS / "DESIGN.md"
    text = design.read_text(encoding="utf-8")
    text = re.sub(r"(?<=<!-- tables -->\n).*?(?=<!-- /tables -->)", write_overview(), text, flags=re.DOTALL)
    design.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
