"""Answers to assignment 2 that students write: wrong ones with what they lose, and right ones."""

from __future__ import annotations

from course_lib.grading.catalogue import Right, Wrong


def fgsm(body: str, before: str = "") -> dict[str, str]:
    """Return the answer cell of fgsm with this body."""
    return {"fgsm": _cell("fgsm(model, x, y, eps)", body, before)}


def targeted(body: str, before: str = "") -> dict[str, str]:
    """Return the answer cell of targeted_fgsm with this body."""
    return {"targeted_fgsm": _cell("targeted_fgsm(model, x, target, eps)", body, before)}


def bim(body: str, before: str = "") -> dict[str, str]:
    """Return the answer cell of bim with this body."""
    return {"bim": _cell("bim(model, x, y, eps, alpha, steps)", body, before)}


def curve(body: str, before: str = "") -> dict[str, str]:
    """Return the answer cell of accuracy_curve with this body."""
    return {"accuracy_curve": _cell("accuracy_curve(model, attack, x, y, epsilons)", body, before)}


def _cell(head: str, body: str, before: str) -> str:
    lines = body.strip("\n").splitlines()
    return before + f"def {head}:\n" + "\n".join(f"    {line}" for line in lines) + "\n"


STEP, CLIP, ALONE = "fgsm_step", "fgsm_clip", "fgsm_alone"
FGSM = {STEP, CLIP, ALONE}
TARGETED = {"targeted_step", "targeted_clip"}
BIM = {"bim_iterates", "bim_each", "bim_box", "bim_clip", "bim_alone"}
CURVE = {"curve_one", "curve_many"}

#: The gradient in the pixels, as most people write it.
GRADIENT = """
x = x.clone().detach().requires_grad_(True)
loss = F.cross_entropy(model(x), y)
loss.backward()
g = x.grad
"""

#: The loop of bim, with places for what varies.
LOOP = """
x_adv = x.clone().detach()
for _ in range(steps):
    z = x_adv.clone().requires_grad_(True)
    g, = torch.autograd.grad(F.cross_entropy(model(z), y), z)
    x_adv = x_adv + alpha * g.sign()
    x_adv = torch.max(torch.min(x_adv, x + eps), x - eps)
    x_adv = x_adv.clamp(0, 1)
return x_adv
"""
BOX = "    x_adv = torch.max(torch.min(x_adv, x + eps), x - eps)\n"

