"""Speed and memory against the alternatives, as ratios in one run. `python -m experiments NAME`."""
