"""The options of the commands, one module for each group. They import nothing of Vestal."""
