"""Tests of `checkpoint` and `pregel`."""
