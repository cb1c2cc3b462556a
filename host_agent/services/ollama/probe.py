"""Probe Ollama as a client would. Each check asks for the version and the models. If a model is loaded, or
the setting `ollama.probe_model` names one, the check also sends a model probe: a request to a model for one
token or vector. It sends none if an earlier model probe is still unanswered, or if the last one succeeded
less than `ollama.probe_interval_s` ago. Nor does it probe a model that is not in use and has answered since
its last use, because each probe prolongs the time until Ollama unloads the model. This last rule does not
apply to a model that the setting names, or that Ollama never unloads.

A check does not wait behind users' requests for long: if a model probe is not answered soon and the model is
judged to be busy, the check ends, and a later check looks for the answer.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import aiohttp

from host_agent.services import http_probe
from host_agent.services.http_probe import NoAnswer, Reply
from host_agent.services.ollama import answers, silence
from host_agent.services.ollama.answers import ModelInMemory, ModelProbeResult, ModelRequest, ServerInfo
from host_agent.services.ollama.probe_budget import TOKEN_TIMEOUT_S, ProbeBudget
from host_agent.services.ollama.runners import RunnerLook
from host_agent.services.ollama.silence import ProgressWatch, RunnerJudgement
from vestal.config.settings import OllamaSection

SERVER_INFO_TIMEOUT_S = 3.0
LEAST_WAIT_S = 0.5
SECOND_CHANCE_TOKENS = 8  # one token may be half a character


@dataclass(frozen=True)
class CheckResult:
    """The result of a check. `server_info` is None if the server did not answer. `verdict` says whether
    Ollama works.
    """

    server_info: ServerInfo | None
    verdict: ModelProbeResult


class OllamaProbe:
    """Probes one Ollama server.

    A model probe, a request for one token, has `token_timeout_s` seconds for its answer. A model that has not
    answered by then is judged by what the server's runners do, which `look` reads. `on_judgement` is called
    when the judgement on such a model changes, and with None once the model has answered.
    """

    def __init__(
        self,
        settings: OllamaSection,
        session: aiohttp.ClientSession,
        look: RunnerLook,
        token_timeout_s: float = TOKEN_TIMEOUT_S,
        on_judgement: Callable[[RunnerJudgement | None], None] = lambda judgement: None,
    ) -> None:
        self._settings, self._session, self._look = settings, session, look
        self._url = settings.base_url.rstrip("/")
        self._token_timeout_s, self._on_judgement = token_timeout_s, on_judgement
        self._budget = ProbeBudget(settings.probe_interval_s)
        self._watch = ProgressWatch()
        self._judgement: RunnerJudgement | None = None
        self._request: asyncio.Task[ModelProbeResult] | None = None

    async def server_info(self) -> ServerInfo:
        """Ask the server for its version and models. Raises NoAnswer if it does not answer."""
        paths = ("/api/version", "/api/tags", "/api/ps")
        requests = (http_probe.get(self._session, self._url + path, SERVER_INFO_TIMEOUT_S) for path in paths)
        replies = await asyncio.gather(*requests, return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        version, tags, ps = (reply for reply in replies if isinstance(reply, Reply))
        return answers.read_server_info(version, tags, ps)

    async def check(self) -> CheckResult:
        """Ask for the version and the models, and probe a model if that is due."""
        try:
            info = await self.server_info()
        except NoAnswer as error:
            self.reset()
            return CheckResult(None, ModelProbeResult(False, str(error)))
        if info.error:
            return CheckResult(info, ModelProbeResult(False, info.error))
        return CheckResult(info, await self._check_model(info))

    def reset(self) -> None:
        """Forget the open probe and the last answer, so that the next check sends a new probe."""
        if self._request is not None:
            self._request.cancel()
        self._request = None
        self._budget, self._watch = ProbeBudget(self._settings.probe_interval_s), ProgressWatch()
        self._judgement = None

    async def _check_model(self, info: ServerInfo) -> ModelProbeResult:
        if answers.choose_probe_model(info.loaded, self._settings.probe_model) is None:
            self.reset()
            return ModelProbeResult(True)
        self._budget = budget = self._budget.listed(info.loaded)
        if self._request is None:
            if not budget.is_due(time.monotonic()):
                return ModelProbeResult(True)
            model = await self._model_to_probe(budget, info)
            if self._budget is not budget:  # `reset` was called meanwhile: another server runs by now
                return ModelProbeResult(True, busy=True)
            if model is None:
                self._budget = budget.found_idle(time.monotonic())
                return ModelProbeResult(True)
            self._budget = budget.asked(time.monotonic(), model.name)
            self._request = asyncio.create_task(self._probe_model(model), name="ollama's token")
        return await self._verdict_of(self._request)

    async def _model_to_probe(self, budget: ProbeBudget, info: ServerInfo) -> ModelInMemory | None:
        """Return the model to probe: the configured one, else the smallest loaded model that has not answered
        since its last use.

        If all loaded models have answered, but a runner (a process that holds a model) is in use, return the
        model that answered last, because the runner's request may be one that never ends. That model was
        probably used last; any other model may be idle, and probes would keep it loaded. If no runner is in
        use, return None.
        """
        now, configured = time.monotonic(), self._settings.probe_model
        due = info.loaded if configured else budget.models_to_probe(info.loaded, now)
        if configured or due:
            return answers.choose_probe_model(due, configured)
        is_used = silence.is_used(await self._look.readings(), budget.since_answer_s(now))
        return budget.answered_last(info.loaded) if is_used else None

    async def _verdict_of(self, request: asyncio.Task[ModelProbeResult]) -> ModelProbeResult:
        """Return the verdict on the model probe that the task `request` has sent. If no answer comes in time,
        judge by the activity of Ollama's runners, the processes that hold its models. If the model is busy,
        it counts as working, and the probe stays open. If it hangs, it counts as failed, and the probe is
        given up.
        """
        waited_s = self._budget.waited_s(time.monotonic())
        done, _ = await asyncio.wait({request}, timeout=max(LEAST_WAIT_S, self._token_timeout_s - waited_s))
        if not done:
            judgement = await self._judge_silence()
        if self._request is not request:  # `reset` was called meanwhile: another server runs by now
            return ModelProbeResult(True, busy=True)
        if not done:
            self._report(judgement)
            if not judgement.hangs:
                return ModelProbeResult(True, judgement.detail, busy=True)
            request.cancel()
            self._request, self._budget = None, self._budget.given_up()
            return ModelProbeResult(False, judgement.detail)
        verdict = request.result()
        self._report(None)
        self._request, self._watch = None, ProgressWatch()
        self._budget = self._budget.answered(verdict, time.monotonic())
        return verdict

    async def _judge_silence(self) -> RunnerJudgement:
        """Judge whether a model that does not answer its probe is busy or hangs, from the activity of all of
        the server's runners, the processes that hold its models.
        """
        readings = await self._look.readings()
        now = time.monotonic()
        self._watch = self._watch.after(readings, now)
        limit_s = self._settings.no_progress_s
        return silence.judge(readings, self._watch, self._budget.silent_s(now), now, limit_s)

    def _report(self, judgement: RunnerJudgement | None) -> None:
        before, self._judgement = self._judgement, judgement
        if (before and before.basis) != (judgement and judgement.basis):
            self._on_judgement(judgement)

    async def _probe_model(self, model: ModelInMemory) -> ModelProbeResult:
        try:
            request = answers.probe_request(model)
            reply = await self._post(request)
            if answers.says_embeddings_only(reply):
                request = answers.probe_request(replace(model, embeds=True))
                reply = await self._post(request)
            verdict = answers.judge(request, reply)
            if verdict.ok or reply.status != answers.OK or request.path != "/api/generate":
                return verdict
            request = answers.probe_request(model, tokens=SECOND_CHANCE_TOKENS)
            return answers.judge(request, await self._post(request))
        except NoAnswer as error:
            return ModelProbeResult(False, str(error))

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
