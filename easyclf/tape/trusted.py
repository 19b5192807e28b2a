"""What a recording may meet without reading it: code and functions that are known to compute only.

Everything here is known by identity: a function object, or code of a file of torch in a module of
torch. What bears the name of something trusted, and is something else, is not trusted.
"""

from __future__ import annotations

import abc
import builtins
import contextlib
import enum
import functools
import itertools
import math
import operator
import os
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from easyclf.tape.recorder import NotRecordable
from easyclf.tape.torch_internals import TENSOR_HOMES

# Files and folders of torch and torchvision whose functions compute, read settings, or look at
# modules; those that change anything are found by their operations (`purity.py`).
_TORCH_HOMES = (
    "torch/__init__.py",
    "torch/_C",
    "torch/_VF.py",
    "torch/_jit_internal.py",
    "torch/_ops.py",
    "torch/_tensor.py",
    "torch/_utils.py",
    "torch/amp/autocast_mode.py",
    "torch/autograd/__init__.py",
    "torch/autograd/grad_mode.py",
    "torch/autograd/graph.py",
    "torch/backends/",
    "torch/compiler/__init__.py",
    "torch/functional.py",
    "torch/jit/_trace.py",
    "torch/nn/_reduction.py",
    "torch/nn/functional.py",
    "torch/nn/init.py",
    "torch/nn/modules/",
    "torch/nn/parameter.py",
    "torch/nn/utils/clip_grad.py",
    "torch/nn/utils/fusion.py",
    "torch/nn/utils/parametrizations.py",
    "torch/nn/utils/parametrize.py",
    "torch/overrides.py",
    "torch/utils/_contextlib.py",
    "torch/utils/_foreach_utils.py",
    "torch/utils/_python_dispatch.py",
    "torchvision/models/",
    "torchvision/ops/",
)
# Context managers of torch keep in attributes of their own what they put back.
_CONTEXTS = (
    "torch/amp/autocast_mode.py",
    "torch/autograd/grad_mode.py",
    "torch/autograd/graph.py",
    "torch/overrides.py",
    "torch/utils/_contextlib.py",
    "torch/utils/_python_dispatch.py",
)
# Functions of these read settings of torch's, which nobody compares; but for a few.
_SETTINGS = ("torch/__init__.py", "torch/backends/")
_WITHOUT_SETTINGS = (torch.is_tensor.__code__, torch.is_storage.__code__)
# Functions and properties of tensors which the recorder sees as operations of ATen, or which read
# what all batches of one shape have in common.
_TENSOR_NAMES = frozenset(
    """
    H T __add__ __and__ __eq__ __floordiv__ __ge__ __getitem__ __gt__ __iadd__ __iand__ __idiv__
    __ifloordiv__ __ilshift__ __imod__ __imul__ __invert__ __ior__ __irshift__ __isub__ __ixor__
    __le__ __len__ __lshift__ __lt__ __matmul__ __mod__ __mul__ __ne__ __or__ __radd__ __rand__
    __rdiv__ __rfloordiv__ __rlshift__ __rmatmul__ __rmod__ __rmul__ __ror__ __rpow__ __rrshift__
    __rshift__ __rsub__ __rxor__ __setitem__ __sub__ __truediv__ __xor__ abs abs_ absolute
    absolute_ acos acos_ acosh acosh_ adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool1d_with_indices adaptive_max_pool2d
    adaptive_max_pool2d_with_indices adaptive_max_pool3d adaptive_max_pool3d_with_indices add add_
    addbmm addbmm_ addcdiv addcdiv_ addcmul addcmul_ addmm addmm_ addmv addmv_ addr addr_ adjoint
    affine_grid affine_grid_generator alias_copy all alpha_dropout amax amin aminmax angle any
    arange arccos arccos_ arccosh arccosh_ arcsin arcsin_ arcsinh arcsinh_ arctan arctan2 arctan2_
    arctan_ arctanh arctanh_ argmax argmin argsort as_strided as_strided_copy as_strided_scatter
    as_tensor asin asin_ asinh asinh_ atan atan2 atan2_ atan_ atanh atanh_ atleast_1d atleast_2d
    atleast_3d avg_pool1d avg_pool2d avg_pool3d baddbmm baddbmm_ batch_norm bernoulli bernoulli_
    bfloat16 bilinear binary_cross_entropy binary_cross_entropy_with_logits binomial bitwise_and
    bitwise_and_ bitwise_left_shift bitwise_left_shift_ bitwise_not bitwise_not_ bitwise_or
    bitwise_or_ bitwise_right_shift bitwise_right_shift_ bitwise_xor bitwise_xor_ block_diag bmm
    bool broadcast_shapes broadcast_tensors broadcast_to bucketize byte can_cast cartesian_prod
    cat cauchy_ cdist cdouble ceil ceil_ celu celu_ cfloat chain_matmul chalf channel_shuffle char
    cholesky_inverse cholesky_solve chunk clamp clamp_ clamp_max clamp_max_ clamp_min clamp_min_
    clip clip_ clone column_stack combinations complex concat concatenate conj conj_physical
    conj_physical_ constant_pad_nd contiguous conv1d conv2d conv3d conv_tbc conv_transpose1d
    conv_transpose2d conv_transpose3d convolution copy_ copysign copysign_ corrcoef cos cos_ cosh
    cosh_ cosine_embedding_loss cosine_similarity cov cpu cross cross_entropy cummax cummin
    cumprod cumprod_ cumsum cumsum_ cumulative_trapezoid deg2rad deg2rad_ det detach detach_
    detach_copy device diag diag_embed diagflat diagonal diagonal_copy diagonal_scatter diff
    digamma digamma_ dim dist div div_ divide divide_ dot double dropout dropout1d dropout2d
    dropout3d dsmm dsplit dstack dtype einsum element_size elu elu_ embedding embedding_bag empty
    empty_like empty_strided eq eq_ erf erf_ erfc erfc_ erfinv erfinv_ exp exp2 exp2_ exp_ expand
    expand_as expand_copy expm1 expm1_ exponential_ eye feature_alpha_dropout feature_dropout
    fft_fft fft_fft2 fft_fftn fft_fftshift fft_hfft fft_hfft2 fft_hfftn fft_ifft fft_ifft2
    fft_ifftn fft_ifftshift fft_ihfft fft_ihfft2 fft_ihfftn fft_irfft fft_irfft2 fft_irfftn
    fft_rfft fft_rfft2 fft_rfftn fill_ fill_diagonal_ finfo fix fix_ flatten flip fliplr flipud
    float float_power float_power_ floor floor_ floor_divide floor_divide_ fmax fmin fmod fmod_
    fold frac frac_ fractional_max_pool2d fractional_max_pool2d_with_indices fractional_max_pool3d
    fractional_max_pool3d_with_indices frexp frobenius_norm full full_like gather
    gaussian_nll_loss gcd gcd_ ge ge_ gelu geometric_ geqrf ger get_default_dtype get_device glu
    greater greater_ greater_equal greater_equal_ grid_sample grid_sampler grid_sampler_2d
    grid_sampler_3d group_norm gru gru_cell gt gt_ gumbel_softmax half hardshrink hardsigmoid
    hardswish hardtanh hardtanh_ heaviside heaviside_ hinge_embedding_loss hsmm hsplit hstack
    huber_loss hypot hypot_ i0 i0_ igamma igamma_ igammac igammac_ iinfo imag index index_add
    index_add_ index_copy index_copy_ index_fill index_fill_ index_put index_put_ index_reduce
    index_reduce_ index_select inner instance_norm int interpolate inverse is_autocast_enabled
    is_complex is_conj is_contiguous is_cpu is_cuda is_floating_point is_grad_enabled is_leaf
    is_meta is_mkldnn is_mps is_neg is_nested is_quantized is_same_size is_signed is_sparse
    is_sparse_csr is_tensor is_xpu isclose isfinite isin isinf isnan isneginf isposinf isreal
    istft itemsize kl_div kron kthvalue l1_loss layer_norm layout lcm lcm_ ldexp ldexp_ le le_
    leaky_relu leaky_relu_ lerp lerp_ less less_ less_equal less_equal_ lgamma lgamma_
    linalg_cholesky linalg_cholesky_ex linalg_cond linalg_cross linalg_det linalg_diagonal
    linalg_eig linalg_eigh linalg_eigvals linalg_eigvalsh linalg_householder_product linalg_inv
    linalg_inv_ex linalg_ldl_factor linalg_ldl_factor_ex linalg_ldl_solve linalg_lstsq linalg_lu
    linalg_lu_factor linalg_lu_factor_ex linalg_lu_solve linalg_matmul linalg_matrix_exp
    linalg_matrix_norm linalg_matrix_power linalg_matrix_rank linalg_matrix_sqrth linalg_multi_dot
    linalg_norm linalg_pinv linalg_polar linalg_qr linalg_slogdet linalg_solve linalg_solve_ex
    linalg_solve_triangular linalg_svd linalg_svdvals linalg_tensorinv linalg_tensorsolve
    linalg_vander linalg_vecdot linalg_vector_norm linear linspace local_response_norm log log10
    log10_ log1p log1p_ log2 log2_ log_ log_normal_ log_sigmoid log_softmax logaddexp logaddexp2
    logcumsumexp logdet logical_and logical_and_ logical_not logical_not_ logical_or logical_or_
    logical_xor logical_xor_ logit logit_ logspace logsumexp long lp_pool1d lp_pool2d lp_pool3d
    lstm lstm_cell lt lt_ lu lu_solve lu_unpack mH mT margin_ranking_loss masked_fill masked_fill_
    masked_scatter masked_scatter_ matmul matrix_exp matrix_power max max_pool1d
    max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices
    max_unpool1d max_unpool2d max_unpool3d maximum maximum_ mean median meshgrid min minimum
    minimum_ mish mm moveaxis movedim mse_loss msort mul mul_ multi_head_attention_forward
    multi_margin_loss multilabel_margin_loss multilabel_soft_margin_loss multinomial multiply
    multiply_ mv mvlgamma mvlgamma_ nan_to_num nan_to_num_ nanmean nanmedian nanquantile nansum
    narrow narrow_copy native_batch_norm native_channel_shuffle native_dropout native_group_norm
    native_layer_norm native_norm nbytes ndim ndimension ne ne_ neg neg_ negative negative_
    nelement new_empty new_empty_strided new_full new_ones new_tensor new_zeros nextafter
    nextafter_ nll_loss norm norm_except_dim normal normal_ normalize not_equal not_equal_
    nuclear_norm numel one_hot ones ones_like orgqr ormqr outer pad pairwise_distance pdist
    permute permute_copy pinverse pixel_shuffle pixel_unshuffle poisson poisson_nll_loss polar
    polygamma polygamma_ positive pow pow_ prelu prod promote_types put put_ quantile rad2deg
    rad2deg_ rand rand_like randint randint_like randn randn_like random_ randperm ravel real
    reciprocal reciprocal_ relu relu6 relu_ remainder remainder_ renorm renorm_ repeat
    repeat_interleave requires_grad reshape reshape_as resolve_conj resolve_neg result_type
    rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell roll rot90 round round_ row_stack rrelu
    rrelu_ rsqrt rsqrt_ rsub saddmm scalar_tensor scaled_dot_product_attention scatter scatter_
    scatter_add scatter_add_ scatter_reduce scatter_reduce_ searchsorted select select_copy
    select_scatter selu selu_ sgn sgn_ shape short sigmoid sigmoid_ sign sign_ signbit silu sin
    sin_ sinc sinc_ sinh sinh_ size slice_copy slice_scatter slogdet smooth_l1_loss
    soft_margin_loss softmax softmin softplus softshrink softsign sort special_airy_ai
    special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1
    special_chebyshev_polynomial_t special_chebyshev_polynomial_u special_chebyshev_polynomial_v
    special_chebyshev_polynomial_w special_digamma special_entr special_erf special_erfc
    special_erfcx special_erfinv special_exp2 special_expit special_expm1 special_gammainc
    special_gammaincc special_gammaln special_hermite_polynomial_h special_hermite_polynomial_he
    special_i0 special_i0e special_i1 special_i1e special_laguerre_polynomial_l
    special_legendre_polynomial_p special_log1p special_log_ndtr special_log_softmax special_logit
    special_logsumexp special_modified_bessel_i0 special_modified_bessel_i1
    special_modified_bessel_k0 special_modified_bessel_k1 special_multigammaln special_ndtr
    special_ndtri special_polygamma special_psi special_round special_scaled_modified_bessel_k0
    special_scaled_modified_bessel_k1 special_shifted_chebyshev_polynomial_t
    special_shifted_chebyshev_polynomial_u special_shifted_chebyshev_polynomial_v
    special_shifted_chebyshev_polynomial_w special_sinc special_softmax
    special_spherical_bessel_j0 special_xlog1py special_xlogy special_zeta split split_copy
    split_with_sizes split_with_sizes_copy sqrt sqrt_ square square_ squeeze squeeze_ squeeze_copy
    stack std std_mean stft sub sub_ subtract subtract_ sum sum_to_size svd
    swapaxes swapaxes_ swapdims swapdims_ sym_int t t_ t_copy take take_along_dim tan tan_ tanh
    tanh_ tanhshrink tensor tensordot threshold tile to topk trace transpose transpose_
    transpose_copy trapezoid trapz triangular_solve tril tril_ tril_indices triplet_margin_loss
    triplet_margin_with_distance_loss triu triu_ triu_indices true_divide true_divide_ trunc
    trunc_ type type_as unbind unbind_copy unflatten unfold unfold_copy uniform_ unravel_index
    unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze unsqueeze_ unsqueeze_copy upsample
    upsample_bilinear upsample_nearest var var_mean vdot view view_as view_as_complex
    view_as_complex_copy view_as_real view_as_real_copy view_copy vsplit vstack where xlogy xlogy_
    zero_ zeros zeros_like
    """.split()
)
_PURE_BUILTINS = frozenset(
    function
    for name, function in vars(builtins).items()
    if name
    in (
        "abs all any bin callable chr divmod format getattr hasattr isinstance issubclass iter len "
        "max min next ord pow repr round sorted sum"
    ).split()
)
_PURE_TYPES = frozenset(
    (
        bool, bytes, complex, dict, enumerate, filter, float, frozenset, functools.partial, int,
        list, map, object, property, range, reversed, set, slice, str, super, tuple, type, zip,
        torch.Size, torch.Tensor, torch.device, torch.dtype, torch.finfo, torch.iinfo,
        torch.nn.Parameter, types.NoneType, types.SimpleNamespace,
        *(value for value in vars(itertools).values() if isinstance(value, type)),
    )
)  # fmt: skip
_ITERATORS = frozenset(
    map(
        type,
        (
            iter(()),
            iter([]),
            iter({}),
            iter({}.items()),
            iter({}.values()),
            iter(""),
            range(0),
            (_ for _ in ()),
        ),
    )
)


