"""The options of `vestal models`: its actions, each with the module that carries it out."""

import argparse
from pathlib import Path

NAMES_TO_PULL = "models of the configuration, the Hugging Face hub (mlx-community/NAME) or Ollama's library"


def add(parsers: dict[str, argparse.ArgumentParser]) -> None:
    actions = parsers["models"].add_subparsers(
        dest="action", metavar="ACTION", description="list, by default, shows the installed models."
    )
    parsers["models"].set_defaults(action="list", module="list_models", json=False)
    _add_json(parsers["models"])

    listed = _add(actions, "list", "list_models", "Show the installed models.")
    _add_json(listed)

    search = _add(actions, "search", "search", "Find models on the Hugging Face hub that Vestal can serve.")
    search.add_argument("words", nargs="+", metavar="WORD", help="words in the name")
    search.add_argument("-n", "--limit", type=int, default=20, metavar="N", help="show the first N (20)")
    _add_json(search)

    suggest = _add(
        actions, "suggest", "suggest", "Recommend a model for each task that fits this machine's memory."
    )
    suggest.add_argument(
        "--ram", metavar="SIZE", help="for a Mac with so much memory, such as 24g, instead of this machine"
    )
    _add_json(suggest)

    info = _add(actions, "info", "info", "Show what a model is, and what it needs.")
    info.add_argument("name", metavar="NAME", help="an installed model, or one that can be pulled")
    _add_json(info)

    pull = _add(
        actions,
        "pull",
        "pull",
        "Fetch models that are missing; without names, those of mlx.preload.",
        aliases=("ensure",),
    )
    pull.add_argument("names", nargs="*", metavar="NAME", help=NAMES_TO_PULL)
    pull.add_argument(
        "-f", "--force", "--yes", action="store_true", help="fetch what does not fit into memory, too"
    )
    _add_json(pull)

    importing = _add(
        actions,
        "import-from-ollama",
        "import_from_ollama",
        "List the models in Ollama's store, or convert those that are named. Its files are only read.",
    )
    importing.add_argument("names", nargs="*", metavar="NAME", help="models of Ollama, such as llama3.2:3b")
    importing.add_argument("--all", action="store_true", help="all that can be converted")
    importing.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    importing.add_argument(
        "--store", type=Path, metavar="DIR", help="its folder (OLLAMA_MODELS, or ~/.ollama/models)"
    )
    _add_json(importing)

    remove = _add(actions, "rm", "remove", "Delete models.", aliases=("remove",))
    remove.add_argument("names", nargs="+", metavar="NAME", help="installed models")
    remove.add_argument("-y", "--yes", action="store_true", help="do not ask")
    _add_json(remove)


def _add(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    module: str,
    help_text: str,
    aliases: tuple[str, ...] = (),
) -> argparse.ArgumentParser:
    """Add the action `name`, which is carried out by the module `module` of `host_agent.cli.models`. Return
    the action's parser.
    """
    parser = actions.add_parser(name, help=help_text, description=help_text, aliases=aliases)
    parser.set_defaults(module=module)
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option `--json` to `parser`: the parser of `vestal models`, for `--json` before the action, or
    the parser of an action, for `--json` after it. The option has no default value of its own, because an
    action's default would replace the `--json` that was given before the action.
    """
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for programs"
    )
