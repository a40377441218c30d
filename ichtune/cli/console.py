"""What commands write: results to stdout, progress and notes to stderr, colour only on a terminal."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID

#: Seconds between two progress lines where stderr is no terminal.
PLAIN_INTERVAL_S = 5.0
#: Columns offered to a table that is piped into a file or another program.
PIPED_WIDTH = 200


class ProgressReporter(Protocol):
    """What long work is given to report how far it is."""

    def update(self, done: float, total: float | None = None, text: str = "") -> None:
        """Report ``done`` of ``total`` units (None: unknown) and an optional short text."""
        ...


def result(text_or_renderable: "RenderableType") -> None:
    """Write a command's result to stdout: plain text as it is, a rich table as text."""
    if isinstance(text_or_renderable, str):
        sys.stdout.write(text_or_renderable + "\n")
    else:
        _console(sys.stdout).print(text_or_renderable)
    sys.stdout.flush()


def result_json(obj: Any) -> None:
    """Write a command's result to stdout as one JSON document; NaN becomes null, numpy values plain ones."""
    sys.stdout.write(json.dumps(_plain(obj), indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def note(text: str, quiet: bool = False) -> None:
    """Write one line for the person watching to stderr, unless they asked for quiet."""
    if not quiet:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


@contextmanager
def progress(description: str, unit: str = "", quiet: bool = False) -> Iterator[ProgressReporter]:
    """Show how far long work is, on stderr.

    A bar with count, rate and time left where stderr is a terminal; a plain line every few seconds where it
    is not; nothing with quiet.

    Args:
        description: what is being done, as in ``"reading"``.
        unit: what is counted, as in ``"slices"``.
        quiet: show nothing.

    Example:
        >>> with progress("reading", unit="slices", quiet=True) as bar:
        ...     bar.update(3, 10, "refused 1")
    """
    if quiet:
        yield _Silent()
    elif is_interactive():
        with _bar(_console(sys.stderr)) as shown:
            yield _Bar(shown, shown.add_task(description, total=None, unit=unit, text=""))
    else:
        plain = _PlainLines(description, unit)
        yield plain
        plain.finish()


def is_interactive() -> bool:
    """Say whether stderr is a terminal that can redraw a line."""
    return _console(sys.stderr).is_interactive


class _Silent:
    def update(self, done: float, total: float | None = None, text: str = "") -> None:
        """Show nothing."""


class _Bar:
    def __init__(self, shown: "Progress", task: "TaskID") -> None:
        self._shown, self._task = shown, task

    def update(self, done: float, total: float | None = None, text: str = "") -> None:
        """Move the bar."""
        self._shown.update(self._task, completed=done, total=total, text=text)


class _PlainLines:
    def __init__(self, description: str, unit: str) -> None:
        self._description, self._unit = description, unit
        self._started = time.monotonic()
        self._written = self._started
        self._last: tuple[float, float | None, str] | None = None
        self._shown: tuple[float, float | None, str] | None = None

    def update(self, done: float, total: float | None = None, text: str = "") -> None:
        """Remember the state; write it if the last line is a few seconds old."""
        self._last = (done, total, text)
        if time.monotonic() - self._written >= PLAIN_INTERVAL_S:
            self._write()

    def finish(self) -> None:
        """Write the last state, unless it stands there already."""
        if self._last is not None and self._last != self._shown:
            self._write()

    def _write(self) -> None:
        if self._last is None:
            return
        self._written, self._shown = time.monotonic(), self._last
        note(plain_line(self._description, self._unit, *self._last, elapsed_s=self._written - self._started))


def plain_line(description: str, unit: str, done: float, total: float | None, text: str, *, elapsed_s: float) -> str:
    """Return one line of progress for logs: ``reading: 40/100 slices, 20/s, 3 s left``."""
    rate = done / elapsed_s if elapsed_s > 0 else 0.0
    count = f"{done:,.0f}" if total is None else f"{done:,.0f}/{total:,.0f}"
    parts = [f"{description}: {count}{' ' + unit if unit else ''}"]
    if rate > 0:
        parts.append(f"{_rate(rate)}/s")
        if total is not None and done < total:
            parts.append(f"{duration((total - done) / rate)} left")
    return ", ".join([*parts, text] if text else parts)


def duration(seconds: float) -> str:
    """Return a length of time as a person would say it: ``8 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest_s = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest_s} s"
    hours, rest_min = divmod(minutes, 60)
    return f"{hours} h {rest_min} min"


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def _console(stream: Any) -> "Console":
    from rich.console import Console

    piped = not stream.isatty()
    return Console(file=stream, width=PIPED_WIDTH if piped else None, highlight=False, markup=False)


def _bar(console: "Console") -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    class RateColumn(TextColumn):
        """Units a second, measured over the last updates."""

        def __init__(self) -> None:
            super().__init__("")

        def render(self, task: Any) -> Any:
            from rich.text import Text

            speed = task.finished_speed or task.speed
            return Text(f"{_rate(speed)}/s" if speed else "")

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}", markup=False),
        RateColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=console,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy
        return _plain(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
