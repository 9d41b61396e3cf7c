// infer/export/card_formats.c - what each kind of artifact calls itself.
#include "infer/export/card_parts.h"

static const CardFormat FORMATS[] = {
    {CARD_HF, true, "Hugging Face safetensors", "transformers", "finetune", "",
     "Keys, shapes, dtypes and the header of the file are the stock assistant's; only the values "
     "of "
     "trained tensors differ."},
    {CARD_MLX, true, "MLX", "mlx", "finetune", "mlx apple-silicon",
     "The values are those of the trained drafter, bit for bit. `token_ordering` is I32, the file "
     "says `format: mlx`, and config.json holds `block_size` = k + 1."},
    {CARD_MLX_PACKED, true, "MLX, quantised", "mlx", "quantized", "mlx apple-silicon",
     "Linear layers and embeddings of the trained drafter are packed as the block `quantization` "
     "of config.json says; norms, `layer_scalar` and `token_ordering` are as they were."},
    {CARD_GGUF, true, "GGUF (`gemma4-assistant`)", "llama.cpp", "quantized", "gguf",
     "Tensors of the trained drafter in the types named above; norms and scales are F32. The "
     "centroid head is left out: llama.cpp reads the whole vocabulary at every draft step."},
    {CARD_GGUF_IK, true, "GGUF (`gemma4_mtp`)", "ik_llama.cpp", "quantized", "gguf",
     "Tensors of the trained drafter in the types named above; norms and scales are F32. The "
     "centroid head is left out: the engine reads the whole vocabulary at every draft step."},
    {CARD_TARGET_HF, false, "Hugging Face safetensors", "transformers", "merge", "",
     "The adapter is merged: W + scale * B A, rounded once to the dtype of the file. Every other "
     "byte is the base model's."},
    {CARD_TARGET_MLX, false, "MLX", "mlx", "merge", "mlx apple-silicon",
     "The adapter is merged into the weights before they are written. Text only: vision and sound "
     "towers, and K/V projections of layers that share another layer's, are left out as mlx-lm "
     "leaves them out."},
    {CARD_MTPLX, true, "MTPLX pair bundle", "mlx", "finetune", "mlx mtplx apple-silicon",
     "`target/` is the merged target and `assistant/` its trained drafter, both as MLX folders."},
};

const CardFormat *card_format(CardKind kind) {
    for (size_t i = 0; i < sizeof FORMATS / sizeof *FORMATS; i++)
        if (FORMATS[i].kind == kind) return &FORMATS[i];
    CHECK(false, "an artifact of kind %d has no row", (int)kind);
}
