"""Where diagnoses get their evidence: logs, the journal, the process table, and answers over HTTP."""
