"""Measure what drafts cost, compared to steps without a draft. Pure."""

from __future__ import annotations

_NEW_SHARE = 0.2
"""The weight of a new measurement in the moving average."""
_MOST_GROWTH = 3.0
"""A step counts as at most this many times the average, since a longer one was held up by something else."""
_ASSUMED_STEP_MS, _ASSUMED_TOKEN_MS = 70.0, 13.0
"""How long a step takes, and how much longer for each token in it, as long as that was not measured. Only the
ratio of the two matters. They are those of a model of 135 million weights on two cores without AVX-512."""
MOST_STEP_TOKENS = 64
"""The most tokens that a step with drafts may compute for all requests together. The logits of each take
memory."""
_MOST_EXTRA_STEPS = 2.0
"""If several requests run, drafts may lengthen a step by the time of this many steps without a draft."""


class StepCosts:
    """Computes what it costs to draft and to verify a token: the number of tokens that all running requests
    together would have got in the same time without drafts.

    For this, it keeps two moving averages for each number of requests that a step serves: how long a step
    without a draft takes, and how much longer a step takes for each token that it computes to verify drafts.
    The latter falls with the number of requests, because a part of it is the same for any number of tokens.
    """

    def __init__(self) -> None:
        self._plain_s: dict[int, float] = {}
        self._token_s: dict[int, float] = {}

    def record_plain(self, requests: int, seconds: float) -> None:
        """Record that a step without a draft, for `requests` requests, took `seconds`."""
        self._plain_s[requests] = _averaged(self._plain_s.get(requests), seconds)

    def record_verified(self, requests: int, computed: int, seconds: float) -> None:
        """Record that a step for `requests` requests, in which `computed` further tokens were computed to
        verify drafts, took `seconds`.

        The call has no effect until `record_plain` has recorded a step without a draft for this number of
        requests.
        """
        if computed and (plain_s := self._plain_s.get(requests)) is not None:
            token_s = max(seconds - plain_s, 0.0) / computed
            self._token_s[requests] = _averaged(self._token_s.get(requests), token_s)

    def cost_to_draft(self, requests: int, seconds: float, guessed: int) -> float:
        """Return the cost of drafting one token with the draft model. It took `seconds` to draft `guessed`
        tokens while `requests` requests ran.

        The cost is at most 1, because a drafted token saves at most the generation of one token. It is 0 if
        `guessed` is 0, or if no step without a draft has been measured yet.
        """
        if not guessed or not self._plain_s:
            return 0.0
        return min(requests * seconds / self._plain_step_s(requests) / guessed, 1.0)

    def cost_to_verify(self, requests: int, computed: int, guessed: int) -> float:
        """Return the cost of verifying one drafted token, in a step that computed `computed` further tokens
        to verify `guessed` drafted ones of `requests` requests.

        `computed` may be larger than `guessed`, because all rows of a batch are as long as the longest draft.
        """
        return computed / guessed * requests * self._steps_per_token(requests)

    def longest_draft(self, requests: int) -> int:
        """Return how many tokens may be drafted for each of `requests` requests; 0 if a step would compute
        more than MOST_STEP_TOKENS tokens even with drafts of one token.

        Requests whose drafts are short or wrong wait for the longest draft of a step. So if several run, a
        step with drafts should take at most three times as long as one without. Drafts of one token may take
        longer, so that their cost is measured again.
        """
        limit = MOST_STEP_TOKENS // max(requests, 1) - 1
        if requests < 2:
            return limit
        worthwhile = _MOST_EXTRA_STEPS / max(self._steps_per_token(requests), 1e-6) / requests
        return min(limit, max(int(worthwhile), 1))

    def _steps_per_token(self, requests: int) -> float:
        """Return how much longer a step for `requests` requests takes for each token to verify, as a share of
        a step without a draft.
        """
        if (token_s := self._token_s.get(requests)) is None:
            return _ASSUMED_TOKEN_MS / (_ASSUMED_STEP_MS + _ASSUMED_TOKEN_MS * requests)
        return token_s / self._plain_step_s(requests)

    def _plain_step_s(self, requests: int) -> float:
        """Return how long a step without a draft takes for the measured number of requests that is nearest to
        `requests`, in seconds.
        """
        nearest = min(self._plain_s, key=lambda measured: abs(measured - requests))
        return max(self._plain_s[nearest], 1e-6)


def _averaged(average: float | None, new: float) -> float:
    """Return the moving average with the measurement `new`; `average` is None before the first one."""
    if average is None:
        return new
    return average + _NEW_SHARE * (min(new, _MOST_GROWTH * average) - average)
