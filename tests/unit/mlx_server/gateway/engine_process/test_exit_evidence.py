"""What an engine's exit says about the requests that ran on it."""

from __future__ import annotations

import pytest

from mlx_server.gateway.engine_process.exit_evidence import ExitEvidence
from mlx_server.gateway.requests.table.crash_policy import EngineDeath

KILL, TERM, SEGV, ABRT = 9, 15, 11, 6


@pytest.mark.parametrize(
    ("evidence", "death"),
    [
        (ExitEvidence(signal=ABRT), EngineDeath.OWN_FAULT),
        (ExitEvidence(signal=SEGV), EngineDeath.OWN_FAULT),
        (ExitEvidence(code=1), EngineDeath.OWN_FAULT),
        (ExitEvidence(code=134), EngineDeath.OWN_FAULT),
        (ExitEvidence(signal=KILL), EngineDeath.UNKNOWN_KILL),
        (ExitEvidence(signal=TERM), EngineDeath.UNKNOWN_KILL),
        (ExitEvidence(code=137), EngineDeath.UNKNOWN_KILL),
        (ExitEvidence(code=0), EngineDeath.UNKNOWN_KILL),
        (ExitEvidence(), EngineDeath.UNKNOWN_KILL),
        (ExitEvidence(signal=KILL, killed_for_memory=True), EngineDeath.OWN_FAULT),
        (ExitEvidence(signal=TERM, killed_for_memory=True), EngineDeath.UNKNOWN_KILL),
        (ExitEvidence(signal=KILL, fault="it hangs"), EngineDeath.OWN_FAULT),
        (ExitEvidence(planned=True, signal=KILL), EngineDeath.PLANNED),
        (ExitEvidence(planned=True, signal=KILL, fault="it hangs"), EngineDeath.OWN_FAULT),
    ],
)
def test_exit_evidence_classifies_an_engine_death_as_its_own_fault_or_planned_or_an_unknown_kill(
    evidence: ExitEvidence, death: EngineDeath
):
    assert evidence.death() is death
