"""The embedded data set `pictograms`: scenes composed of real drawings, whose truth is known."""
