"""The ``ichtune`` command: its sub-commands in the order in which they are used, and how it ends."""

import errno
import logging
import os
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ichtune.cli.audit import audit
from ichtune.cli.bench import bench
from ichtune.cli.blend import blend
from ichtune.cli.bundle import bundle
from ichtune.cli.cluster import cluster
from ichtune.cli.console import note, result
from ichtune.cli.ending import end_with
from ichtune.cli.ensemble import ensemble
from ichtune.cli.inspect import inspect
from ichtune.cli.leaderboard import leaderboard
from ichtune.cli.lr_find import lr_find
from ichtune.cli.phantom import phantom
from ichtune.cli.predict import predict
from ichtune.cli.prepare import prepare
from ichtune.cli.recipes import recipes
from ichtune.cli.report import report
from ichtune.cli.schema import schema
from ichtune.cli.score import score
from ichtune.cli.search import search
from ichtune.cli.settings import Settings, read_settings
from ichtune.cli.stack import stack
from ichtune.cli.train import train
from ichtune.errors import IchtuneError, StorageError
from ichtune.interrupts import as_ctrl_c
from ichtune.version import __version__

#: Sub-commands in the order of the pipeline; ``--help`` lists them so.
COMMANDS: tuple[Callable[..., None], ...] = (
    phantom,
    prepare,
    audit,
    inspect,
    recipes,
    schema,
    lr_find,
    bench,
    search,
    train,
    stack,
    predict,
    blend,
    bundle,
    score,
    report,
    leaderboard,
)
UNEXPECTED, USAGE, INTERRUPTED = 1, 2, 130

#: A disk that is full or a path that is not ours, rather than a mistake in the program.
_STORAGE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_VERBOSE_FLAGS = ("-v", "--verbose")
# typer carries its own copy of click since 0.26; both have this ancestor of every usage error.
_USAGE_ERROR: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


class _Interrupted(Exception):  # noqa: N818 - no error
    """Ctrl-C inside of a command; typer would end with 130 and say nothing."""


class Pipeline(TyperGroup):
    """The group of all sub-commands."""

    def invoke(self, ctx: Any) -> Any:
        """Run the sub-command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _Interrupted from None


app = typer.Typer(
    name="ichtune",
    cls=Pipeline,
    help="Find, train and combine models that detect acute intracranial hemorrhage on head CT.",
    epilog="Start with: ichtune phantom ./phantom. Each command's --help has an example, its last line names the next "
    "command. Exit codes: 0 done, 1 unexpected, 2 usage, 3 data, 4 contradiction, 5 disk, 6 some trials failed "
    "(--strict), 7 nothing usable, 130 interrupted.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    no_args_is_help=True,
    # Plain help: rich's takes longer to import than everything else together.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _command in COMMANDS:
    app.command()(_command)
app.add_typer(ensemble)
app.add_typer(cluster)


def _show_version(wanted: bool) -> None:
    if wanted:
        result(f"ichtune {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log details, and show the traceback of an unexpected error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("ichtune").setLevel(logging.DEBUG if verbose else logging.INFO)
    ctx.obj = read_settings(option_names(ctx.command))
    ctx.default_map = {
        name: dict.fromkeys(command.commands, ctx.obj.values.get(name, {}))
        if isinstance(command, TyperGroup)
        else ctx.obj.values.get(name, {})
        for name, command in getattr(ctx.command, "commands", {}).items()
    }


def option_names(group: Any) -> dict[str, dict[str, str]]:
    """Return for each sub-command its long options without dashes, and the parameter that each sets.

    A group of commands, such as ``ensemble``, has the options of them all.
    """
    return {
        name: {
            text.removeprefix("--"): parameter.name
            for one in (command, *getattr(command, "commands", {}).values())
            for parameter in one.params
            for text in parameter.opts
            if text.startswith("--")
        }
        for name, command in group.commands.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and say how it ended.

    Args:
        arguments: without the program's name; the process's own by default.

    Returns:
        The exit code; whatever went wrong has been said on stderr, in one message without a traceback.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, rest = (given[: given.index("--")], given[given.index("--") :]) if "--" in given else (given, [])
    verbose = any(flag in own for flag in _VERBOSE_FLAGS)
    line = ["-v"] * verbose + [argument for argument in own if argument not in _VERBOSE_FLAGS] + rest
    try:
        return _run(line)
    except IchtuneError as error:
        return _fail(str(error), error.exit_code)
    except (_Interrupted, KeyboardInterrupt, typer.Abort):
        note("\nichtune: interrupted; what was finished is kept, the same command continues:")
        note(f"  ichtune {shlex.join(given)}")
        return INTERRUPTED
    except OSError as error:
        if error.errno in _STORAGE_ERRNOS:
            where = f" {error.filename}" if error.filename else ""
            return _fail(f"cannot read or write{where}: {error.strerror}", StorageError.exit_code)
        return _unexpected(error, verbose)
    except Exception as error:  # noqa: BLE001 - the last resort: said in one line, kept in a file
        return _unexpected(error, verbose)


def run() -> None:
    """Run the process's command line and leave with its exit code: the entry point."""
    signal.signal(signal.SIGTERM, as_ctrl_c)
    end_with(main)


def _run(line: list[str]) -> int:
    group: Any = typer.main.get_command(app)
    try:
        code = group.main(line, prog_name="ichtune", standalone_mode=False)
        sys.stdout.flush()
    except _USAGE_ERROR as error:
        return _usage_error(error, line)
    except BrokenPipeError:
        return _reader_left()
    except SystemExit as leaving:  # how typer ends a broken pipe
        return leaving.code if isinstance(leaving.code, int) else UNEXPECTED
    return code if isinstance(code, int) else 0


def _reader_left() -> int:
    """End quietly: whoever read stdout (``| head``) has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _usage_error(error: Any, line: list[str]) -> int:
    ctx = getattr(error, "ctx", None)
    message = error.format_message()
    if not message or type(error).__name__ == "NoArgsIsHelpError":
        note(ctx.get_help() if ctx else message)
        return USAGE
    origin = _origin(error, line)
    if ctx is not None:
        note(ctx.get_usage())
    _fail(f"{message}{f' (from {origin})' if origin else ''}", USAGE)
    if ctx is not None:
        note(f"Try: {ctx.command_path} --help")
    return USAGE


def _origin(error: Any, line: list[str]) -> str:
    """Say which file or variable a refused value came from, unless it was given as a flag."""
    ctx: Any = getattr(error, "ctx", None)
    parameter, settings = getattr(error, "param", None), getattr(ctx, "obj", None)
    if not isinstance(settings, Settings) or parameter is None:
        return ""
    flagged = any(argument.split("=")[0] in parameter.opts for argument in line)
    names = (ctx.info_name, getattr(ctx.parent, "info_name", None))
    found = (settings.origins.get((str(name), parameter.name), "") for name in names)
    return "" if flagged else next(filter(None, found), "")


def _fail(message: str, code: int) -> int:
    note(f"ichtune: error: {message}")
    return code


def _unexpected(error: BaseException, verbose: bool) -> int:
    text = "".join(traceback.format_exception(error))
    said = f"unexpected {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    if verbose:
        note(text.rstrip())
        return _fail(said, UNEXPECTED)
    try:
        with tempfile.NamedTemporaryFile("w", prefix="ichtune-", suffix=".traceback", delete=False) as file:
            file.write(text)
        kept = f"the traceback is in {Path(file.name)}"
    except OSError:
        kept = "-v shows the traceback"
    return _fail(f"{said}; {kept}", UNEXPECTED)
