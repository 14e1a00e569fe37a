"""M2SE's losses a second time: plain Python floats, one example and one term at a time, no batching, no padding.

Slow on purpose and written straight from the equations, so that a mistake in m2se_torch.py's vectorised code (masks,
padding, broadcasting) cannot be repeated here. Vectors are lists, matrices lists of lists in the weights file's
[out, in] order. There are no gradients: test_reference.py takes central differences of these losses.
"""

import math


def lists(tensors):
    """Nested lists of Python numbers from a dict of tensors."""
    return {name: tensor.tolist() for name, tensor in tensors.items()}


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def add(a, b):
    return [x + y for x, y in zip(a, b)]


def linear(weight, bias, x):
    return [dot(row, x) + b for row, b in zip(weight, bias)]


def softmax(scores):
    top = max(scores)
    weights = [math.exp(s - top) for s in scores]
    total = sum(weights)
    return [w / total for w in weights]


def log_sum_exp(values):
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values))


def layer_norm(x, weight, bias):
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x)
    scale = 1.0 / math.sqrt(variance + 1e-12)
    return [(v - mean) * scale * w + b for v, w, b in zip(x, weight, bias)]


def unit(x):
    size = max(math.sqrt(dot(x, x)), 1e-8)
    return [v / size for v in x]


def cosine(a, b):
    return dot(unit(a), unit(b))


def gelu(x):
    return 0.5 * x * (1.0 + math.erf(x / math.sqrt(2.0)))


def encode_rows(w, kind, rows):
    """z of one item's rows in one modality: pooling, experts, gate."""
    p = kind + "."
    hidden = [linear(w[p + "pool.w1.weight"], w[p + "pool.w1.bias"], row) for row in rows]
    alpha = softmax([linear(w[p + "pool.w2.weight"], w[p + "pool.w2.bias"], x)[0] for x in hidden])
    e = [sum(a * row[i] for a, row in zip(alpha, rows)) for i in range(len(rows[0]))]
    gate = softmax([dot(row, e) for row in w[p + "moe.gate.weight"]])
    z = [0.0] * len(w[p + "moe.experts.bias"][0])
    for k, g in enumerate(gate):
        expert = linear(w[p + "moe.experts.weight"][k], w[p + "moe.experts.bias"][k], e)
        expert = layer_norm(expert, w[p + "moe.norms.weight"][k], w[p + "moe.norms.bias"][k])
        z = add(z, [g * v for v in expert])
    return z


def encode_item(w, batch, i, h):
    """z^t, z^v of item i with the missing-modality rule and its residuals; zeros when it has no rows at all."""
    z = {}
    for kind in ("text", "image"):
        rows = batch[kind + "_rows"][batch[kind + "_ptr"][i] : batch[kind + "_ptr"][i + 1]]
        if rows:
            z[kind] = encode_rows(w, kind, rows)
    if not z:
        return [0.0] * h, [0.0] * h
    text = z.get("text", z.get("image"))
    image = z.get("image", z.get("text"))
    if "residual_text" in batch:
        text = add(text, batch["residual_text"][i])
    if "residual_image" in batch:
        image = add(image, batch["residual_image"][i])
    return text, image


def attend(w, prefix, xs, heads):
    """Causal attention of every position to itself and what stands before it."""
    names = ("query", "key", "value")
    query, key, value = (
        [linear(w[f"{prefix}.{name}.weight"], w[f"{prefix}.{name}.bias"], x) for x in xs] for name in names
    )
    width = len(xs[0]) // heads
    out = []
    for t in range(len(xs)):
        mixed = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            scores = [dot(query[t][part], key[s][part]) / math.sqrt(width) for s in range(t + 1)]
            weights = softmax(scores)
            mixed += [sum(a * value[s][i] for s, a in enumerate(weights)) for i in range(part.start, part.stop)]
        out.append(linear(w[prefix + ".output.weight"], w[prefix + ".output.bias"], mixed))
    return out


def encode_sequence(w, config, vectors):
    """The last layer's output at every position."""
    xs = [
        layer_norm(add(z, w["position.weight"][t]), w["embed_norm.weight"], w["embed_norm.bias"])
        for t, z in enumerate(vectors)
    ]
    for number in range(config.layers):
        p = f"layers.{number}."
        attended = attend(w, p + "attention", xs, config.heads)
        norm = (w[p + "attention_norm.weight"], w[p + "attention_norm.bias"])
        xs = [layer_norm(add(x, y), *norm) for x, y in zip(xs, attended)]
        norm = (w[p + "ffn_norm.weight"], w[p + "ffn_norm.bias"])
        for t, x in enumerate(xs):
            up = [gelu(v) for v in linear(w[p + "ffn.up.weight"], w[p + "ffn.up.bias"], x)]
            xs[t] = layer_norm(add(x, linear(w[p + "ffn.down.weight"], w[p + "ffn.down.bias"], up)), *norm)
    return xs


