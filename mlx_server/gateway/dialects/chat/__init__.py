"""What the chats of all dialects share: messages and their roles, the parts of messages, and tools."""
