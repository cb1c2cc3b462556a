"""The options of the commands: one module for each group of commands. These modules import nothing of
Vestal.
"""
