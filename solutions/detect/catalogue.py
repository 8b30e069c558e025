"""Wrong and right answers to the assignment on catching a fake, as students write them."""

from __future__ import annotations

from course_lib.grading.catalogue import Right, Wrong


def _spectrum(
    *,
    centred: str = "images - images.mean(dim=(1, 2), keepdim=True)",
    power: str = "torch.fft.fft2(x, norm='ortho').abs() ** 2",
    f: str = "torch.fft.fftfreq(n) * n",
    radius: str = "torch.round(torch.sqrt(f[:, None] ** 2 + f[None, :] ** 2))",
    last: str = "n // 2",
    ring: str = "p[:, radius == r].mean(dim=1)",
    result: str = "torch.log(s + 1e-8)",
) -> dict[str, str]:
    lines = [
        "def radial_spectrum(images):",
        "    n = images.shape[-1]",
        f"    x = {centred}",
        f"    p = {power}",
        f"    f = {f}",
        f"    radius = {radius}",
        "    s = []",
        f"    for r in range({last} + 1):",
        f"        s.append({ring})",
        "    s = torch.stack(s, dim=1)",
        f"    return {result}",
    ]
    return {"radial_spectrum": "\n".join(lines) + "\n"}


def _eer(body: str) -> dict[str, str]:
    return {"equal_error_rate": "def equal_error_rate(scores, labels):\n" + body}


def _fit(
    *,
    before: str = "m, d = features.mean(0), features.std(0) + 1e-8",
    z: str = "(features - m) / d",
    y: str = "labels.float()",
    steps: str = "400",
    lr: str = "0.05",
    scores: str = "model((f - m) / d).squeeze(1)",
) -> dict[str, str]:
    lines = [
        "def fit_detector(features, labels):",
        f"    {before}",
        f"    z = {z}",
        f"    y = {y}",
        "    model = nn.Linear(features.shape[1], 1)",
        f"    opt = torch.optim.Adam(model.parameters(), lr={lr}, weight_decay=1e-4)",
        f"    for _ in range({steps}):",
        "        loss = F.binary_cross_entropy_with_logits(model(z).squeeze(1), y)",
        "        opt.zero_grad()",
        "        loss.backward()",
        "        opt.step()",
        "    def detector(f):",
        f"        return {scores}",
        "    return detector",
    ]
    return {"fit_detector": "\n".join(lines) + "\n"}


def _attack(body: str) -> dict[str, str]:
    return {"attack_detector": "def attack_detector(detector, x, eps):\n" + body}


def _null(body: str) -> dict[str, str]:
    head = "def null_experiment(fit, measure, train, train_labels, test, test_labels, trials, generator):\n"
    return {"null_experiment": head + body}


def _nulls(
    *,
    order: str = "torch.randperm(len(train_labels), generator=generator)",
    rows: str = "train",
    labels: str = "train_labels[p]",
    rate: str = "measure(d(test), test_labels)",
) -> dict[str, str]:
    return _null(
        "    rates = []\n"
        "    for i in range(trials):\n"
        f"        p = {order}\n"
        f"        d = fit({rows}, {labels})\n"
        f"        rates.append({rate})\n"
        "    return rates\n"
    )


def _dealt(line: str, *, before: str = "") -> dict[str, str]:
    """The labels ``y`` of each trial come from ``line``; ``n`` is their number."""
    return _null(
        "    n, rates = len(train_labels), []\n"
        f"{before}"
        "    for trial in range(trials):\n"
        f"        {line}\n"
        "        rates.append(measure(fit(train, y)(test), test_labels))\n"
        "    return rates\n"
    )


def _chosen(line: str) -> dict[str, str]:
    """The people ``chosen``, of ``n`` people and ``k`` for testing, come from ``line``."""
    return _split(
        "    people, counts = person.unique(return_counts=True)\n"
        "    n, k = len(people), round(share * len(people))\n"
        f"    {line}\n"
        "    return torch.isin(person, chosen)\n"
    )


def _split(body: str) -> dict[str, str]:
    return {"split_people": "def split_people(person, share, generator):\n" + body}


def _threshold(body: str) -> dict[str, str]:
    return {"threshold_at": "def threshold_at(real_scores, rate):\n" + body}


def _alarms(body: str) -> dict[str, str]:
    return {"false_alarms": "def false_alarms(score, threshold, images, changes):\n" + body}


_GRADIENT = (
    "    images = x.clone().detach().requires_grad_(True)\n"
    "    detector(images).sum().backward()\n"
    "    g = images.grad\n"
)
_CURVE = (
    "    order = torch.argsort(scores, descending=True)\n"
    "    y = labels[order].double()\n"
    "    tpr = torch.cat([torch.zeros(1), torch.cumsum(y, 0) / y.sum()])\n"
    "    fpr = torch.cat([torch.zeros(1), torch.cumsum(1 - y, 0) / (1 - y).sum()])\n"
)

SPECTRUM = {"spectrum", "spectrum_level"}
EER = {"eer", "eer_between", "eer_ties"}
DETECTOR = {"detector_ranks", "detector_scales", "detector_constant", "detector_alone"}
ATTACK = {"attack", "attack_range", "attack_leaves_x"}
NULL = {"null_shuffled", "null_new", "null_measured"}
SPLIT = {"split_apart", "split_share", "split_chance"}
THRESHOLD = {"threshold", "threshold_ties"}
ALARMS = {"alarms", "alarms_at"}

