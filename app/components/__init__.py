"""The workbench's own browser components: canvas heatmap, token text, small multiples."""
