"""The embedded data set `pictograms`: generated scenes of real drawings, with known content."""
