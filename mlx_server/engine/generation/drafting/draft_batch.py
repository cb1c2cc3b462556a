"""mlx-lm's GenerationBatch, extended by drafting: a step may verify several drafted tokens of each
request.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.generate import GenerationBatch

from mlx_server.engine.blas_threads.threads_for_products import ThreadsForProducts
from mlx_server.engine.fast_exponential import logsumexp
from mlx_server.engine.generation.drafting.draft_counts import DraftCounts
from mlx_server.engine.generation.drafting.draft_model import Asked, DraftModel
from mlx_server.engine.generation.drafting.drafter import Draft, Drafter, Plan
from mlx_server.engine.generation.drafting.rules import DraftRules, Rewindable
from mlx_server.engine.generation.drafting.step_costs import StepCosts
from mlx_server.engine.kv.grouped_kv import GroupedKV
from mlx_server.engine.kv.kv_cache import BatchKV


class DraftBatch(GenerationBatch):
    """A GenerationBatch in which requests with a `Drafter` may get several tokens in one step.

    `drafters` holds the drafters by uid. A drafted token is accepted if it equals the token that the
    request's own sampler draws at that position, after its own logits processors. So answers are the same as
    without drafts, except where a step of several tokens computes slightly different numbers.

    While `may_guess` is False, no tokens are drafted or verified. `last_was_plain` is True if the duration of
    the last step can be compared with that of a step with drafts: the step drafted and verified nothing, the
    draft model processed no tokens in it, and it did not wait for the tokens of the step before. The caller
    of `next` records the durations of such steps in `costs`, which measures what drafts cost. `counts` has
    the numbers of drafted and of accepted tokens. `threads` sets the number of threads for each step.
    `draft_model` drafts for a request if its own text and grammar suggest no tokens.
    """

    drafters: dict[int, Drafter]
    counts: DraftCounts
    costs: StepCosts
    draft_model: DraftModel | None
    threads: ThreadsForProducts
    _next_tokens: Any
    _next_logprobs: list[mx.array]
    may_guess: bool
    last_was_plain: bool
    _has_waited: bool
    _has_background_step: bool

    @classmethod
    def over(
        cls,
        model: Any,
        sampler: Any,
        counts: DraftCounts,
        threads: ThreadsForProducts,
        draft_model: DraftModel | None = None,
    ) -> DraftBatch:
        """Return an empty batch for `model`.

        Drafted and accepted tokens are counted in `counts`. `threads` sets the number of threads for each
        step. `draft_model` drafts for a request if its own text and grammar suggest no tokens.
        """
        batch: DraftBatch = cls.empty(model, sampler)
        batch.drafters, batch.counts, batch.threads = {}, counts, threads
        batch.draft_model, batch.costs = draft_model, StepCosts()
        batch.may_guess, batch.last_was_plain, batch._has_waited = True, False, False
        batch._has_background_step = True
        return batch

    def next(self) -> list[Any]:
        """Make a step, and return the responses for all requests, request by request. Each request gets one
        token, and in addition the drafted tokens that were accepted.
        """
        began_s, self._has_waited = time.perf_counter(), False
        has_read = self.may_guess and self._read_for_draft_model()
        plan = self._plan() if self.may_guess else None
        self.last_was_plain = plan is None and not has_read and not self._has_waited
        if plan is not None:
            responses: list[Any] = self._checked(plan)
            if not (has_read or self._has_background_step):
                step_s = time.perf_counter() - began_s - plan.guess_s
                self.costs.record_verified(len(plan.drafts), plan.computed, step_s)
            self._has_background_step = False
            return responses
        self._has_background_step = True
        for uid in self.uids:
            if drafter := self.drafters.get(uid):
                drafter.record_plain()
        self.threads.begin_step(len(self.uids), waited=not self.last_was_plain)
        responses = super().next()
        return responses

    def remove(self, uid: int) -> None:
        """Discard the drafting state of a request that leaves the batch."""
        self.drafters.pop(uid, None)
        if self.draft_model is not None:
            self.draft_model.remove(uid)

    # --- drafting ---

    @property
    def _can_check(self) -> bool:
        """Return True if drafts can be verified: there are drafters, and all caches can drop the tokens that
        turn out to be wrong.
        """
        return bool(self.drafters) and all(
            isinstance(cache, BatchKV | GroupedKV) for cache in self.prompt_cache
        )

    def _read_for_draft_model(self) -> bool:
        """Make the draft model process the next slice of one request's tokens, so that it can draft for that
        request. Return False if there was nothing to process.
        """
        if self.draft_model is None or not self.uids or not self._can_check:
            return False
        wanted = {
            uid: self.tokens[row]
            for row, uid in enumerate(self.uids)
            if (drafter := self.drafters.get(uid)) and drafter.model_length.tokens and self.tokens[row]
        }
        return self.draft_model.read_slice(wanted)

    def _plan(self) -> Plan | None:
        """Return the plan of the next step with drafts; None if drafting is not worthwhile at this time.

        The tokens that the requests' samplers have drawn last are still being computed in the background.
        Waiting for them makes a step of eight requests a tenth slower. So this method waits only if at least
        half of the requests are likely to get a draft. It judges that by the tokens before those drawn last,
        and by whether the draft model is ready.
        """
        rows = range(len(self.uids))
        limit = self.costs.longest_draft(len(rows))
        if limit <= 0 or not self._can_check:
            return None
        own, by_model = [self._length(row, limit) for row in rows], [0] * len(rows)
        if self.draft_model is not None:
            by_model = [self._model_length(row, limit) for row in rows]
        promising = sum(1 for row in rows if by_model[row] or (own[row] and self._promises(row)))
        if not promising or 2 * promising < len(rows):
            return None
        drawn: list[int] = self._next_tokens.tolist()
        self._has_waited = True
        drafts = [self._own_draft(row, drawn[row], own[row], by_model[row]) for row in rows]
        guess_s = self._add_model_drafts(drafts, drawn, by_model)
        with_draft = sum(bool(draft.tokens) for draft in drafts)
        plan = Plan(drawn, drafts, guess_s)
        if with_draft and 2 * with_draft >= len(rows):
            return plan
        for uid, draft in zip(self.uids, drafts, strict=True):
            if draft.guessed_by_model:  # the grammar has rejected too many of the drafted tokens
                self.drafters[uid].record(Draft((), draft.guessed_by_model), 0, 0.0, self._to_guess(plan))
        return None

    def _length(self, row: int, limit: int) -> int:
        """Return how many tokens may be drafted for the request in `row` from its own text and grammar; at
        most `limit`.
        """
        drafter = self.drafters.get(self.uids[row])
        return 0 if drafter is None or not self._may_draft(row) else min(drafter.length.tokens, limit)

    def _model_length(self, row: int, limit: int) -> int:
        """Return how many tokens the draft model may draft for the request in `row`; at most `limit`."""
        drafter, uid = self.drafters.get(self.uids[row]), self.uids[row]
        if drafter is None or self.draft_model is None or not self._may_draft(row):
            return 0
        ready = self.draft_model.can_guess(uid, len(self.tokens[row]))
        return min(drafter.model_length.tokens, limit) if ready else 0

    def _may_draft(self, row: int) -> bool:
        return all(part.can_draft for part in self._rules(row))

    def _promises(self, row: int) -> bool:
        """Return True if a draft for the request in `row` is likely, because it has a grammar, or because its
        last tokens occurred earlier in its text.
        """
        drafter = self.drafters[self.uids[row]]
        drafter.lookup.read(self.tokens[row])
        return bool(self._rules(row)) or drafter.lookup.is_promising

    def _rules(self, row: int) -> list[DraftRules]:
        return [part for part in self.logits_processors[row] or () if isinstance(part, DraftRules)]

    def _own_draft(self, row: int, drawn: int, length: int, by_model: int) -> Draft:
        """Return the draft that a request's own text and grammar suggest, without the draft model; an empty
        draft if they suggest nothing. The draft follows `drawn`, the token that the request in `row` has
        drawn last.

        `length` is how many tokens may be drafted from text and grammar, and `by_model` how many the draft
        model may draft later, if this draft is empty. If `length` is 0, the draft has only tokens that the
        grammar forces, at most `by_model`. In both cases the grammar consumes the token `drawn`, so that it
        can check the draft model's tokens later. If `length` and `by_model` are 0, the draft is empty, and
        the grammar stays as it is.
        """
        if not (length or by_model):
            return Draft()
        tokens = self.drafters[self.uids[row]].lookup.guess(drawn, length) if length else []
        for part in self._rules(row):
            tokens = part.draft_after(drawn, tokens)[: length or by_model]
        return Draft(tokens)

    def _add_model_drafts(self, drafts: list[Draft], drawn: Sequence[int], lengths: Sequence[int]) -> float:
        """Replace the empty drafts in the list `drafts` by drafts of the draft model, and return how many
        seconds the draft model took.

        Each list has one element for each request: `drawn` has the token that the request has drawn last,
        which its draft follows, and `lengths` how many tokens the draft model may draft. The draft model
        drafts nothing if fewer than half of the requests would have a draft afterwards.
        """
        began_s = time.perf_counter()
        rows = [row for row, draft in enumerate(drafts) if lengths[row] and not draft.tokens]
        others = sum(bool(draft.tokens) for draft in drafts)
        if self.draft_model is None or not rows or 2 * (len(rows) + others) < len(drafts):
            return 0.0
        asked = [
            Asked(
                self.uids[row],
                self.tokens[row],
                drawn[row],
                lengths[row],
                self.samplers[row] or self.fallback_sampler,
            )
            for row in rows
        ]
        guesses = self.draft_model.guess(asked, self._next_logprobs[0].shape[-1])
        for row in rows:
            tokens = guessed = guesses.get(self.uids[row], [])
            for part in self._rules(row):
                tokens = part.allowed(tokens)
            drafts[row] = Draft(tokens, len(guessed))
        return time.perf_counter() - began_s

    def _to_guess(self, plan: Plan) -> float:
        """Return what it cost to draft one token of `plan` with the draft model: the number of tokens that
        all requests together would have got in that time without drafts (see `StepCosts.cost_to_draft`).
        It is 0 if the draft model drafted none.
        """
        guessed = sum(draft.guessed_by_model for draft in plan.drafts)
        return self.costs.cost_to_draft(len(plan.drafts), plan.guess_s, guessed)

    # --- verifying ---

    def _checked(self, plan: Plan) -> list[Any]:
        """Verify the drafts of `plan`: run the model once over each request's last drawn token and the draft
        that follows it. Return mlx-lm's responses for these drawn tokens and the accepted drafted tokens.
        """
        drafts = [draft.tokens for draft in plan.drafts]
        width = plan.width
        rows = [[token, *draft] for token, draft in zip(plan.drawn, drafts, strict=True)]
        self.threads.begin_step(len(rows) * width, waited=True)
        logits = self.model(
            mx.array([row + [0] * (width - len(row)) for row in rows]), cache=self.prompt_cache
        )
        logprobs, samples = self._sampled(logits, rows)
        self.threads.end_step()
        accepted = [_accepted(draft, drew) for draft, drew in zip(drafts, samples, strict=True)]
        for cache in self.prompt_cache:
            cache.drop_last([width - 1 - kept for kept in accepted])
        responses = []
        self._weigh(plan, accepted)
        for row, kept in enumerate(accepted):
            right = rows[row][: 1 + kept]
            known = [self._next_logprobs[row], *logprobs[row][:kept]]
            responses += [self._response(row, *pair) for pair in zip(right, known, strict=True)]
            self._keep(row, right, len(rows[row]))
        self._next_tokens = mx.array([drew[kept] for drew, kept in zip(samples, accepted, strict=True)])
        self._next_logprobs = [logprobs[row][kept] for row, kept in enumerate(accepted)]
        return responses

    def _weigh(self, plan: Plan, accepted: Sequence[int]) -> None:
        """Record for each request how many drafted tokens were accepted, and what drafting and verifying
        cost. `accepted` counts the accepted tokens of each draft.
        """
        requests, guessed = len(plan.drafts), sum(len(draft.tokens) for draft in plan.drafts)
        to_check = self.costs.cost_to_verify(requests, plan.computed, guessed)
        to_guess = self._to_guess(plan)
        for uid, draft, kept in zip(self.uids, plan.drafts, accepted, strict=True):
            if drafter := self.drafters.get(uid):
                drafter.record(draft, kept, to_check, to_guess)
            self.counts.add(len(draft.tokens), kept, by_model=draft.guessed_by_model > 0)

    def _sampled(self, logits: mx.array, rows: list[list[int]]) -> tuple[list[Any], list[list[int]]]:
        """Return two lists with an element for each of `rows`: the log-probabilities after each token of the
        row, and the tokens that the request's sampler draws from them. A row has the tokens that the step
        computes for one request.

        `logits` has the shape (rows, tokens of the longest row, vocabulary).
        """
        everywhere = logits - logsumexp(logits)
        logprobs: list[Any] = []
        samples: list[Any] = []
        for row, tokens in enumerate(rows):
            sampler = self.samplers[row] or self.fallback_sampler
            processors = self.logits_processors[row] or ()
            if not processors:
                own = [everywhere[row, i] for i in range(len(tokens))]
            else:
                context = self._token_context[row].update_and_fetch(mx.array(tokens[:1]))
                own = []
                for i in range(len(tokens)):
                    so_far = mx.concatenate([context, mx.array(tokens[1 : i + 1])]) if i else context
                    processed = logits[row : row + 1, i]
                    for processor in processors:
                        processed = processor(so_far, processed)
                    own.append((processed - logsumexp(processed))[0])
            logprobs.append(own)
            samples.append(mx.concatenate([sampler(each[None]) for each in own]))
        mx.eval(samples)
        return logprobs, [sample.tolist() for sample in samples]

    def _keep(self, row: int, right: list[int], computed: int) -> None:
        """Append `right`, the token drawn last and the accepted tokens after it, to the request in `row`. The
        step computed `computed` tokens for the request; rewind its sampler and logits processors by the
        rejected ones.
        """
        self.tokens[row].extend(right)
        self._num_tokens[row] += len(right)
        if self.logits_processors[row] and len(right) > 1:
            self._token_context[row].update_and_fetch(mx.array(right[1:]))
        for part in (*(self.logits_processors[row] or ()), self.samplers[row]):
            if isinstance(part, Rewindable):
                part.rewind(computed - len(right))

    def _response(self, row: int, token: int, logprobs: mx.array) -> Any:
        return self.Response(self.uids[row], token, logprobs, None, None, None)


def _accepted(draft: Sequence[int], drawn: Sequence[int]) -> int:
    """Return how many tokens at the start of `draft` equal the tokens `drawn` at their positions."""
    pairs = zip(draft, drawn, strict=False)
    return next((i for i, (guess, token) in enumerate(pairs) if guess != token), len(draft))
