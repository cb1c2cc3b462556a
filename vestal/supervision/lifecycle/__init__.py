"""Decide what happens to one supervised child: its states, its limits, and the rules between them. Pure.

`transition.step` is the entry point. It takes the child's state, one of `inputs` and the time, and returns
the next state with the `actions` that `vestal.supervision.child` then carries out.
"""
