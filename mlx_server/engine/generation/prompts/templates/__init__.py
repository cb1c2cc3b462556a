"""Run the chat templates of model folders in processes of their own; see docs/decisions/0017."""