WRONG: list[Wrong] = [
    Wrong(
        "the gradient without its sign",
        fgsm(GRADIENT + "return (x + eps * g).clamp(0, 1).detach()"),
        FGSM,
        "only the sign of the gradient counts",
        STEP,
    ),
    Wrong(
        "the gradient divided by its length",
        fgsm(
            GRADIENT
            + "n = g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)\n"
            + "return (x + eps * g / n).clamp(0, 1).detach()"
        ),
        FGSM,
        "only the sign of the gradient counts",
        STEP,
    ),
    Wrong(
        "downhill, as in training",
        fgsm(GRADIENT + "return (x - eps * g.sign()).clamp(0, 1).detach()"),
        FGSM,
        "go up the loss",
        STEP,
    ),
    Wrong(
        "not clipped",
        fgsm(GRADIENT + "return (x + eps * g.sign()).detach()"),
        {CLIP},
        "clip the result",
    ),
    Wrong(
        "clipped to [-1, 1]",
        fgsm(GRADIENT + "return (x + eps * g.sign()).clamp(-1, 1).detach()"),
        {CLIP},
        "not in [-1, 1]",
    ),
    Wrong(
        "clipped at the top only",
        fgsm(GRADIENT + "return (x + eps * g.sign()).clamp(max=1).detach()"),
        {CLIP},
        "Some pixels are below 0",
    ),
    Wrong(
        "rescaled to [0, 1] when it leaves it",
        fgsm(
            GRADIENT
            + "a = (x + eps * g.sign()).detach()\n"
            + "if a.min() < 0 or a.max() > 1:\n"
            + "    a = (a - a.min()) / (a.max() - a.min())\n"
            + "return a"
        ),
        {CLIP},
        "rescaled",
    ),
    Wrong(
        "the clip on the step, not on the image",
        fgsm(GRADIENT + "return (x + (eps * g.sign()).clamp(0, 1)).detach()"),
        FGSM,
        "The values are not those of the formula",
        STEP,
    ),
    Wrong(
        "returns the step alone",
        fgsm(GRADIENT + "return (eps * g.sign()).detach()"),
        FGSM,
        "only the step",
        STEP,
    ),
    Wrong(
        "forgets eps",
        fgsm(GRADIENT + "return (x + g.sign()).clamp(0, 1).detach()"),
        FGSM,
        "eps is not used",
        STEP,
    ),
    Wrong(
        "the label that the model gives",
        fgsm(
            """
x = x.clone().requires_grad_(True)
logits = model(x)
loss = F.cross_entropy(logits, logits.argmax(dim=1))
g, = torch.autograd.grad(loss, x)
return (x + eps * g.sign()).clamp(0, 1).detach()
"""
        ),
        FGSM,
        "the model's own answer",
        STEP,
    ),
    Wrong(
        "the gradient of the mean logit",
        fgsm(
            """
x = x.clone().requires_grad_(True)
g, = torch.autograd.grad(model(x).mean(), x)
return (x + eps * g.sign()).clamp(0, 1).detach()
"""
        ),
        {STEP, CLIP, ALONE},
        "the gradient of the logits",
        STEP,
    ),
    Wrong(
        "nll_loss of logits",
        fgsm(
            """
x = x.clone().requires_grad_(True)
g, = torch.autograd.grad(F.nll_loss(model(x), y), x)
return (x + eps * g.sign()).clamp(0, 1).detach()
"""
        ),
        FGSM,
        "the gradient of the logits",
        STEP,
    ),
    Wrong(
        "softmax before the cross-entropy",
        fgsm(
            """
x = x.clone().requires_grad_(True)
loss = F.cross_entropy(model(x).softmax(dim=1), y)
g, = torch.autograd.grad(loss, x)
return (x + eps * g.sign()).clamp(0, 1).detach()
"""
        ),
        {STEP, CLIP},
        "Softmax is applied twice",
        STEP,
    ),
    Wrong(
        "adds to the caller's x",
        fgsm(
            """
z = x.clone().requires_grad_(True)
F.cross_entropy(model(z), y).backward()
x += eps * z.grad.sign()
return x.clamp_(0, 1)
"""
        ),
        {ALONE},
        "The caller's x has changed",
    ),
    Wrong(
        "keeps the first call's gradient in the caller's x",
        fgsm(
            """
x.requires_grad = True
loss = F.cross_entropy(model(x), y)
model.zero_grad()
loss.backward()
return torch.clamp(x + eps * x.grad.data.sign(), 0, 1)
"""
        ),
        {ALONE},
        "the first one's gradient is still",
    ),
    Wrong(
        "switches to evaluation and stays there",
        fgsm("model.eval()\n" + GRADIENT + "return (x + eps * g.sign()).clamp(0, 1).detach()"),
        {ALONE},
        "in training mode before the call",
    ),
    Wrong(
        "leaves the model in training mode",
        fgsm(
            "model.eval()\n"
            + GRADIENT
            + "model.train()\nreturn (x + eps * g.sign()).clamp(0, 1).detach()"
        ),
        {ALONE},
        "in evaluation mode before the call",
    ),
    Wrong(
        "no_grad around it all",
        {
            "fgsm": "@torch.no_grad()\ndef fgsm(model, x, y, eps):\n"
            "    z = x.clone().requires_grad_(True)\n"
            "    g, = torch.autograd.grad(F.cross_entropy(model(z), y), z)\n"
            "    return (x + eps * g.sign()).clamp(0, 1)\n"
        },
        FGSM,
        "RuntimeError (line 4",
    ),
    Wrong(
        "forgets to return",
        fgsm(GRADIENT + "x_adv = (x + eps * g.sign()).clamp(0, 1).detach()"),
        FGSM,
        "is a return missing?",
    ),
    Wrong(
        "the notebook's images instead of the argument's",
        fgsm(
            """
images = sample.x.clone().requires_grad_(True)
g, = torch.autograd.grad(F.cross_entropy(model(images), y), images)
return (images + eps * g.sign()).clamp(0, 1).detach()
"""
        ),
        FGSM,
        "use the function's arguments",
    ),
    Wrong(
        "targeted: up the target's loss",
        targeted("return fgsm(model, x, target, eps)"),
        TARGETED,
        "runs away from the target",
        "targeted_step",
    ),
    Wrong(
        "targeted: away from what the model reads",
        targeted(
            """
y = model(x).argmax(dim=1)
return fgsm(model, x, y, eps)
"""
        ),
        TARGETED,
        "Use the target that was passed in",
        "targeted_step",
    ),
    Wrong(
        "targeted: not clipped",
        targeted(
            """
z = x.clone().requires_grad_(True)
g, = torch.autograd.grad(F.cross_entropy(model(z), target), z)
return (x - eps * g.sign()).detach()
"""
        ),
        {"targeted_clip"},
        "clip the result",
    ),
    Wrong(
        "targeted: mirrored from fgsm after its clip",
        targeted("return 2 * x - fgsm(model, x, target, eps)"),
        {"targeted_clip"},
        "Some pixels leave [0, 1]",
    ),
    Wrong(
        "bim: no box",
        bim(LOOP.replace(BOX, "")),
        {"bim_each", "bim_box", "bim_clip"},
        "further than eps from the image you started with",
        "bim_box",
    ),
    Wrong(
        "bim: the box around the previous image",
        bim(
            """
x_adv = x
for _ in range(steps):
    new = fgsm(model, x_adv, y, alpha)
    x_adv = torch.clamp(new, x_adv - eps, x_adv + eps).clamp(0, 1)
return x_adv
"""
        ),
        {"bim_each", "bim_box", "bim_clip"},
        "not around the previous image",
        "bim_box",
    ),
    Wrong(
        "bim: the box only at the end",
        bim(
            """
x_adv = x
for _ in range(steps):
    x_adv = fgsm(model, x_adv, y, alpha)
return torch.clamp(x_adv, x - eps, x + eps)
"""
        ),
        {"bim_each"},
        "applied once, at the end",
    ),
    Wrong(
        "bim: not kept in [0, 1]",
        bim(LOOP.replace("    x_adv = x_adv.clamp(0, 1)\n", "")),
        {"bim_clip"},
        "Some pixels leave [0, 1]",
    ),
    Wrong(
        "bim: starts at black",
        bim(LOOP.replace("x.clone().detach()", "torch.zeros_like(x)")),
        BIM,
        "starts from a black image",
        "bim_iterates",
    ),
    Wrong(
        "bim: the gradient of the first image in every step",
        bim(LOOP.replace("x_adv.clone().requires", "x.clone().requires")),
        {"bim_iterates", "bim_each"},
        "The gradient is taken at the first image",
        "bim_iterates",
    ),
    Wrong(
        "bim: eps divided by steps",
        bim(LOOP.replace("alpha * g", "eps / steps * g")),
        {"bim_iterates", "bim_each", "bim_alone"},
        "the length eps / steps",
        "bim_iterates",
    ),
    Wrong(
        "bim: calls fgsm with eps",
        bim(
            """
x_adv = x
for _ in range(steps):
    x_adv = fgsm(model, x_adv, y, eps)
    x_adv = torch.clamp(x_adv, x - eps, x + eps).clamp(0, 1)
return x_adv
"""
        ),
        {"bim_iterates", "bim_each", "bim_alone"},
        "the length eps. It should be alpha",
        "bim_iterates",
    ),
    Wrong(
        "bim: no sign",
        bim(LOOP.replace("g.sign()", "g")),
        BIM,
        "take the sign of the gradient",
        "bim_iterates",
    ),
    Wrong(
        "bim: downhill",
        bim(LOOP.replace("x_adv + alpha", "x_adv - alpha")),
        BIM,
        "go up the loss",
        "bim_iterates",
    ),
    Wrong(
        "bim: one step too few",
        bim(LOOP.replace("range(steps)", "range(1, steps)")),
        {"bim_iterates", "bim_each", "bim_alone"},
        "One step is missing",
        "bim_iterates",
    ),
    Wrong(
        "bim: changes the caller's x",
        bim(
            """
first = x.clone()
for _ in range(steps):
    z = x.clone().requires_grad_(True)
    g, = torch.autograd.grad(F.cross_entropy(model(z), y), z)
    x += alpha * g.sign()
    x.copy_(torch.max(torch.min(x, first + eps), first - eps).clamp(0, 1))
return x
"""
        ),
        {"bim_alone"},
        "The caller's x has changed",
    ),
    Wrong(
        "bim: the box moves because the start is not a copy",
        bim(
            """
x_adv = x
for _ in range(steps):
    z = x_adv.clone().requires_grad_(True)
    g, = torch.autograd.grad(F.cross_entropy(model(z), y), z)
    x_adv += alpha * g.sign()
    x_adv = torch.max(torch.min(x_adv, x + eps), x - eps).clamp(0, 1)
return x_adv
"""
        ),
        {"bim_each", "bim_box", "bim_clip", "bim_alone"},
        "The caller's x has changed",
    ),
    Wrong(
        "curve: the accuracy of the clean images",
        curve(
            """
accs = []
for eps in epsilons:
    x_adv = attack(model, x, y, eps)
    accs.append((model(x).argmax(1) == y).float().mean().item())
return torch.tensor(accs)
"""
        ),
        CURVE,
        "on the clean images",
    ),
    Wrong(
        "curve: percent",
        curve(
            """
return torch.tensor([100 * (model(attack(model, x, y, e)).argmax(1) == y).float().mean().item()
                     for e in epsilons])
"""
        ),
        CURVE,
        "not percent",
    ),
    Wrong(
        "curve: counts",
        curve(
            """
return torch.tensor([(model(attack(model, x, y, e)).argmax(1) == y).sum().item() for e in epsilons])
"""
        ),
        CURVE,
        "Divide by how many there are",
    ),
    Wrong(
        "curve: the attack's success instead of the accuracy",
        curve(
            """
return torch.stack([(model(attack(model, x, y, e)).argmax(1) != y).float().mean() for e in epsilons])
"""
        ),
        CURVE,
        "the share of errors",
    ),
    Wrong(
        "curve: each attack on top of the last",
        curve(
            """
accs = []
for eps in epsilons:
    x = attack(model, x, y, eps)
    accs.append((model(x).argmax(1) == y).float().mean())
return torch.stack(accs)
"""
        ),
        {"curve_many"},
        "Start from x for every epsilon",
    ),
    Wrong(
        "curve: the largest logit of each column",
        curve(
            """
return torch.stack([(model(attack(model, x, y, e)).argmax(0) == y).float().mean() for e in epsilons])
"""
        ),
        CURVE,
        "RuntimeError",
    ),
    Wrong(
        "curve: no gradient for the attack",
        curve(
            """
accs = []
with torch.no_grad():
    for eps in epsilons:
        out = model(attack(model, x, y, eps))
        accs.append((out.argmax(1) == y).float().mean())
return torch.stack(accs)
"""
        ),
        CURVE,
        "torch.no_grad()",
    ),
    Wrong(
        "curve: the model's answers as labels for the attack",
        curve(
            """
with torch.no_grad():
    pred = model(x).argmax(1)
return torch.stack([(model(attack(model, x, pred, e)).argmax(1) == y).float().mean() for e in epsilons])
"""
        ),
        CURVE,
        "Pass it the true labels",
    ),
    Wrong(
        "curve: in the order of the sorted epsilons",
        curve(
            """
accs = []
for eps in sorted(epsilons):
    pred = model(attack(model, x, y, eps)).argmax(1)
    accs.append((pred == y).float().mean())
return torch.stack(accs)
"""
        ),
        {"curve_many"},
        "not in the order",
    ),
]

