"""Fetch models from where they come from: the Hugging Face hub or a package index; or find a folder
or file.
"""
