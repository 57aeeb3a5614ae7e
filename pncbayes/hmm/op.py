"""The binned likelihood inside PyTensor: two Ops, with numba and JAX behind them.

`BinnedLogLikelihood` gives the value together with its derivatives, so that a sampler that asks
for both pays for one forward and one backward pass; where nothing asks for the derivatives a
rewrite puts `BinnedLogLikelihoodValue` in its place. The data are inputs: a compiled model takes
those of another dot, of the same number of gates.
"""

# PyTensor is typed in part.
# mypy: allow-untyped-calls, allow-untyped-decorators
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt
from numpy.typing import NDArray
from pytensor.compile.mode import optdb
from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_default_op_cache_key
from pytensor.tensor.rewriting.basic import register_canonicalize, register_specialize
from scipy.special import gammaln

from pncbayes.hmm import numba_likelihood as compiled
from pncbayes.hmm.emission import CameraEmission, NegativeBinomialEmission, PoissonEmission
from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.hmm.numba_emission import FAMILIES

__all__ = [
    "DATA_NAMES",
    "BinnedLogLikelihood",
    "BinnedLogLikelihoodValue",
    "binned_log_likelihood",
    "family_of",
    "likelihood_data",
]

DATA_NAMES = ("counts", "row_of_bin", "width_s", "node", "node_weight", "camera", "log_constant")
"""Data of `binned_log_likelihood`, as `likelihood_data` names them."""

_DTYPES = ("float64",) * 4 + ("int64",) + ("float64",) * 4
_N_DIMS = (2, 2, 1, 2, 1, 0, 1, 1, 1)
_N_PARAMETERS = 3


