"""What is compiled ahead is what a fit calls last."""

from pncbayes.hmm import numba_kernels
from pncbayes.inference import shared_kernels
from pncbayes.inference.compile_ahead import compile_last_steps
from pncbayes.physics import lifetime_kernels, mechanism_kernels


def test_the_last_steps_of_a_fit_are_compiled() -> None:
    compile_last_steps()
    for function in (
        lifetime_kernels.fit_rows, numba_kernels.smooth, numba_kernels.sample_path,
        shared_kernels.log_density, mechanism_kernels.add_log_prior,
    ):  # fmt: skip
        assert function.signatures
