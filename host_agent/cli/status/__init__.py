"""The command `vestal status`: the services as a tree, once or live."""
