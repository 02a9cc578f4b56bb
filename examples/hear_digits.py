"""An encoder-decoder Transformer in the manner of Whisper learns to write down spoken digits, and its cross-attention
tells when each of them was said, though nobody told it.

    python examples/hear_digits.py [--steps 600] [--to digits.png]

Debian's espeak-ng speaks the digits one by one; strings of one to six are joined from them with gaps and noise, so that
it is known when each one sounds. The voices of the test, their speeds and their pitch are not those of the training.
The true time of a digit is the middle between its first and its last sound. The model's time is when half of the weight
of its cross-attention is spent, as it writes the digit, minus a lag: heads listen to the beginning of a word. The layer
(or the one head) and its lag are those that are best on the voices of the training. A string with a digit too many or
too few counts as wrong at every digit.

Source: Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision" (Whisper).
"""

import argparse
import math
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import headscope as hs
from headscope.files.places import check_file, made_folder
from headscope.nn.recipes import residual

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
START, STOP, MOST = 10, 11, 6
# Samples per second; samples from one column of the spectrogram to the next; columns in a frame; frames in a string.
RATE, HOP, COLUMNS, FRAMES, FFT, MELS = 22050, 220, 4, 120, 512, 40
SECONDS, SAMPLES = HOP * COLUMNS / RATE, HOP * COLUMNS * FRAMES  # of one frame; of a string
WIDTH, HEADS, CROSS, LAYERS, BATCH = 128, 4, 2, 2, 32  # CROSS: heads of a cross-attention layer

# Voices, speeds in words per minute, and pitches.
ACCENTS, VARIANTS = ("en-us", "en-gb", "en-gb-scotland", "en-029"), ("m1", "m2", "m4", "m7", "f1", "f2", "f4", "f5")
TRAINING = tuple("+".join(pair) for pair in product(ACCENTS, VARIANTS)), (130, 160, 200), (50,)
UNSEEN = ("en-us+m3", "en-us+f3", "en-gb+m3", "en-029+f3"), (145, 180), (40, 60)


def speak(setting: tuple[str, int, int], word: str) -> Tensor:
    """One word as samples, from its first to its last sound, all equally loud."""
    voice, speed, pitch = setting
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", word]
    sound = subprocess.run(command, capture_output=True, check=True).stdout[44:]  # a WAV header, then 16 bits a sample
    samples = torch.frombuffer(bytearray(sound), dtype=torch.int16).float()
    loud = (samples.abs() > 0.02 * samples.abs().max()).nonzero()
    samples = samples[int(loud[0]) : int(loud[-1]) + 1]
    return 0.1 * samples / samples.square().mean().sqrt()


def voices(settings: tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]) -> list[list[Tensor]]:
    """The ten digits, in each voice at each speed and pitch."""
    if shutil.which("espeak-ng") is None:
        raise SystemExit("hear_digits: espeak-ng, which speaks the digits, is not installed: apt-get install espeak-ng")
    with ThreadPoolExecutor() as pool:
        spoken = list(pool.map(lambda one: speak(*one), product(product(*settings), WORDS)))
    return [spoken[i : i + 10] for i in range(0, len(spoken), 10)]


