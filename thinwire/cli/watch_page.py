"""The picture that ``thinwire watch`` draws: as tall and as wide as the terminal is just now."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from thinwire.cli.run_log import sentence
from thinwire.cli.run_view import RunView
from thinwire.cli.standing import WAYS, awaited, bytes_words, dense_of, onward, ordered, title
from thinwire.cli.words import amount, duration

BLOCKS = "▁▂▃▄▅▆▇█"
FIXED_LINES = 12  # of everything but clients and events
TINY, NARROW, WIDE = 52, 76, 98  # columns; below them the table of clients has fewer
LEAST_CLIENTS, MOST_CLIENTS, LEAST_EVENTS = 3, 20, 3
GOES_ON = ("running", "pausing", "stopping")
STATE_STYLES = {"running": "green", "finished": "green", "paused": "yellow", "failed": "red", "killed": "red"}


class Page:
    """A view, drawn anew for the size of the terminal at each refresh."""

    def __init__(self, view: RunView) -> None:
        self.view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield Group(*self._parts(options.height or console.height, options.max_width))

    def _parts(self, height: int, width: int) -> Iterator[RenderableType]:
        view = self.view
        room = max(LEAST_CLIENTS + LEAST_EVENTS, height - FIXED_LINES - len(view.status["metrics"]))
        clients = min(MOST_CLIENTS, max(LEAST_CLIENTS, min(len(view.clients), room - LEAST_EVENTS)))
        yield _head(view, width)
        yield Text()
        yield _progress(view, width)
        yield Text()
        yield from _clients(view, clients, width)
        yield Text()
        yield from _events(view, max(LEAST_EVENTS, room - clients), width)


def _head(view: RunView, width: int) -> Text:
    """Run and state on one line."""
    found = view.status
    state = "no answer" if view.trouble else str(found["state"])
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(f"{state}", f"bold {STATE_STYLES.get(state, 'red' if view.trouble else 'cyan')}")
    head.append(f"  {title(found)}", "bold")
    head.append(f"  {found['run'][:12]}", "dim")
    hint = view.trouble or view.unheard or onward(found)
    if hint:
        head.append(f"\n{hint}", "yellow")
    head.truncate(2 * width)
    return head


def _progress(view: RunView, width: int) -> Table:
    """Rounds, cohort, metrics with their history, bytes."""
    found = view.status
    grid = Table.grid(padding=(0, 2, 0, 0))
    wide = max(6, min(32, width - 72))
    room = max(12, width - wide - 12)
    grid.add_column(style="bold", no_wrap=True, min_width=8)
    grid.add_column(no_wrap=True, width=wide)
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=room)
    pace = view.rounds_per_minute() if found["state"] in GOES_ON else None
    left = found["rounds"] - found["round"]
    words = [f"{found['round']} of {found['rounds']}", duration(found["seconds"])]
    words += [f"{pace:.1f} a minute", f"{duration(60 * left / pace)} left"] if pace and left > 0 else []
    while len(", ".join(words)) > room and len(words) > 1:
        del words[1]  # what is left to do stays longest
    grid.add_row("rounds", _bar(found["round"], found["rounds"]), ", ".join(words))
    asked, replied = found["asked"], found["replied"]
    there = f"{found['connected']} of {found['clients']} clients connected" if found["source"] == "server" else ""
    waiting = awaited(found)
    cohort = f"{len(replied)} of {len(asked)} answered, {duration(found['round_seconds'])}" if asked else there
    cohort += f"; waiting for {', '.join(waiting[:5])}" if waiting else ""
    grid.add_row("cohort", _bar(len(replied), len(asked) or 1), escape(cohort))
    for name, value in ordered(found["metrics"])[:4]:
        grid.add_row(escape(name), sparkline(view.history(name), wide), f"{value:.4f}")
    for (way, key), dense, (_, text) in zip(WAYS, dense_of(found), bytes_words(found), strict=True):
        grid.add_row(way, _bar(found[key], dense), text)
    return grid


def _bar(done: float, total: float) -> ProgressBar:
    return ProgressBar(total=max(total, 1), completed=min(done, max(total, 1)))


def _clients(view: RunView, most: int, width: int) -> Iterator[RenderableType]:
    """The slowest, with their links' speed."""
    rates, asked = view.rates(), set(view.status["asked"]) - set(view.status["replied"])
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("slowest clients", style="bold", no_wrap=True, overflow="ellipsis", min_width=15, max_width=24)
    table.add_column("state", no_wrap=True)
    counts, sums = width >= NARROW, width >= WIDE
    links = ("link",) if width >= TINY else ()
    for column in ("seconds", *links, *(("answered",) if counts else ()), *(("up", "down") if sums else ())):
        table.add_column(column, justify="right", no_wrap=True)
    for client in view.slowest(most):
        seconds, rate = client.get("mean_seconds"), rates.get(int(client["index"]))
        state = "asked" if client["name"] in asked else str(client.get("state", ""))
        cells = [escape(client["name"]), state, "" if seconds is None else f"{seconds:.2f}"]
        cells += ["" if rate is None else f"{amount(rate)}/s"] if links else []
        cells += [f"{client['replied']} of {client['asked']}"] if counts else []
        cells += [amount(client["uplink_bytes"]), amount(client["downlink_bytes"])] if sums else []
        table.add_row(*cells)
    yield table
    hidden = len(view.clients) - most
    if hidden > 0:
        yield Text(f"... and {hidden} faster ones", "dim")


def _events(view: RunView, most: int, width: int) -> Iterator[Text]:
    for event in list(view.events)[-most:]:
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(f"{clock(event)} ", "dim")
        text.append(sentence(str(event["event"]), event))
        text.truncate(width, overflow="ellipsis")
        yield text


def clock(event: Mapping[str, Any]) -> str:
    """The time of an event, by this machine's clock and zone."""
    return f"{datetime.fromtimestamp(float(event.get('time') or 0)):%H:%M:%S}"


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve of ``width`` characters at most: each stands for the mean of its share of the values."""
    if not values:
        return ""
    width = min(width, len(values))
    edges = [round(place * len(values) / width) for place in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int((mean - low) / span * len(BLOCKS)))] for mean in means)
