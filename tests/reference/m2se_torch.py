"""M2SE in PyTorch: the model, its losses and a training step, over padded tensors.

Written from the equations of ARCHITECTURE.md alone, as a PyTorch user would write it, so that it can be the judge of
the C core (compare.py, sweep.py, the fixtures) and its opponent in speed (bench_torch.py). Parameters carry the names
of the weights file. Shapes: B sequences, T positions of the longest, I items, R rows of the richest item, h hidden.
"""

from dataclasses import dataclass
from typing import Optional

import torch
from torch import nn
from torch.nn import functional as F

NORM_EPS = 1e-12
COSINE_EPS = 1e-8


class Malformed(ValueError):
    """The files break a rule of the format."""


@dataclass
class Config:
    d: int = 768
    da: int = 64
    h: int = 64
    experts: int = 8
    layers: int = 2
    heads: int = 2
    ffn: int = 256
    max_len: int = 50
    tau: float = 0.07
    lam: float = 0.01
    dropout: float = 0.2

    INTEGERS = ("d", "da", "h", "experts", "layers", "heads", "ffn", "max_len")

    @classmethod
    def from_metadata(cls, metadata):
        if metadata.get("format") != "m2se" or metadata.get("version") != "1":
            raise Malformed("metadata: not an m2se file of version 1")
        sizes = {name: int(metadata[name]) for name in cls.INTEGERS}
        reals = {"tau": metadata["tau"], "lam": metadata["lambda"], "dropout": metadata["dropout"]}
        return cls(**sizes, **{name: float(text) for name, text in reals.items()})

    def to_metadata(self):
        metadata = {"format": "m2se", "version": "1"}
        metadata.update({name: str(getattr(self, name)) for name in self.INTEGERS})
        metadata.update({"tau": repr(self.tau), "lambda": repr(self.lam), "dropout": repr(self.dropout)})
        return metadata


@dataclass
class ItemRows:
    """One modality of the mini-batch's items. `mask` is None when every item has exactly R rows."""

    index: Optional[torch.Tensor]  # [n] the items that have rows; None: all of them, in order
    rows: torch.Tensor  # [n, R, d]
    mask: Optional[torch.Tensor]  # [n, R] true at real rows


@dataclass
class Batch:
    """A padded mini-batch. Items are numbers into the I unique items; padding positions hold item 0."""

    n_items: int
    text: ItemRows
    image: ItemRows
    items: torch.Tensor  # [B, T]
    length: torch.Tensor  # [B]
    target: torch.Tensor  # [B]
    swap: Optional[torch.Tensor] = None  # [B, T] bool
    pos_target: Optional[torch.Tensor] = None  # [B, T], -1 where there is none; None: the paper's objective
    log_q: Optional[torch.Tensor] = None  # [I]
    item_bias: Optional[torch.Tensor] = None  # [I]
    residual_text: Optional[torch.Tensor] = None  # [I, h]
    residual_image: Optional[torch.Tensor] = None  # [I, h]


class WeightAndBias(nn.Module):
    """Two stacked tensors under one name, for what all experts hold side by side."""

    def __init__(self, weight_shape, bias_shape):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(weight_shape))
        self.bias = nn.Parameter(torch.zeros(bias_shape))


class Pool(nn.Module):
    """Attention pooling: α = softmax((X W1 + b1) W2 + b2) over the item's real rows, e = Σ α X."""

    def __init__(self, config):
        super().__init__()
        self.w1 = nn.Linear(config.d, config.da)
        self.w2 = nn.Linear(config.da, 1)

    def forward(self, rows, mask):
        scores = self.w2(self.w1(rows)).squeeze(-1)  # [n, R]
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return torch.bmm(torch.softmax(scores, dim=1).unsqueeze(1), rows).squeeze(1)  # [n, d]


