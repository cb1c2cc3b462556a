"""What each agent knows: folders of text, cut into chunks, embedded, searched."""
