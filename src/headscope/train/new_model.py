"""`--model new:decoder,layers=2,heads=4,width=128`: a small model from nothing, of a kind that transformers knows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from headscope.errors import ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

PREFIX = "new:"
KINDS = ("encoder", "decoder", "encoder-decoder")
# The base of the rotary angles: the slowest turn is about as long as the texts that small models read.
NEAR = 1000.0
# The smallest and the largest value of each number.
BOUNDS = {
    "layers": (1, 512),
    "heads": (1, 1024),
    "width": (2, 2**16),
    "vocabulary": (1, 10**6),
    "length": (3, 2**20),
}
PAD, BEGIN, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"


@dataclass(frozen=True)
class NewModel:
    """What a new model is like.

    Attributes:
        kind: encoder (BERT), decoder (Qwen3: Llama with normed queries and keys) or encoder-decoder (T5).
        layers: of the encoder, of the decoder, or of each.
        width: of the residual stream.
        vocabulary: tokens that the tokenizer learns at most.
        length: tokens that the model reads at most.
    """

    kind: str
    layers: int = 2
    heads: int = 4
    width: int = 128
    vocabulary: int = 4000
    length: int = 512

    @property
    def name(self) -> str:
        """For titles."""
        return f"new {self.kind}, {self.layers} layers, {self.heads} heads"

    def config(self, tokenizer: Any) -> PretrainedConfig:
        """The config of transformers for this model.

        Source: Henry et al. 2020 (normed queries and keys, which allow large learning rates); Nguyen & Salazar 2019
        (SmallInit: with the standard deviation of large models, 0.02, small ones take hundreds of steps to begin).
        """
        import transformers

        ids = {
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        }
        initial = math.sqrt(2 / (5 * self.width))
        if self.kind == "encoder":
            return transformers.BertConfig(
                hidden_size=self.width, num_hidden_layers=self.layers, num_attention_heads=self.heads,
                intermediate_size=4 * self.width, max_position_embeddings=self.length,
                initializer_range=initial, **ids,
            )  # fmt: skip
        if self.kind == "decoder":
            return transformers.Qwen3Config(
                hidden_size=self.width, num_hidden_layers=self.layers, num_attention_heads=self.heads,
                num_key_value_heads=self.heads, head_dim=self.width // self.heads, intermediate_size=4 * self.width,
                max_position_embeddings=self.length, rope_parameters={"rope_type": "default", "rope_theta": NEAR},
                initializer_range=initial, **ids,
            )  # fmt: skip
        config = transformers.T5Config(
            d_model=self.width, d_kv=self.width // self.heads, d_ff=4 * self.width, num_layers=self.layers,
            num_heads=self.heads, **ids,
        )  # fmt: skip
        config.decoder_start_token_id = tokenizer.pad_token_id
        return config


def is_new(name: str | None) -> bool:
    """Whether the name of a model asks for a new one."""
    return name is not None and name.startswith(PREFIX)


def new_model(name: str) -> NewModel:
    """What the name of a new model asks for.

    Raises:
        ModelError: another kind, a word that is none, a number that is none or out of bounds, heads that do not divide
            the width.

    Example:
        >>> new_model("new:decoder,layers=3,width=64")
        NewModel(kind='decoder', layers=3, heads=4, width=64, vocabulary=4000, length=512)
    """
    kind, *words = name.removeprefix(PREFIX).split(",")
    known = [field.name for field in fields(NewModel)][1:]
    if kind not in KINDS:
        raise ModelError(f"--model {name}: {kind!r} is no kind of model. Give {PREFIX}{f', {PREFIX}'.join(KINDS)}.")
    numbers: dict[str, int] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in known or not value.isdecimal():
            raise ModelError(
                f"--model {name}: {word!r} is not understood. Give {', '.join(f'{x}=NUMBER' for x in known)}, with "
                "commas between them."
            )
        least, most = BOUNDS[key]
        # Before a number of so many digits is made, and before anything asks for the memory.
        if len(value) > len(str(most)) or not least <= int(value) <= most:
            raise ModelError(f"--model {name}: {word!r} is out of bounds. Give {key} from {least} to {most}.")
        numbers[key] = int(value)
    found = NewModel(kind, **numbers)
    if found.width % found.heads or found.width // found.heads % 2:
        raise ModelError(
            f"--model {name}: a width of {found.width} cannot be shared by {found.heads} heads of an even size. Give a "
            "width that is a multiple of twice the heads."
        )
    return found


def learned_tokenizer(texts: Iterable[str], wanted: NewModel) -> Any:
    """A tokenizer that is learned from texts: byte-level BPE, every digit a token, nothing unknown.

    An encoder reads `<s> text </s> pair </s>`, a decoder `<s> text`, an encoder–decoder `text </s>`.

    Source: Sennrich et al. 2016 (BPE); Radford et al. 2019 (of bytes).
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD, BEGIN, END, UNKNOWN]
    trainer = trainers.BpeTrainer(
        vocab_size=max(wanted.vocabulary, len(special) + 256), show_progress=False, special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), max_token_length=24,
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    single, pair = templates(wanted.kind)
    numbers = [(name, tokenizer.token_to_id(name)) for name in (BEGIN, END)]
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(single=single, pair=pair, special_tokens=numbers),
        ]
    )
    inputs: Sequence[str] = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BEGIN, eos_token=END, cls_token=BEGIN, sep_token=END,
        unk_token=UNKNOWN, model_max_length=wanted.length, clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"] if wanted.kind == "encoder" else inputs,
    )  # fmt: skip


def templates(kind: str) -> tuple[str, str]:
    """What stands around a text and around a pair."""
    return {
        "encoder": (f"{BEGIN} $A {END}", f"{BEGIN} $A {END} $B:1 {END}:1"),
        "decoder": (f"{BEGIN} $A", f"{BEGIN} $A $B"),
        "encoder-decoder": (f"$A {END}", f"$A {END} $B {END}"),
    }[kind]
