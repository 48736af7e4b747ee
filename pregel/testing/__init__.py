"""Conformance kits for people who write parts that graphs are given: stores, caches."""
