"""Where models come from: a folder or file, the Hugging Face hub, or a package index."""