def _values_of(*homes: object) -> Iterator[Any]:
    for home in homes:
        for name in _TENSOR_NAMES:
            value = getattr(home, name, None)
            if value is not None:
                yield value


_TENSOR_FUNCTIONS = frozenset(
    map(
        id,
        _values_of(
            torch, torch.Tensor, F, torch.special, torch.linalg, torch.fft, torch.nn.init,
            *TENSOR_HOMES,
        ),
    )
)  # fmt: skip
# Some operators are functions in Python around the one that computes, all with this code.
_OPERATOR_CODE = getattr(torch.Tensor.__ipow__, "__code__", None)
_OTHER_FUNCTIONS = frozenset(
    id(value)
    for value in (
        *_PURE_BUILTINS,
        *(value for value in vars(math).values() if callable(value)),
        *(
            value
            for value in vars(operator).values()
            if isinstance(value, types.BuiltinFunctionType)
        ),
        functools.reduce,
    )
)


# What a step as it is written calls of torch beside the module and the loss.
CALLED_IN_STEPS: dict[Any, list[str]] = {
    torch.Tensor: ["backward"],
    torch.autograd: ["backward", "grad"],
    torch.nn.utils: ["clip_grad_norm_", "get_total_norm"],
}
_KNOWN = [
    (home, operator.attrgetter(*sorted(_TENSOR_NAMES.intersection(dir(home)))))
    for home in (torch, torch.Tensor, F)
]


