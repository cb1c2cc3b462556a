"""Run durable tasks: the lead agent plans, the agents answer, and the lead joins their answers. A task that
is killed continues at its unfinished step.
"""