def strings(voices: list[list[Tensor]], count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Sound `(count, SAMPLES)`, digits `(count, MOST)` and then STOP, and their middles in seconds, or NaN."""

    def number(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    sound = torch.zeros(count, SAMPLES)
    digits, middles = torch.full((count, MOST), STOP), torch.full((count, MOST), math.nan)
    for row in range(count):
        voice, at = voices[int(number(0, len(voices)))], int(number(0.0, 0.4) * RATE)
        for place in range(int(number(1, MOST + 1))):
            digit, stretch = int(number(0, 10)), number(0.9, 1.1)  # higher and faster, or lower and slower
            word = F.interpolate(voice[digit][None, None], scale_factor=stretch, mode="linear")[0, 0]
            end = at + len(word)
            if end > SAMPLES:
                break
            sound[row, at:end] = number(0.6, 1.4) * word
            digits[row, place], middles[row, place] = digit, (at + end) / 2 / RATE
            at = end + int(number(0.05, 0.3) * RATE)
        noise = 0.1 * 10 ** (-number(10, 30) / 20)  # 10 to 30 decibels below the voice
        sound[row] += noise * torch.randn(SAMPLES, generator=generator)
    return sound, digits, middles


class Stem(nn.Module):
    """Sound `(b, samples)` to frames `(b, n, WIDTH)`: log-mel spectrogram, two convolutions, positions."""

    def __init__(self) -> None:
        super().__init__()
        # Triangles between frequencies from 60 to 8000 Hz that the ear hears as equally far apart.
        edges = 700 * torch.linspace(math.log1p(60 / 700), math.log1p(8000 / 700), MELS + 2).expm1()[:, None]
        hertz, widths = torch.linspace(0, RATE / 2, FFT // 2 + 1), edges.diff(dim=0)
        bank = torch.minimum((hertz - edges[:-2]) / widths[:-1], (edges[2:] - hertz) / widths[1:]).clamp(min=0)
        self.register_buffer("bank", bank)
        self.register_buffer("window", torch.hann_window(FFT))
        self.first = nn.Conv1d(MELS, WIDTH, 3, stride=2, padding=1)
        self.second = nn.Conv1d(WIDTH, WIDTH, 3, stride=COLUMNS // 2, padding=1)
        self.positions = hs.nn.SinusoidalPositions(FRAMES, WIDTH)

    def forward(self, sound: Tensor) -> Tensor:
        """The frames."""
        waves = torch.stft(sound, FFT, HOP, window=self.window, return_complex=True)[..., :-1]
        mel = (self.bank @ torch.view_as_real(waves).square().sum(-1)).clamp(min=1e-6).log()
        mel = (mel - mel.mean((1, 2), keepdim=True)) / mel.std((1, 2), keepdim=True)
        return F.gelu(self.second(F.gelu(self.first(mel)))).mT + self.positions(0, FRAMES)


class Listener(nn.Module):
    """Frames, an encoder that reads them, a decoder that writes digits."""

    def __init__(self) -> None:
        super().__init__()
        norm, feed_forward = partial(nn.LayerNorm, WIDTH), partial(hs.nn.FeedForward, WIDTH, 4 * WIDTH, F.gelu)
        cross = partial(hs.nn.MultiheadAttention, WIDTH, CROSS, kv_dim=WIDTH)
        attend, around = partial(hs.nn.MultiheadAttention, WIDTH, HEADS), residual(hs.nn.PreNorm, norm)
        encoder = [hs.nn.EncoderLayer(attend(), feed_forward(), around) for _ in range(LAYERS)]
        decoder = [hs.nn.DecoderLayer(attend(), cross(), feed_forward(), around) for _ in range(LAYERS)]
        self.stem, positions = Stem(), hs.nn.LearnedPositions(MOST + 1, WIDTH)
        self.transformer = hs.nn.Transformer(
            hs.nn.Decoder(decoder, norm()),
            hs.nn.Encoder(encoder, norm()),
            target=hs.nn.Embedding(STOP + 1, WIDTH, positions),
            output=nn.Linear(WIDTH, STOP + 1),
        )

    def forward(self, ids: Tensor, sound: Tensor) -> Tensor:
        """The logits of what comes after each of the ids `(b, n)`."""
        return self.transformer.decode(ids, self.transformer.encode(self.stem(sound)))


def train(voices: list[list[Tensor]], steps: int, seed: int = 0) -> Listener:
    """A trained model."""
    torch.manual_seed(seed)
    generator, model, edge = torch.Generator().manual_seed(seed), Listener(), torch.ones(BATCH, 1, dtype=torch.int64)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.5e-3, steps, pct_start=0.1)
    for step in range(1, steps + 1):
        sound, digits, _ = strings(voices, BATCH, generator)
        wanted = torch.cat((digits, STOP * edge), 1)
        wanted = wanted.masked_fill((wanted == STOP).cumsum(1) > 1, -100)  # what comes after STOP is not learned
        loss = F.cross_entropy(model(torch.cat((START * edge, digits), 1), sound).mT, wanted)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: loss {float(loss.detach()):.3f}", flush=True)
    return model.eval()


@torch.no_grad()
def listen(model: Listener, sound: Tensor) -> tuple[list[list[int]], hs.Recording]:
    """What the model writes for each string, and its cross-attention while it does."""
    memory, ids = model.transformer.encode(model.stem(sound)), torch.full((len(sound), 1), START)
    for _ in range(MOST):
        ids = torch.cat((ids, model.transformer.decode(ids, memory)[:, -1:].argmax(-1)), 1)
    with hs.record(model, kind="cross") as recording:
        model(ids, sound)
    return [digits_of(row) for row in ids[:, 1:].tolist()], recording


def digits_of(row: list[int]) -> list[int]:
    """What stands before the first STOP."""
    return row[: row.index(STOP)] if STOP in row else row


def seconds(recording: hs.Recording, layer: int, heads: tuple[int, ...]) -> Tensor:
    """When some heads together listen for each digit, `(strings, MOST)`: half of their weight is before, half after."""
    items = range(recording.layers[0].items)
    weights = torch.stack([sum(recording[layer, head, item].weights() for head in heads) for item in items])
    before = (weights.cumsum(-1) < 0.5 * len(heads)).sum(-1).clamp(max=FRAMES - 1)
    return SECONDS * (before[:, :MOST] + 0.5)


def near(found: Tensor, middles: Tensor, written: list[list[int]]) -> float:
    """The share of all digits whose time is found to 0.1 s, in a string with as many digits as were spoken."""
    there = ~middles.isnan()
    whole = there.sum(1) == torch.tensor([len(row) for row in written])
    return float((((found - middles).abs() <= 0.1) & whole[:, None])[there].float().mean())


class Clock(NamedTuple):
    """A head, or all heads of a layer together: for how many digits it is right to 0.1 s, once its lag is taken off."""

    share: float
    lag: float
    layer: int
    heads: tuple[int, ...]


def clocks(recording: hs.Recording, middles: Tensor, written: list[list[int]]) -> list[Clock]:
    """Each cross-attention head, and the heads of each layer together; the lag is the median one."""
    found = []
    for layer, heads in product(recording.numbers, [*((head,) for head in range(CROSS)), tuple(range(CROSS))]):
        times = seconds(recording, layer, heads)
        lag = float((times - middles).nanmedian())
        found.append(Clock(near(times - lag, middles, written), lag, layer, heads))
    return found


def error(written: list[int], spoken: list[int]) -> int:
    """How many digits must be changed, left out or put in to make one of the other (Levenshtein)."""
    costs = list(range(len(spoken) + 1))
    for i, one in enumerate(written, 1):
        before, costs[0] = costs[0], i
        for j, other in enumerate(spoken, 1):
            before, costs[j] = costs[j], min(costs[j] + 1, costs[j - 1] + 1, before + (one != other))
    return costs[-1]


def draw(
    recording: hs.Recording, layer: int, head: int, item: int, spoken: list[int], middles: Tensor, to: str
) -> None:
    """What one head listens to when it writes each digit of a string, and when that was spoken."""
    texts = [str(digit) for digit in spoken] + ["stop"]
    recording.tokens(hs.Axis.frames(FRAMES, SECONDS), item=item, side="encoder")
    recording.tokens(texts + [""] * (MOST + 1 - len(texts)), item=item, side="decoder")
    figure = hs.figure(recording[layer, head, item])
    for row, middle in enumerate(middles[: len(spoken)].tolist()):
        figure.axes[0].plot([middle / SECONDS - 0.5] * 2, [row - 0.4, row + 0.4], color="red")
    figure.suptitle(f"Layer {layer}, head {head}: where it listens for each digit (red: its middle)")
    figure.savefig(to, dpi=150)


def main(steps: int = 600, to: str = "digits.png", count: int = 200) -> dict[str, float]:
    """Speak, train, choose a head, and listen to unseen voices: the share of wrong digits, and of times found."""
    made_folder("--to", Path(to).absolute().parent)
    check_file("--to", Path(to))
    begun = time.perf_counter()
    heard, unseen = voices(TRAINING), voices(UNSEEN)
    print(f"{10 * (len(heard) + len(unseen))} digits spoken in {time.perf_counter() - begun:.0f} s")
    model = train(heard, steps)

    sound, _, middles = strings(heard, count, torch.Generator().manual_seed(1))
    written, recording = listen(model, sound)
    found = clocks(recording, middles, written)
    clock, single = max(found), max(one for one in found if len(one.heads) == 1)
    print(f"on the training voices the best clock is {clock}, the best head {single}")

    sound, digits, middles = strings(unseen, count, torch.Generator().manual_seed(2))
    written, recording = listen(model, sound)
    spoken = [digits_of(row) for row in digits.tolist()]
    wrong = sum(error(*pair) for pair in zip(written, spoken, strict=True)) / sum(map(len, spoken))
    timed = [near(seconds(recording, x.layer, x.heads) - x.lag, middles, written) for x in (clock, single)]
    longest = max(range(count), key=lambda item: len(spoken[item]))
    draw(recording, single.layer, single.heads[0], longest, spoken[longest], middles[longest], to)
    print(f"unseen voices: digit error {wrong:.1%}; times to 0.1 s {timed[0]:.1%}, by the one head {timed[1]:.1%}")
    print(f"{time.perf_counter() - begun:.0f} s on {torch.get_num_threads()} threads; see {to}")
    return {"digit error": wrong, "timed": timed[0], "timed by one head": timed[1]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--to", default="digits.png")
    main(**vars(parser.parse_args()))
