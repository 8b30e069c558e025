"""Answers to assignment 1 that students write: wrong ones with what they lose, and right ones."""

from __future__ import annotations

from course_lib.grading.catalogue import Right, Wrong

HEADS = {
    "discriminator_loss": "discriminator_loss(real_logits, fake_logits)",
    "generator_loss": "generator_loss(fake_logits, saturating=False)",
    "discriminator_step": "discriminator_step(generator, discriminator, optimizer, real, noise)",
    "generator_step": "generator_step(generator, discriminator, optimizer, noise)",
    "train": "train(generator, discriminator, g_optimizer, d_optimizer, batches, sample_noise, k=1)",
}


def cell(name: str, body: str, before: str = "") -> dict[str, str]:
    """Return one answer cell with this body."""
    lines = body.strip("\n").splitlines()
    indented = "\n".join(f"    {line}" if line else "" for line in lines)
    return {name: f"{before}def {HEADS[name]}:\n{indented}\n"}


D_LOSS = {"d_loss_values", "d_loss_extreme"}
G_LOSS = {"g_loss_values", "g_loss_saturating", "g_loss_extreme"}
D_STEP = {"d_step", "d_again", "d_leaves"}
G_STEP = {"g_step", "g_again", "g_leaves"}
TRAIN = {"train_rounds", "train_k", "train_history"}

#: Turns that set their gradients to zero when they are done, not before.
D_AFTER = """
fake = generator(noise).detach()
loss = discriminator_loss(discriminator(real), discriminator(fake))
loss.backward()
optimizer.step()
optimizer.zero_grad()
return loss.item()
"""
G_AFTER = """
for p in discriminator.parameters():
    p.requires_grad = False
loss = generator_loss(discriminator(generator(noise)))
loss.backward()
optimizer.step()
optimizer.zero_grad()
for p in discriminator.parameters():
    p.requires_grad = True
return loss.item()
"""
D_TURN = """
optimizer.zero_grad()
fake = generator(noise).detach()
loss = discriminator_loss(discriminator(real), discriminator(fake))
loss.backward()
optimizer.step()
return loss.item()
"""
G_TURN = """
optimizer.zero_grad()
loss = generator_loss(discriminator(generator(noise)))
loss.backward()
optimizer.step()
return loss.item()
"""
LOOP = """
history = []
batches = iter(batches)
while True:
    for _ in range(k):
        real = next(batches, None)
        if real is None:
            return history
        z = sample_noise(real.shape[0])
        d_loss = discriminator_step(generator, discriminator, d_optimizer, real, z)
    z = sample_noise(real.shape[0])
    g_loss = generator_step(generator, discriminator, g_optimizer, z)
    history.append((d_loss, g_loss))
"""


def d_turn(old: str, new: str) -> dict[str, str]:
    """Return the discriminator's turn with a change."""
    assert old in D_TURN
    return cell("discriminator_step", D_TURN.replace(old, new))


def g_turn(old: str, new: str) -> dict[str, str]:
    """Return the generator's turn with a change."""
    assert old in G_TURN
    return cell("generator_step", G_TURN.replace(old, new))


def loop(old: str, new: str) -> dict[str, str]:
    """Return the training loop with a change."""
    assert old in LOOP
    return cell("train", LOOP.replace(old, new))


