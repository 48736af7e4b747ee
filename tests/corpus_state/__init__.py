"""Whole programs about stored state: conversations, pauses, edits, failures, branches, as users write them."""
