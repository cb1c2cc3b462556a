"""Asks Ollama what a client would ask, on a budget of its own: what is free each time, a token now and then.

Nobody waits behind users: a token that does not come at once stays asked for, and is looked at again later.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import aiohttp

from host_agent.services import http_probe
from host_agent.services.http_probe import NoAnswer, Reply
from host_agent.services.ollama import answers
from host_agent.services.ollama.answers import Light, Loaded, Question, Verdict
from host_agent.services.ollama.probe_budget import TOKEN_WITHIN_S, ProbeBudget
from vestal.config.settings import OllamaSection
from vestal.platform.processes import process_lookup

FREE_WITHIN_S = 3.0
SAMPLE_S = 0.5
SECOND_CHANCE_TOKENS = 8  # one token may be half a character


@dataclass(frozen=True)
class Check:
    """What came back. `light` is None where nothing did."""

    light: Light | None
    verdict: Verdict


class Probe:
    """One Ollama. `runners` gives the PIDs of its runners, whose CPU tells busy from hung."""

    def __init__(
        self,
        settings: OllamaSection,
        session: aiohttp.ClientSession,
        runners: Callable[[], tuple[int, ...]],
        token_within_s: float = TOKEN_WITHIN_S,
    ) -> None:
        self._settings, self._session, self._runners = settings, session, runners
        self._url = settings.base_url.rstrip("/")
        self._token_within_s = token_within_s
        self._patience = ProbeBudget(settings.probe_interval_s)
        self._question: asyncio.Task[Verdict] | None = None

    async def light(self) -> Light:
        """The free questions, at once; raises NoAnswer."""
        paths = ("/api/version", "/api/tags", "/api/ps")
        ask = (http_probe.get(self._session, self._url + path, FREE_WITHIN_S) for path in paths)
        replies = await asyncio.gather(*ask, return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        version, tags, ps = (reply for reply in replies if isinstance(reply, Reply))
        return answers.light(version, tags, ps)

    async def check(self) -> Check:
        """All of it: the free questions, and a token where one is due."""
        try:
            light = await self.light()
        except NoAnswer as error:
            self.forget()
            return Check(None, Verdict(False, str(error)))
        if light.wrong:
            return Check(light, Verdict(False, light.wrong))
        return Check(light, await self._token(light))

    def forget(self) -> None:
        """What was asked for, and what the last answer was: the next check asks anew."""
        if self._question is not None:
            self._question.cancel()
        self._question = None
        self._patience = ProbeBudget(self._settings.probe_interval_s)

    async def _token(self, light: Light) -> Verdict:
        model = answers.chosen(light.loaded, self._settings.probe_model)
        if model is None:
            self.forget()
            return Verdict(True)
        if self._question is None:
            if not self._patience.due(time.monotonic()):
                return Verdict(True)
            self._patience = self._patience.asked(time.monotonic())
            self._question = asyncio.create_task(self._ask(model), name="ollama's token")
        return await self._heard(self._question)

    async def _heard(self, question: asyncio.Task[Verdict]) -> Verdict:
        """The answer; or what it means that there is none yet."""
        waited_s = self._patience.waited_s(time.monotonic())
        done, _ = await asyncio.wait({question}, timeout=max(SAMPLE_S, self._token_within_s - waited_s))
        if question.cancelled():  # forgotten meanwhile: another server runs by now
            return Verdict(True, busy=True)
        if done:
            verdict = question.result()
        else:
            burns = await self._burns()
            verdict = self._patience.without_answer(time.monotonic(), burns, self._token_within_s)
            if verdict.ok:
                return verdict
            question.cancel()
        self._question = None
        self._patience = self._patience.answered(verdict, time.monotonic())
        return verdict

    async def _ask(self, model: Loaded) -> Verdict:
        try:
            asked = answers.question(model, time.time())
            reply = await self._post(asked)
            if answers.takes_no_text(reply):
                asked = answers.question(replace(model, embeds=True), time.time())
                reply = await self._post(asked)
            verdict = answers.verdict(asked, reply)
            if verdict.ok or reply.status != answers.OK or asked.path != "/api/generate":
                return verdict
            asked = answers.question(model, time.time(), tokens=SECOND_CHANCE_TOKENS)
            return answers.verdict(asked, await self._post(asked))
        except NoAnswer as error:
            return Verdict(False, str(error))

    async def _post(self, asked: Question) -> Reply:
        timeout = aiohttp.ClientTimeout(total=None)  # how long it may take is `ProbeBudget`'s to say
        try:
            async with self._session.post(
                self._url + asked.path, json=dict(asked.body), timeout=timeout, allow_redirects=False
            ) as reply:
                try:
                    return Reply(reply.status, await reply.json(content_type=None))
                except ValueError:
                    return Reply(reply.status, None)
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswer(f"{asked.path} broke off ({error or type(error).__name__})") from None

    async def _burns(self) -> float:
        """Cores that the runners use just now."""
        pids = await asyncio.to_thread(self._runners)
        before = sum(map(process_lookup.cpu_s, pids))
        await asyncio.sleep(SAMPLE_S)
        return max(0.0, sum(map(process_lookup.cpu_s, pids)) - before) / SAMPLE_S
