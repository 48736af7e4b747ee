"""Whole programs as users of LangGraph write them, with nothing changed but the imports.

Each public function of the modules beside this file is one program that builds its graphs, runs them in the colour it is
given, and asserts what came out. They say what a program may rely on; why is told by the tests of the parts.
"""
