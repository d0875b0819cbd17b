"""The wire: packets as bytes, and the coders of their streams."""
