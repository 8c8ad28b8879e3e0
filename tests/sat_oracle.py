"""SAT a second time, slowly: the network from a state dict by plain operations, the rest by loops.

Written from the description of SAT alone and sharing no line with helpers.models.sat*: what a scan
becomes, window after window, and what comes back on the file's own voxels.
"""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage
from torch.nn import functional

SPACING_MM = (1.0, 1.0, 3.0)


# --- the network


def draw_state(widths, convs, *, tokens, head, query, feed_forward, layers, seed):
    """Return random weights in the published layout: 280 tensors for the numbers of Nano."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, scale):
        return scale * torch.randn(*shape, generator=generator)

    state = {}

    def add_linear(name, out, into):
        state[f"{name}.weight"] = draw(out, into, scale=into**-0.5)
        state[f"{name}.bias"] = draw(out, scale=0.1)

    def add_norm(name, width):
        state[f"{name}.weight"] = 1 + draw(width, scale=0.2)
        state[f"{name}.bias"] = draw(width, scale=0.2)

    def add_convs(name, into, out):
        for number in range(convs):
            width = into if number == 0 else out
            block = f"{name}.convs.{number}"
            state[f"{block}.conv.weight"] = draw(out, width, 3, 3, 3, scale=(27 * width) ** -0.5)
            state[f"{block}.conv.bias"] = draw(out, scale=0.1)
            add_norm(f"{block}.norm", out)
            for part, place in (("conv", 0), ("norm", 1)):  # every tensor twice, as published
                for kind in ("weight", "bias"):
                    state[f"{block}.all_modules.{place}.{kind}"] = state[f"{block}.{part}.{kind}"]

    for stage, width in enumerate(widths):
        add_convs(f"backbone.encoder.stages.{stage}.0", 3 if stage == 0 else widths[stage - 1], width)
    for step in range(len(widths) - 1):
        below, here = widths[-1 - step], widths[-2 - step]
        name = f"backbone.decoder.transpconvs.{step}"
        state[f"{name}.weight"] = draw(below, here, 2, 2, 2, scale=below**-0.5)
        state[f"{name}.bias"] = draw(here, scale=0.1)
        add_convs(f"backbone.decoder.stages.{step}", 2 * here, here)
    add_linear("projection_layer.0", tokens, sum(widths))
    add_linear("projection_layer.2", query, tokens)
    for number in range(layers):
        name = f"transformer_decoder.layers.{number}"
        state[f"{name}.multihead_attn.in_proj_weight"] = draw(3 * query, query, scale=query**-0.5)
        state[f"{name}.multihead_attn.in_proj_bias"] = draw(3 * query, scale=0.1)
        add_linear(f"{name}.multihead_attn.out_proj", query, query)
        add_linear(f"{name}.linear1", feed_forward, query)
        add_linear(f"{name}.linear2", query, feed_forward)
        for norm in ("norm1", "norm2", "norm3"):
            add_norm(f"{name}.{norm}", query)
    add_norm("transformer_decoder.norm", query)
    add_linear("mask_embed_proj.0", head, query)
    add_linear("mask_embed_proj.2", widths[0], head)
    # Queries that answer alike would leave overlaps untested.
    state["mask_embed_proj.2.weight"] *= 4
    return {f"module.{name}": value for name, value in state.items()}


def run_network(state, volume, queries):
    """Return logits (words, x, y, z) of a volume (x, y, z) and words' vectors (words, query)."""
    state = {name.removeprefix("module."): value for name, value in state.items()}

    def apply_linear(name, value):
        return value @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def apply_gelu(value):
        return 0.5 * value * (1 + torch.erf(value / math.sqrt(2)))

    def apply_norm(name, value):
        centred = value - value.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    def apply_convs(name, value, stride):
        number = 0
        while f"{name}.convs.{number}.conv.weight" in state:
            block = f"{name}.convs.{number}"
            value = functional.conv3d(
                value,
                state[f"{block}.conv.weight"],
                state[f"{block}.conv.bias"],
                stride=stride if number == 0 else 1,
                padding=1,
            )
            centred = value - value.mean((2, 3, 4), keepdim=True)
            value = centred / (centred.square().mean((2, 3, 4), keepdim=True) + 1e-5).sqrt()
            value = value * state[f"{block}.norm.weight"].view(1, -1, 1, 1, 1)
            value = value + state[f"{block}.norm.bias"].view(1, -1, 1, 1, 1)
            value = torch.where(value > 0, value, 0.01 * value)
            number += 1
        return value

    stages = []
    value = torch.stack([volume] * 3)[None]
    while f"backbone.encoder.stages.{len(stages)}.0.convs.0.conv.weight" in state:
        value = apply_convs(f"backbone.encoder.stages.{len(stages)}.0", value, 1 if not stages else 2)
        stages.append(value)
    for step in range(len(stages) - 1):
        name = f"backbone.decoder.transpconvs.{step}"
        value = functional.conv_transpose3d(value, state[f"{name}.weight"], state[f"{name}.bias"], stride=2)
        value = apply_convs(f"backbone.decoder.stages.{step}", torch.cat((value, stages[-2 - step]), 1), 1)
    features = value[0]

    x, y, z = stages[-1].shape[2:]
    pooled = []
    for stage in stages:
        side = stage.shape[2] // x
        pooled.append(stage[0].reshape(-1, x, side, y, side, z, side).mean((2, 4, 6)))
    memory = torch.cat(pooled)
    tokens, keys = [], []
    for i in range(x):
        for j in range(y):
            for k in range(z):
                token = apply_gelu(apply_linear("projection_layer.0", memory[:, i, j, k]))
                token = apply_gelu(apply_linear("projection_layer.2", token))
                part = len(token) // 3
                position = []
                for place in (i, j, k):
                    for pair in range(part // 2):
                        angle = place / 10000 ** (2 * pair / part)
                        position += [math.sin(angle), math.cos(angle)]
                tokens.append(token)
                keys.append(token + torch.tensor(position, dtype=token.dtype))
    tokens, keys = torch.stack(tokens), torch.stack(keys)

    answers = queries
    number = 0
    while f"transformer_decoder.layers.{number}.linear1.weight" in state:
        name = f"transformer_decoder.layers.{number}"
        weight, bias = (state[f"{name}.multihead_attn.in_proj_{kind}"].chunk(3) for kind in ("weight", "bias"))
        asked = apply_norm(f"{name}.norm2", answers) @ weight[0].T + bias[0]
        offered = keys @ weight[1].T + bias[1]
        given = tokens @ weight[2].T + bias[2]
        heads = []
        for one in range(8):
            part = slice(one * asked.shape[1] // 8, (one + 1) * asked.shape[1] // 8)
            scores = asked[:, part] @ offered[:, part].T / math.sqrt(asked.shape[1] / 8)
            heads.append(scores.softmax(-1) @ given[:, part])
        answers = answers + apply_linear(f"{name}.multihead_attn.out_proj", torch.cat(heads, 1))
        inner = apply_linear(f"{name}.linear1", apply_norm(f"{name}.norm3", answers)).clamp(min=0)
        answers = answers + apply_linear(f"{name}.linear2", inner)
        number += 1
    answers = apply_norm("transformer_decoder.norm", answers)
    answers = apply_gelu(apply_linear("mask_embed_proj.0", answers))
    answers = apply_gelu(apply_linear("mask_embed_proj.2", answers))
    return torch.tensordot(answers, features, dims=1)


# --- the scan


def resample_lines(array, axis, places):
    """Interpolate line by line along an axis, the ends held."""
    return np.apply_along_axis(lambda line: np.interp(places, np.arange(len(line)), line), axis, array)


def segment_image(state, image, modality, queries, window):
    """Return labels (1, 2, … by word; on the file's own voxels, SimpleITK) and probabilities.

    Probabilities are float, (words, x, y, z), in the order RAS.
    """
    ras = sitk.DICOMOrient(image, "RAS")
    stored = sitk.GetArrayFromImage(ras).transpose(2, 1, 0).astype(float)
    resampled = stored
    for axis, (own, target) in enumerate(zip(ras.GetSpacing(), SPACING_MM, strict=True)):
        count = int(np.round((stored.shape[axis] - 1) * own / target + 1))
        resampled = resample_lines(resampled, axis, [place * target / own for place in range(count)])
    places = np.argwhere(resampled > 0)
    (x0, y0, z0), (x1, y1, z1) = places.min(0), places.max(0) + 1
    crop = resampled[x0:x1, y0:y1, z0:z1]
    low, high = (-500, 1000) if modality == "CT" else np.percentile(crop, [0.5, 99.5])
    crop = np.clip(crop, low, high)
    crop = (crop - crop.mean()) / crop.std()
    padded = np.zeros([max(pair) for pair in zip(crop.shape, window, strict=True)])
    padded[tuple(slice(count) for count in crop.shape)] = crop

    delta = np.zeros(window)
    delta[tuple(side // 2 for side in window)] = 1
    weight = ndimage.gaussian_filter(delta, [side / 8 for side in window], mode="constant")
    total, weights = np.zeros((len(queries), *padded.shape)), np.zeros(padded.shape)
    starts = []
    for count, side in zip(padded.shape, window, strict=True):
        along = [0]
        while along[-1] + side < count:
            along.append(min(along[-1] + side // 2, count - side))
        starts.append(along)
    for x in starts[0]:
        for y in starts[1]:
            for z in starts[2]:
                part = slice(x, x + window[0]), slice(y, y + window[1]), slice(z, z + window[2])
                logits = run_network(state, torch.from_numpy(padded[part]).float(), queries)
                total[(slice(None), *part)] += weight / (1 + np.exp(-logits.double().numpy()))
                weights[part] += weight
    averaged = (total / weights)[:, : x1 - x0, : y1 - y0, : z1 - z0]

    probabilities = []
    for one in averaged:
        whole = np.zeros(resampled.shape)
        whole[x0:x1, y0:y1, z0:z1] = one
        for axis, (own, target) in enumerate(zip(ras.GetSpacing(), SPACING_MM, strict=True)):
            whole = resample_lines(whole, axis, [place * own / target for place in range(stored.shape[axis])])
        probabilities.append(whole)
    probabilities = np.stack(probabilities)
    labels = np.where(probabilities.max(0) > 0.5, probabilities.argmax(0) + 1, 0).astype(np.uint8)
    result = sitk.GetImageFromArray(labels.transpose(2, 1, 0))
    result.CopyInformation(ras)
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    return sitk.DICOMOrient(result, code), probabilities
