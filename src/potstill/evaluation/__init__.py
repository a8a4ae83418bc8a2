"""Tests of what a model can do, apart from how near it is to its teacher."""