WRONG: list[Wrong] = [
    Wrong(
        "radii are shifted, the power is not",
        _spectrum(f="torch.arange(n) - n // 2"),
        {"spectrum", "spectrum_brightness"},
        "fft2 puts frequency 0 in the corner",
        on="spectrum",
    ),
    Wrong(
        "radii from the corner",
        _spectrum(f="torch.arange(n)"),
        {"spectrum"},
        "the second half of them is negative",
    ),
    Wrong(
        "radius cut off",
        _spectrum(radius="torch.sqrt(f[:, None] ** 2 + f[None, :] ** 2).long()"),
        {"spectrum"},
        "cut off, not rounded",
    ),
    Wrong(
        "sum over the ring",
        _spectrum(ring="p[:, radius == r].sum(dim=1)"),
        SPECTRUM,
        "larger rings have more entries",
    ),
    Wrong(
        "amplitude",
        _spectrum(power="torch.fft.fft2(x, norm='ortho').abs()"),
        SPECTRUM,
        "the power is its square",
    ),
    Wrong(
        "no logarithm",
        _spectrum(result="s"),
        {"spectrum", "spectrum_level", "spectrum_brightness"},
        "The logarithm is missing.",
    ),
    Wrong(
        "decimal logarithm",
        _spectrum(result="torch.log10(s + 1e-8)"),
        SPECTRUM,
        "the natural one is meant",
    ),
    Wrong(
        "mean of logarithms",
        _spectrum(power="torch.log(torch.fft.fft2(x, norm='ortho').abs() ** 2 + 1e-8)", result="s"),
        {"spectrum"},
        "Average the power first",
    ),
    Wrong(
        "the transform as it comes",
        _spectrum(power="torch.fft.fft2(x).abs() ** 2"),
        {"spectrum_level"},
        "use the Fourier transform with the factor 1/n",
    ),
    Wrong(
        "with the mean",
        _spectrum(centred="images"),
        {"spectrum_brightness"},
        "subtract each image's own mean",
    ),
    Wrong(
        "one mean for the whole batch",
        _spectrum(centred="images - images.mean()"),
        {"spectrum_brightness"},
        "subtract each image's own mean",
    ),
    Wrong(
        "nothing inside the logarithm",
        _spectrum(result="torch.log(s)"),
        {"spectrum_brightness"},
        "1e-8 inside",
    ),
    Wrong(
        "corners kept",
        _spectrum(last="int(radius.max())"),
        {"spectrum", "spectrum_level", "spectrum_brightness"},
        "the corners beyond radius n/2 are left out",
        on="spectrum",
    ),
    Wrong(
        "half of the plane",
        {
            "radial_spectrum": "def radial_spectrum(images):\n"
            "    n = images.shape[-1]\n"
            "    x = images - images.mean((1, 2), keepdim=True)\n"
            "    p = torch.fft.rfft2(x, norm='ortho').abs().pow(2)\n"
            "    r = torch.hypot(torch.fft.fftfreq(n)[:, None] * n, torch.fft.rfftfreq(n) * n).round()\n"
            "    s = [p[:, r == k].mean(1) for k in range(n // 2 + 1)]\n"
            "    return torch.log(torch.stack(s, 1) + 1e-8)\n"
        },
        {"spectrum"},
        "rfft2 returns half of the plane",
    ),
    Wrong(
        "one spectrum for all images",
        _spectrum(ring="p[:, radius == r].mean()", result="torch.log(s + 1e-8)").copy()
        | {
            "radial_spectrum": _spectrum(ring="p[:, radius == r].mean()")[
                "radial_spectrum"
            ].replace(
                "dim=1)\n    return torch.log(s + 1e-8)",
                "dim=0)[None]\n    return torch.log(s + 1e-8)",
            )
        },
        {"spectrum", "spectrum_level", "spectrum_brightness"},
        "rings has the shape (1,",
        on="spectrum",
    ),
    Wrong(
        "a level for all images, however faint",
        {
            "radial_spectrum": "def radial_spectrum(images):\n"
            "    x = images - images.mean((1, 2), keepdim=True)\n"
            "    x = x / x.std((1, 2), keepdim=True) * images.std()\n"
            + _spectrum(centred="x")["radial_spectrum"].split("\n", 1)[1].replace("images", "x")
        },
        {"spectrum", "spectrum_level"},
        "not that of the formula",
        on="spectrum_level",
    ),
    Wrong(
        "the wrong way round: 1 minus",
        _eer(
            _CURVE + "    gap = (fpr - (1 - tpr)).numpy()\n"
            "    return 1 - float(np.interp(0, gap, fpr.numpy()))\n"
        ),
        EER,
        "A high score was counted as real",
        on="eer",
    ),
    Wrong(
        "errors at one half",
        _eer("    return ((scores >= 0.5).long() != labels).float().mean().item()\n"),
        EER,
        "at one fixed threshold",
        on="eer",
    ),
    Wrong(
        "false alarms at zero",
        _eer("    return float((scores[labels == 0] > 0).float().mean())\n"),
        EER,
        "at one fixed threshold",
        on="eer",
    ),
    Wrong(
        "the nearest point",
        _eer(
            "    best, rate = 2.0, None\n"
            "    for t in sorted(set(scores.tolist())):\n"
            "        fpr = (scores[labels == 0] >= t).float().mean().item()\n"
            "        fnr = (scores[labels == 1] < t).float().mean().item()\n"
            "        if abs(fpr - fnr) < best:\n"
            "            best, rate = abs(fpr - fnr), (fpr + fnr) / 2\n"
            "    return rate\n"
        ),
        {"eer_between", "eer_ties"},
        "draw a straight line between the two",
        on="eer_between",
    ),
    Wrong(
        "equal scores one by one",
        _eer(
            "    order = torch.argsort(scores, descending=True, stable=True)\n"
            "    y = labels[order].double()\n"
            "    tpr = torch.cat([torch.zeros(1), torch.cumsum(y, 0) / y.sum()])\n"
            "    fpr = torch.cat([torch.zeros(1), torch.cumsum(1 - y, 0) / (1 - y).sum()])\n"
            "    return float(np.interp(0, (fpr + tpr - 1).numpy(), fpr.numpy()))\n"
        ),
        {"eer_ties"},
        "Equal scores were passed one by one",
    ),
    Wrong(
        "scores not sorted",
        _eer(
            "    y = labels.double()\n"
            "    tpr, fpr = torch.cumsum(y, 0) / y.sum(), torch.cumsum(1 - y, 0) / (1 - y).sum()\n"
            "    i = (fpr - (1 - tpr)).abs().argmin()\n"
            "    return float(fpr[i])\n"
        ),
        EER,
        "The values are not those of the formula.",
    ),
    Wrong(
        "in percent",
        _eer(
            _CURVE + "    return 100 * float(np.interp(0, (fpr + tpr - 1).numpy(), fpr.numpy()))\n"
        ),
        EER,
        "In percent",
        on="eer",
    ),
    Wrong(
        "labels turned: 1 taken for real",
        _fit(y="1 - labels.float()"),
        {"detector_ranks"},
        "the wrong way round",
    ),
    Wrong(
        "decisions",
        _fit(scores="(model((f - m) / d).squeeze(1) > 0).float()"),
        {"detector_ranks"},
        "These are decisions",
    ),
    Wrong(
        "not standardised",
        _fit(before="m, d = 0, 1", lr="0.01"),
        {"detector_scales"},
        "standard deviation 1",
    ),
    Wrong(
        "only centred",
        _fit(before="m, d = features.mean(0), 1", lr="0.01"),
        {"detector_scales"},
        "columns of very different scales",
    ),
    Wrong(
        "one mean and deviation for all columns",
        _fit(before="m, d = features.mean(), features.std()"),
        {"detector_scales"},
        "columns of very different scales",
    ),
    Wrong(
        "standardised in training only",
        _fit(scores="model(f).squeeze(1)"),
        {"detector_scales"},
        "columns of very different scales",
    ),
    Wrong(
        "divided by a deviation of 0",
        _fit(before="m, d = features.mean(0), features.std(0)"),
        {"detector_constant"},
        "its standard deviation is 0",
    ),
    Wrong(
        "standardised by whatever comes",
        _fit(scores="model((f - f.mean(0)) / (f.std(0) + 1e-8)).squeeze(1)"),
        {"detector_alone"},
        "changes with the images beside it",
    ),
    Wrong(
        "batch norm left in training mode",
        {
            "fit_detector": "def fit_detector(features, labels):\n"
            "    model = nn.Sequential(nn.BatchNorm1d(features.shape[1]),\n"
            "                          nn.Linear(features.shape[1], 1), nn.Flatten(0))\n"
            "    opt = torch.optim.Adam(model.parameters(), lr=0.05)\n"
            "    for _ in range(300):\n"
            "        loss = F.binary_cross_entropy_with_logits(model(features), labels.float())\n"
            "        opt.zero_grad(); loss.backward(); opt.step()\n"
            "    return model\n"
        },
        {"detector_alone"},
        "changes with the images beside it",
    ),
    Wrong(
        "a column of scores",
        _fit(scores="model((f - m) / d)"),
        DETECTOR,
        "one column too many",
    ),
    Wrong(
        "two logits",
        {
            "fit_detector": "def fit_detector(features, labels):\n"
            "    m, d = features.mean(0), features.std(0).clamp(min=1e-8)\n"
            "    model = nn.Linear(features.shape[1], 2)\n"
            "    opt = torch.optim.Adam(model.parameters(), lr=0.05)\n"
            "    for _ in range(200):\n"
            "        loss = F.cross_entropy(model((features - m) / d), labels)\n"
            "        opt.zero_grad(); loss.backward(); opt.step()\n"
            "    return lambda f: model((f - m) / d)\n"
        },
        DETECTOR,
        "one column too many",
    ),
    Wrong(
        "scores of the training set, no detector",
        {
            "fit_detector": _fit()["fit_detector"].replace(
                "    return detector", "    return detector(features)"
            )
        },
        DETECTOR,
        "TypeError",
    ),
    Wrong(
        "the features added up, nothing fitted",
        {
            "fit_detector": "def fit_detector(features, labels):\n"
            "    return lambda f: f.abs().sum(dim=1)\n"
        },
        DETECTOR,
        "clearly worse than a logistic regression",
    ),
    Wrong(
        "only the last ring",
        {
            "fit_detector": "def fit_detector(features, labels):\n"
            "    m, d = features.mean(0), features.std(0) + 1e-8\n"
            "    return lambda f: ((f - m) / d)[:, -1]\n"
        },
        DETECTOR,
        "The scores hardly depend on the features.",
        on="detector_alone",
    ),
    Wrong(
        "only the column that differs most",
        {
            "fit_detector": "def fit_detector(features, labels):\n"
            "    m, d = features.mean(0), features.std(0) + 1e-8\n"
            "    z = (features - m) / d\n"
            "    gap = z[labels == 1].mean(0) - z[labels == 0].mean(0)\n"
            "    j = gap.abs().argmax()\n"
            "    return lambda f: gap[j] * (f - m)[:, j]\n"
        },
        DETECTOR,
        "clearly worse than a logistic regression",
    ),
    Wrong(
        "the largest variance taken for the fakes",
        {
            "fit_detector": "def fit_detector(features, labels):\n"
            "    m, d = features.mean(0), features.std(0) + 1e-8\n"
            "    v = torch.linalg.svd((features - m) / d, full_matrices=False)[2][0]\n"
            "    return lambda f: (f - m) / d @ v\n"
        },
        DETECTOR,
        "clearly worse than a logistic regression",
    ),
    Wrong(
        "the test labels shuffled",
        _null(
            "    rates = []\n"
            "    for _ in range(trials):\n"
            "        shuffled = test_labels[torch.randperm(len(test_labels), generator=generator)]\n"
            "        rates.append(measure(fit(train, train_labels)(test), shuffled))\n"
            "    return rates\n"
        ),
        {"null_shuffled", "null_measured"},
        "measure with the true ones",
        on="null_measured",
    ),
    Wrong(
        "training and test labels shuffled",
        _nulls(
            rate="measure(d(test), test_labels[torch.randperm(len(test), generator=generator)])"
        ),
        {"null_measured"},
        "only training is shuffled",
    ),
    Wrong(
        "images and labels shuffled together",
        _nulls(rows="train[p]"),
        {"null_shuffled"},
        "each image still has its own label",
    ),
    Wrong(
        "nothing shuffled",
        _nulls(labels="train_labels"),
        {"null_shuffled", "null_new"},
        "fitted to the true training labels",
        on="null_shuffled",
    ),
    Wrong(
        "new labels from a coin",
        _nulls(order="torch.randint(0, 2, train_labels.shape, generator=generator)", labels="p"),
        {"null_shuffled"},
        "permute the labels that there are",
    ),
    Wrong(
        "labels drawn with replacement",
        _nulls(order="torch.randint(len(train), (len(train),), generator=generator)"),
        {"null_shuffled"},
        "permute the labels that there are",
    ),
    Wrong(
        "labels turned round",
        _nulls(labels="1 - train_labels"),
        {"null_shuffled", "null_new"},
        "Every trial is the same",
        on="null_new",
    ),
    Wrong(
        "one permutation for all trials",
        _null(
            "    shuffled = train_labels[torch.randperm(len(train_labels), generator=generator)]\n"
            "    return [measure(fit(train, shuffled)(test), test_labels) for _ in range(trials)]\n"
        ),
        {"null_new"},
        "a new permutation in each",
    ),
    Wrong(
        "fitted once",
        _null(
            "    shuffled = train_labels[torch.randperm(len(train_labels), generator=generator)]\n"
            "    detector = fit(train, shuffled)\n"
            "    return [measure(detector(test), test_labels) for _ in range(trials)]\n"
        ),
        NULL,
        "Fit a new detector in every trial",
    ),
    Wrong(
        "a generator of its own",
        _nulls(order="torch.randperm(len(train), generator=torch.Generator().manual_seed(i))"),
        {"null_new"},
        "Another seed gives the same permutations",
    ),
    Wrong(
        "the global generator",
        _nulls(order="torch.randperm(len(train))"),
        {"null_new"},
        "take chance from the generator",
    ),
    Wrong(
        "measured on the training images",
        _nulls(rate="measure(d(train), train_labels)"),
        {"null_new", "null_measured"},
        "measured on the training images",
        on="null_measured",
    ),
    Wrong(
        "the mean alone",
        {
            "null_experiment": _nulls()["null_experiment"].replace(
                "return rates", "return sum(rates) / trials"
            )
        },
        {"null_measured"},
        "one rate for each trial",
    ),
    Wrong(
        "constants for rates",
        _null("    return [0.5] * trials\n"),
        NULL,
        "Fit a new detector in every trial",
    ),
    Wrong(
        "constants after all the work",
        _nulls(rate="0.5 + 0 * measure(d(test), test_labels)"),
        {"null_measured"},
        "on the untouched test images",
    ),
    Wrong(
        "by picture",
        _split(
            "    order = torch.randperm(len(person), generator=generator)\n"
            "    mask = torch.zeros(len(person), dtype=torch.bool)\n"
            "    mask[order[: round(share * len(person))]] = True\n"
            "    return mask\n"
        ),
        {"split_apart", "split_share"},
        "Draw people, not pictures",
        on="split_apart",
    ),
    Wrong(
        "a coin for each picture",
        _split("    return torch.rand(len(person), generator=generator) < share\n"),
        {"split_apart", "split_share"},
        "Pictures were drawn, not people",
        on="split_share",
    ),
    Wrong(
        "the first people",
        _split(
            "    people = torch.unique(person)\n"
            "    return torch.isin(person, people[: round(share * len(people))])\n"
        ),
        {"split_chance"},
        "draw by chance",
    ),
    Wrong(
        "the generator's seed, again and again",
        _split(
            "    people = np.unique(person.numpy())\n"
            "    rng = np.random.default_rng(generator.initial_seed())\n"
            "    k = round(share * len(people))\n"
            "    return torch.from_numpy(np.isin(person.numpy(), rng.permutation(people)[:k]))\n"
        ),
        {"split_chance"},
        "let it run on",
    ),
    Wrong(
        "the global generator for people",
        _split(
            "    people = person.unique()\n"
            "    k = round(share * len(people))\n"
            "    return torch.isin(person, people[torch.randperm(len(people))[:k]])\n"
        ),
        {"split_chance"},
        "from the generator that is handed in",
    ),
    Wrong(
        "a share of the pictures",
        _split(
            "    people = person.unique()\n"
            "    mask = torch.zeros(len(person), dtype=torch.bool)\n"
            "    for i in torch.randperm(len(people), generator=generator):\n"
            "        if mask.sum() >= share * len(person):\n"
            "            break\n"
            "        mask |= person == people[i]\n"
            "    return mask\n"
        ),
        {"split_share"},
        "count people, not pictures",
    ),
    Wrong(
        "ids taken for 0, 1, 2 and so on",
        _split(
            "    n = int(person.max()) + 1\n"
            "    chosen = torch.randperm(n, generator=generator)[: round(share * n)]\n"
            "    return torch.isin(person, chosen)\n"
        ),
        {"split_share"},
        "The ids may be any integers",
    ),
    Wrong(
        "the mask is for training",
        _split(
            "    people = person.unique()\n"
            "    order = torch.randperm(len(people), generator=generator)\n"
            "    chosen = people[order[: round(share * len(people))]]\n"
            "    return ~torch.isin(person, chosen)\n"
        ),
        {"split_share"},
        "the wrong way round",
    ),
    Wrong(
        "number of people cut off",
        _split(
            "    people = person.unique()\n"
            "    order = torch.randperm(len(people), generator=generator)\n"
            "    return torch.isin(person, people[order[: int(share * len(people))]])\n"
        ),
        {"split_share"},
        "cut off, not rounded",
    ),
    Wrong(
        "a coin for each person",
        _split(
            "    people, member = torch.unique(person, return_inverse=True)\n"
            "    return (torch.rand(len(people), generator=generator) < share)[member]\n"
        ),
        {"split_share"},
        "not the share of the people",
    ),
    Wrong(
        "people of pictures drawn by chance",
        _split(
            "    chosen, n = [], len(person.unique())\n"
            "    for i in torch.randperm(len(person), generator=generator):\n"
            "        if person[i] not in chosen and len(chosen) < round(share * n):\n"
            "            chosen.append(person[i].item())\n"
            "    return torch.isin(person, torch.tensor(chosen))\n"
        ),
        {"split_chance"},
        "People with many pictures are drawn more often",
    ),
    Wrong(
        "indices for a mask",
        _split(
            "    people = person.unique()\n"
            "    order = torch.randperm(len(people), generator=generator)\n"
            "    chosen = people[order[: round(share * len(people))]]\n"
            "    return torch.isin(person, chosen).nonzero()[:, 0]\n"
        ),
        SPLIT,
        "one truth value per picture",
    ),
    Wrong(
        "everything for testing",
        _split("    return torch.ones(len(person), dtype=torch.bool)\n"),
        SPLIT,
        "nothing is left to train on",
    ),
    Wrong(
        "a quantile",
        _threshold("    return torch.quantile(real_scores, 1 - rate).item()\n"),
        THRESHOLD,
        "A quantile between two scores",
        on="threshold",
    ),
    Wrong(
        "the quantile of the other end",
        _threshold("    return float(torch.quantile(real_scores, rate))\n"),
        THRESHOLD,
        "not a low one",
    ),
    Wrong(
        "as if an alarm were a score above the threshold",
        _threshold(
            "    s = real_scores.sort(descending=True).values\n"
            "    return s[int(rate * len(s))].item()\n"
        ),
        THRESHOLD,
        "A score equal to the threshold raises an alarm too",
        on="threshold",
    ),
    Wrong(
        "equal scores forgotten",
        _threshold(
            "    s = sorted(real_scores.tolist(), reverse=True)\n"
            "    return s[int(rate * len(s)) - 1]\n"
        ),
        {"threshold_ties"},
        "Equal scores raise an alarm together",
    ),
    Wrong(
        "one alarm less than allowed",
        _threshold(
            "    s = real_scores.unique().flip(0)\n"
            "    k = int(rate * len(real_scores))\n"
            "    best = s[0] + 1\n"
            "    for t in s:\n"
            "        if (real_scores >= t).sum() < k:\n"
            "            best = t\n"
            "    return float(best)\n"
        ),
        {"threshold"},
        "The rate allows more alarms",
    ),
    Wrong(
        "above everything",
        _threshold("    return real_scores.max().item() + 1\n"),
        THRESHOLD,
        "The rate allows more alarms",
    ),
    Wrong(
        "a share of the range",
        _threshold(
            "    low, high = real_scores.min(), real_scores.max()\n"
            "    return float(low + (1 - rate) * (high - low) * 2)\n"
        ),
        THRESHOLD,
        "The rate allows more alarms",
    ),
    Wrong(
        "a new threshold after each change",
        _alarms(
            "    rate = (score(images) >= threshold).float().mean().item()\n"
            "    found = {}\n"
            "    for name, change in changes.items():\n"
            "        s = score(change(images))\n"
            "        k = round(rate * len(s))\n"
            "        t = s.sort(descending=True).values[k - 1]\n"
            "        found[name] = k / len(s)\n"
            "    return found\n"
        ),
        ALARMS,
        "keep the threshold where it was",
        on="alarms",
    ),
    Wrong(
        "above the threshold",
        _alarms(
            "    return {n: (score(c(images)) > threshold).float().mean().item() "
            "for n, c in changes.items()}\n"
        ),
        {"alarms_at"},
        "A score equal to the threshold",
    ),
    Wrong(
        "counts",
        _alarms(
            "    return {n: (score(c(images)) >= threshold).sum().item() for n, c in changes.items()}\n"
        ),
        ALARMS,
        "These are counts",
        on="alarms",
    ),
    Wrong(
        "alarms in per cent",
        _alarms(
            "    return {n: 100 * (score(c(images)) >= threshold).float().mean().item() "
            "for n, c in changes.items()}\n"
        ),
        ALARMS,
        "In per cent",
        on="alarms",
    ),
    Wrong(
        "one change after the other",
        _alarms(
            "    found = {}\n"
            "    for name, change in changes.items():\n"
            "        images = change(images)\n"
            "        found[name] = float((score(images) >= threshold).float().mean())\n"
            "    return found\n"
        ),
        {"alarms"},
        "make each to the original images",
    ),
    Wrong(
        "the images as they were",
        _alarms(
            "    share = float((score(images) >= threshold).float().mean())\n"
            "    return {name: share for name in changes}\n"
        ),
        ALARMS,
        "score the changed images",
        on="alarms_at",
    ),
    Wrong(
        "those that are newly accused",
        _alarms(
            "    before = score(images) >= threshold\n"
            "    found = {}\n"
            "    for name, change in changes.items():\n"
            "        after = score(change(images)) >= threshold\n"
            "        found[name] = (after & ~before).float().mean().item()\n"
            "    return found\n"
        ),
        ALARMS,
        "every real image accused counts",
        on="alarms",
    ),
    Wrong(
        "the share that is spared",
        _alarms(
            "    return {n: (score(c(images)) < threshold).float().mean().item() "
            "for n, c in changes.items()}\n"
        ),
        ALARMS,
        "the share that is spared",
        on="alarms",
    ),
    Wrong(
        "the change made to the scores",
        _alarms(
            "    s = score(images)\n"
            "    return {n: (c(s) >= threshold).float().mean().item() for n, c in changes.items()}\n"
        ),
        ALARMS,
        "The values are not those of the formula.",
        on="alarms",
    ),
    Wrong(
        "mean scores",
        _alarms("    return {n: score(c(images)).mean().item() for n, c in changes.items()}\n"),
        ALARMS,
        "The values are not those of the formula.",
        on="alarms",
    ),
    Wrong(
        "nobody is ever accused",
        _alarms("    return dict.fromkeys(changes, 0.0)\n"),
        ALARMS,
        "The share is the same after every change",
        on="alarms",
    ),
    Wrong(
        "uphill",
        _attack(_GRADIENT + "    return (x + eps * g.sign()).clamp(0, 1)\n"),
        {"attack"},
        "Every pixel moves the wrong way",
    ),
    Wrong(
        "not clipped",
        _attack(_GRADIENT + "    return x - eps * g.sign()\n"),
        {"attack_range"},
        "leave [0, 1]",
    ),
    Wrong(
        "gradient without its sign",
        _attack(_GRADIENT + "    return (x - eps * g).clamp(0, 1)\n"),
        ATTACK,
        "Take only its sign",
        on="attack",
    ),
    Wrong(
        "gradient of length one",
        _attack(_GRADIENT + "    return (x - eps * g / g.flatten().norm()).clamp(0, 1)\n"),
        ATTACK,
        "proportional to the gradient",
        on="attack",
    ),
    Wrong(
        "in place",
        _attack(_GRADIENT + "    x -= eps * g.sign()\n    return x.clamp_(0, 1)\n"),
        {"attack_leaves_x"},
        "What was handed in has changed",
    ),
    Wrong(
        "only the first image",
        _attack(
            "    images = x.clone().requires_grad_(True)\n"
            "    detector(images)[0].backward()\n"
            "    return (x - eps * images.grad.sign()).clamp(0, 1)\n"
        ),
        ATTACK,
        "The values are not those of the formula.",
        on="attack",
    ),
    Wrong(
        "a score for a batch is not one number",
        _attack(
            "    images = x.clone().requires_grad_(True)\n"
            "    detector(images).backward()\n"
            "    return (x - eps * images.grad.sign()).clamp(0, 1)\n"
        ),
        ATTACK,
        "RuntimeError",
    ),
    Wrong(
        "the step alone",
        _attack(_GRADIENT + "    return -eps * g.sign()\n"),
        ATTACK,
        "That is the step alone",
        on="attack",
    ),
    Wrong(
        "eps in grey levels",
        _attack(_GRADIENT + "    return (x - eps / 255 * g.sign()).clamp(0, 1)\n"),
        ATTACK,
        "The values are not those of the formula.",
        on="attack",
    ),
    Wrong(
        "images as they were",
        _attack("    return x.clone()\n"),
        ATTACK,
        "The images came back as they were.",
    ),
    Wrong(
        "the images centred in place",
        {
            "radial_spectrum": _spectrum()["radial_spectrum"].replace(
                "x = images - images.mean(dim=(1, 2), keepdim=True)",
                "images -= images.mean(dim=(1, 2), keepdim=True)\n    x = images",
            )
        },
        {"spectrum_brightness"},
        "What was handed in has changed",
    ),
    Wrong(
        "the scores shifted in place",
        _eer(
            "    scores -= 0.25\n"
            "    ts = np.concatenate([[np.inf], np.unique(scores.numpy())[::-1]])\n"
            "    fpr = np.array([(scores[labels == 0] >= t).float().mean() for t in ts])\n"
            "    fnr = np.array([(scores[labels == 1] < t).float().mean() for t in ts])\n"
            "    return float(np.interp(0.0, fpr - fnr, fpr))\n"
        ),
        {"eer_ties"},
        "What was handed in has changed",
    ),
    Wrong(
        "standardised by the first batch under test",
        {
            "fit_detector": _fit()["fit_detector"].replace(
                "    def detector(f):\n        return model((f - m) / d).squeeze(1)\n",
                "    scaler = {}\n"
                "    def detector(f):\n"
                "        if not scaler:\n"
                "            scaler.update(m=f.mean(0), d=f.std(0) + 1e-8)\n"
                "        return model((f - scaler['m']) / scaler['d']).squeeze(1)\n",
            )
        },
        {"detector_alone"},
        "used on first",
    ),
    Wrong(
        "standardised by whatever comes, and remembered",
        {
            "fit_detector": _fit()["fit_detector"].replace(
                "    def detector(f):\n        return model((f - m) / d).squeeze(1)\n",
                "    seen = {}\n"
                "    def detector(f):\n"
                "        s = model((f - f.mean(0)) / (f.std(0) + 1e-8)).squeeze(1).tolist()\n"
                "        return torch.tensor([seen.setdefault(tuple(r), v) "
                "for r, v in zip(f.tolist(), s)])\n",
            )
        },
        {"detector_alone"},
        "used on first",
    ),
    Wrong(
        "running statistics of all batches under test",
        {
            "fit_detector": _fit()["fit_detector"].replace(
                "    def detector(f):\n        return model((f - m) / d).squeeze(1)\n",
                "    rows = []\n"
                "    def detector(f):\n"
                "        rows.append(f)\n"
                "        a = torch.cat(rows)\n"
                "        return model((f - a.mean(0)) / (a.std(0) + 1e-8)).squeeze(1)\n",
            )
        },
        {"detector_alone"},
        "The score of an image changes",
    ),
    Wrong(
        "the training features standardised in place",
        {
            "fit_detector": _fit()["fit_detector"].replace(
                "    z = (features - m) / d\n",
                "    features -= m\n    features /= d\n    z = features\n",
            )
        },
        {"detector_alone"},
        "What was handed in has changed",
    ),
    Wrong(
        "the features under test standardised in place",
        {
            "fit_detector": _fit()["fit_detector"].replace(
                "        return model((f - m) / d).squeeze(1)\n",
                "        f -= m\n        f /= d\n        return model(f).squeeze(1)\n",
            )
        },
        {"detector_alone"},
        "What was handed in has changed",
    ),
    Wrong(
        "one pair of labels swapped",
        _dealt(
            "a, b = one[trial % len(one)], zero[trial // len(one)]; "
            "y = train_labels.clone(); y[a], y[b] = 0, 1",
            before="    one, zero = ((train_labels == v).nonzero()[:, 0] for v in (1, 0))\n"
            "    one = one[torch.randperm(len(one), generator=generator)]\n",
        ),
        {"null_shuffled"},
        "Most images keep their own label",
    ),
    Wrong(
        "the labels of half of the images shuffled",
        _dealt(
            "h = n // 2; y = train_labels.clone(); "
            "y[::2] = y[::2][torch.randperm(len(y[::2]), generator=generator)]"
        ),
        {"null_shuffled"},
        "Most images keep their own label",
    ),
    Wrong(
        "the labels of the first dozen shuffled",
        _dealt(
            "y = train_labels.clone(); y[:12] = y[:12][torch.randperm(12, generator=generator)]"
        ),
        {"null_shuffled"},
        "label",
    ),
    Wrong(
        "labels shuffled in blocks of eight",
        _dealt(
            "y = torch.cat([b[torch.randperm(len(b), generator=generator)] "
            "for b in train_labels.split(8)])"
        ),
        {"null_shuffled"},
        "Most images keep their own label",
    ),
    Wrong(
        "the last label never moves",
        _dealt("y = train_labels.clone(); y[:-1] = y[torch.randperm(n - 1, generator=generator)]"),
        {"null_shuffled"},
        "the same label in every trial",
    ),
    Wrong(
        "labels rolled on",
        _dealt(
            "y = train_labels.roll(int(shifts[trial % (n - 1)]))",
            before="    shifts = 1 + torch.randperm(n - 1, generator=generator)\n",
        ),
        {"null_shuffled"},
        "Some trials are the same",
    ),
    Wrong(
        "rolled on, and a few swapped",
        _dealt(
            "p = torch.arange(n).roll(int(torch.randint(n, (), generator=generator))); "
            "i = torch.randperm(n, generator=generator)[:8]; p[i] = p[i.flip(0)]; "
            "y = train_labels[p]"
        ),
        {"null_shuffled"},
        "not drawn by chance",
    ),
    Wrong(
        "shuffled once, then a dozen labels moved from trial to trial",
        _dealt(
            "i = torch.randperm(n, generator=generator)[:12]; p[i] = p[i.roll(1)]; "
            "y = train_labels[p]",
            before="    p = torch.randperm(n, generator=generator)\n",
        ),
        {"null_shuffled"},
        "not drawn by chance",
    ),
    Wrong(
        "a dozen permutations in turn",
        _dealt(
            "y = train_labels[orders[trial % 12]]",
            before="    orders = [torch.randperm(n, generator=generator) for _ in range(12)]\n",
        ),
        {"null_shuffled"},
        "Some trials are the same",
    ),
    Wrong(
        "training labels shuffled in place",
        _dealt("y = train_labels; y[:] = y[torch.randperm(n, generator=generator)]"),
        {"null_measured"},
        "What was handed in has changed",
    ),
    Wrong(
        "everything wiped at the end",
        {
            "null_experiment": _nulls()["null_experiment"].replace(
                "    return rates",
                "    train.zero_(); test.zero_(); test_labels.zero_()\n    return rates",
            )
        },
        {"null_measured"},
        "What was handed in has changed",
    ),
    Wrong(
        "the last person is never for testing",
        _chosen("chosen = people[torch.randperm(n - 1, generator=generator)[:k]]"),
        {"split_chance"},
        "never for testing",
    ),
    Wrong(
        "the two with most pictures are never for testing",
        _chosen(
            "light = people[counts.argsort()][:-2]; "
            "chosen = light[torch.randperm(n - 2, generator=generator)[:k]]"
        ),
        {"split_chance"},
        "never for testing",
    ),
    Wrong(
        "the first person is always for testing",
        _chosen(
            "chosen = torch.cat([people[:1], "
            "people[1 + torch.randperm(n - 1, generator=generator)[: k - 1]]])"
        ),
        {"split_chance"},
        "always for testing",
    ),
    Wrong(
        "people beside each other",
        _chosen("chosen = people.roll(-int(torch.randint(n, (), generator=generator)))[:k]"),
        {"split_chance"},
        "come together",
    ),
    Wrong(
        "people beside each other, from a fixed order",
        _chosen(
            "people = people[torch.randperm(n, generator=torch.Generator().manual_seed(0))]; "
            "chosen = people.roll(-int(torch.randint(n, (), generator=generator)))[:k]"
        ),
        {"split_chance"},
        "come together",
    ),
    Wrong(
        "seven sets in turn",
        _chosen(
            "j = int(torch.randint(7, (), generator=generator)); "
            "chosen = people[(torch.arange(k) + j * n // 7) % n]"
        ),
        {"split_chance"},
        "should have the same chance",
    ),
    Wrong(
        "low ids twice as often",
        _chosen(
            "w = torch.where(torch.arange(n) < n // 2, 3.0, 1.0); "
            "chosen = people[torch.multinomial(w, k, generator=generator)]"
        ),
        {"split_chance"},
        "more often than others",
    ),
    Wrong(
        "numbers for a mask",
        {
            "split_people": _chosen("chosen = people[torch.randperm(n, generator=generator)[:k]]")[
                "split_people"
            ].replace("torch.isin(person, chosen)", "torch.isin(person, chosen).long()")
        },
        {"split_apart"},
        "not truth values",
    ),
    Wrong(
        "a float mask",
        _split(
            "    ids = np.unique(person.numpy())\n"
            "    order = torch.randperm(len(ids), generator=generator).numpy()\n"
            "    chosen = set(ids[order[: round(share * len(ids))]].tolist())\n"
            "    return [1.0 if p in chosen else 0.0 for p in person.tolist()]\n"
        ),
        {"split_apart"},
        "not truth values",
    ),
    Wrong(
        "ids made 0, 1, 2 in place",
        {
            "split_people": _chosen("chosen = torch.randperm(n, generator=generator)[:k]")[
                "split_people"
            ].replace(
                "    n, k =", "    person[:] = torch.searchsorted(people, person)\n    n, k ="
            )
        },
        {"split_share"},
        "What was handed in has changed",
    ),
    Wrong(
        "everybody accused where nobody may be",
        _threshold(
            "    s = real_scores.sort(descending=True).values\n"
            "    best = s[-1]\n"
            "    for t in s.unique().flip(0):\n"
            "        if (real_scores >= t).sum() <= rate * len(s):\n"
            "            best = t\n"
            "    return float(best)\n"
        ),
        {"threshold_ties"},
        "Not one alarm is allowed here",
    ),
    Wrong(
        "at least one accused",
        _threshold(
            "    s = real_scores.sort(descending=True).values\n"
            "    barred = s[max(1, int(rate * len(s)))]\n"
            "    above = s[s > barred]\n"
            "    return float(above.min()) if len(above) else math.inf\n"
        ),
        {"threshold_ties"},
        "Not one alarm is allowed here",
    ),
    Wrong(
        "rounded down once too often",
        _threshold(
            "    s = real_scores.sort(descending=True).values\n"
            "    above = s[s > s[int(rate * len(s) - 0.1)]]\n"
            "    return float(above.min()) if len(above) else math.inf\n"
        ),
        {"threshold"},
        "a whole number",
    ),
    Wrong(
        "fewer than the rate, not as many",
        _threshold(
            "    best = math.inf\n"
            "    for t in sorted(set(real_scores.tolist()), reverse=True):\n"
            "        if sum(s >= t for s in real_scores.tolist()) < rate * len(real_scores):\n"
            "            best = t\n"
            "    return best\n"
        ),
        {"threshold"},
        "a whole number",
    ),
    Wrong(
        "the scores sorted in place",
        _threshold(
            "    s = real_scores.numpy()\n"
            "    s.sort()\n"
            "    above = s[s > s[::-1][int(rate * len(s))]]\n"
            "    return float(above.min()) if len(above) else math.inf\n"
        ),
        {"threshold"},
        "What was handed in has changed",
    ),
    Wrong(
        "two thresholds",
        _threshold("    return torch.quantile(real_scores, torch.tensor([1 - rate, rate]))\n"),
        THRESHOLD,
        "Return one number",
    ),
    Wrong(
        "the first forty images",
        _alarms(
            "    return {n: (score(c(images[:40])) >= threshold).float().mean().item() "
            "for n, c in changes.items()}\n"
        ),
        {"alarms_at"},
        "The values are not those of the formula.",
    ),
    Wrong(
        "the last batch, which is smaller, left out",
        _alarms(
            "    found = {}\n"
            "    for name, c in changes.items():\n"
            "        b = min(32, len(images))\n"
            "        s = torch.cat([score(c(images[i : i + b])) "
            "for i in range(0, len(images) - b + 1, b)])\n"
            "        found[name] = (s >= threshold).float().mean().item()\n"
            "    return found\n"
        ),
        {"alarms_at"},
        "The values are not those of the formula.",
    ),
    Wrong(
        "the mean of the batches' shares",
        _alarms(
            "    found = {}\n"
            "    for name, c in changes.items():\n"
            "        found[name] = np.mean([(score(c(x)) >= threshold).float().mean().item() "
            "for x in images.split(16)])\n"
            "    return found\n"
        ),
        ALARMS,
        "The values are not those of the formula.",
        on="alarms_at",
    ),
    Wrong(
        "the images wiped at the end",
        _alarms(
            "    r = {n: float((score(c(images)) >= threshold).double().mean()) "
            "for n, c in changes.items()}\n"
            "    images.zero_()\n"
            "    return r\n"
        ),
        {"alarms_at"},
        "What was handed in has changed",
    ),
]

