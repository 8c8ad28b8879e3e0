"""segfair's helper module: what the notebooks call."""

import sys

__version__ = "0.1.0"

# jsonschema, which plotly's renderers and papermill import, else compiles 39 grammars for a format
# of web addresses that no notebook holds: a second of every stage's process.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None: it cannot be imported
