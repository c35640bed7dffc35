"""Histograms of many columns in one pass, for drift statistics (PSI, Kolmogorov-Smirnov) on feature batches."""

from mizzen_kernels.histogram.op import column_histograms
from mizzen_kernels.histogram.reference import column_histograms_reference

__all__ = ["column_histograms", "column_histograms_reference"]