RIGHT: list[Right] = [
    Right(
        "inputs cloned, then changed in place",
        {
            "radial_spectrum": _spectrum()["radial_spectrum"].replace(
                "x = images - images.mean(dim=(1, 2), keepdim=True)",
                "x = images.clone()\n    x -= x.mean(dim=(1, 2), keepdim=True)",
            )
        },
    ),
    Right(
        "first weights from a generator of its own, small batches, calls counted",
        {
            "fit_detector": "own = torch.Generator().manual_seed(3)\n"
            "class Linear:\n"
            "    def __init__(self, m, d, w):\n"
            "        self.m, self.d, self.w, self.calls = m, d, w, 0\n"
            "    def __call__(self, f):\n"
            "        self.calls += 1\n"
            "        return F.pad((f - self.m) / self.d, (0, 1), value=1.0) @ self.w\n"
            "def fit_detector(features, labels):\n"
            "    m, d = features.mean(0), features.std(0) + 1e-8\n"
            "    w = 0.5 * torch.randn(features.shape[1] + 1, generator=own)\n"
            "    w.requires_grad_()\n"
            "    model = Linear(m, d, w)\n"
            "    opt = torch.optim.Adam([w], lr=0.05)\n"
            "    for _ in range(40):\n"
            "        for i in torch.randperm(len(features), generator=own).split(32):\n"
            "            opt.zero_grad()\n"
            "            loss = F.binary_cross_entropy_with_logits(model(features[i]), labels[i].float())\n"
            "            (loss + 1e-3 * w.square().sum()).backward()\n"
            "            opt.step()\n"
            "    return model\n"
        },
    ),
    Right(
        "random.Random seeded from the generator, a list shuffled",
        _dealt(
            "y = train_labels.tolist(); rng.shuffle(y); y = torch.tensor(y)",
            before="    import random\n"
            "    rng = random.Random(int(torch.randint(2**31, (), generator=generator)))\n",
        ),
    ),
    Right(
        "shuffled on from trial to trial, by multinomial",
        _dealt(
            "y = y[torch.multinomial(torch.ones(n), n, generator=generator)]",
            before="    y = train_labels\n",
        ),
    ),
    Right(
        "fakes drawn one by one, never the true labels",
        _null(
            "    rates = []\n"
            "    while len(rates) < trials:\n"
            "        y = torch.zeros_like(train_labels)\n"
            "        while y.sum() < train_labels.sum():\n"
            "            y[torch.randint(len(y), (), generator=generator)] = 1\n"
            "        if not torch.equal(y, train_labels):\n"
            "            rates.append(measure(fit(train, y)(test), test_labels))\n"
            "    return rates\n"
        ),
    ),
    Right(
        "no image keeps its own label's place",
        _dealt(
            "p = torch.arange(n)\n"
            "        while (p == torch.arange(n)).any():\n"
            "            p = torch.randperm(n, generator=generator)\n"
            "        y = train_labels[p]"
        ),
    ),
    Right(
        "a coin for each person until there are enough",
        _split(
            "    people = person.unique()\n"
            "    heads = torch.zeros(len(people), dtype=torch.bool)\n"
            "    while heads.sum() != round(share * len(people)):\n"
            "        heads = torch.rand(len(people), generator=generator) < share\n"
            "    mask = torch.zeros_like(person)\n"
            "    for p in people[heads]:\n"
            "        mask += person == p\n"
            "    return mask > 0\n"
        ),
    ),
    Right(
        "people taken from a list one by one, a list of truth values",
        _split(
            "    left = sorted(set(person.tolist()))\n"
            "    chosen = []\n"
            "    for _ in range(round(share * len(left))):\n"
            "        i = int(torch.randint(len(left), (1,), generator=generator))\n"
            "        chosen.append(left.pop(i))\n"
            "    return [p in chosen for p in person.tolist()]\n"
        ),
    ),
    Right(
        "multinomial over people, a NumPy mask",
        _split(
            "    people = person.unique()\n"
            "    k = round(share * len(people))\n"
            "    i = torch.multinomial(torch.ones(len(people)), k, generator=generator)\n"
            "    return np.isin(person.numpy(), people[i].numpy())\n"
        ),
    ),
    Right(
        "a threshold just above what is too much, by NumPy",
        _threshold(
            "    s = real_scores.numpy().astype(np.float64)\n"
            "    tried = np.concatenate([s, np.nextafter(s, np.inf)])\n"
            "    fine = [t for t in tried if (s >= t).mean() <= rate]\n"
            "    return min(fine)\n"
        ),
    ),
    Right(
        "a tensor, infinite where nobody may be accused",
        _threshold(
            "    counts = (real_scores[None] >= real_scores[:, None]).sum(1)\n"
            "    fine = real_scores[counts <= rate * len(real_scores)]\n"
            "    return torch.cat([fine, torch.tensor([torch.inf])]).min()\n"
        ),
    ),
    Right(
        "a threshold lowered step by step",
        _threshold(
            "    s = real_scores.double()\n"
            "    t = s.max() + 1\n"
            "    for lower in s.unique().flip(0):\n"
            "        if (s >= lower).double().mean() > rate:\n"
            "            break\n"
            "        t = lower\n"
            "    return t.item()\n"
        ),
    ),
    Right(
        "in batches of 64, counted",
        _alarms(
            "    found = {}\n"
            "    for name, change in changes.items():\n"
            "        alarms = 0\n"
            "        for batch in images.split(64):\n"
            "            alarms += int((score(change(batch.clone())) >= threshold).sum())\n"
            "        found[name] = alarms / images.shape[0]\n"
            "    return found\n"
        ),
    ),
    Right(
        "fftshift, index_add, float64",
        {
            "radial_spectrum": "def radial_spectrum(images):\n"
            "    N, n, _ = images.shape\n"
            "    x = images.double()\n"
            "    x = x - x.flatten(1).mean(1)[:, None, None]\n"
            "    spec = torch.fft.fftshift(torch.fft.fft2(x), dim=(-2, -1))\n"
            "    power = (spec.real ** 2 + spec.imag ** 2) / n ** 2\n"
            "    i = torch.arange(n) - n // 2\n"
            "    r = torch.sqrt((i[:, None] ** 2 + i[None, :] ** 2).double()).round().long().flatten()\n"
            "    total = torch.zeros(N, int(r.max()) + 1, dtype=torch.double)\n"
            "    total.index_add_(1, r, power.flatten(1))\n"
            "    mean = total / torch.bincount(r)\n"
            "    return torch.log(mean[:, : n // 2 + 1] + 1e-8)\n"
        },
    ),
    Right(
        "NumPy, image by image, with a print",
        {
            "radial_spectrum": "def radial_spectrum(images):\n"
            "    print('images', images.shape)\n"
            "    out = []\n"
            "    for image in images:\n"
            "        a = image.detach().numpy().astype(np.float64)\n"
            "        n = len(a)\n"
            "        F2 = np.fft.fftshift(np.fft.fft2(a - a.mean())) / n\n"
            "        yy, xx = np.indices((n, n)) - n // 2\n"
            "        r = np.rint(np.sqrt(yy**2 + xx**2)).astype(int)\n"
            "        s = np.bincount(r.ravel(), (np.abs(F2) ** 2).ravel()) / np.bincount(r.ravel())\n"
            "        out.append(np.log(s[: n // 2 + 1] + 1e-8))\n"
            "    return torch.tensor(np.array(out), dtype=torch.float32)\n"
        },
    ),
    Right(
        "masks as a matrix product, rows and columns by meshgrid",
        {
            "radial_spectrum": "def radial_spectrum(images):\n"
            "    n = images.size(-1)\n"
            "    k = torch.arange(n)\n"
            "    k = torch.where(k < n // 2, k, k - n)\n"
            "    u, v = torch.meshgrid(k, k, indexing='ij')\n"
            "    r = (u**2 + v**2).float().sqrt().add(0.5).floor()\n"
            "    mask = (r[None] == torch.arange(n // 2 + 1)[:, None, None]).float()\n"
            "    mask = mask / mask.sum((1, 2), keepdim=True)\n"
            "    X = torch.fft.fft2(images - images.mean((-2, -1), keepdim=True), norm='forward') * n\n"
            "    return (torch.einsum('nuv,ruv->nr', (X * X.conj()).real, mask) + 1e-8).log()\n"
        },
    ),
    Right(
        "equal error rate by np.interp",
        _eer(
            "    s, y = np.asarray(scores, float), np.asarray(labels)\n"
            "    ts = np.concatenate([[np.inf], np.sort(np.unique(s))[::-1]])\n"
            "    fpr = np.array([(s[y == 0] >= t).mean() for t in ts])\n"
            "    fnr = np.array([(s[y == 1] < t).mean() for t in ts])\n"
            "    return float(np.interp(0.0, fpr - fnr, fpr))\n"
        ),
    ),
    Right(
        "equal error rate with scikit-learn and scipy",
        _eer(
            "    from scipy.interpolate import interp1d\n"
            "    from scipy.optimize import brentq\n"
            "    from sklearn.metrics import roc_curve\n"
            "    fpr, tpr, _ = roc_curve(labels.numpy(), scores.numpy(), drop_intermediate=False)\n"
            "    t = np.linspace(0, 1, len(fpr))\n"
            "    gap = interp1d(t, fpr + tpr - 1)\n"
            "    at = brentq(gap, 0.0, 1.0)\n"
            "    return torch.tensor(interp1d(t, fpr)(at))\n"
        ),
    ),
    Right(
        "equal error rate by walking down the sorted scores",
        _eer(
            "    pairs = sorted(zip(scores.tolist(), labels.tolist()), reverse=True)\n"
            "    n1 = sum(y for _, y in pairs)\n"
            "    n0 = len(pairs) - n1\n"
            "    fp = tp = 0\n"
            "    last = (0.0, 1.0)\n"
            "    i = 0\n"
            "    while i < len(pairs):\n"
            "        t = pairs[i][0]\n"
            "        while i < len(pairs) and pairs[i][0] == t:\n"
            "            tp, fp = tp + pairs[i][1], fp + 1 - pairs[i][1]\n"
            "            i += 1\n"
            "        now = (fp / n0, 1 - tp / n1)\n"
            "        if now[0] >= now[1]:\n"
            "            a, b = last[1] - last[0], now[0] - now[1]\n"
            "            return (a * now[0] + b * last[0]) / (a + b)\n"
            "        last = now\n"
        ),
    ),
    Right("Adam on a linear layer", _fit()),
    Right(
        "a module with buffers, probabilities as scores",
        {
            "fit_detector": "class Detector(nn.Module):\n"
            "    def __init__(self, f):\n"
            "        super().__init__()\n"
            "        self.register_buffer('m', f.mean(0, keepdim=True))\n"
            "        s = f.std(0, keepdim=True, unbiased=False)\n"
            "        self.register_buffer('s', torch.where(s > 0, s, torch.ones_like(s)))\n"
            "        self.linear = nn.Linear(f.shape[1], 1)\n"
            "        nn.init.zeros_(self.linear.weight)\n"
            "    def logit(self, f):\n"
            "        return self.linear((f - self.m) / self.s)[:, 0]\n"
            "    def forward(self, f):\n"
            "        return torch.sigmoid(self.logit(f))\n"
            "def fit_detector(features, labels):\n"
            "    torch.manual_seed(7)\n"
            "    net = Detector(features)\n"
            "    opt = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)\n"
            "    for epoch in range(300):\n"
            "        opt.zero_grad()\n"
            "        F.binary_cross_entropy(net(features), labels.to(torch.float32)).backward()\n"
            "        opt.step()\n"
            "    return net.eval()\n"
        },
    ),
    Right(
        "scikit-learn",
        {
            "fit_detector": "def fit_detector(features, labels):\n"
            "    from sklearn.linear_model import LogisticRegression\n"
            "    from sklearn.pipeline import make_pipeline\n"
            "    from sklearn.preprocessing import StandardScaler\n"
            "    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight='balanced'))\n"
            "    model.fit(features.numpy(), labels.numpy())\n"
            "    return lambda f: model.predict_proba(f.numpy())[:, 1]\n"
        },
    ),
    Right(
        "Newton's method in float64",
        {
            "fit_detector": "def fit_detector(features, labels):\n"
            "    f, y = features.double(), labels.double()\n"
            "    m = f.mean(0)\n"
            "    d = f.std(0)\n"
            "    d[d < 1e-12] = 1.0\n"
            "    def design(f):\n"
            "        return torch.cat([(f.double() - m) / d, torch.ones(len(f), 1).double()], 1)\n"
            "    X = design(f)\n"
            "    w = torch.zeros(X.shape[1]).double()\n"
            "    for _ in range(15):\n"
            "        p = torch.sigmoid(X @ w)\n"
            "        H = (X * (p * (1 - p))[:, None]).T @ X + 1e-2 * torch.eye(len(w)).double()\n"
            "        w = w - torch.linalg.solve(H, X.T @ (p - y) + 1e-2 * w)\n"
            "    return lambda f: design(f) @ w\n"
        },
    ),
    Right(
        "labels cloned, shuffled with NumPy's indices from torch, rates as a tensor",
        _null(
            "    out = torch.zeros(trials, dtype=torch.float64)\n"
            "    labels = train_labels.clone()\n"
            "    for i in range(trials):\n"
            "        print('null', i)\n"
            "        labels = labels[torch.randperm(labels.numel(), generator=generator)]\n"
            "        scores = torch.as_tensor(fit(train.clone(), labels)(test)).detach()\n"
            "        out[i] = measure(scores, test_labels)\n"
            "    return out\n"
        ),
    ),
    Right(
        "argsort of random numbers, in a helper and a comprehension",
        _null(
            "    def once():\n"
            "        order = torch.rand(len(train_labels), generator=generator).argsort()\n"
            "        return measure(fit(train, train_labels.index_select(0, order))(test), test_labels)\n"
            "    return [once() for _ in range(trials)]\n"
        ),
    ),
    Right(
        "Fisher and Yates, all fits first",
        _null(
            "    detectors = []\n"
            "    for _ in range(trials):\n"
            "        y = train_labels.tolist()\n"
            "        for i in range(len(y) - 1, 0, -1):\n"
            "            j = int(torch.randint(i + 1, (1,), generator=generator))\n"
            "            y[i], y[j] = y[j], y[i]\n"
            "        detectors.append(fit(train, torch.tensor(y, dtype=train_labels.dtype)))\n"
            "    return np.array([measure(d(test), test_labels) for d in detectors])\n"
        ),
    ),
    Right(
        "the images permuted, the labels left: the same pairs",
        _nulls(rows="train[p]", labels="train_labels"),
    ),
    Right(
        "people by inverse, ranks of random numbers",
        _split(
            "    people, member = person.unique(return_inverse=True)\n"
            "    n = len(people)\n"
            "    rank = torch.rand(n, generator=generator).argsort().argsort()\n"
            "    return (rank < int(share * n + 0.5))[member]\n"
        ),
    ),
    Right(
        "sets, lists and random.Random, picture by picture",
        _split(
            "    import random\n"
            "    rng = random.Random(int(torch.randint(2**31, (1,), generator=generator)))\n"
            "    people = sorted(set(person.tolist()))\n"
            "    chosen = set(rng.sample(people, k=round(share * len(people))))\n"
            "    return torch.tensor([p in chosen for p in person.tolist()])\n"
        ),
    ),
    Right(
        "NumPy, the last of a permutation",
        _split(
            "    ids = np.unique(person.numpy())\n"
            "    k = int(np.rint(share * ids.size))\n"
            "    if k == 0:\n"
            "        return torch.zeros_like(person, dtype=torch.bool)\n"
            "    order = torch.randperm(ids.size, generator=generator).numpy()\n"
            "    return torch.from_numpy(np.isin(person.numpy(), ids[order[-k:]]))\n"
        ),
    ),
    Right(
        "the lowest score that keeps to the rate",
        _threshold(
            "    best = None\n"
            "    for t in sorted(set(real_scores.tolist()), reverse=True):\n"
            "        if sum(s >= t for s in real_scores.tolist()) <= rate * len(real_scores):\n"
            "            best = t\n"
            "    return float('inf') if best is None else best\n"
        ),
    ),
    Right(
        "just above the first that must not",
        _threshold(
            "    first = torch.sort(real_scores).values[-1 - math.floor(rate * len(real_scores))]\n"
            "    return torch.nextafter(first, torch.tensor(math.inf))\n"
        ),
    ),
    Right(
        "half way between two distinct scores",
        _threshold(
            "    s = np.sort(real_scores.double().numpy())[::-1]\n"
            "    barred = s[int(np.floor(rate * len(s)))]\n"
            "    above = s[s > barred]\n"
            "    return (barred + above.min()) / 2 if len(above) else barred + 1\n"
        ),
    ),
    Right(
        "image by image",
        _alarms(
            "    result = dict()\n"
            "    for name in changes:\n"
            "        hits = 0\n"
            "        for i in range(len(images)):\n"
            "            if score(changes[name](images[i : i + 1])).item() >= threshold:\n"
            "                hits += 1\n"
            "        result[name] = hits / len(images)\n"
            "    return result\n"
        ),
    ),
    Right(
        "one minus those spared, tensors as values",
        _alarms(
            "    spared = {n: torch.lt(score(f(images.clone())), threshold) "
            "for n, f in changes.items()}\n"
            "    return {n: 1 - s.double().mean() for n, s in spared.items()}\n"
        ),
    ),
    Right(
        "NumPy, counted and divided",
        _alarms(
            "    with torch.no_grad():\n"
            "        table = {k: np.asarray(score(v(images))) for k, v in changes.items()}\n"
            "    return {k: np.count_nonzero(s >= threshold) / s.size for k, s in table.items()}\n"
        ),
    ),
    Right(
        "the loss towards 'real', autograd, min and max",
        _attack(
            "    x0 = x.detach()\n"
            "    var = torch.autograd.Variable(x0 + 0.0, requires_grad=True)\n"
            "    s = detector(var)\n"
            "    loss = F.binary_cross_entropy_with_logits(s, torch.zeros_like(s))\n"
            "    grad = torch.autograd.grad(loss, var)[0]\n"
            "    adv = x0 - eps * torch.sign(grad)\n"
            "    return torch.max(torch.min(adv, torch.ones_like(adv)), torch.zeros_like(adv))\n"
        ),
    ),
    Right(
        "torch.func, float64 out",
        _attack(
            "    g = torch.func.grad(lambda im: detector(im).mean())(x)\n"
            "    return torch.clip(x.double() - eps * g.sign(), 0.0, 1.0)\n"
        ),
    ),
    Right(
        "image by image",
        _attack(
            "    out = []\n"
            "    for image in x:\n"
            "        one = image[None].clone().requires_grad_()\n"
            "        detector(one)[0].backward()\n"
            "        step = torch.where(one.grad > 0, -eps, eps)\n"
            "        out.append((one.detach() + step)[0].clamp_(min=0, max=1))\n"
            "    return torch.stack(out)\n"
        ),
    ),
    Right(
        "uphill on minus the score",
        _attack(
            "    adv = x.clone().requires_grad_(True)\n"
            "    (-detector(adv)).sum().backward()\n"
            "    with torch.no_grad():\n"
            "        adv += eps * adv.grad.sign()\n"
            "        adv.clamp_(0, 1)\n"
            "    return adv\n"
        ),
    ),
]
