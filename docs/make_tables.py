"""Write docs/TABLES.md again from `helpers.schema`."""

from __future__ import annotations

from pathlib import Path

from helpers.schema import write_reference

HEAD = """\
# The tables

Every table that a study writes, below `outputs/<study>/`: the tables are the interface, and another tool may write or
read them. Made from `src/helpers/schema.py` by `make tables`. Types: text is empty, never missing, where nothing was
said; a number or a count that could not be measured is missing, never 0; a flag is True or False. `<attribute>`,
`<group>`, `<model>` and `<organ>` stand for the study's own names.

"""


def main() -> None:
    """Write the page."""
    (Path(__file__).parent / "TABLES.md").write_text(HEAD + write_reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
