"""The options of the commands that set up this machine: install, uninstall, completion."""

import argparse


def add(parsers: dict[str, argparse.ArgumentParser]) -> None:
    install = parsers["install"]
    action = install.add_mutually_exclusive_group()
    action.add_argument(
        "--show",
        action="store_true",
        help="show the installed jobs and their state (exit code 0 if all is well, else 1)",
    )
    action.add_argument(
        "--server-only", action="store_true", help="install the MLX server alone, without the agent"
    )
    install.add_argument(
        "--daemon",
        action="store_true",
        help="macOS: run from boot on, without a login at the screen (prints the commands that need sudo)",
    )
    install.add_argument("--json", action="store_true", help="with --show: print it as JSON")
    for name in ("install", "uninstall"):
        parsers[name].add_argument("--dry-run", action="store_true", help="show what it would do")
    parsers["completion"].add_argument("shell", choices=("bash", "zsh", "fish"))
