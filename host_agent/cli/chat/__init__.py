"""The commands `vestal chat` and `vestal demo`: an answer in the terminal that outlives its engine."""
