"""A benchmark's result as a section of BENCHMARKS.md."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.table import Table


@dataclass
class Section:
    """A heading, a sentence on what was measured, a table, and the plots' files."""

    title: str
    text: str
    header: list[str]
    rows: list[list[str]]
    plots: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """The section as Markdown."""
        lines = [f"## {self.title}", "", self.text, ""]
        lines += [
            "| " + " | ".join(row) + " |" for row in (self.header, ["---"] * len(self.header), *self.rows)
        ]
        lines += [line for plot in self.plots for line in ("", f"![{self.title}]({plot})")]
        return "\n".join(lines) + "\n"

    def table(self) -> Table:
        """The section for a terminal."""
        table = Table(title=self.title, caption=self.text, title_justify="left", caption_justify="left")
        for number, name in enumerate(self.header):
            table.add_column(name, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table