class Experts(nn.Module):
    """The mixture: z = Σ_k softmax(e W3)_k LayerNorm_k(Dropout(e W_k + b_k)), all experts in one product."""

    def __init__(self, config):
        super().__init__()
        o, h, d = config.experts, config.h, config.d
        self.experts = WeightAndBias((o, h, d), (o, h))
        self.norms = WeightAndBias((o, h), (o, h))
        self.gate = nn.Linear(d, o, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, e):
        o, h, d = self.experts.weight.shape
        hidden = F.linear(e, self.experts.weight.view(o * h, d), self.experts.bias.view(o * h))
        hidden = F.layer_norm(self.dropout(hidden).view(-1, o, h), (h,), eps=NORM_EPS)
        hidden = hidden * self.norms.weight + self.norms.bias
        gate = torch.softmax(self.gate(e), dim=1)
        return torch.bmm(gate.unsqueeze(1), hidden).squeeze(1)  # [n, h]


class Modality(nn.Module):
    """One modality's item encoder."""

    def __init__(self, config):
        super().__init__()
        self.pool = Pool(config)
        self.moe = Experts(config)

    def forward(self, rows, mask):
        return self.moe(self.pool(rows, mask))


class Attention(nn.Module):
    """Causal multi-head attention. Padding stands behind the real positions, so the causal mask hides it as well."""

    def __init__(self, config):
        super().__init__()
        self.heads = config.heads
        self.p = config.dropout
        for name in ("query", "key", "value", "output"):
            setattr(self, name, nn.Linear(config.h, config.h))

    def forward(self, x):
        s, t, h = x.shape
        query, key, value = (
            project(x).view(s, t, self.heads, h // self.heads).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        p = self.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=p, is_causal=True)
        return self.output(mixed.transpose(1, 2).reshape(s, t, h))


class FeedForward(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.up = nn.Linear(config.h, config.ffn)
        self.down = nn.Linear(config.ffn, config.h)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))


class Layer(nn.Module):
    """A post-norm transformer layer."""

    def __init__(self, config):
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.h, eps=NORM_EPS)
        self.ffn = FeedForward(config)
        self.ffn_norm = nn.LayerNorm(config.h, eps=NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x):
        x = self.attention_norm(x + self.dropout(self.attention(x)))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))


class Position(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.max_len, config.h))


