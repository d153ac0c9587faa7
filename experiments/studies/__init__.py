"""Several methods, sizes or seeds in one table, a published figure beside ours; and what puts them into the docs.

Nothing here is needed by an experiment of one method.
"""
