"""The networks as torch modules, and what lies between pictures, heatmaps and points."""