class M2SE(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.text = Modality(config)
        self.image = Modality(config)
        self.position = Position(config)
        self.embed_norm = nn.LayerNorm(config.h, eps=NORM_EPS)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.project = nn.ModuleDict(
            {"text": nn.Linear(config.h, config.h), "image": nn.Linear(config.h, config.h)}
        )
        self.dropout = nn.Dropout(config.dropout)
        self.reset()

    @torch.no_grad()
    def reset(self):
        """The start that the model page prescribes."""
        for name, parameter in self.named_parameters():
            if name.endswith("norms.weight") or name.endswith("_norm.weight"):
                parameter.fill_(1.0)
            elif name.endswith(".bias") or name.endswith("gate.weight"):
                parameter.zero_()
            else:
                parameter.normal_(0.0, 0.02)

    @classmethod
    def from_file(cls, tensors, metadata, dtype=torch.float64):
        """The model of a weights file. Raises Malformed when names or shapes differ from the metadata's."""
        model = cls(Config.from_metadata(metadata)).to(dtype)
        expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if expected != found:
            wrong = sorted(set(expected.items()) ^ set(found.items()))
            raise Malformed(f"weights: names or shapes that do not fit: {wrong[:4]}")
        model.load_state_dict(tensors)
        return model

    def encode_modality(self, encoder, part, n_items):
        """[I, h]; zeros for the items without rows."""
        if part.index is None:
            return encoder(part.rows, part.mask)
        empty = part.rows.new_zeros(n_items, self.config.h)
        if part.index.numel() == 0:
            return empty
        return empty.index_copy(0, part.index, encoder(part.rows, part.mask))

    def encode_items(self, batch):
        """z^t, z^v [I, h], after the missing-modality rule and the residuals."""
        z_text = self.encode_modality(self.text, batch.text, batch.n_items)
        z_image = self.encode_modality(self.image, batch.image, batch.n_items)
        has_text = has_rows(batch.text, batch.n_items)
        has_image = has_rows(batch.image, batch.n_items)
        if has_text is not None or has_image is not None:
            everywhere = torch.ones(batch.n_items, dtype=torch.bool)
            has_text = (everywhere if has_text is None else has_text).unsqueeze(1)
            has_image = (everywhere if has_image is None else has_image).unsqueeze(1)
            z_text, z_image = torch.where(has_text, z_text, z_image), torch.where(has_image, z_image, z_text)
        featured = 1.0 if has_text is None else has_text | has_image
        if batch.residual_text is not None:
            z_text = z_text + batch.residual_text * featured
        if batch.residual_image is not None:
            z_image = z_image + batch.residual_image * featured
        return z_text, z_image

    def encode_sequences(self, z_text, z_image, batch):
        """The last layer's output of the text sequences and of the image sequences, [B, T, h] each."""
        text, image = F.embedding(batch.items, z_text), F.embedding(batch.items, z_image)
        if batch.swap is not None:
            swap = batch.swap.unsqueeze(-1)
            text, image = torch.where(swap, image, text), torch.where(swap, text, image)
        x = torch.cat((text, image)) + self.position.weight[: batch.items.shape[1]]
        x = self.dropout(self.embed_norm(x))
        for layer in self.layers:
            x = layer(x)
        return x.chunk(2)

    def forward(self, batch):
        z_text, z_image = self.encode_items(batch)
        hidden_text, hidden_image = self.encode_sequences(z_text, z_image, batch)
        return z_text, z_image, hidden_text, hidden_image

    def losses(self, batch, z_text, z_image, hidden_text, hidden_image):
        """The four losses and their total, with the last positions' m^t and m^v (the users) for serving."""
        rows, last = torch.arange(len(batch.length)), batch.length - 1
        last_text, last_image = hidden_text[rows, last], hidden_image[rows, last]
        if batch.pos_target is None:
            anchor_text, anchor_image, wanted = last_text, last_image, batch.target
        else:
            pos_target = batch.pos_target.clone()
            pos_target[rows, last] = batch.target
            chosen = pos_target >= 0
            anchor_text, anchor_image, wanted = hidden_text[chosen], hidden_image[chosen], pos_target[chosen]
        bias = candidate_bias(batch)
        everyone = batch.pos_target is None
        total, out = 0.0, {}
        for space, z, part in (("text", z_text, batch.text), ("image", z_image, batch.image)):
            project = self.project[space]
            own, other = (anchor_text, anchor_image) if space == "text" else (anchor_image, anchor_text)
            has = has_rows(part, batch.n_items)
            kept = slice(None) if has is None else has[wanted]
            nip = nip_loss(project(own[kept]), project(other[kept]), z, wanted[kept], bias, self.config.tau, everyone)
            own, other = (last_text, last_image) if space == "text" else (last_image, last_text)
            user, user_other = project(own), project(other)
            cmcl = cmcl_loss(user, user_other, batch.target, self.config.tau)
            out["loss_nip_" + space], out["loss_cmcl_" + space], out["user_" + space] = nip, cmcl, user
            total = total + nip + self.config.lam * cmcl
        out["loss"] = total
        return out


def has_rows(part, n_items):
    """[I] bool: the items with rows in this modality; None when all have some."""
    if part.index is None:
        return None
    return torch.zeros(n_items, dtype=torch.bool).index_fill(0, part.index, True)


def candidate_bias(batch):
    """b_u - q_u, or None when neither is given."""
    if batch.item_bias is None and batch.log_q is None:
        return None
    bias = 0.0 if batch.item_bias is None else batch.item_bias
    return bias if batch.log_q is None else bias - batch.log_q


def unit(x):
    return F.normalize(x, dim=-1, eps=COSINE_EPS)


def nip_loss(m, m_other, z, wanted, bias, tau, everyone):
    """Next-item prediction over A anchors in one space.

    m, m_other [A, h]; z [I, h]; wanted [A] items. `everyone`: the candidates are the anchors' next items one by one,
    others with the same next item left out (the paper); otherwise the distinct next items, once each.
    """
    if len(wanted) == 0:
        return z.new_zeros(())
    if everyone:
        candidates, correct = wanted, torch.arange(len(wanted))
    else:
        candidates, correct = torch.unique(wanted, return_inverse=True)
    logits = unit(torch.stack((m, m_other))) @ (unit(z[candidates]) / tau).T  # [2, A, C]
    if bias is not None:
        logits = logits + bias[candidates]
    positive = logits[:, torch.arange(len(wanted)), correct]  # [2, A]
    if everyone:
        logits = logits.masked_fill(others_with_same(wanted), float("-inf"))
    return (torch.logsumexp(logits, dim=(0, 2)) - torch.logsumexp(positive, dim=0)).mean()


def cmcl_loss(a, b, target, tau):
    """Cross-modal contrastive loss of the pairs (a_j, b_j), [B, h] each."""
    a, b = unit(a), unit(b)
    scaled_a, scaled_b = a / tau, b / tau
    excluded = others_with_same(target)
    excluded_own = excluded | torch.eye(len(target), dtype=torch.bool)
    across = scaled_a @ b.T
    positive = across.diagonal()
    across = across.masked_fill(excluded, float("-inf"))
    within_a = (scaled_a @ a.T).masked_fill(excluded_own, float("-inf"))
    within_b = (scaled_b @ b.T).masked_fill(excluded_own, float("-inf"))
    a_to_b = torch.logsumexp(torch.cat((across, within_a), dim=1), dim=1)
    b_to_a = torch.logsumexp(torch.cat((across.T, within_b), dim=1), dim=1)
    return ((a_to_b + b_to_a) / 2 - positive).mean()


def others_with_same(target):
    """[B, B] bool: a different example with the same next item."""
    same = target.unsqueeze(1) == target.unsqueeze(0)
    return same.fill_diagonal_(False)


# --- the checking tool's files ---------------------------------------------------------------------------------------


def check_batch(config, raw):
    """Raises Malformed unless the tensors of a batch file fit the model and one another."""

    def need(condition, text):
        if not condition:
            raise Malformed(text)

    n_items = len(raw["text_ptr"]) - 1
    sequences, positions = len(raw["target"]), len(raw["seq_items"])
    for kind in ("text", "image"):
        pointer = raw[kind + "_ptr"].long()
        need(len(pointer) == n_items + 1, f"{kind}_ptr: not one entry per item and one more")
        need(pointer[0] == 0 and pointer[-1] == len(raw[kind + "_rows"]), f"{kind}_ptr: does not span the rows")
        need(bool((pointer.diff() >= 0).all()), f"{kind}_ptr: decreases")
        need(raw[kind + "_rows"].shape[1] == config.d, f"{kind}_rows: not {config.d} wide")
    pointer = raw["seq_ptr"].long()
    need(len(pointer) == sequences + 1 and pointer[0] == 0 and pointer[-1] == positions, "seq_ptr: does not span")
    lengths = pointer.diff()
    need(sequences > 0 and bool((lengths >= 1).all()), "seq_ptr: an empty sequence")
    need(bool((lengths <= config.max_len).all()), "seq_ptr: a sequence longer than max_len")
    used = [raw["seq_items"], raw["target"]]
    if "pos_target" in raw:
        need(len(raw["pos_target"]) == positions, "pos_target: not one per position")
        at_end = raw["pos_target"][pointer[1:] - 1]
        need(bool(((at_end == -1) | (at_end == raw["target"])).all()), "pos_target: last differs from target")
        need(bool((raw["pos_target"] >= -1).all()), "pos_target: below -1")
        used.append(raw["pos_target"][raw["pos_target"] >= 0])
    used = torch.cat(used).long()
    need(bool(((used >= 0) & (used < n_items)).all()), "an item number out of range")
    featured = (raw["text_ptr"].diff() > 0) | (raw["image_ptr"].diff() > 0)
    need(bool(featured[used].all()), "an item without rows in either modality takes part")
    need(len(raw["swap"]) == positions and bool((raw["swap"] <= 1).all()), "swap: not a 0 or 1 per position")
    for name, shape in (("log_q", (n_items,)), ("item_bias", (n_items,))):
        need(name not in raw or tuple(raw[name].shape) == shape, f"{name}: not one per item")
    for name in ("residual_text", "residual_image"):
        need(name not in raw or tuple(raw[name].shape) == (n_items, config.h), f"{name}: not [items, h]")


def pad_rows(rows, pointer, dtype):
    """Packed rows as ItemRows."""
    counts = pointer.long().diff()
    index = counts.nonzero().squeeze(1)
    counts = counts[index]
    widest = int(counts.max()) if len(counts) else 0
    mask = torch.arange(widest) < counts.unsqueeze(1)
    padded = torch.zeros(len(index), widest, rows.shape[1], dtype=dtype)
    padded[mask] = rows.to(dtype)
    return ItemRows(index, padded, mask)


def pad_batch(raw, dtype):
    """The tensors of a batch file as a Batch. What has a gradient becomes a leaf of the graph."""
    pointer = raw["seq_ptr"].long()
    length = pointer.diff()
    mask = torch.arange(int(length.max())) < length.unsqueeze(1)

    def spread(name, fill):
        out = torch.full(mask.shape, fill, dtype=torch.int64)
        out[mask] = raw[name].long()
        return out

    def leaf(name):
        # A copy in any case: the caller's tensor must not become part of the graph.
        return raw[name].detach().to(dtype, copy=True).requires_grad_() if name in raw else None

    return Batch(
        n_items=len(raw["text_ptr"]) - 1,
        text=pad_rows(raw["text_rows"], raw["text_ptr"], dtype),
        image=pad_rows(raw["image_rows"], raw["image_ptr"], dtype),
        items=spread("seq_items", 0),
        length=length,
        target=raw["target"].long(),
        swap=spread("swap", 0).bool(),
        pos_target=spread("pos_target", -1) if "pos_target" in raw else None,
        log_q=raw["log_q"].to(dtype) if "log_q" in raw else None,
        item_bias=leaf("item_bias"),
        residual_text=leaf("residual_text"),
        residual_image=leaf("residual_image"),
    )


def forward_backward(model, raw):
    """What m2se_grad writes for this model and batch file, in the model's precision."""
    check_batch(model.config, raw)
    dtype = next(model.parameters()).dtype
    batch = pad_batch(raw, dtype)
    model.eval()
    model.zero_grad()
    z_text, z_image, hidden_text, hidden_image = model(batch)
    losses = model.losses(batch, z_text, z_image, hidden_text, hidden_image)
    if losses["loss"].requires_grad:
        losses["loss"].backward()
    names = ("loss_nip_text", "loss_nip_image", "loss_cmcl_text", "loss_cmcl_image", "loss")
    out = {name: losses[name].detach().reshape(1) for name in names}
    out["user_vectors"] = torch.cat((unit(losses["user_text"]), unit(losses["user_image"])), dim=1).detach()
    out["item_vectors"] = torch.cat((unit(z_text), unit(z_image)), dim=1).detach()
    leaves = list(model.named_parameters())
    leaves += [(name, getattr(batch, name)) for name in ("residual_text", "residual_image", "item_bias")]
    for name, tensor in leaves:
        if tensor is not None:
            gradient = tensor.grad
            out["grad." + name] = torch.zeros_like(tensor) if gradient is None else gradient.detach().clone()
    return out


# --- training ---------------------------------------------------------------------------------------------------------


def drop_positions(batch, rho):
    """Sequence random dropout: each position but the first goes with probability rho, the rest closes up.

    What stays keeps its own target, the item that followed it; the last that stays predicts the event's item.
    """
    t = batch.items.shape[1]
    keep = torch.rand(batch.items.shape) >= rho
    keep[:, 0] = True
    keep &= torch.arange(t) < batch.length.unsqueeze(1)
    length = keep.sum(dim=1)
    order = torch.argsort((~keep).to(torch.uint8), dim=1, stable=True)[:, : int(length.max())]
    behind = torch.arange(order.shape[1]) >= length.unsqueeze(1)
    batch.items = batch.items.gather(1, order).masked_fill(behind, 0)
    batch.length = length
    if batch.pos_target is not None:
        batch.pos_target = batch.pos_target.gather(1, order).masked_fill(behind, -1)
        batch.pos_target[torch.arange(len(length)), length - 1] = batch.target


def draw_swap(batch, p):
    """Complementary mixup: at each position, with probability p, the sequences trade their vectors."""
    batch.swap = torch.rand(batch.items.shape) < p


def train_step(model, batch, optimizer, clip=5.0):
    """One training step with all of its random draws; returns the loss."""
    model.train()
    rho, p = torch.rand(2).tolist()
    drop_positions(batch, 0.2 * rho)
    draw_swap(batch, 0.5 * p)
    optimizer.zero_grad(set_to_none=True)
    loss = model.losses(batch, *model(batch))["loss"]
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.detach()