def _as_they_are() -> list[Any]:
    called = [getattr(home, name) for home, names in CALLED_IN_STEPS.items() for name in names]
    return called + [function for home, functions_of in _KNOWN for function in functions_of(home)]


_AS_IMPORTED = _as_they_are()


def check_torch_is_whole() -> None:
    """Refuse to watch functions of torch that somebody has replaced since easyclf was imported.

    Raises
    ------
    NotRecordable
        If one of them is another one.
    """
    try:
        is_whole = all(map(operator.is_, _as_they_are(), _AS_IMPORTED))
    except AttributeError:
        is_whole = False
    if not is_whole:
        raise NotRecordable("a function of torch was replaced")


def is_tensor_function(function: Any) -> bool:
    """Whether it is a known function, method or property of tensors."""
    if getattr(function, "__name__", None) == "__get__":
        return getattr(function.__self__, "__name__", None) in _TENSOR_NAMES
    if getattr(function, "__code__", None) is _OPERATOR_CODE:
        return function.__name__ in _TENSOR_NAMES
    return id(function) in _TENSOR_FUNCTIONS or function is torch.autograd.grad


def is_pure_function(function: Any) -> bool:
    """Whether a function that is not written in Python is known to change nothing that outlives.

    Methods of lists and dicts may change these, which is noticed where they outlive a call.
    """
    if id(function) in _TENSOR_FUNCTIONS or id(function) in _OTHER_FUNCTIONS:
        return True
    owner = getattr(function, "__self__", None)
    if owner is None:  # a method that is not bound yet
        owner_type = getattr(function, "__objclass__", None)
    elif isinstance(owner, type):
        owner_type = owner
    elif isinstance(owner, torch.Tensor):
        return function.__name__ in _TENSOR_NAMES
    else:
        owner_type = type(owner)
    return owner_type in _PURE_TYPES or owner_type in _ITERATORS


