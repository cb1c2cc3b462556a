"""The evidence that diagnoses use: logs, the journal, the process table, and answers over HTTP."""
