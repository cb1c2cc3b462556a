"""Draw on a terminal: styled lines, formatted units, the live screen, and the feeds that update it."""
