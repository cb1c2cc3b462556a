"""The hosts that serve the models: their health, and the calls to them."""
