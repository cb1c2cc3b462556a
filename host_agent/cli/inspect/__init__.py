"""Commands that show or check the state of this installation: doctor, incidents, cache, token, version."""
