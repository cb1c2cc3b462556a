"""Probe Ollama as a client would: what costs nothing each time, a token from a model at an interval.

Nothing waits behind users: a probe of a model that is not answered at once stays open, and a later check
looks for its answer.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import aiohttp

from host_agent.services import http_probe
from host_agent.services.http_probe import NoAnswer, Reply
from host_agent.services.ollama import answers
from host_agent.services.ollama.answers import LoadedModel, ModelRequest, ServerInfo, Verdict
from host_agent.services.ollama.probe_budget import TOKEN_TIMEOUT_S, ProbeBudget
from vestal.config.settings import OllamaSection
from vestal.platform.processes import process_lookup

SERVER_INFO_TIMEOUT_S = 3.0
SAMPLE_S = 0.5
SECOND_CHANCE_TOKENS = 8  # one token may be half a character


@dataclass(frozen=True)
class CheckResult:
    """The result of a check. `server_info` is None where the server did not answer."""

    server_info: ServerInfo | None
    verdict: Verdict


class OllamaProbe:
    """Probes one server.

    `runners` returns the PIDs of its runners: their CPU time shows whether a silent server is busy or hung.
    """

    def __init__(
        self,
        settings: OllamaSection,
        session: aiohttp.ClientSession,
        runners: Callable[[], tuple[int, ...]],
        token_timeout_s: float = TOKEN_TIMEOUT_S,
    ) -> None:
        self._settings, self._session, self._runners = settings, session, runners
        self._url = settings.base_url.rstrip("/")
        self._token_timeout_s = token_timeout_s
        self._budget = ProbeBudget(settings.probe_interval_s)
        self._request: asyncio.Task[Verdict] | None = None

    async def server_info(self) -> ServerInfo:
        """Ask for the version and the models; raise NoAnswer."""
        paths = ("/api/version", "/api/tags", "/api/ps")
        requests = (http_probe.get(self._session, self._url + path, SERVER_INFO_TIMEOUT_S) for path in paths)
        replies = await asyncio.gather(*requests, return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        version, tags, ps = (reply for reply in replies if isinstance(reply, Reply))
        return answers.read_server_info(version, tags, ps)

    async def check(self) -> CheckResult:
        """Ask for the version and the models, and probe a model where that is due."""
        try:
            info = await self.server_info()
        except NoAnswer as error:
            self.reset()
            return CheckResult(None, Verdict(False, str(error)))
        if info.error:
            return CheckResult(info, Verdict(False, info.error))
        return CheckResult(info, await self._check_model(info))

    def reset(self) -> None:
        """Forget the open probe and the last answer, so that the next check sends a new probe."""
        if self._request is not None:
            self._request.cancel()
        self._request = None
        self._budget = ProbeBudget(self._settings.probe_interval_s)

    async def _check_model(self, info: ServerInfo) -> Verdict:
        model = answers.choose_probe_model(info.loaded, self._settings.probe_model)
        if model is None:
            self.reset()
            return Verdict(True)
        if self._request is None:
            if not self._budget.is_due(time.monotonic()):
                return Verdict(True)
            self._budget = self._budget.asked(time.monotonic())
            self._request = asyncio.create_task(self._probe_model(model), name="ollama's token")
        return await self._verdict_of(self._request)

    async def _verdict_of(self, request: asyncio.Task[Verdict]) -> Verdict:
        """Return the verdict on the open probe, also while it has no answer yet."""
        waited_s = self._budget.waited_s(time.monotonic())
        done, _ = await asyncio.wait({request}, timeout=max(SAMPLE_S, self._token_timeout_s - waited_s))
        if request.cancelled():  # `reset` was called meanwhile: another server runs by now
            return Verdict(True, busy=True)
        if done:
            verdict = request.result()
        else:
            runner_cores = await self._measure_runner_cores()
            verdict = self._budget.judge_silence(time.monotonic(), runner_cores, self._token_timeout_s)
            if verdict.ok:
                return verdict
            request.cancel()
        self._request = None
        self._budget = self._budget.answered(verdict, time.monotonic())
        return verdict

    async def _probe_model(self, model: LoadedModel) -> Verdict:
        try:
            request = answers.probe_request(model, time.time())
            reply = await self._post(request)
            if answers.says_embeddings_only(reply):
                request = answers.probe_request(replace(model, embeds=True), time.time())
                reply = await self._post(request)
            verdict = answers.judge(request, reply)
            if verdict.ok or reply.status != answers.OK or request.path != "/api/generate":
                return verdict
            request = answers.probe_request(model, time.time(), tokens=SECOND_CHANCE_TOKENS)
            return answers.judge(request, await self._post(request))
        except NoAnswer as error:
            return Verdict(False, str(error))

    async def _post(self, request: ModelRequest) -> Reply:
        timeout = aiohttp.ClientTimeout(total=None)  # `ProbeBudget` decides how long it may take
        try:
            async with self._session.post(
                self._url + request.path, json=dict(request.body), timeout=timeout, allow_redirects=False
            ) as reply:
                try:
                    return Reply(reply.status, await reply.json(content_type=None))
                except ValueError:
                    return Reply(reply.status, None)
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswer(f"{request.path} broke off ({error or type(error).__name__})") from None

    async def _measure_runner_cores(self) -> float:
        """Return how many cores the runners use at present."""
        pids = await asyncio.to_thread(self._runners)
        before = sum(map(process_lookup.cpu_s, pids))
        await asyncio.sleep(SAMPLE_S)
        return max(0.0, sum(map(process_lookup.cpu_s, pids)) - before) / SAMPLE_S
