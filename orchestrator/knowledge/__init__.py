"""The agents' knowledge: folders of text, cut into chunks, embedded, and searched."""
