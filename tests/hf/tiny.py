"""Tiny models with random weights and tokenizers that were trained on a few sentences: one of each family."""

import json
import re
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5Model,
)

SENTENCES = [
    "The animal didn't cross the street because it was too tired.",
    "The animal didn't cross the street because it was too wide.",
    "Attention is all you need, and all you need is attention.",
    "A head looks at the previous token; another looks at itself.",
] * 9


def bert_tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece, lower case, [CLS] … [SEP] … [SEP]."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        SENTENCES, trainers.WordPieceTrainer(vocab_size=150, show_progress=False, special_tokens=special)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, mask_token="[MASK]", model_max_length=31, model_input_names=inputs, **names
    )


def gpt2_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, a space belongs to the word after it, one special token for everything."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, show_progress=False, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=end, bos_token=end, eos_token=end)


def t5_tokenizer() -> PreTrainedTokenizerFast:
    """Unigram, `▁` marks the beginning of a word, </s> at the end."""
    words = sorted({word for sentence in SENTENCES for word in re.findall(r"\w+", sentence)})
    letters = sorted({letter for sentence in SENTENCES for letter in sentence} - {" "})
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("▁", -4.0)]
    pieces = [*((f"▁{word}", -5.0) for word in words), *((letter, -9.0) for letter in letters)]
    tokenizer = Tokenizer(models.Unigram([*special, *pieces], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=37
    )


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """BPE, `▁` marks the beginning of a word, bytes for what it does not know, <s> at the beginning."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False, special_tokens=special)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    written = json.loads(tokenizer.to_str())
    vocabulary = written["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    tokenizer = Tokenizer.from_str(json.dumps(written))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def save(family: str, folder: Path) -> Path:
    """A tiny model of a family in a folder, with its tokenizer, as save_pretrained writes them."""
    torch.manual_seed(7)
    if family == "bert":
        tokenizer = bert_tokenizer()
        model = BertModel(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=30,
                num_hidden_layers=2,
                num_attention_heads=5,
                intermediate_size=17,
                max_position_embeddings=31,
            )
        )
    elif family == "gpt2":
        tokenizer = gpt2_tokenizer()
        model = GPT2Model(GPT2Config(vocab_size=len(tokenizer), n_positions=41, n_embd=21, n_layer=2, n_head=3))
    elif family == "t5":
        tokenizer = t5_tokenizer()
        config = T5Config(
            vocab_size=len(tokenizer), d_model=22, d_kv=7, d_ff=19, num_layers=2, num_heads=3, decoder_start_token_id=0
        )
        model = T5Model(config)
    else:
        tokenizer = llama_tokenizer()
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=24,
            intermediate_size=23,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=3,
            max_position_embeddings=43,
        )
        model = LlamaModel(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