class _BinnedOp(Op):
    """Inputs and properties that both Ops share.

    Parameters
    ----------
    family
        ``"poisson"``, ``"negative_binomial"`` or ``"camera"``.
    """

    __props__ = ("family",)

    def __init__(self, family: str) -> None:
        if family not in FAMILIES:
            raise ValueError(f"`family` must be one of {', '.join(FAMILIES)}, got {family!r}")
        self.family = family

    def _inputs(self, inputs: Sequence[Any]) -> list[Any]:
        if len(inputs) != len(_N_DIMS):
            raise ValueError(f"the likelihood takes {len(_N_DIMS)} inputs, got {len(inputs)}")
        names = ("gate_rate_per_s", "transition_rate_per_s", "excess", *DATA_NAMES)
        tensors = []
        for given, name, dtype, n_dims in zip(inputs, names, _DTYPES, _N_DIMS, strict=False):
            tensor = pt.as_tensor_variable(given)
            if tensor.ndim != n_dims:
                raise ValueError(f"`{name}` must have {n_dims} dimensions, got {tensor.ndim}")
            tensors.append(pt.cast(tensor, dtype))
        return tensors

    def _values(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        return self.family, *inputs[:5], float(inputs[5]), *inputs[6:]

    def connection_pattern(self, node: Any) -> list[list[bool]]:
        """Only the parameters are differentiated, not the data."""
        n_outputs = len(node.outputs)
        return [[index < _N_PARAMETERS] * n_outputs for index in range(len(node.inputs))]


class BinnedLogLikelihoodValue(_BinnedOp):
    """Log-likelihood alone; see `BinnedLogLikelihood`."""

    def make_node(self, *inputs: Any) -> Any:
        """Return the node of the Op for its inputs."""
        return Apply(self, self._inputs(inputs), [pt.dscalar()])

    def perform(self, node: Any, inputs: Sequence[Any], output_storage: list[list[Any]]) -> None:
        """Evaluate."""
        value = compiled.log_likelihood(*self._values(inputs), with_slopes=False)[0]
        output_storage[0][0] = np.asarray(value)

    def infer_shape(self, node: Any, shapes: list[Any]) -> list[Any]:
        """Return the shape of the output: a scalar."""
        return [()]

    def pullback(
        self, inputs: Sequence[Any], outputs: Sequence[Any], cotangents: Sequence[Any]
    ) -> list[Any]:
        """Derivatives, by the Op that has them."""
        outputs_of_both: Any = BinnedLogLikelihood(self.family)(*inputs)
        return _pulled(cotangents[0], outputs_of_both[1:], inputs)


class BinnedLogLikelihood(_BinnedOp):
    """Log-likelihood of a binned trace, and its derivatives, as outputs of one Op.

    Inputs are ``gate_rate_per_s`` (state, gate), ``transition_rate_per_s`` (state, state; the
    diagonal is ignored), ``excess`` (state; ignored without excess noise) and the data: distinct
    rows of counts (row, gate), row of each bin, bin width in s, nodes, node weights, and gain,
    offset, read noise and excess factor of a camera. Outputs are the log-likelihood without the
    factorials of the counts, and its derivatives with respect to the first three inputs.

    Parameters
    ----------
    family
        ``"poisson"``, ``"negative_binomial"`` or ``"camera"``.
    """

    def make_node(self, *inputs: Any) -> Any:
        """Return the node of the Op for its inputs."""
        tensors = self._inputs(inputs)
        return Apply(self, tensors, [pt.dscalar(), pt.dmatrix(), pt.dmatrix(), pt.dvector()])

    def perform(self, node: Any, inputs: Sequence[Any], output_storage: list[list[Any]]) -> None:
        """Evaluate."""
        results = compiled.log_likelihood(*self._values(inputs))
        for storage, result in zip(output_storage, results, strict=True):
            storage[0] = np.asarray(result)

    def infer_shape(self, node: Any, shapes: list[Any]) -> list[Any]:
        """Return the shapes of the outputs: a scalar, and those of the parameters."""
        return [(), *shapes[:_N_PARAMETERS]]

    def pullback(
        self, inputs: Sequence[Any], outputs: Sequence[Any], cotangents: Sequence[Any]
    ) -> list[Any]:
        """Derivatives of the value: the other outputs.

        Raises
        ------
        NotImplementedError
            If something is made of the derivatives: second derivatives are not there.
        """
        if any(not _is_disconnected(cotangent) for cotangent in cotangents[1:]):
            raise NotImplementedError(
                "the binned likelihood has no second derivatives: use a method that needs only "
                "the gradient"
            )
        return _pulled(cotangents[0], outputs[1:], inputs)


def _is_disconnected(variable: Any) -> bool:
    return isinstance(variable.type, type(disconnected_type))


def _pulled(cotangent: Any, slopes: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    data = [disconnected_type() for _ in inputs[_N_PARAMETERS:]]
    if _is_disconnected(cotangent):
        return [disconnected_type() for _ in slopes] + data
    return [cotangent * slope for slope in slopes] + data


@register_specialize
@register_canonicalize
@node_rewriter([BinnedLogLikelihood])
def _drop_unused_slopes(fgraph: Any, node: Any) -> list[Any] | None:
    """Replace the Op by its value where nothing uses the derivatives."""
    if any(fgraph.clients[output] for output in node.outputs[1:]):
        return None
    value = BinnedLogLikelihoodValue(node.op.family)(*node.inputs)
    return [value, *node.outputs[1:]]


def _numba_call(family: str, with_slopes: bool) -> Any:
    """Compiled function of the inputs of the Ops, with all outputs of `BinnedLogLikelihood`."""
    function, number, flag = compiled.external_function(), FAMILIES[family], with_slopes

    @numba_njit
    def call(gate_rate, rates, excess, counts, row_of_bin, width, nodes, weights, camera):  # type: ignore[no-untyped-def]
        if counts.strides[1] != 8 or counts.strides[0] != 8 * counts.shape[1]:
            counts = counts.copy()
        gate_rate, rates, excess = gate_rate.copy(), rates.copy(), excess.copy()
        row_of_bin, camera = row_of_bin.copy(), camera.copy()
        nodes, weights = nodes.copy(), weights.copy()
        sizes = np.array(
            [rates.shape[0], counts.shape[1], counts.shape[0], row_of_bin.size, nodes.size]
        )
        if (
            gate_rate.shape != (sizes[0], sizes[1])
            or rates.shape[1] != sizes[0]
            or excess.size != sizes[0]
            or weights.size != sizes[4]
            or camera.size != 4
            or row_of_bin.min() < 0
            or row_of_bin.max() >= sizes[2]
        ):
            raise ValueError("the inputs of the binned likelihood do not fit each other")
        gate_slope, rates_slope = np.zeros_like(gate_rate), np.zeros_like(rates)
        excess_slope = np.zeros_like(excess)
        value = function(
            number,
            flag,
            sizes.ctypes,
            gate_rate.ctypes,
            rates.ctypes,
            excess.ctypes,
            counts.ctypes,
            row_of_bin.ctypes,
            width.item(),
            nodes.ctypes,
            weights.ctypes,
            camera.ctypes,
            gate_slope.ctypes,
            rates_slope.ctypes,
            excess_slope.ctypes,
        )
        return np.asarray(value), gate_slope, rates_slope, excess_slope

    return call


@register_funcify_default_op_cache_key(BinnedLogLikelihoodValue)
def _value_in_numba(op: BinnedLogLikelihoodValue, **kwargs: Any) -> tuple[Any, int]:
    call = _numba_call(op.family, False)

    @numba_njit
    def value(*inputs):  # type: ignore[no-untyped-def]
        return call(*inputs)[0]

    return value, compiled.VERSION


@register_funcify_default_op_cache_key(BinnedLogLikelihood)
def _gradient_in_numba(op: BinnedLogLikelihood, **kwargs: Any) -> tuple[Any, int]:
    return _numba_call(op.family, True), compiled.VERSION


@node_rewriter([BinnedLogLikelihood, BinnedLogLikelihoodValue])
def _load_jax(fgraph: Any, node: Any) -> None:
    """Register the JAX functions: nothing else tells that a graph is compiled for JAX."""
    import pncbayes.hmm.jax_op  # noqa: F401


# Importing JAX takes a second and PyTensor's part of it switches 64 bits on for the whole program,
# so it waits until JAX is asked for: rewrites with this tag run then, and only then.
optdb.register("pncbayes_load_jax", dfs_rewriter(_load_jax), "jax", position=0.5)


def family_of(likelihood: BinnedLikelihood) -> str:
    """Name of the emission family of a likelihood, as `BinnedLogLikelihood` wants it.

    Raises
    ------
    ValueError
        If the family has no compiled form.
    """
    names = {
        PoissonEmission: "poisson",
        NegativeBinomialEmission: "negative_binomial",
        CameraEmission: "camera",
    }
    for emission, name in names.items():
        if isinstance(likelihood.emission, emission):
            return name
    raise ValueError(
        f"the emission {type(likelihood.emission).__name__} has no compiled form; known are "
        f"{', '.join(names.values())}"
    )


def likelihood_data(likelihood: BinnedLikelihood) -> dict[str, NDArray[Any]]:
    """Return the data of a likelihood as arrays, named as in `DATA_NAMES`.

    Returns
    -------
    dict
        ``counts`` (row, gate), ``row_of_bin`` (bin), ``width_s``, ``node`` and ``node_weight``
        (node), ``camera`` (gain, offset, read noise, excess factor; zeros for photons), and
        ``log_constant``, the sum over the bins of minus the logarithms of the factorials.
    """
    emission: Any = likelihood.emission
    counts = np.ascontiguousarray(emission.counts.reshape(-1, likelihood.n_gates))
    camera, constant = np.zeros(4), 0.0
    if isinstance(emission, CameraEmission):
        camera[:] = emission.gain, emission.offset, emission.read_noise, emission.excess_factor
    else:
        constant = -float(gammaln(counts + 1.0).sum(axis=1)[likelihood.row_of_bin].sum())
    return {
        "counts": counts,
        "row_of_bin": np.asarray(likelihood.row_of_bin, dtype=np.int64),
        "width_s": np.array(likelihood.width_s),
        "node": likelihood.nodes,
        "node_weight": likelihood.node_weights,
        "camera": camera,
        "log_constant": np.array(constant),
    }


def binned_log_likelihood(
    gate_rate_per_s: Any,
    transition_rate_per_s: Any,
    data: Mapping[str, Any],
    *,
    family: str = "poisson",
    excess: Any = None,
) -> Any:
    """Log-likelihood of a binned trace as a PyTensor variable: `BinnedLikelihood.value`.

    Parameters
    ----------
    gate_rate_per_s
        Counts per s in each gate, background included, shape ``(n_states, n_gates)``.
    transition_rate_per_s
        Shape ``(n_states, n_states)``; the diagonal is ignored.
    data
        Arrays or variables, named as in `DATA_NAMES`; `likelihood_data` makes them.
    family
        As `family_of` says.
    excess
        Excess variance ratio of each state, shape ``(n_states,)``; needed with the family
        ``"negative_binomial"``.

    Returns
    -------
    TensorVariable
        A scalar, with all constants; can be differentiated once.

    Raises
    ------
    ValueError
        If the family is not known, data are missing, or `excess` is.

    Examples
    --------
    >>> import numpy as np
    >>> from pncbayes.hmm.likelihood import BinnedLikelihood
    >>> likelihood = BinnedLikelihood(np.array([3.0, 9.0, 2.0]), 0.01)
    >>> value = binned_log_likelihood([[900.0]], [[0.0]], likelihood_data(likelihood))
    >>> bool(np.isclose(value.eval(), likelihood.value(np.array([[900.0]]), np.zeros((1, 1)))))
    True
    """
    missing = [name for name in DATA_NAMES if name not in data]
    if missing:
        raise ValueError(f"`data` lacks {', '.join(missing)}; make it with `likelihood_data`")
    if excess is None:
        if family == "negative_binomial":
            raise ValueError("`excess` is needed: one excess variance ratio per state")
        excess = pt.zeros(pt.as_tensor_variable(gate_rate_per_s).shape[0])
    inputs = [data[name] for name in DATA_NAMES[:-1]]
    node_outputs: Any = BinnedLogLikelihood(family)(
        gate_rate_per_s, transition_rate_per_s, excess, *inputs
    )
    value: Any = node_outputs[0] + data["log_constant"]
    return value
