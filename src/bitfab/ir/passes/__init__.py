"""Passes: plain functions Graph -> Graph, one a file."""
