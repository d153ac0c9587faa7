"""Speed and memory against the alternatives, as ratios in one run. `python -m experiments NAME`.

No result here is a test: what has to hold is counted in tests, not timed.
"""
