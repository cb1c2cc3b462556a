"""Process prompts in slices. A slice is the next tokens of one or more prompts. While answers are generated,
a slice may be spread over several steps: each step computes the answers' next tokens, and then processes a
part of the slice.
"""

from __future__ import annotations

from typing import Any

from mlx_lm.generate import BatchGenerator, GenerationBatch

from mlx_server.engine.blas_threads.threads_for_products import ThreadsForProducts
from mlx_server.engine.generation.prefill_pace import FEWEST_TOKENS, PrefillPace
from mlx_server.engine.pausable_call import PausableCall


class PromptSlices:
    """Processes the prompts of a BatchGenerator in slices. A slice is the next tokens of one or more prompts.
    While answers run, the caller first computes their next tokens in each step, and then calls `go_on`, which
    processes a slice for a limited time and pauses it if it has not ended. At most one slice is paused at any
    time.

    BatchGenerator's method `next` does two things in one call: it computes the next tokens of its batch of
    running answers, and processes a slice. `go_on` makes this call only for the slice, and the running
    answers must be able to continue while the call is paused. So while the call runs, the generator has
    another batch in place of the running answers, which is empty at first. The generator adds requests whose
    prompts are complete to this batch. They join the running answers once the slice has ended.

    `pace` decides how many tokens a slice has, and `threads` how many threads compute its matrix products.
    """

    def __init__(self, generator: BatchGenerator, pace: PrefillPace, threads: ThreadsForProducts) -> None:
        self._generator, self._pace, self._threads = generator, pace, threads
        self._call: PausableCall[Any] | None = None
        self._joining = self._nobody()
        self._tokens = self._processed_before = 0

    @property
    def is_paused(self) -> bool:
        """Return True if a slice was interrupted before its end, so that the running answers could get their
        next tokens, and has not been finished since.
        """
        return self._call is not None

    @property
    def caches(self) -> list[Any]:
        """Return the key-value caches, one for each layer, of the requests whose prompts the paused slice has
        completed; [] if there are none. A slice can complete some prompts, and then be paused while it
        processes others. The completed requests join the running answers once the slice has ended.
        """
        return list(self._joining.prompt_cache)

    def has(self, uid: int) -> bool:
        """Return True if the paused slice includes request `uid`, which must be one of the generator's
        requests. Its keys and values cannot be used until the slice has ended. Return False if no slice is
        paused.

        A slice includes all requests of the generator, except those whose answers run and those whose prompts
        have not been begun. The result is derived from these exceptions, because the generator's batches do
        not contain every request of a slice: if a request's first token is being sampled when the slice is
        paused, the request is in no batch.
        """
        generator = self._generator
        arrived = (waiting[0] for waiting in generator._unprocessed_sequences)
        return self.is_paused and uid not in (*generator._generation_batch.uids, *arrived)

    def process_alone(self) -> tuple[list[Any], list[Any]]:
        """Process a slice of the largest size. The caller must make sure that no answer runs, because such a
        slice would delay the answers' tokens. Return the two lists that BatchGenerator's `next` returns: its
        progress responses for the prompts, and its responses for running answers, which is empty here.
        """
        generator = self._generator
        generator.prefill_step_size = self._pace.slice_tokens(0)
        before, processed = generator._counters.prompt_tokens, 0
        self._threads.begin(sum(self._left()))
        try:
            prompts, tokens = generator.next()
            processed = generator._counters.prompt_tokens - before
        finally:
            self._threads.end(processed)
        return list(prompts), list(tokens)

    def go_on(self, until_s: float) -> list[Any]:
        """Begin a slice of the prompts, or continue the paused one. Pause it at the possible point that is
        nearest to `until_s` (monotonic seconds). If the slice has ended, return mlx-lm's progress responses,
        one for each prompt that the slice has processed or completed; else return [].
        """
        call = self._call = self._call or self._begin()
        generator, answers = self._generator, self._generator._generation_batch
        most_running = generator.completion_batch_size
        generator._generation_batch = self._joining
        generator.completion_batch_size = max(most_running - len(answers), 1)
        self._threads.begin()
        try:
            has_ended = call.go_on(until_s)
        finally:
            self._threads.end(0)
            generator._generation_batch, generator.completion_batch_size = answers, most_running
        return self._end(call, answers) if has_ended else []

    def _begin(self) -> PausableCall[Any]:
        """Return the pausable call that processes the next slice of the prompts.

        If a prompt that was begun has only its last token left, the slice is empty. The call then only
        samples the first token of each such request, so that they need not wait for a slice of the other
        prompts.

        Otherwise, the slice is no longer than the rest of the shortest prompt (but may always have
        FEWEST_TOKENS), so that this prompt is not padded.
        """
        generator = self._generator
        size, left = self._pace.slice_tokens(len(generator._generation_batch)), self._left()
        if 0 in left[: len(generator._currently_processing)]:
            size = 0
        else:
            size = min(size, max(min(left), FEWEST_TOKENS))
        self._tokens = generator.prefill_step_size = size
        self._processed_before = generator._counters.prompt_tokens
        return PausableCall(generator.next)

    def _left(self) -> list[int]:
        """Return how many tokens of each prompt are to be computed before its last one: first of the prompts
        that have been begun, then of those that wait.
        """
        begun = [total - done - 1 for _, done, total in self._generator._currently_processing]
        return begun + [sum(map(len, waiting[1])) - 1 for waiting in self._generator._unprocessed_sequences]

    def finish(self) -> list[Any]:
        """Continue a paused slice to its end. Return mlx-lm's progress responses, one for each prompt that
        the slice has processed or completed; [] if no slice is paused.
        """
        return self.go_on(float("inf")) if self.is_paused else []

    def close(self) -> None:
        """Abandon the paused slice of prompts, if there is one. BatchGenerator cannot continue requests whose
        prompts are computed only in part, so the caller must remove the slice's requests from it.
        """
        if self._call is not None:
            self._call.close()
            self._call, self._joining = None, self._nobody()

    def _end(self, call: PausableCall[Any], answers: Any) -> list[Any]:
        """End the slice that `call` has processed. Add the requests whose prompts are complete to `answers`,
        the batch of running answers, and record how long the slice took. Return mlx-lm's progress responses,
        one for each prompt that the slice has processed or completed.
        """
        self._call = None
        if len(self._joining):
            answers.extend(self._joining)
            self._joining = self._nobody()
        if self._tokens and self._generator._counters.prompt_tokens - self._processed_before >= self._tokens:
            longest_part_s = call.longest_part_s if call.pause_points else None
            self._pace.record_slice(self._tokens, call.computed_s, longest_part_s)
        prompts, _ = call.result
        return [prompt for prompt in prompts if self._tokens or prompt.end_of_prompt]

    def _nobody(self) -> Any:
        """Return a new GenerationBatch without any requests."""
        return GenerationBatch.empty(self._generator.model, self._generator.sampler)
