"""What a cycle does and when, and the record of what it did."""
