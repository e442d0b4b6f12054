"""Writes tests/unit/adamw_vectors.h: four steps of torch's AdamW with clip_grad_norm_.

    python tests/python/make_adamw_vectors.py > tests/unit/adamw_vectors.h
"""

import torch

STEPS = 4
LR = [1e-2, 2e-2, 1e-2, 5e-3]
CLIP = 1.0


def rows(name, tensors):
    print(f"static const float {name}[ADAMW_STEPS][ADAMW_FLOATS] = {{")
    for row in tensors:
        print("    {" + ", ".join(f"{x:.9g}F" if "." in f"{x:.9g}" or "e" in f"{x:.9g}" else
                                  f"{x:.9g}.0F" for x in row) + "},")
    print("};")


def main():
    generator = torch.Generator().manual_seed(7)
    decayed = torch.randn(4, generator=generator).requires_grad_()
    plain = torch.randn(3, generator=generator).requires_grad_()
    start = torch.cat([decayed, plain]).tolist()
    groups = [{"params": [decayed], "weight_decay": 0.1}, {"params": [plain], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
    gradients, values = [], []
    for step in range(STEPS):
        # of norms below and above the bound, one element tiny
        scale = [0.1, 3.0, 0.5, 1e-3][step]
        g = torch.randn(7, generator=generator) * scale
        g[2] *= 1e-6
        decayed.grad, plain.grad = g[:4].clone(), g[4:].clone()
        torch.nn.utils.clip_grad_norm_([decayed, plain], CLIP)
        for group in optimizer.param_groups:
            group["lr"] = LR[step]
        optimizer.step()
        gradients.append(g.tolist())
        values.append(torch.cat([decayed, plain]).tolist())
    print("/* Written by tests/python/make_adamw_vectors.py: torch " + torch.__version__ + ". */")
    print(f"enum {{ ADAMW_STEPS = {STEPS}, ADAMW_DECAYED = 4, ADAMW_FLOATS = 7 }};")
    print("static const double adamw_lr[ADAMW_STEPS] = {" + ", ".join(map(str, LR)) + "};")
    print("static const float adamw_start[ADAMW_FLOATS] = {" +
          ", ".join(f"{x:.9g}F" for x in start) + "};")
    rows("adamw_gradient", gradients)
    rows("adamw_value", values)


main()
