"""The agent process: `daemon` runs it, `components` builds its parts, `agent` starts and stops them."""
