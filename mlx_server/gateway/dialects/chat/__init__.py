"""What the chats of all dialects have in common: messages and their roles, their parts, and tools."""
