"""Draw on a terminal: styled lines, formatted units, the live screen, and the streams of events that update
it.
"""
