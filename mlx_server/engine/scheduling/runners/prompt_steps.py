"""The steps in which MLX computes the token scores (log-probabilities), or processes the images, of prompts
that have not joined the batch yet.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlx_server.engine.errors import EngineError
from mlx_server.engine.grammar.grammars import Grammars
from mlx_server.engine.prompt_cache.model_cache import ModelCache
from mlx_server.engine.request_fence import confined
from mlx_server.engine.scheduling.request import Request, RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.engine.scheduling.runners.text_preparation import TextPreparation
from mlx_server.engine.vision.pictures import cache_keys
from mlx_server.protocol import Event, Prefill


class PromptSteps:
    """Does two kinds of work on prompts that take several steps. Each step computes some token scores
    (log-probabilities) of one prompt whose scores were asked for, and processes a part of another prompt,
    one that contains images.

    `grammars` supplies the bytes of each token, which are reported with the token's score.
    """

    def __init__(
        self,
        model: str,
        requests: EngineRequests,
        preparation: TextPreparation,
        cache: ModelCache,
        grammars: Grammars,
    ) -> None:
        self._model, self._requests, self._preparation = model, requests, preparation
        self._cache, self._grammars = cache, grammars

    @property
    def can_step(self) -> bool:
        """Return whether there is a prompt that `step` can score, or whose images it can process, at this
        time.
        """
        return self._next_to_score() is not None or self._next_with_images() is not None

    def step(self) -> Iterator[Event]:
        """Advance at most two requests that have not joined the batch yet. For the first request that asks
        for the log-probabilities of its prompt's own tokens, compute those of some tokens. For the first
        request with images, do one step of its prompt. Requests that wait for background jobs are passed
        over. Yield for each of the two the progress (`Prefill`) or the failure of the request (`Failed`).
        """
        if request := self._next_to_score():
            yield self._score(request)
        if request := self._next_with_images():
            yield self._read_images(request)

    def _next_to_score(self) -> Request | None:
        """Return the first request in preparation whose prompt can be scored at this time; None if there is
        none. A prompt can be scored if the request asks for the log-probabilities of the prompt's tokens, if
        some of them are still missing, and if the vocabulary, which gives the bytes of each token, has been
        read.
        """
        preparing = self._requests.select(RequestStatus.PREPARING, model=self._model)
        return next((request for request in preparing if request.jobs.can_score), None)

    def _score(self, request: Request) -> Event:
        """Compute the log-probabilities of the next slice of a request's prompt tokens, and return the
        progress (`Prefill`), also after the last slice. If an error concerns only this request, finish the
        request and return `Failed`.
        """
        scorer = request.jobs.scorer
        assert scorer is not None
        try:
            if request.jobs.grammar:
                request.jobs.grammar.result()  # the vocabulary may be unreadable
            rows = scorer.compute()  # not within `confined`, because an error of MLX must end the engine
            with confined(request.id, "scoring its prompt"):
                return Prefill(
                    request.id,
                    scorer.add(rows, self._grammars.token_bytes),
                    len(request.generation.prompt),
                )
        except EngineError as error:
            self._requests.finish(request)
            return error.failed(request.id)

    def _next_with_images(self) -> Request | None:
        """Return the first request whose images can be processed at this time; None if there is none."""
        preparing = self._requests.select(RequestStatus.PREPARING, model=self._model)
        return next((request for request in preparing if request.jobs.can_read_images), None)

    def _read_images(self, request: Request) -> Event:
        """Do one step for a request with images, and return the progress (`Prefill`). The first step begins
        the computation. Each later step computes some layers of the vision tower for one image, or processes
        a slice of the prompt. If an error concerns only this request, finish the request and return `Failed`.
        """
        images = request.jobs.images
        assert images is not None
        try:
            if not images.has_begun:
                self._preparation.begin_images(request)
            elif not images.done.done():
                images.compute(request.id)
                self._cache_images(request)
            return Prefill(request.id, images.cached, len(request.generation.prompt))
        except EngineError as error:
            self._requests.finish(request)
            return error.failed(request.id)

    def _cache_images(self, request: Request) -> None:
        """Store in the prompt cache the keys and values that have been computed so far for a prompt with
        images, so that little must be computed again if the engine dies. Nothing is stored for a model whose
        caches cannot be cut into the prompt cache's blocks, for example because of a sliding window.
        """
        images = request.jobs.images
        if images is not None and (caches := images.batched()):
            keys = cache_keys(images.tokens[: images.cached], request.pictures)
            self._cache.store_computed(request.stored_blocks, keys, caches, 0, whole=False)
