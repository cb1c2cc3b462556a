"""The common parts of the chats of all dialects: messages and their roles, their parts, and tools."""
