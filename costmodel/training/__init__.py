"""Training: corpora to arrays, splits, batches, the loop and the export to a bundle. Needs the `[train]` extra."""
