"""A crash, a failing or dying saver, a cancelled or interrupted run loses nothing that was stored."""
