"""The evidence that diagnoses use: logs, the journal, the process table, and responses over HTTP."""
