"""The commands of `vestal`: their modules, their help, and examples of each.

This module imports nothing of Vestal, so that `--help` is fast. To add a command, write a module with
`run(options, config) -> int`, which returns the exit code, add it to COMMANDS, and add its options in a
module of `host_agent.cli.options`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command: its module below `host_agent.cli`, a help text of one or two sentences, and examples.

    Each example has a command line without the word `vestal`, and what that line does. `when_interrupted` is
    printed after Ctrl-C, and says what was left unfinished.
    """

    module: str
    help: str
    examples: tuple[tuple[str, str], ...]
    when_interrupted: str = "Interrupted."


COMMANDS = {
    "up": Command(
        "run.up",
        "Start everything, and wait until it is healthy.",
        (("up", "starts what does not run, and replaces what is out of date"),),
        when_interrupted="Interrupted. What has started goes on: `make up` continues, `make down` stops it.",
    ),
    "down": Command(
        "run.down",
        "Stop everything; no process, container or port of Vestal remains.",
        (("down", "stops it; `vestal up` starts it again"),),
        when_interrupted="Interrupted. What has not ended yet goes on: `vestal down` stops it.",
    ),
    "recover": Command(
        "run.recover",
        "Run one recovery pass now.",
        (
            ("recover", "repairs what is broken, and says what it found and did"),
            ("recover --dry-run", "only says what it would do"),
            ("recover --reset", "also starts what was given up or stopped by hand"),
        ),
        when_interrupted="Interrupted. A pass that has begun goes on in the agent: `vestal status` shows it.",
    ),
    "agent": Command(
        "run.agent",
        "Run the host agent in the foreground.",
        (("agent", "is what `vestal up` starts in the background"),),
    ),
    "server": Command(
        "run.server",
        "Run the MLX server in the foreground, without an agent.",
        (("server", "serves models until Ctrl-C"),),
    ),
    "status": Command(
        "status.status",
        "Show each service and its state. The exit code is 0 for healthy, 1 for degraded, 2 for down.",
        (
            ("status", "shows the services as a tree"),
            ("status --watch", "shows them live, until Ctrl-C"),
            ("status --open", "opens the same as a page in the browser"),
            ("status --json", "is for programs"),
        ),
    ),
    "top": Command(
        "top.top",
        "Show the requests in flight and the memory of the MLX server, live.",
        (
            ("top", "shows who asks for what, and how fast it goes"),
            ("top --json", "prints the present once, for programs"),
        ),
    ),
    "doctor": Command(
        "inspect.doctor",
        "Find out what is wrong with this machine, and show the remedies. "
        "The exit code is 1 if something is wrong.",
        (("doctor", "checks everything"), ("doctor --json", "is for programs")),
        when_interrupted="Interrupted. The doctor changes nothing: `vestal doctor` begins anew.",
    ),
    "incidents": Command(
        "inspect.incidents",
        "Show what failed, why, what was done, and what it cost. It works without an agent too.",
        (
            ("incidents", "lists the newest"),
            ("incidents --since 2h", "those of the last two hours"),
            ("incidents 812", "one of them, with its lines of the journal"),
            ("incidents --json", "is for programs"),
        ),
    ),
    "logs": Command(
        "logs.logs",
        "Show what the services have logged, merged by time, in sentences.",
        (
            ("logs -f", "goes on with new lines"),
            ("logs mlx_engine -n 100", "the last 100 lines of one service"),
            ("logs --since 10m --grep SIGKILL", "what matches in the last ten minutes"),
            ("logs --since '2026-11-28 05:20' --json", "is for programs"),
        ),
    ),
    "models": Command(
        "models.models",
        "Find, fetch, inspect or remove models.",
        (
            ("models", "lists the installed models"),
            ("models suggest", "recommends one for each task, by this machine's memory"),
            ("models search qwen3 4bit", "finds models on the Hugging Face hub"),
            ("models info mlx-community/Qwen3-8B-4bit", "says what one needs, before it is fetched"),
            ("models pull mlx-community/Qwen3-8B-4bit", "fetches it"),
            ("models pull qwen3:8b", "or by its name in Ollama's library"),
            ("models import-from-ollama", "lists what Ollama has on this disk, and can be converted"),
            ("models rm qwen3:8b", "deletes it"),
        ),
        when_interrupted="Interrupted. What was downloaded is kept; the same command fetches the rest.",
    ),
    "cache": Command(
        "inspect.cache",
        "List, check or empty the prompt cache on disk.",
        (("cache", "what it holds, by model"), ("cache verify", "deletes corrupt files")),
        when_interrupted="Interrupted. What is not done yet stays as it was; the same command does the rest.",
    ),
    "token": Command(
        "inspect.token",
        "Print the token.",
        (("token", 'as in curl -H "Authorization: Bearer $(vestal token)" http://127.0.0.1:9099/status'),),
    ),
    "version": Command("inspect.version", "Print the version.", (("version", "prints it"),)),
    "launch": Command(
        "launch.launch",
        "Start an agent or another program with a model of this machine, or list those that are known.",
        (
            ("launch", "lists the programs"),
            ("launch claude", "starts Claude Code with an installed model that fits"),
            ("launch codex --model qwen3:8b -- exec 'Say hello'", "passes on what stands behind --"),
            ("launch aider --show", "prints the settings for a shell, and starts nothing"),
        ),
    ),
    "chat": Command(
        "chat.chat",
        "Talk with a model in the terminal, or ask it one question from a pipe.",
        (
            ("chat", "talks with a model that is loaded, or the largest"),
            ("chat smollm2:135m", "talks with this one"),
            ("chat smollm2:135m 'What is a fox?'", "answers one question"),
            ("chat < question.txt > answer.txt", "so does a pipe"),
        ),
        when_interrupted="Interrupted. The answer was stopped.",
    ),
    "demo": Command(
        "chat.demo",
        "Tell a story, kill the engine in mid-sentence, and show that the story goes on. "
        "The exit code is 0 if nothing was lost.",
        (("demo", "takes half a minute, and harms nothing"),),
        when_interrupted="Interrupted. The story was stopped; a killed engine starts again by itself.",
    ),
    "task": Command(
        "orchestrator.task",
        "Give the agents a goal, and wait for their answer. "
        "The exit code is 0 for done, 1 for failed, 2 for cancelled.",
        (
            ("task 'What is the circuit breaker for?'", "progress on stderr, the answer on stdout"),
            ("task 'Compare the guides' --agent reader --agent critic", "asks these agents"),
            ("task 'Summarize the notes' --detach", "prints the task's id, and does not wait"),
            ("task --follow 5c1b2f0e-9a57-4a0e-8a53-3f4b1f0c9b11", "waits for an earlier one"),
        ),
        when_interrupted="Interrupted. A task that was accepted goes on: `vestal task --list` shows it.",
    ),
    "search": Command(
        "orchestrator.search",
        "Search the agents' knowledge. The exit code is 1 if nothing was found.",
        (("search 'when does the breaker open' --path guide/", "only in files below guide/"),),
        when_interrupted="Interrupted. Nothing was changed.",
    ),
    "install": Command(
        "install.install",
        "Let launchd or systemd start the agent, restart it when it fails, and recover every 300 s.",
        (
            ("install --dry-run", "shows what it would write"),
            ("install", "does so"),
            ("install --show", "shows the installed jobs and their state"),
        ),
        when_interrupted="Interrupted. `vestal install` does the rest, `vestal uninstall` undoes it.",
    ),
    "uninstall": Command(
        "install.uninstall",
        "Stop what install started, and delete what it wrote.",
        (("uninstall", "undoes `vestal install`"),),
        when_interrupted="Interrupted. `vestal uninstall` does the rest.",
    ),
    "completion": Command(
        "completion.completion",
        "Print a script that lets a shell complete commands, options, services and models.",
        (
            ("completion bash > ~/.local/share/bash-completion/completions/vestal", "for bash"),
            ("completion zsh > ~/.zfunc/_vestal", "for zsh, if ~/.zfunc is in fpath before compinit"),
            ("completion fish > ~/.config/fish/completions/vestal.fish", "for fish"),
        ),
    ),
}
