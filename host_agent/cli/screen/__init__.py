"""Draw on a terminal: styled lines, units for people, the live screen and the feeds that update it."""