RIGHT: list[Right] = [
    Right(
        "backward and .grad, sum of the losses",
        fgsm(
            """
adv = x.clone().detach()
adv.requires_grad = True
criterion = torch.nn.CrossEntropyLoss(reduction="sum")
criterion(model(adv), y).backward()
with torch.no_grad():
    adv = adv + eps * torch.sign(adv.grad)
    adv = torch.clamp(adv, min=0.0, max=1.0)
return adv.detach()
"""
        ),
    ),
    Right(
        "double precision on a copy of the model, returned as float64",
        fgsm(
            """
m = copy.deepcopy(model).double()
z = x.double().requires_grad_(True)
g, = torch.autograd.grad(F.cross_entropy(m(z), y), z)
return torch.clip(x.double() + eps * g.sign(), 0, 1)
""",
            "import copy\n\n\n",
        ),
    ),
    Right(
        "torch.func, and where instead of sign",
        fgsm(
            """
print("attacking", tuple(x.shape), "with", eps)
g = grad(lambda z: F.cross_entropy(model(z), y))(x.detach())
step = torch.where(g > 0, eps, -eps)
out = x.detach() + step
out = torch.where(out < 0, torch.zeros_like(out), out)
return torch.where(out > 1, torch.ones_like(out), out)
""",
            "from torch.func import grad\n\n\n",
        ),
    ),
    Right(
        "image by image, in NumPy at the end",
        fgsm(
            """
images = []
for image, label in zip(x, y):
    z = image[None].clone().requires_grad_(True)
    logp = torch.log_softmax(model(z), dim=1)
    (-logp[0, int(label)]).backward()
    images.append(np.clip(image.numpy() + eps * np.sign(z.grad[0].numpy()), 0, 1))
return torch.from_numpy(np.stack(images))
""",
            "import numpy as np\n\n\n",
        ),
    ),
    Right(
        "evaluation mode inside, restored after, result still on the graph",
        fgsm(
            """
was = model.training
model.eval()
try:
    z = x.clone().requires_grad_()
    loss = -torch.log_softmax(model(z), 1).gather(1, y[:, None]).mean()
    loss.backward()
finally:
    model.train(was)
return (z + eps * z.grad.sign()).clip(0, 1)
"""
        ),
    ),
    Right(
        "a class, a warning, and options with defaults",
        {
            "fgsm": '''
class Attack:
    """Signed steps."""

    def __init__(self, model, way=1):
        self.model, self.way = model, way

    def gradient(self, x, y):
        x = x.detach().clone().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(self.model(x), y), x)[0]

    def __call__(self, x, y, eps):
        import warnings

        warnings.warn("this model is under attack")
        return torch.clamp(x + self.way * eps * self.gradient(x, y).sign(), 0, 1)


def fgsm(model, x, y, eps, way=1):
    return Attack(model, way)(x, y, eps)
''',
            **targeted("return fgsm(model, x, target, eps, way=-1)"),
            **bim(
                """
if steps == 0:
    return x
attack = Attack(model)
adv = x + 0
for i in range(steps):
    adv = attack(adv, y, alpha)
    adv = x + torch.clamp(adv - x, -eps, eps)
return adv
"""
            ),
        },
    ),
    Right(
        "inline everywhere, in place on a copy",
        {
            **targeted(
                """
z = x.clone().requires_grad_(True)
g, = torch.autograd.grad(F.cross_entropy(model(z), target), z)
return x.sub(eps * g.sign()).clamp_(0, 1)
"""
            ),
            **bim(LOOP),
        },
    ),
    Right(
        "targeted by raising minus the loss",
        targeted(
            """
z = x.clone().requires_grad_(True)
(-F.cross_entropy(model(z), target)).backward()
return torch.clamp(x + eps * z.grad.sign(), 0, 1).numpy()
"""
        ),
    ),
    Right(
        "bim by the change, re-clipped to the image",
        bim(
            """
delta = torch.zeros_like(x, requires_grad=True)
for _ in range(steps):
    loss = F.cross_entropy(model(x + delta), y)
    loss.backward()
    with torch.no_grad():
        delta += alpha * delta.grad.sign()
        delta.clamp_(-eps, eps)
        delta.copy_((x + delta).clamp(0, 1) - x)
    delta.grad.zero_()
return (x + delta).detach()
"""
        ),
    ),
    Right(
        "bim by the change, clipped to the image only when used",
        bim(
            """
delta = torch.zeros_like(x)
for _ in range(steps):
    z = (x + delta).clamp(0, 1).requires_grad_(True)
    g, = torch.autograd.grad(F.cross_entropy(model(z), y), z)
    delta = (delta + alpha * g.sign()).clamp(-eps, eps)
return (x + delta).clamp(0, 1)
"""
        ),
    ),
    Right(
        "bim by recursion",
        bim(
            """
def go(z, left):
    if left == 0:
        return z
    z = fgsm(model, z, y, alpha)
    return go(torch.minimum(torch.maximum(z, x - eps), x + eps), left - 1)

return go(x, steps)
"""
        ),
    ),
    Right(
        "curve with a helper, a list of floats",
        curve(
            """
found = []
for eps in epsilons:
    adv = attack(model, x.clone(), y, eps)
    found.append(_accuracy(model, adv, y))
return found
""",
            "@torch.no_grad()\ndef _accuracy(model, x, y):\n"
            "    return sum(int(model(a[None]).argmax()) == int(b) for a, b in zip(x, y)) / len(y)\n\n\n",
        ),
    ),
    Right(
        "curve in one tensor of float64",
        curve(
            """
out = torch.empty(len(epsilons), dtype=torch.float64)
for i, e in enumerate(epsilons):
    p = F.softmax(model(attack(model, x, y, e)), dim=-1)
    out[i] = p.max(dim=-1).indices.eq(y).double().mean()
return out
"""
        ),
    ),
    Right(
        "curve in batches, keyword arguments, gradients switched back on",
        curve(
            """
out = []
for e in epsilons:
    right = 0
    for i in range(0, len(x), 5):
        with torch.enable_grad():
            adv = attack(model=model, x=x[i:i + 5], y=y[i:i + 5], eps=e)
        with torch.inference_mode():
            right += (model(adv).topk(1, dim=1).indices[:, 0] == y[i:i + 5]).sum().item()
    out.append(right / x.shape[0])
return torch.as_tensor(out)
"""
        ),
    ),
]
