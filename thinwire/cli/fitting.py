"""Tables as wide as the terminal: where the space runs out, whole columns go, and no number is cut."""

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

PIPE_COLUMNS = 160  # nobody's terminal is too narrow


def print_fitting(table: Callable[[frozenset[str]], Table], spare: Sequence[str]) -> None:
    """Print ``table(without)``, where the terminal asks for it without the first few columns of ``spare``."""
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    free = console.options.update(max_width=10 * PIPE_COLUMNS)
    choices = (table(frozenset(spare[:count])) for count in range(len(spare) + 1))
    shown = next((one for one in choices if console.measure(one, options=free).maximum <= console.width), None)
    console.print(table(frozenset(spare)) if shown is None else shown, highlight=False)
