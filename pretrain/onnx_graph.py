"""ALBERT with its masked-LM head as an ONNX graph; inputs, axes and outputs have the names that `optimum` and transformers.js give.

Written node by node, so that a tensor that layers share is stored once and int8 quantization meets plain products with constants;
the decoder's, whose matrix is that of the piece embeddings, stays in fp32.
The last layer computes all positions: whoever runs the graph chooses which it reads.
"""

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from pretrain.config import Activation, ModelConfig
from pretrain.model import LAYER_NORM_EPS, block_of_layer

OPSET, IR_VERSION = 17, 8
"""The first opset with LayerNormalization, of 2022: runtimes of light devices are often years old."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
AXES = ("batch_size", "sequence_length")
OUT_OF_SIGHT = -1e9
"""Added to the scores of padding: its weight in the softmax is 0."""


class Graph:
    """Nodes and constants; every method returns the name of a value."""

    def __init__(self, weights: dict[str, Tensor]):
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants[name] = array
        return name

    def integers(self, *values: int) -> str:
        return self.constant("integers_" + "_".join(map(str, values)), np.array(values, dtype=np.int64))

    def number(self, value: float) -> str:
        return self.constant(f"number_{value:g}", np.array(value, dtype=np.float32))

    def weight(self, name: str) -> str:
        return self.constant(name, self.weights[name].numpy())

    def linear(self, x: str, name: str) -> str:
        matrix = self.constant(f"{name}.weight", np.ascontiguousarray(self.weights[f"{name}.weight"].numpy().T))
        return self.node("Add", self.node("MatMul", x, matrix), self.weight(f"{name}.bias"))

    def layer_norm(self, x: str, name: str) -> str:
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=LAYER_NORM_EPS)

    def activate(self, x: str, hidden_act: Activation) -> str:
        """GELU is 0.5 x (1 + erf(x / sqrt(2))), with tanh(sqrt(2 / pi) (x + 0.044715 x^3)) for the error function in gelu_new."""
        if hidden_act == "relu":
            return self.node("Relu", x)
        if hidden_act == "gelu":
            share = self.node("Erf", self.node("Mul", x, self.number(math.sqrt(0.5))))
        else:
            cube = self.node("Mul", self.node("Mul", self.node("Mul", x, x), x), self.number(0.044715))
            share = self.node("Tanh", self.node("Mul", self.node("Add", x, cube), self.number(math.sqrt(2 / math.pi))))
        return self.node("Mul", self.node("Mul", x, self.number(0.5)), self.node("Add", share, self.number(1.0)))


def build_onnx(weights: dict[str, Tensor], config: ModelConfig) -> onnx.ModelProto:
    """`input_ids`, `attention_mask` (1 for pieces, 0 for padding) and `token_type_ids`, int64 (B, T) -> `logits` (B, T, V) and
    `last_hidden_state` (B, T, D), fp32.

    weights: by our names, fp32.
    """
    graph = Graph(weights)
    ids, mask, segments = INPUTS
    hidden = graph.linear(embeddings(graph, ids, segments), "encoder.input_projection")
    kept = graph.node("Unsqueeze", graph.node("Cast", mask, to=TensorProto.FLOAT), graph.integers(1, 2))
    bias = graph.node("Mul", graph.node("Sub", graph.number(1.0), kept), graph.number(OUT_OF_SIGHT))
    attentions = block_of_layer(config, shared=config.share in ("all", "attention"))
    ffns = block_of_layer(config, shared=config.share in ("all", "ffn"))
    for attention, ffn in zip(attentions, ffns, strict=True):
        hidden = attend(graph, hidden, bias, f"encoder.attentions.{attention}", config)
        inner = graph.activate(graph.linear(hidden, f"encoder.ffns.{ffn}.up"), config.hidden_act)
        outer = graph.node("Add", hidden, graph.linear(inner, f"encoder.ffns.{ffn}.down"))
        hidden = graph.layer_norm(outer, f"encoder.ffns.{ffn}.layer_norm")
    graph.nodes.append(helper.make_node("Identity", [hidden], ["last_hidden_state"], name="last_hidden_state"))
    head = graph.layer_norm(graph.activate(graph.linear(hidden, "mlm_head.dense"), config.hidden_act), "mlm_head.layer_norm")
    decoder = graph.node("Transpose", graph.weight("embeddings.word.weight"), perm=[1, 0])
    graph.nodes.append(
        helper.make_node("Add", [graph.node("MatMul", head, decoder), graph.weight("mlm_head.bias")], ["logits"], name="logits")
    )
    return finished(graph, {"logits": len(weights["mlm_head.bias"]), "last_hidden_state": config.hidden_size})


def embeddings(graph: Graph, ids: str, segments: str) -> str:
    """(B, T, E)."""
    length = graph.node("Shape", ids, start=1, end=2)
    positions = graph.node(
        "Slice", graph.weight("embeddings.position.weight"), graph.integers(0), length, graph.integers(0)
    )  # the first T rows
    words = graph.node("Gather", graph.weight("embeddings.word.weight"), ids)
    pieces = graph.node("Add", words, graph.node("Gather", graph.weight("embeddings.segment.weight"), segments))
    return graph.layer_norm(graph.node("Add", pieces, positions), "embeddings.layer_norm")


def attend(graph: Graph, hidden: str, bias: str, block: str, config: ModelConfig) -> str:
    """(B, T, D) -> (B, T, D), residual and LayerNorm included."""
    head_size = config.hidden_size // config.num_attention_heads
    by_head = graph.integers(0, 0, config.num_attention_heads, head_size)

    def heads(name: str, perm: list[int]) -> str:
        return graph.node("Transpose", graph.node("Reshape", graph.linear(hidden, f"{block}.{name}"), by_head), perm=perm)

    query, key, value = heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]), heads("value", [0, 2, 1, 3])
    scores = graph.node("Mul", graph.node("MatMul", query, key), graph.number(head_size**-0.5))
    shares = graph.node("Softmax", graph.node("Add", scores, bias), axis=-1)
    context = graph.node("Transpose", graph.node("MatMul", shares, value), perm=[0, 2, 1, 3])
    context = graph.node("Reshape", context, graph.integers(0, 0, config.hidden_size))
    attended = graph.node("Add", hidden, graph.linear(context, f"{block}.output"))
    return graph.layer_norm(attended, f"{block}.layer_norm")


def finished(graph: Graph, outputs: dict[str, int]) -> onnx.ModelProto:
    """outputs: name -> size of the last axis."""
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "albert",
            [helper.make_tensor_value_info(name, TensorProto.INT64, AXES) for name in INPUTS],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, (*AXES, size)) for name, size in outputs.items()],
            [numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="albert-pretraining",
    )
    onnx.checker.check_model(model)
    return model
