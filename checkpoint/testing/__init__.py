"""Tools for tests of savers and of programs that store: what a saver must do, and what may go wrong around it."""
