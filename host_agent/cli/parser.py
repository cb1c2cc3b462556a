"""Parse the command line of `vestal`. This module imports only the tables of commands and options, so that
`--help` is fast.
"""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from typing import NoReturn

from host_agent.cli.commands import COMMANDS, Command
from host_agent.cli.options import inspect, install, models, models_in_use, orchestrator, run

EXAMPLES = "Examples:\n"
LONGEST_EXAMPLE = 48
USAGE_EXIT_CODE = 64  # EX_USAGE in sysexits.h; argparse's 2 means `down` or `cancelled` for some commands
GROUPS = (run, inspect, models, models_in_use, orchestrator, install)


class HelpFormatter(argparse.HelpFormatter):
    """Wraps texts as argparse does, except for a text that begins with EXAMPLES, which the function
    `_examples` makes. Such a text is laid out as a list, in which each example begins on a new line.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(EXAMPLES):
            return _lay_out(text, width)
        return super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """Parses arguments as argparse does, but ends the program with USAGE_EXIT_CODE if they are wrong. The
    parsers of the commands and of their actions are of this class too.
    """

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE_EXIT_CODE, f"{self.prog}: error: {message}\n")


def build() -> argparse.ArgumentParser:
    """Return the parser of all commands. In the options that it returns, the attribute `command` has the name
    of the command.
    """
    parser = Parser(
        prog="vestal",
        description="Keep the LLM servers of this machine running.",
        epilog="`vestal COMMAND --help` shows the options of a command, and examples. "
        "`vestal completion --help` says how a shell completes them.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {
        name: subparsers.add_parser(
            name,
            help=command.help,
            description=command.help,
            epilog=_examples(command),
            formatter_class=HelpFormatter,
        )
        for name, command in COMMANDS.items()
    }
    for group in GROUPS:
        group.add(parsers)
    return parser


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse `arguments`, by default those of this process, and return the options.

    The arguments after `--` in `vestal launch` are not parsed: they are returned in `options.arguments`, for
    the program that the command starts. Without such arguments, `options.arguments` is an
    empty list.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    passed_on: list[str] = []
    if given[:1] == ["launch"] and "--" in given:
        at = given.index("--")
        given, passed_on = given[:at], given[at + 1 :]
    options = build().parse_args(given)
    options.arguments = passed_on
    return options


def _examples(command: Command) -> str:
    """Return the examples as one text, which HelpFormatter lays out for the width of the terminal."""
    return EXAMPLES + "\n".join(f"vestal {line}\t{purpose}" for line, purpose in command.examples)


def _lay_out(examples: str, width: int) -> str:
    """Return the text of the examples for a terminal of `width` columns.

    The explanation of an example is at its right, or below it if there is no room.
    """
    title, *rows = examples.split("\n")
    pairs = [row.split("\t") for row in rows]
    column = max((len(line) for line, _ in pairs if len(line) <= LONGEST_EXAMPLE), default=0)
    shown = []
    for line, purpose in pairs:
        if len(line) <= column and 2 + column + 4 + len(purpose) <= width:
            shown.append(f"  {line:{column}}  # {purpose}")
        else:
            shown += [
                f"  {line}",
                *textwrap.wrap(
                    purpose, max(width, 20), initial_indent="      # ", subsequent_indent="      # "
                ),
            ]
    return "\n".join([title, *shown])
