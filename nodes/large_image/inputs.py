"""What the nodes of large pictures share."""

from comfy_api.latest import io

from ...recipes.large_image.grid import Grid
from ..common import checks

CATEGORY = "FreeSteer/large image"
ALIASES = ["tiled diffusion", "multidiffusion", "large image", "panorama", "regional prompt", "grid"]
GRID = io.Custom("MEANING_GRID")
MOST_CELLS = 1024


def checked_grid(value: object, name: str = "grid") -> Grid:
    if not isinstance(value, Grid):
        raise checks.InputError(f"{name} is {checks.kind_of(value)}: connect a grid, as from Grid From Prompts.")
    return value


def checked_shape(rows: int, columns: int) -> tuple[int, int]:
    rows, columns = checks.whole("rows", rows, 1, MOST_CELLS), checks.whole("columns", columns, 1, MOST_CELLS)
    if rows * columns > MOST_CELLS:
        raise checks.InputError(f"rows times columns are {rows * columns} cells: {MOST_CELLS} are the most.")
    return rows, columns


def _inner(line: str) -> str:
    """Without the bars around a row, as Markdown has them."""
    return line[1:-1] if len(line) > 1 and line[0] == line[-1] == "|" else line


def table(text: str) -> list[list[str]]:
    """A line for each row, | between its cells."""
    lines = [line for line in text.splitlines() if line.strip()]
    rows = [[cell.strip() for cell in _inner(line.strip()).split("|")] for line in lines]
    if not rows:
        raise checks.InputError("prompts is empty: write a line for each row of the grid, with | between cells.")
    ragged = next((i for i, row in enumerate(rows) if len(row) != len(rows[0])), None)
    if ragged is not None:
        raise checks.InputError(
            f"prompts has {len(rows[0])} cells in its first row and {len(rows[ragged])} in row {ragged + 1}: give all rows as many, with | "
            "between cells."
        )
    if len(rows) * len(rows[0]) > MOST_CELLS:
        raise checks.InputError(f"prompts has {len(rows) * len(rows[0])} cells: {MOST_CELLS} are the most.")
    return rows
