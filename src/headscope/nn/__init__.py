"""inputs -> projections -> positions -> attend -> merge heads -> output."""

from headscope.nn.block import DecoderLayer, EncoderLayer
from headscope.nn.cache import KeyValueCache
from headscope.nn.embedding import Embedding, LearnedPositions, SinusoidalPositions, TiedOutput
from headscope.nn.feed_forward import FeedForward, GatedFeedForward
from headscope.nn.generate import generate, stream
from headscope.nn.multihead import MultiheadAttention
from headscope.nn.replace import replace
from headscope.nn.residual import PostNorm, PreNorm
from headscope.nn.rotary import Rotary
from headscope.nn.torch_multihead import TorchMultiheadAttention
from headscope.nn.transformer import Decoder, Encoder, Transformer

__all__ = [
    "Decoder",
    "DecoderLayer",
    "Embedding",
    "Encoder",
    "EncoderLayer",
    "FeedForward",
    "GatedFeedForward",
    "KeyValueCache",
    "LearnedPositions",
    "MultiheadAttention",
    "PostNorm",
    "PreNorm",
    "Rotary",
    "SinusoidalPositions",
    "TiedOutput",
    "TorchMultiheadAttention",
    "Transformer",
    "generate",
    "replace",
    "stream",
]
