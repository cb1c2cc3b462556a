"""What diagnoses look at: logs, the journal, the process table, answers over HTTP."""
