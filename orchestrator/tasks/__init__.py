"""Durable tasks: the lead plans, agents answer, the lead joins.

A killed task continues at its unfinished step.
"""