def nip_last(m, m_other, z, targets, featured, bias, tau):
    """The paper's objective in one space: mean over the examples whose next item has rows here."""
    examples = [j for j, item in enumerate(targets) if featured[item]]
    losses = []
    for j in examples:
        own = terms = None
        for other in examples:
            if other != j and targets[other] == targets[j]:
                continue
            item = targets[other]
            pair = [cosine(m[j], z[item]) / tau + bias[item], cosine(m_other[j], z[item]) / tau + bias[item]]
            terms = (terms or []) + pair
            if other == j:
                own = pair
        losses.append(log_sum_exp(terms) - log_sum_exp(own))
    return sum(losses) / len(losses) if losses else 0.0


def nip_all(anchors, z, featured, bias, tau):
    """A target at every position: anchors are (m, m', item); candidates the distinct items, once each."""
    anchors = [anchor for anchor in anchors if featured[anchor[2]]]
    candidates = []
    for _, _, item in anchors:
        if item not in candidates:
            candidates.append(item)
    losses = []
    for m, m_other, wanted in anchors:
        terms = []
        for item in candidates:
            terms.append(cosine(m, z[item]) / tau + bias[item])
            terms.append(cosine(m_other, z[item]) / tau + bias[item])
        own = [cosine(m, z[wanted]) / tau + bias[wanted], cosine(m_other, z[wanted]) / tau + bias[wanted]]
        losses.append(log_sum_exp(terms) - log_sum_exp(own))
    return sum(losses) / len(losses) if losses else 0.0


def contrast(a, b, targets, j, tau):
    """C(a→b)_j."""
    terms = []
    for other in range(len(targets)):
        if other != j and targets[other] == targets[j]:
            continue
        terms.append(cosine(a[j], b[other]) / tau)
        if other != j:
            terms.append(cosine(a[j], a[other]) / tau)
    return log_sum_exp(terms) - cosine(a[j], b[j]) / tau


def cmcl(a, b, targets, tau):
    losses = [(contrast(a, b, targets, j, tau) + contrast(b, a, targets, j, tau)) / 2 for j in range(len(targets))]
    return sum(losses) / len(losses)


def evaluate(w, batch, config):
    """Losses and vectors, named as in m2se_grad's OUT; w and batch are dicts of nested lists."""
    n_items = len(batch["text_ptr"]) - 1
    z = [encode_item(w, batch, i, config.h) for i in range(n_items)]
    bias = [batch.get("item_bias", [0.0] * n_items)[i] - batch.get("log_q", [0.0] * n_items)[i] for i in range(n_items)]
    spaces = ("text", "image")
    # m[space][sequence] is that space's own projection, m_other the other sequence's into the same space.
    m, m_other, anchors = ({space: [] for space in spaces} for _ in range(3))
    for j, target in enumerate(batch["target"]):
        begin, end = batch["seq_ptr"][j], batch["seq_ptr"][j + 1]
        pairs = [z[batch["seq_items"][p]] for p in range(begin, end)]
        pairs = [(v, t) if batch["swap"][begin + k] else (t, v) for k, (t, v) in enumerate(pairs)]
        hidden = {
            "text": encode_sequence(w, config, [t for t, _ in pairs]),
            "image": encode_sequence(w, config, [v for _, v in pairs]),
        }
        for space, other in (("text", "image"), ("image", "text")):
            weight, shift = w[f"project.{space}.weight"], w[f"project.{space}.bias"]
            own = [linear(weight, shift, x) for x in hidden[space]]
            crossed = [linear(weight, shift, x) for x in hidden[other]]
            m[space].append(own[-1])
            m_other[space].append(crossed[-1])
            for k in range(end - begin):
                is_last = begin + k == end - 1
                wanted = target if is_last else batch.get("pos_target", [-1] * end)[begin + k]
                if wanted >= 0:
                    anchors[space].append((own[k], crossed[k], wanted))
    out = {}
    for number, space in enumerate(spaces):
        pointer = batch[space + "_ptr"]
        featured = [pointer[i + 1] > pointer[i] for i in range(n_items)]
        vectors = [pair[number] for pair in z]
        if "pos_target" in batch:
            nip = nip_all(anchors[space], vectors, featured, bias, config.tau)
        else:
            nip = nip_last(m[space], m_other[space], vectors, batch["target"], featured, bias, config.tau)
        out["loss_nip_" + space] = nip
        out["loss_cmcl_" + space] = cmcl(m[space], m_other[space], batch["target"], config.tau)
    contrastive = out["loss_cmcl_text"] + out["loss_cmcl_image"]
    out["loss"] = out["loss_nip_text"] + out["loss_nip_image"] + config.lam * contrastive
    out["user_vectors"] = [unit(t) + unit(v) for t, v in zip(m["text"], m["image"])]
    out["item_vectors"] = [unit(t) + unit(v) for t, v in z]
    return out
