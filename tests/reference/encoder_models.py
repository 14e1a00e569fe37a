"""Small random BERTs and CLIPs as folders that transformers would write, and what transformers computes of them in
float64. Needs torch and transformers."""

import json
import os

import torch
import transformers
from safetensors.torch import save_file

transformers.logging.set_verbosity_error()

BERT = dict(
    vocab_size=50,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=20,
    max_position_embeddings=20,
    type_vocab_size=2,
)
CLIP_TEXT = dict(
    vocab_size=60,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=20,
    max_position_embeddings=9,
    bos_token_id=58,
    eos_token_id=59,
    pad_token_id=1,
)
CLIP_VISION = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=12, patch_size=4
)


def randomize(model, seed, scale=0.3):
    """Every parameter counts: none is the 0 or 1 that it starts with."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_gain = "norm" in name.lower() and name.endswith("weight")
            noise = torch.randn(parameter.shape, generator=generator) * scale
            parameter.copy_(noise + 1 if is_gain else noise)


def write_json(folder, name, content):
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, sort_keys=True)
        file.write("\n")


def make_bert(folder, seed, dtype=torch.float32, renamed=False, **changes):
    """The folder of a random BERT, and the model in float64 with the numbers as they stand in the file. renamed: as old
    checkpoints for masked language modelling call their tensors, in two files."""
    config = transformers.BertConfig(**{**BERT, **changes}, attn_implementation="eager")
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    randomize(model, seed, scale=0.3 if config.hidden_size < 100 else 0.02)
    model.to(dtype).double()
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    write_json(folder, "config.json", {**changes_of(BERT, changes), "model_type": "bert", "hidden_act": "gelu"})
    if not renamed:
        save_file(tensors, os.path.join(folder, "model.safetensors"), {"format": "pt"})
        return model
    old = {}
    for name, tensor in tensors.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        old["bert." + name] = tensor
    old["bert.pooler.dense.bias"] = torch.zeros(3)
    old["bert.embeddings.position_ids"] = torch.arange(5)
    old["cls.predictions.bias"] = torch.zeros(3)
    names, where = sorted(old), {}
    for part in (0, 1):
        file = f"model-{part + 1:05}-of-00002.safetensors"
        where.update({name: file for name in names[part::2]})
        save_file({name: old[name] for name in names[part::2]}, os.path.join(folder, file), {"format": "pt"})
    write_json(folder, "model.safetensors.index.json", {"metadata": {}, "weight_map": where})
    return model


def changes_of(standard, changes):
    return {key: value for key, value in {**standard, **changes}.items() if isinstance(value, (int, float, str))}


def make_clip(folder, seed, dtype=torch.float32, activation="quick_gelu", projection=10, text=None, vision=None):
    """The folder of a random CLIP, and the model in float64."""
    text = {**CLIP_TEXT, **(text or {}), "hidden_act": activation}
    vision = {**CLIP_VISION, **(vision or {}), "hidden_act": activation}
    config = transformers.CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=projection, attn_implementation="eager"
    )
    model = transformers.CLIPModel(config).eval()
    randomize(model, seed, scale=0.3 if vision["hidden_size"] < 100 else 0.02)
    model.to(dtype).double()
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, os.path.join(folder, "model.safetensors"), {"format": "pt"})
    config = {"model_type": "clip", "projection_dim": projection, "text_config": text, "vision_config": vision}
    write_json(folder, "config.json", config)
    write_json(
        folder,
        "preprocessor_config.json",
        {
            "crop_size": {"height": vision["image_size"], "width": vision["image_size"]},
            "size": {"shortest_edge": vision["image_size"]},
            "do_resize": True,
            "do_center_crop": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_convert_rgb": True,
            "resample": 3,
            "rescale_factor": 1 / 255,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
        },
    )
    return model


def unit(vectors):
    return torch.nn.functional.normalize(vectors, dim=-1)


def bert_states(model, ids):
    """The last layer's rows of one text."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).last_hidden_state[0]


def bert_vector(model, ids, pooling="mean"):
    states = bert_states(model, ids)
    return states[0] if pooling == "cls" else states.mean(dim=0)


def clip_text(model, ids):
    """The projected vector of one text."""
    with torch.no_grad():
        pooled = model.text_model(input_ids=torch.tensor([ids])).pooler_output
        return model.text_projection(pooled)[0]


def clip_images(model, pixel_values):
    with torch.no_grad():
        return model.visual_projection(model.vision_model(pixel_values=pixel_values.double()).pooler_output)