def is_pure_type(kind: type) -> bool:
    """Whether its instances are made without side effects, or it is there to be asked for."""
    return (
        kind in _PURE_TYPES
        or (issubclass(kind, BaseException) and kind.__module__ == "builtins")
        or issubclass(kind, np.generic)
    )


class CodeHome:
    """Where code comes from.

    Parameters
    ----------
    code : code
        Some code that runs.
    names : dict
        Its globals, by which the module is known that it belongs to.
    """

    def __init__(self, code: types.CodeType, names: dict[str, Any]) -> None:
        # Held, so that no other code ever has its identity.
        self.code = code
        path = code.co_filename if _is_of_its_module(names) else ""
        # Also what `dataclasses` makes of a text there.
        home = names.get("__file__", "") if _is_of_its_module(names) else ""
        self.is_ours = str(home).startswith(_EASYCLF)
        self.is_torchs = path.startswith(_TORCH_PATHS)
        self.is_context = path.startswith(_CONTEXT_PATHS)
        self.reads_settings = path.startswith(_SETTING_PATHS) and code not in _WITHOUT_SETTINGS
        is_standard = path in _STANDARD or _makes_tuples(code, names)
        self.is_trusted = self.is_ours or self.is_torchs or is_standard
        # What trusted code may call, but nobody else.
        self.is_library = path.startswith(_LIBRARIES)


