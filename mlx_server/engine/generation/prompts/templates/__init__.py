"""Run the chat templates of model folders in processes of their own.

See docs/decisions/0017-chat-templates-in-their-own-process.md.
"""
