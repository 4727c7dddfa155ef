"""Write the README's table of models and the command line's file of names anew, from the registries.

python docs/readme.py
"""

from __future__ import annotations

import json
from pathlib import Path

from twostep.cli import names
from twostep.cli.tables import MODEL_COLUMNS, model_rows

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- models: made by docs/readme.py -->\n", "<!-- end of models -->\n"


def table() -> str:
    """Return the table in Markdown."""
    rows = [MODEL_COLUMNS, ("---",) * len(MODEL_COLUMNS), *((f"`{name}`", *rest) for name, *rest in model_rows())]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def renewed(text: str) -> str:
    """Return the README's text with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    README.write_text(renewed(README.read_text()))
    names.FILE.write_text(json.dumps(names.collected(), indent=1) + "\n")