def _is_of_its_module(names: dict[str, Any]) -> bool:
    """Whether these are the globals of the module that they name."""
    name = str(names.get("__name__"))
    # This one calls itself by the name under which it is imported.
    module = sys.modules.get("_collections_abc" if name == "collections.abc" else name)
    if module is None:
        return False
    if names is vars(module) or names is vars(vars(module).get("m", module)):
        return True
    # torch puts objects with a `__getattr__` into the places of some modules.
    methods = vars(type(module)).values()
    return any(getattr(method, "__globals__", None) is names for method in methods)


def _makes_tuples(code: types.CodeType, names: dict[str, Any]) -> bool:
    """Whether it is the constructor of a named tuple, which Python makes of a text."""
    return code.co_names == ("_tuple_new",) and names.get("_tuple_new") == tuple.__new__


_EASYCLF = str(Path(__file__).parents[1]) + os.sep
_PACKAGES = str(Path(torch.__file__).parents[1]) + os.sep
_TORCH_PATHS = tuple(_PACKAGES + home for home in _TORCH_HOMES)
_SETTING_PATHS = tuple(_PACKAGES + home for home in _SETTINGS)
_CONTEXT_PATHS = tuple(_PACKAGES + home for home in _CONTEXTS)
_LIBRARIES = (
    *(_PACKAGES + name + os.sep for name in ("torch", "torchvision")),
    sysconfig.get_path("stdlib") + os.sep,
    "<frozen ",
)
# To ask for a member of an enumeration, or for an abstract class, runs these; torch's own context
# managers too. The names of the files, as code has them: some modules are frozen.
_STANDARD = tuple(
    function.__code__.co_filename
    for function in (
        enum.Enum.__new__,
        abc.ABCMeta.__instancecheck__,
        types.DynamicClassAttribute.__get__,
        contextlib.contextmanager,
        Iterator.__subclasshook__,
    )
)
