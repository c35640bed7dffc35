"""`python -m mizzen_kernels.histogram.benchmark`: kernel and reference side by side, on a GPU."""

from __future__ import annotations

import torch

from mizzen_kernels.histogram import column_histograms, column_histograms_reference

SHAPES = [(65_536, 8), (65_536, 64), (1_048_576, 8), (1_048_576, 64)]
EDGES = 31


def main() -> None:
    import triton

    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a GPU")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}, {EDGES} edges")
    print(f"{'rows':>9} {'columns':>8} {'reference ms':>13} {'kernel ms':>10} {'faster':>7} {'GB/s':>6}")
    for rows, columns in SHAPES:
        x_NF = torch.randn(rows, columns, device="cuda")
        edges_FE = torch.randn(columns, EDGES, device="cuda").sort(1).values
        assert torch.equal(column_histograms(x_NF, edges_FE), column_histograms_reference(x_NF, edges_FE))
        reference = triton.testing.do_bench(lambda: column_histograms_reference(x_NF, edges_FE))  # noqa: B023
        kernel = triton.testing.do_bench(lambda: column_histograms(x_NF, edges_FE))  # noqa: B023
        rate = x_NF.numel() * 4 / kernel / 1e6
        print(f"{rows:>9} {columns:>8} {reference:>13.3f} {kernel:>10.3f} {reference / kernel:>6.1f}x {rate:>6.0f}")


if __name__ == "__main__":
    main()
