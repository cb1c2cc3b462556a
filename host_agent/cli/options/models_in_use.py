"""The options of the commands that use a model: launch, chat, demo."""

import argparse


def add(parsers: dict[str, argparse.ArgumentParser]) -> None:
    _add_launch_options(parsers["launch"])
    _add_chat_options(parsers["chat"])
    _add_demo_options(parsers["demo"])


def _add_launch_options(launch: argparse.ArgumentParser) -> None:
    launch.usage = "vestal launch [-h] [--model MODEL] [--show | --json] [PROGRAM] [-- ARGUMENT ...]"
    launch.add_argument(
        "program", nargs="?", metavar="PROGRAM", help="claude, codex, …; without it, list all"
    )
    launch.add_argument("--model", help="use this model; by default an installed one that fits")
    how = launch.add_mutually_exclusive_group()
    how.add_argument("--show", action="store_true", help="show the settings, and start nothing")
    how.add_argument("--json", action="store_true", help="print them, or the list, as JSON; start nothing")


def _add_chat_options(chat: argparse.ArgumentParser) -> None:
    chat.add_argument("model", nargs="?", help="by default one that is loaded, or the largest")
    chat.add_argument("prompt", nargs="?", help="ask this, print the answer, and end")


def _add_demo_options(demo: argparse.ArgumentParser) -> None:
    demo.add_argument("--yes", action="store_true", help="also if requests of others have to wait for it")
