"""Parse the output of macOS's own tools. Pure: recorded output goes in, values come out."""
