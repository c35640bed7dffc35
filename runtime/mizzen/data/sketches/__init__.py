"""Mergeable summaries of fixed size: what one pass over the chunks of a dataset leaves of a column."""