WRONG: list[Wrong] = [
    Wrong(
        "log of a sigmoid, step by step",
        cell(
            "discriminator_loss",
            """
d_real = torch.sigmoid(real_logits)
d_fake = torch.sigmoid(fake_logits)
return -torch.log(d_real).mean() - torch.log(1 - d_fake).mean()
""",
        ),
        {"d_loss_extreme"},
        "sigmoid(100) is rounded to 1",
    ),
    Wrong(
        "a small constant in the logarithm",
        cell(
            "discriminator_loss",
            """
d_real, d_fake = real_logits.sigmoid(), fake_logits.sigmoid()
return -(torch.log(d_real + 1e-8).mean() + torch.log(1 - d_fake + 1e-8).mean())
""",
        ),
        {"d_loss_extreme"},
        "cut off",
    ),
    Wrong(
        "binary_cross_entropy of probabilities, which is cut off at 100 and has no gradient there",
        cell(
            "discriminator_loss",
            """
real = F.binary_cross_entropy(torch.sigmoid(real_logits), torch.ones_like(real_logits))
fake = F.binary_cross_entropy(torch.sigmoid(fake_logits), torch.zeros_like(fake_logits))
return real + fake
""",
        ),
        {"d_loss_extreme"},
        "sigmoid(100) is rounded to 1",
    ),
    Wrong(
        "torch.where around an infinite branch",
        cell(
            "discriminator_loss",
            """
def softplus(l):
    return torch.where(l > 30, l, torch.log1p(torch.exp(l)))
return softplus(-real_logits).mean() + softplus(fake_logits).mean()
""",
        ),
        {"d_loss_extreme"},
        "torch.where computes both branches",
    ),
    Wrong(
        "the mean of the two parts",
        cell(
            "discriminator_loss",
            """
a = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
b = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
return (a + b) / 2
""",
        ),
        D_LOSS,
        "the sum of its real and its fake part",
    ),
    Wrong(
        "one mean over both batches",
        cell(
            "discriminator_loss",
            """
logits = torch.cat([real_logits, fake_logits])
labels = torch.cat([torch.ones_like(real_logits), torch.zeros_like(fake_logits)])
return F.binary_cross_entropy_with_logits(logits, labels)
""",
        ),
        D_LOSS,
        "Each part has its own mean",
        "d_loss_values",
    ),
    Wrong(
        "labels swapped",
        cell(
            "discriminator_loss",
            """
a = F.binary_cross_entropy_with_logits(real_logits, torch.zeros_like(real_logits))
b = F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))
return a + b
""",
        ),
        D_LOSS,
        "changed places",
        "d_loss_values",
    ),
    Wrong(
        "the value instead of the loss",
        cell(
            "discriminator_loss",
            "return F.logsigmoid(real_logits).mean() + F.logsigmoid(-fake_logits).mean()",
        ),
        D_LOSS,
        "a loss is what is made small",
        "d_loss_values",
    ),
    Wrong(
        "the fakes labelled as real",
        cell(
            "discriminator_loss",
            "return -F.logsigmoid(real_logits).mean() - F.logsigmoid(fake_logits).mean()",
        ),
        D_LOSS,
        "labelled as real, too",
        "d_loss_values",
    ),
    Wrong(
        "the real part only",
        cell("discriminator_loss", "return -F.logsigmoid(real_logits).mean()"),
        D_LOSS,
        "The fakes are missing",
        "d_loss_values",
    ),
    Wrong(
        "summed over the batch",
        cell(
            "discriminator_loss",
            "return F.softplus(-real_logits).sum() + F.softplus(fake_logits).sum()",
        ),
        D_LOSS,
        "summed over the batch",
        "d_loss_values",
    ),
    Wrong(
        "a sigmoid before a loss that takes logits",
        cell(
            "discriminator_loss",
            """
bce = nn.BCEWithLogitsLoss()
r, f = torch.sigmoid(real_logits), torch.sigmoid(fake_logits)
return bce(r, torch.ones_like(r)) + bce(f, torch.zeros_like(f))
""",
        ),
        D_LOSS,
        "The sigmoid is taken twice",
        "d_loss_values",
    ),
    Wrong(
        "real and fake added point by point",
        cell(
            "discriminator_loss",
            "return -(F.logsigmoid(real_logits) + F.logsigmoid(-fake_logits)).mean()",
        ),
        D_LOSS,
        "RuntimeError",
    ),
    Wrong(
        "the generator's losses exchanged",
        cell(
            "generator_loss",
            """
if saturating:
    return -F.logsigmoid(fake_logits).mean()
return F.logsigmoid(-fake_logits).mean()
""",
        ),
        G_LOSS,
        "This is the saturating loss",
        "g_loss_values",
    ),
    Wrong(
        "saturating is ignored",
        cell("generator_loss", "return -F.logsigmoid(fake_logits).mean()"),
        {"g_loss_saturating", "g_loss_extreme"},
        "This is the non-saturating loss",
        "g_loss_saturating",
    ),
    Wrong(
        "the generator learns to be caught",
        cell(
            "generator_loss",
            """
if saturating:
    return -F.logsigmoid(-fake_logits).mean()
return F.logsigmoid(fake_logits).mean()
""",
        ),
        G_LOSS,
        "The sign is the other one",
        "g_loss_values",
    ),
    Wrong(
        "the discriminator's fake part as the generator's loss",
        cell(
            "generator_loss",
            """
if saturating:
    return F.logsigmoid(-fake_logits).mean()
return F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
""",
        ),
        {"g_loss_values", "g_loss_extreme"},
        "The generator wants the opposite",
        "g_loss_values",
    ),
    Wrong(
        "the generator's losses through probabilities",
        cell(
            "generator_loss",
            """
p = torch.sigmoid(fake_logits)
if saturating:
    return torch.log(1 - p).mean()
return -torch.log(p).mean()
""",
        ),
        {"g_loss_extreme"},
        "sigmoid(100) is rounded to 1",
    ),
    Wrong(
        "a generator loss in Python numbers, without a gradient",
        cell(
            "generator_loss",
            """
import math
total = 0.0
for l in fake_logits.flatten().tolist():
    total += -math.log(1 + math.exp(l)) if saturating else math.log(1 + math.exp(-l))
return total / len(fake_logits)
""",
        ),
        {"g_loss_extreme"},
        "no gradient: compute it with PyTorch",
    ),
    Wrong(
        "no detach, and gradients set to zero after the step",
        {
            **cell("discriminator_step", D_AFTER.replace(".detach()", "")),
            **cell("generator_step", G_AFTER),
        },
        {"d_leaves"},
        "the discriminator's gradients reached the generator: detach the fakes",
    ),
    Wrong(
        "gradients of the generator's turn stay in the discriminator",
        {
            **cell("discriminator_step", D_AFTER),
            "generator_step": cell("generator_step", G_AFTER)["generator_step"].replace(
                "requires_grad = False", "requires_grad = True"
            ),
        },
        {"g_leaves"},
        "left in the discriminator and not set to zero",
    ),
    Wrong(
        "the discriminator stays frozen",
        cell("generator_step", "discriminator.requires_grad_(False)\n" + G_TURN.strip()),
        {"g_leaves"},
        "it was left frozen",
        "g_leaves",
    ),
    Wrong(
        "discriminator_step never sets gradients to zero",
        d_turn("optimizer.zero_grad()\n", ""),
        {"d_again"},
        "The gradient of the first step is still there",
        "d_again",
    ),
    Wrong(
        "discriminator_step sets the generator's gradients to zero instead",
        d_turn("optimizer.zero_grad()\n", "generator.zero_grad()\n"),
        {"d_again"},
        "set the gradients to zero in every step",
        "d_again",
    ),
    Wrong(
        "zero_grad between backward and step",
        cell(
            "discriminator_step",
            """
fake = generator(noise).detach()
loss = discriminator_loss(discriminator(real), discriminator(fake))
loss.backward()
optimizer.zero_grad()
optimizer.step()
return loss.item()
""",
        ),
        D_STEP,
        "The optimizer has not moved it",
        "d_step",
    ),
    Wrong(
        "discriminator_step without optimizer.step",
        d_turn("optimizer.step()\n", ""),
        D_STEP,
        "The optimizer has not moved it",
        "d_step",
    ),
    Wrong(
        "real and fake passed in the wrong order",
        d_turn(
            "discriminator(real), discriminator(fake)", "discriminator(fake), discriminator(real)"
        ),
        D_STEP,
        "Real and fake logits have changed places",
        "d_step",
    ),
    Wrong(
        "the discriminator maximises its loss",
        d_turn("loss.backward()", "(-loss).backward()"),
        D_STEP,
        "goes up its loss",
        "d_step",
    ),
    Wrong(
        "the discriminator never sees a fake",
        d_turn(
            "loss = discriminator_loss(discriminator(real), discriminator(fake))",
            "loss = -F.logsigmoid(discriminator(real)).mean()",
        ),
        D_STEP,
        "learns nothing from the fakes",
        "d_step",
    ),
    Wrong(
        "the fakes judged under no_grad",
        d_turn(
            "loss = discriminator_loss(discriminator(real), discriminator(fake))",
            "with torch.no_grad():\n    judged = discriminator(generator(noise))\n"
            "loss = discriminator_loss(discriminator(real), judged)",
        ),
        D_STEP,
        "learns nothing from the fakes",
        "d_step",
    ),
    Wrong(
        "the mean of both parts in the turn",
        d_turn(
            "loss = discriminator_loss(discriminator(real), discriminator(fake))",
            "loss = discriminator_loss(discriminator(real), discriminator(fake)) / 2",
        ),
        {"d_step", "d_leaves"},
        "The step is half as long",
        "d_step",
    ),
    Wrong(
        "both players move in the discriminator's turn",
        cell(
            "discriminator_step",
            """
optimizer.zero_grad()
generator.zero_grad()
loss = discriminator_loss(discriminator(real), discriminator(generator(noise)))
loss.backward()
optimizer.step()
with torch.no_grad():
    for p in generator.parameters():
        p -= 0.1 * p.grad
generator.zero_grad()
return loss.item()
""",
        ),
        {"d_step", "d_again", "d_leaves"},
        "The generator moved in the discriminator's turn",
        "d_step",
    ),
    Wrong(
        "the loss after the step",
        d_turn(
            "return loss.item()",
            "return discriminator_loss(discriminator(real), discriminator(fake)).item()",
        ),
        {"d_step"},
        "not one measured after",
    ),
    Wrong(
        "noise of its own instead of the argument",
        d_turn("generator(noise)", "generator(torch.randn_like(noise))"),
        D_STEP,
        "The values are not those of the formula",
        "d_step",
    ),
    Wrong(
        "the turn returns nothing",
        d_turn("return loss.item()", "loss.item()"),
        {"d_step"},
        "is a return missing?",
    ),
    Wrong(
        "the generator's turn detaches its own points",
        g_turn("generator(noise)", "generator(noise).detach()"),
        G_STEP,
        "The optimizer has not moved it",
        "g_step",
    ),
    Wrong(
        "the generator's turn freezes through no_grad",
        g_turn(
            "loss = generator_loss(discriminator(generator(noise)))",
            "fake = generator(noise)\nwith torch.no_grad():\n    logits = discriminator(fake)\n"
            "loss = generator_loss(logits)",
        ),
        G_STEP,
        "Your code raised RuntimeError",
    ),
    Wrong(
        "the saturating loss in the turn",
        g_turn("(generator(noise)))", "(generator(noise)), saturating=True)"),
        G_STEP,
        "Use the non-saturating one",
        "g_step",
    ),
    Wrong(
        "the generator helps the discriminator",
        g_turn("loss.backward()", "(-loss).backward()"),
        G_STEP,
        "it learns to be caught",
        "g_step",
    ),
    Wrong(
        "generator_step never sets gradients to zero",
        g_turn("optimizer.zero_grad()\n", ""),
        {"g_again"},
        "The gradient of the first step is still there",
        "g_again",
    ),
    Wrong(
        "generator_step sets the discriminator's gradients to zero instead",
        g_turn("optimizer.zero_grad()\n", "discriminator.zero_grad()\n"),
        {"g_again"},
        "set the gradients to zero in every step",
    ),
    Wrong(
        "the discriminator moves in the generator's turn",
        cell(
            "generator_step",
            """
optimizer.zero_grad()
discriminator.zero_grad()
loss = generator_loss(discriminator(generator(noise)))
loss.backward()
optimizer.step()
torch.optim.SGD(discriminator.parameters(), lr=0.01).step()
discriminator.zero_grad()
return loss.item()
""",
        ),
        {"g_step", "g_again", "g_leaves"},
        "The discriminator moved in the generator's turn",
        "g_step",
    ),
    Wrong(
        "k is ignored",
        loop("range(k)", "range(1)"),
        {"train_k", "train_history"},
        "k is ignored",
        "train_k",
    ),
    Wrong(
        "a generator step after each discriminator step",
        cell(
            "train",
            """
history = []
while True:
    for _ in range(k):
        real = next(batches, None)
        if real is None:
            return history
        z = sample_noise(len(real))
        d_loss = discriminator_step(generator, discriminator, d_optimizer, real, z)
        z = sample_noise(len(real))
        g_loss = generator_step(generator, discriminator, g_optimizer, z)
    history.append((d_loss, g_loss))
""",
        ),
        {"train_k", "train_history"},
        "k is ignored",
        "train_k",
    ),
    Wrong(
        "the same batch k times",
        cell(
            "train",
            """
history = []
for real in batches:
    for _ in range(k):
        z = sample_noise(len(real))
        d_loss = discriminator_step(generator, discriminator, d_optimizer, real, z)
    g_loss = generator_step(generator, discriminator, g_optimizer, sample_noise(len(real)))
    history.append((d_loss, g_loss))
return history
""",
        ),
        {"train_k", "train_history"},
        "use the same batch",
        "train_k",
    ),
    Wrong(
        "the same batch and the same noise k times",
        cell(
            "train",
            """
history = []
for real in batches:
    z = sample_noise(len(real))
    for _ in range(k):
        d_loss = discriminator_step(generator, discriminator, d_optimizer, real, z)
    z = sample_noise(len(real))
    g_loss = generator_step(generator, discriminator, g_optimizer, z)
    history.append((d_loss, g_loss))
return history
""",
        ),
        {"train_k", "train_history"},
        "The noise is the same, too",
        "train_k",
    ),
    Wrong(
        "the generator gets the discriminator's noise",
        loop("    z = sample_noise(real.shape[0])\n    g_loss", "    g_loss"),
        TRAIN,
        "Draw fresh noise for its step",
        "train_rounds",
    ),
    Wrong(
        "one batch of noise for the whole training",
        cell(
            "train",
            """
history, z = [], None
for i, real in enumerate(batches):
    z = sample_noise(len(real)) if z is None else z
    d_loss = discriminator_step(generator, discriminator, d_optimizer, real, z)
    if (i + 1) % k == 0:
        history.append((d_loss, generator_step(generator, discriminator, g_optimizer, z)))
return history
""",
        ),
        TRAIN,
        "The same noise is used all the time",
        "train_rounds",
    ),
    Wrong(
        "the generator first",
        cell(
            "train",
            """
history = []
batches = list(batches)
for i in range(0, len(batches), k):
    z = sample_noise(len(batches[i]))
    g_loss = generator_step(generator, discriminator, g_optimizer, z)
    for real in batches[i:i + k]:
        z = sample_noise(len(real))
        d_loss = discriminator_step(generator, discriminator, d_optimizer, real, z)
    history.append((d_loss, g_loss))
return history
""",
        ),
        TRAIN,
        "The generator moves first",
        "train_rounds",
    ),
    Wrong(
        "the losses in the wrong order",
        loop("(d_loss, g_loss)", "(g_loss, d_loss)"),
        {"train_history"},
        "in the wrong order",
    ),
    Wrong(
        "the sum of the discriminator's losses",
        cell(
            "train",
            """
history, total = [], 0.0
for step, real in enumerate(batches):
    z = sample_noise(len(real))
    total += discriminator_step(generator, discriminator, d_optimizer, real, z)
    if step % k == k - 1:
        g = generator_step(generator, discriminator, g_optimizer, sample_noise(len(real)))
        history.append((total, g))
        total = 0.0
return history
""",
        ),
        {"train_history"},
        "the sum over its k steps",
    ),
    Wrong(
        "two lists instead of pairs",
        cell(
            "train",
            """
d_losses, g_losses = [], []
for step, real in enumerate(batches, 1):
    z = sample_noise(len(real))
    d = discriminator_step(generator, discriminator, d_optimizer, real, z)
    d_losses.append(d)
    if step % k == 0:
        z = sample_noise(len(real))
        g_losses.append(generator_step(generator, discriminator, g_optimizer, z))
return d_losses + g_losses
""",
        ),
        {"train_history"},
        "not one pair of numbers per round",
    ),
    Wrong(
        "the history of the last round only",
        loop("return history", "return [(d_loss, g_loss)]"),
        {"train_history"},
        "not one pair of numbers per round",
    ),
    Wrong(
        "train forgets to return",
        cell("train", LOOP.replace("return history", "return")),
        {"train_history"},
        "not one pair of numbers per round",
    ),
    Wrong(
        "train swaps the optimizers",
        cell(
            "train",
            LOOP.replace("d_optimizer, real", "x_optimizer, real")
            .replace("g_optimizer, z", "d_optimizer, z")
            .replace("x_optimizer", "g_optimizer"),
        ),
        TRAIN,
        "Each player needs its own optimizer",
        "train_rounds",
    ),
    Wrong(
        "sample_noise without its argument",
        cell("train", LOOP.replace("sample_noise(real.shape[0])", "sample_noise()")),
        TRAIN,
        "Your code raised TypeError",
    ),
]

