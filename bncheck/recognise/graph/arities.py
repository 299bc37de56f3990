"""How many data inputs ops have, as far as recognition takes them apart: TensorFlow loads no graph with another number.

Of ops that take one number of inputs in every version (not CrossReplicaSum, which had one and has two).
"""

from __future__ import annotations

_BY_NUMBER = {
    1: """
        Abs Bitcast Cast CheckNumerics CheckNumericsV2 DeepCopy EnsureShape Enter Exit Exp FakeQuantWithMinMaxArgs Floor
        Identity Inv L2Loss LogicalNot LoopCond Neg NextIteration PlaceholderWithDefault PreventGradient
        RandomStandardNormal RandomUniform Rank ReadVariableOp Reciprocal RefEnter RefExit RefIdentity RefNextIteration
        Relu Rsqrt Shape Snapshot Sqrt Square Squeeze StopGradient
    """,
    2: """
        Add AddV2 All Any Assign AssignAdd AssignAddVariableOp AssignSub AssignSubVariableOp AssignVariableOp
        BatchMatMul BatchMatMulV2 BatchMatMulV3 BiasAdd BroadcastTo Conv2D Conv3D DepthwiseConv2dNative Div DivNoNan
        ExpandDims Fill Greater GreaterEqual Less LessEqual MatMul Max Maximum Mean Minimum Mul Pad Pow RealDiv
        RefSwitch Reshape SquaredDifference Sub Sum Switch Transpose
    """,
    3: """
        BatchToSpaceND ClipByValue Conv2DBackpropInput Conv3DBackpropInputV2 FakeQuantWithMinMaxVars
        FakeQuantWithMinMaxVarsPerChannel PadV2 Select SelectV2 SpaceToBatchND
    """,
    5: "BatchNormWithGlobalNormalization FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3",
}
ARITIES = {op: number for number, ops in _BY_NUMBER.items() for op in ops.split()}
"""Op -> number of its data inputs."""
