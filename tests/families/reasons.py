"""Why the attention of some modules is not recorded: what they compute is no softmax of queries and keys over keys."""

DEFORMABLE = "deformable: a linear layer weighs a few sampled points; there are no keys"
LINEAR = "linear: a state that every key is added to, without a softmax"
REASONS = {
    "AutoformerAttention": "autocorrelation: delays that a Fourier transform finds, no queries and keys",
    "BailingHybridDeltaAttention": LINEAR,
    "Deimv2MultiscaleDeformableAttention": DEFORMABLE,
    "DFineMultiscaleDeformableAttention": DEFORMABLE,
    "Gemma3nAudioAttention": "blocks that overlap, of which the products have no axis of keys",
    "Glm5NextTextLinearAttention": LINEAR,
    "GroupViTAssignAttention": "assignment: the softmax is over the queries, and one group is taken",
    "KimiLinearDeltaAttention": LINEAR,
    "LocalSelfAttention": "chunked, in the order of the hashed layers",
    "LSHSelfAttention": "hashed: keys are sorted into buckets",
    "Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention": DEFORMABLE,
    "MiniMaxLightningAttention": LINEAR,
    "MobileViTV2LinearSelfAttention": "linear: one score for each position",
    "MraSelfAttention": "sparse: blocks at several resolutions",
    "MultiScaleDeformableAttention": DEFORMABLE,
    "OlmoHybridLinearAttentionDecoderLayer": LINEAR,
    "OneFormerPixelDecoderEncoderMultiscaleDeformableAttention": DEFORMABLE,
    "PatchTSMixerGatedAttention": "a gate: the softmax of a linear layer",
    "PegasusXGlobalLocalAttention": "chunked: one softmax over global and local keys together",
    "RwkvSelfAttention": "linear: a recurrence without a softmax",
    "SwiftFormerEfficientAdditiveAttention": "linear: one score for each position",
    "YosoSelfAttention": "hashed: Bernoulli samples in the place of a softmax",
}


def reason_of(name: str) -> str:
    """Why a class of modules is not recorded; "" where that is not known."""
    return next((text for known, text in REASONS.items() if name.startswith(known)), "")


# Between the values of the heads and the output projection stands what mixes them, or something is added to them: there
# a head that is zero is not the same as rows that are zero.
MIXED = {
    "bitnet": "a norm over all heads stands before the projection",
    "diffllama": "two maps are subtracted and normalised before the projection",
    "diffusion_gemma": "encoder and decoder share their projections",
    "kosmos-2": "a norm over all heads stands before the projection",
    "nystromformer": "each head is three softmaxes and a convolution of its values",
    "pegasus_x": "the rows of the projection belong to the chunked attention, too",
    "vits": "a second product adds values of positions to each head",
}


def ablation_reason(kind: str) -> str:
    """Why zeroing a head and zeroing its rows of the projection differ; "" where that is not known."""
    return f"ablate differs: {MIXED[kind]}" if kind in MIXED else "ablate differs"
