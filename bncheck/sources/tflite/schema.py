"""TFLite's schema as far as bncheck reads it: field ids and enumerations, by TensorFlow's own names.

Source: `tensorflow/lite/schema/schema.fbs`, version 3 (TensorFlow 2.21, LiteRT 2). A test holds every id and name here
against the code that flatc generated from it. Field ids count from 0 in the order of the schema; a union takes two.
"""

from __future__ import annotations

from enum import IntEnum

IDENTIFIER = b"TFL3"
"""`file_identifier`, at byte 4."""

VERSION = 3
"""`TFLITE_SCHEMA_VERSION`, the only one that TensorFlow's interpreter loads."""


class Model(IntEnum):
    """Fields of the root table."""

    VERSION = 0
    OPERATOR_CODES = 1
    SUBGRAPHS = 2
    DESCRIPTION = 3
    BUFFERS = 4
    METADATA = 6
    SIGNATURE_DEFS = 7


class OperatorCode(IntEnum):
    """Which operator a number in `Operator.opcode_index` stands for."""

    DEPRECATED_BUILTIN_CODE = 0
    """int8; 127 where the operator's number is higher."""
    CUSTOM_CODE = 1
    BUILTIN_CODE = 3


class SubGraph(IntEnum):
    """Tensors and operators."""

    TENSORS = 0
    INPUTS = 1
    OUTPUTS = 2
    OPERATORS = 3
    NAME = 4


class Tensor(IntEnum):
    """One constant or activation."""

    SHAPE = 0
    TYPE = 1
    BUFFER = 2
    NAME = 3
    QUANTIZATION = 4
    IS_VARIABLE = 5
    SPARSITY = 6
    SHAPE_SIGNATURE = 7
    EXTERNAL_BUFFER = 10


class QuantizationParameters(IntEnum):
    """Affine quantization; `details` replaces it by another scheme."""

    SCALE = 2
    ZERO_POINT = 3
    DETAILS_TYPE = 4
    DETAILS = 5
    QUANTIZED_DIMENSION = 6


BLOCKWISE = 2
"""Member of the union `QuantizationDetails`."""


class BlockwiseQuantization(IntEnum):
    """Numbers of the tensors that hold scales and zero points, one a block of elements that follow one another."""

    SCALES = 0
    ZERO_POINTS = 1
    BLOCK_SIZE = 2


class Operator(IntEnum):
    """One step of a subgraph."""

    OPCODE_INDEX = 0
    INPUTS = 1
    OUTPUTS = 2
    BUILTIN_OPTIONS_TYPE = 3
    BUILTIN_OPTIONS = 4
    LARGE_CUSTOM_OPTIONS_OFFSET = 9
    LARGE_CUSTOM_OPTIONS_SIZE = 10


class Buffer(IntEnum):
    """Bytes of a constant, inside the flatbuffer or, in files over 2 GB, behind it."""

    DATA = 0
    OFFSET = 1
    SIZE = 2


class SignatureDef(IntEnum):
    """Names for the ends of a subgraph."""

    INPUTS = 0
    OUTPUTS = 1
    SIGNATURE_KEY = 2
    SUBGRAPH_INDEX = 4


class TensorMap(IntEnum):
    """One of these names."""

    NAME = 0
    TENSOR_INDEX = 1


class Metadata(IntEnum):
    """A named buffer."""

    NAME = 0


FUSED_ACTIVATION: dict[int, tuple[str, int]] = {
    1: ("Conv2DOptions", 3),
    2: ("DepthwiseConv2DOptions", 4),
    5: ("Pool2DOptions", 5),
    8: ("FullyConnectedOptions", 0),
    10: ("ConcatenationOptions", 1),
    11: ("AddOptions", 0),
    12: ("L2NormOptions", 0),
    21: ("MulOptions", 0),
    28: ("SubOptions", 0),
    29: ("DivOptions", 0),
    49: ("TransposeConvOptions", 3),
    106: ("Conv3DOptions", 4),
}
"""Member of the union `BuiltinOptions` -> (its name, id of its field `fused_activation_function`)."""

FULLY_CONNECTED_OPTIONS = 8
WEIGHTS_FORMAT = 1
"""Field `weights_format` of FullyConnectedOptions: 1 is SHUFFLED4x16INT8."""

ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")
"""`ActivationFunctionType`."""

TENSOR_TYPES = (
    "float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8", "float64",
    "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16", "int2", "uint4",
    "float8_e4m3fn", "float8_e5m2",
)  # fmt: skip  # one name a line would hide the order
"""`TensorType`, in numpy's spelling."""

CUSTOM = 32
"""`BuiltinOperator.CUSTOM`: the custom code names the operator."""

BUILTIN_OPERATORS = tuple(
    """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
    FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC
    LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH
    SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER
    BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE
    BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM
    ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE
    TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK
    LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL
    FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL
    REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND
    HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM
    BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS
    HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE
    ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU
    DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2
    UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD STABLEHLO_DIVIDE
    STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE
    STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE
    STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG
    STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER STABLEHLO_RSQRT
    STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT
    STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA STABLEHLO_DOT_GENERAL
    STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER STABLEHLO_TRANSPOSE DILATE
    STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT STABLEHLO_CASE
    """.split()
)
"""`BuiltinOperator`."""
