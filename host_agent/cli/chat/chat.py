"""`vestal chat`: a conversation with a model in the terminal; from a pipe, one question and one answer.

An answer continues when its engine or gateway dies. The exit code is 0, or 1 if the answer failed.
"""

from __future__ import annotations

import argparse
import sys

from host_agent.cli.chat.answer_stream import AnswerStream
from host_agent.cli.chat.answer_view import AnswerView, Shown
from host_agent.cli.chat.conversation import COMMANDS, HELP, Conversation, MessageLines, command_of
from host_agent.cli.chat.prompt import ask_for_line, line_history
from host_agent.cli.gateway import GatewayClient
from host_agent.cli.launch.installed import installed_language_models
from host_agent.cli.launch.models import InstalledModel, Needs, best, why_none_fits
from host_agent.errors import HostAgentError, InvalidOption, NoFittingModel
from vestal.config import Config
from vestal.config.model_names import find_named

FAILED, INTERRUPTED_EXIT_CODE = 1, 130
ANY_MODEL = Needs(context_tokens=0, tools=False)
FIRST_PROMPT, NEXT_PROMPT = ">>> ", "... "


def run(options: argparse.Namespace, config: Config) -> int:
    gateway = GatewayClient(config)
    if options.prompt or not sys.stdin.isatty():
        prompt = options.prompt or sys.stdin.read()
        if not prompt.strip():
            raise InvalidOption("There is no question: write one behind the model's name, or into the pipe.")
        return _answer_once(gateway, choose_model(gateway, options.model), prompt)
    model = choose_model(gateway, options.model)
    history = config.home.root / "chat_history"
    with line_history(history, COMMANDS):
        Chat(gateway, Conversation(model)).run()
    return 0


def choose_model(gateway: GatewayClient, wanted: str | None) -> str:
    """Return the name of the installed model that `wanted` names.

    If `wanted` is None, return the largest loaded model or, if none is loaded, the largest installed one.
    Raises NoFittingModel, which lists the installed models, if there is no such model.
    """
    models = installed_language_models(gateway)
    if wanted is None:
        chosen: InstalledModel | None = best(models, ANY_MODEL)
        if chosen is None:
            raise NoFittingModel(why_none_fits("A chat", models, ANY_MODEL))
        return chosen.name
    named = find_named(wanted, models, lambda model: model.name)
    if named is None:
        there = ", ".join(model.name for model in models) or "none"
        missing = f"No language model is called {wanted!r}; there are: {there}"
        raise NoFittingModel(f"{missing}. `vestal models pull {wanted}` may fetch it.")
    return named.name


class Chat:
    """A conversation at a terminal: reads questions, prints answers, and carries out commands such as
    `/clear`.
    """

    def __init__(self, gateway: GatewayClient, conversation: Conversation) -> None:
        self._gateway, self._conversation = gateway, conversation

    def run(self) -> None:
        """Read questions and print answers until the person leaves by Ctrl-D or `/bye`."""
        print(f"You talk with {self._conversation.model}. /help shows the commands, Ctrl-D leaves.")
        while (text := _read_message()) is not None:
            if not text.strip():
                continue
            try:
                if (command := command_of(text)) is None:
                    self._answer(text)
                elif self._obey(*command):
                    return
            except HostAgentError as error:
                print(f"vestal: {error}", file=sys.stderr)

    def _answer(self, text: str) -> None:
        view = AnswerView()
        try:
            shown = _stream(self._gateway, self._conversation.ask(text), view)
            if shown.failure:
                print(f"{chr(10) * bool(shown.text)}vestal: {shown.failure}", file=sys.stderr)
        except KeyboardInterrupt:
            view.remark(" ⟨stopped⟩")
        finally:
            self._conversation.answered(view.shown.text)
        print("\n")

    def _obey(self, name: str, argument: str) -> bool:
        """Carry out a command such as `/clear`. Return True if it ends the conversation."""
        if name in ("/bye", "/exit"):
            return True
        if name == "/clear":
            self._conversation.clear()
            print("The conversation is forgotten.")
        elif name == "/model" and argument:
            self._conversation.model = choose_model(self._gateway, argument)
            print(f"{self._conversation.model} goes on with the conversation.")
        elif name == "/model":
            for model in installed_language_models(self._gateway):
                mark = "*" if model.name == self._conversation.model else " "
                print(f"{mark} {model.name}{'  (loaded)' if model.is_loaded else ''}")
        elif name in ("/help", "/?"):
            print("\n".join(HELP))
        else:
            print(f"There is no command {name}; /help shows those that there are.")
        return False


def _read_message() -> str | None:
    """Return the next message; None at the end of the input. Ctrl-C discards the lines typed so far."""
    lines = MessageLines()
    while True:
        try:
            message = lines.add(ask_for_line(NEXT_PROMPT if lines.is_open else FIRST_PROMPT))
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            lines.abandon()
            print("\nCtrl-D or /bye leaves.")
            continue
        if message is not None:
            return message


def _answer_once(gateway: GatewayClient, model: str, prompt: str) -> int:
    """Print the answer to one question, and return 0. Raises HostAgentError if the answer failed."""
    view = AnswerView()
    shown = _stream(gateway, Conversation(model).ask(prompt), view)
    if shown.text and not shown.text.endswith("\n"):
        print()
    if shown.failure:
        raise HostAgentError(shown.failure)
    return 0


def _stream(gateway: GatewayClient, body: dict[str, object], view: AnswerView) -> Shown:
    """Send the request `body`, print the answer with `view`, and return what was shown. If the answer fails,
    no exception is raised: `failure` of the returned object says why.

    If an exception such as KeyboardInterrupt (Ctrl-C) interrupts this function, cancel the answer in the
    gateway and raise the exception again.
    """
    stream = AnswerStream(gateway, body)
    stream.start()
    try:
        return view.follow(stream.happenings)
    except BaseException:
        stream.cancel()
        raise
