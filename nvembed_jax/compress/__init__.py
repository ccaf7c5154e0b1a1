"""Smaller models: where a small student starts, and how it is made from a teacher."""