RIGHT: list[Right] = [
    Right(
        "binary cross-entropy with logits",
        {
            **cell(
                "discriminator_loss",
                """
bce = F.binary_cross_entropy_with_logits
real = bce(real_logits, torch.ones_like(real_logits))
fake = bce(fake_logits, torch.zeros_like(fake_logits))
return real + fake
""",
            ),
            **cell(
                "generator_loss",
                """
bce = F.binary_cross_entropy_with_logits
if not saturating:
    return bce(fake_logits, torch.ones_like(fake_logits))
else:
    return -bce(fake_logits, torch.zeros_like(fake_logits))
""",
            ),
        },
    ),
    Right(
        "softplus in double precision, returned as float64",
        {
            **cell(
                "discriminator_loss",
                """
r, f = real_logits.double().squeeze(-1), fake_logits.double().squeeze(-1)
return F.softplus(-r).sum() / len(r) + F.softplus(f).sum() / len(f)
""",
            ),
            **cell(
                "generator_loss",
                """
l = fake_logits.double()
zero = torch.zeros_like(l)
if saturating:
    return -torch.logaddexp(zero, l).mean()
return torch.logaddexp(zero, -l).mean()
""",
            ),
        },
    ),
    Right(
        "the maximum pulled out by hand, in a loop, with prints",
        {
            **cell(
                "discriminator_loss",
                """
print("logits:", real_logits.shape, fake_logits.shape)
total_real = 0
for l in real_logits.flatten():
    total_real = total_real + _log_one_plus_exp(-l)
total_fake = 0
for l in fake_logits.flatten():
    total_fake = total_fake + _log_one_plus_exp(l)
return total_real / real_logits.numel() + total_fake / fake_logits.numel()
""",
                "def _log_one_plus_exp(l):\n"
                "    return torch.clamp(l, min=0) + torch.log1p(torch.exp(-torch.abs(l)))\n\n\n",
            ),
            **cell(
                "generator_loss",
                """
sign, l = (-1, fake_logits) if saturating else (1, -fake_logits)
return sign * _log_one_plus_exp(l).mean()
""",
            ),
        },
    ),
    Right(
        "log_softmax over two classes, a class of losses",
        {
            "discriminator_loss": '''
class LogLoss:
    """The cross-entropy of two classes."""

    def __init__(self, label):
        self.label = label

    def __call__(self, logits):
        two = torch.stack([torch.zeros_like(logits), logits], dim=-1)
        return -two.log_softmax(dim=-1)[..., self.label].mean()


is_real, is_fake = LogLoss(1), LogLoss(0)


def discriminator_loss(real_logits, fake_logits):
    return is_real(real_logits) + is_fake(fake_logits)
''',
            **cell(
                "generator_loss",
                "return -is_fake(fake_logits) if saturating else is_real(fake_logits)",
            ),
        },
    ),
    Right(
        "forged under no_grad, one pass over both batches",
        {
            **cell(
                "discriminator_step",
                """
with torch.no_grad():
    fake = generator(noise)
logits = discriminator(torch.cat([real, fake]))
loss = discriminator_loss(logits[: len(real)], logits[len(real):])
optimizer.zero_grad(set_to_none=True)
loss.backward()
optimizer.step()
return float(loss)
""",
            ),
            **cell(
                "generator_step",
                """
flags = [p.requires_grad for p in discriminator.parameters()]
discriminator.requires_grad_(False)
try:
    optimizer.zero_grad(set_to_none=True)
    loss = generator_loss(fake_logits=discriminator(generator(noise)))
    loss.backward()
    optimizer.step()
finally:
    for p, flag in zip(discriminator.parameters(), flags):
        p.requires_grad_(flag)
return loss.detach().cpu().numpy()
""",
            ),
        },
    ),
    Right(
        "losses inline, two backward passes, tensors returned",
        {
            **cell(
                "discriminator_step",
                """
import warnings
warnings.warn("the judge moves")
discriminator.train()
discriminator.zero_grad()
real_part = F.softplus(-discriminator(real)).mean()
real_part.backward()
fake_part = F.softplus(discriminator(generator(noise).detach())).mean()
fake_part.backward()
optimizer.step()
return real_part + fake_part
""",
            ),
            **cell(
                "generator_step",
                """
generator.train()
generator.zero_grad()
loss = F.softplus(-discriminator(generator(noise))).mean()
loss.backward()
optimizer.step()
return loss
""",
            ),
        },
    ),
    Right(
        "gradients set to zero after the step, in both turns",
        {**cell("discriminator_step", D_AFTER), **cell("generator_step", G_AFTER)},
    ),
    Right(
        "no detach, but both turns begin with zeros",
        {
            **d_turn(".detach()", ""),
            **cell("generator_step", "discriminator.zero_grad()\n" + G_TURN.strip()),
        },
    ),
    Right(
        "torch.autograd.grad, gradients put in place by hand",
        {
            **cell(
                "discriminator_step",
                """
fake = generator(noise)
loss = discriminator_loss(discriminator(real), discriminator(fake))
_put(discriminator, torch.autograd.grad(loss, list(discriminator.parameters())))
optimizer.step()
return loss.item()
""",
                "def _put(module, gradients):\n"
                "    for p, g in zip(module.parameters(), gradients):\n        p.grad = g\n\n\n",
            ),
            **cell(
                "generator_step",
                """
loss = generator_loss(discriminator(generator(noise)), False)
_put(generator, torch.autograd.grad(loss, list(generator.parameters())))
optimizer.step()
return loss.item()
""",
            ),
        },
    ),
    Right("a while loop and next", cell("train", LOOP)),
    Right(
        "the batches in a list, the mean of the losses",
        cell(
            "train",
            """
data = [b for b in batches]
out = []
for start in range(0, len(data) - k + 1, k):
    losses = []
    for real in data[start:start + k]:
        z = sample_noise(len(real))
        losses.append(float(discriminator_step(generator, discriminator, d_optimizer, real, z)))
    z = sample_noise(len(real))
    g = float(generator_step(generator, discriminator, g_optimizer, z))
    out.append((sum(losses) / k, g))
return out
""",
        ),
    ),
    Right(
        "everything inline in train, steps not called",
        cell(
            "train",
            """
history, step = [], 0
for real in batches:
    fake = generator(sample_noise(real.size(0))).detach()
    d_optimizer.zero_grad()
    d = discriminator_loss(discriminator(real), discriminator(fake))
    d.backward()
    d_optimizer.step()
    step += 1
    if step % k:
        continue
    g_optimizer.zero_grad()
    g = generator_loss(discriminator(generator(sample_noise(real.size(0)))))
    g.backward()
    g_optimizer.step()
    history.append((d.item(), g.item()))
return history
""",
        ),
    ),
    Right(
        "islice, tuples of tensors, an array",
        cell(
            "train",
            """
rounds = []
while chunk := list(islice(batches, k)):
    if len(chunk) < k:
        break
    for real in chunk:
        d = discriminator_step(generator=generator, discriminator=discriminator,
                               optimizer=d_optimizer, real=real, noise=sample_noise(real.shape[0]))
    g = generator_step(generator=generator, discriminator=discriminator,
                       optimizer=g_optimizer, noise=sample_noise(chunk[-1].shape[0]))
    rounds.append([d, g])
return torch.tensor(rounds)
""",
        ),
    ),
    Right(
        "steps with further options",
        {
            **cell("discriminator_step", D_TURN),
            "generator_step": f"def {HEADS['generator_step'][:-1]}, saturating=False):\n"
            + "\n".join(
                "    " + line
                for line in G_TURN.strip()
                .replace("(noise)))", "(noise)), saturating)")
                .splitlines()
            )
            + "\n",
            **cell("train", LOOP.replace("g_optimizer, z)", "g_optimizer, z, saturating=False)")),
        },
    ),
]
