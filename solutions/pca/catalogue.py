"""Wrong and right answers to the assignment on PCA, as students write them."""

from __future__ import annotations

from course_lib.grading.catalogue import Right, Wrong


def _fit(body: str) -> dict[str, str]:
    return {"pca_fit": "def pca_fit(x, k):\n" + body}


def _angle(body: str) -> dict[str, str]:
    return {"subspace_angle": "def subspace_angle(a, b):\n" + body}


_MODEL = """
class LinearAutoencoder(nn.Module):
    def __init__(self, n_features, n_codes):
        super().__init__()
        {init}
    def encode(self, x):
        return {encode}
    def decode(self, codes):
        return {decode}
    def forward(self, x):
        return {forward}
"""


def _model(
    init: str = "self.enc = nn.Linear(n_features, n_codes); self.dec = nn.Linear(n_codes, n_features)",
    encode: str = "self.enc(x)",
    decode: str = "self.dec(codes)",
    forward: str = "self.decode(self.encode(x))",
) -> dict[str, str]:
    text = _MODEL.format(init=init, encode=encode, decode=decode, forward=forward)
    return {"LinearAutoencoder": text}


DIRECTIONS = {"fit_components", "fit_wide"}
FIT = DIRECTIONS | {"fit_ratio"}

WRONG: list[Wrong] = [
    Wrong(
        "the mean is returned but not subtracted",
        _fit(
            "    mean = x.mean(0)\n"
            "    u, s, vh = torch.linalg.svd(x, full_matrices=False)\n"
            "    r = s**2 / (s**2).sum()\n"
            "    return mean, vh[:k], r[:k]\n"
        ),
        FIT,
        "the mean was not subtracted first",
        on="fit_components",
    ),
    Wrong(
        "a mean over everything, one number",
        _fit(
            "    mean = x.mean()\n"
            "    xc = x - x.mean(0)\n"
            "    u, s, vh = torch.linalg.svd(xc, full_matrices=False)\n"
            "    r = s**2 / (s**2).sum()\n"
            "    return mean, vh[:k], r[:k]\n"
        ),
        {"fit_mean"},
        "mean has the shape ()",
    ),
    Wrong(
        "directions as columns",
        _fit(
            "    mean = x.mean(0)\n"
            "    u, s, vh = torch.linalg.svd(x - mean, full_matrices=False)\n"
            "    return mean, vh.T[:, :k], (s**2 / torch.sum(s**2))[:k]\n"
        ),
        DIRECTIONS,
        "one per column",
    ),
    Wrong(
        "V transposed a second time",
        _fit(
            "    mean = x.mean(0)\n"
            "    u, s, v = torch.linalg.svd(x - mean)\n"
            "    components = v.T[:k]\n"
            "    return mean, components, (s**2 / torch.sum(s**2))[:k]\n"
        ),
        DIRECTIONS,
        "These are not PCA's directions.",
    ),
    Wrong(
        "U for V",
        _fit(
            "    mean = x.mean(0)\n"
            "    u, s, vh = torch.linalg.svd(x - mean, full_matrices=False)\n"
            "    return mean, u[:, :k].T, (s**2 / torch.sum(s**2))[:k]\n"
        ),
        DIRECTIONS,
        "U was taken for V",
    ),
    Wrong(
        "shares of the singular values",
        _fit(
            "    mean = x.mean(0)\n"
            "    u, s, vh = torch.linalg.svd(x - mean, full_matrices=False)\n"
            "    return mean, vh[:k], s[:k] / s.sum()\n"
        ),
        {"fit_ratio"},
        "variances are their squares",
    ),
    Wrong(
        "shares of what is kept",
        _fit(
            "    mean = x.mean(0)\n"
            "    u, s, vh = torch.linalg.svd(x - mean, full_matrices=False)\n"
            "    var = s[:k] ** 2 / (len(x) - 1)\n"
            "    return mean, vh[:k], var / var.sum()\n"
        ),
        {"fit_ratio"},
        "shares of what is kept",
    ),
    Wrong(
        "variances, not shares",
        _fit(
            "    mean = x.mean(0)\n"
            "    u, s, vh = torch.linalg.svd(x - mean, full_matrices=False)\n"
            "    return mean, vh[:k], s[:k] ** 2 / (len(x) - 1)\n"
        ),
        {"fit_ratio"},
        "divide by the variance of all the data",
    ),
    Wrong(
        "N above, N - 1 below",
        _fit(
            "    mean = x.mean(0)\n"
            "    u, s, vh = torch.linalg.svd(x - mean, full_matrices=False)\n"
            "    return mean, vh[:k], s[:k] ** 2 / len(x) / x.var(0).sum()\n"
        ),
        {"fit_ratio"},
        "one variance was divided by N",
    ),
    Wrong(
        "eigh: the smallest first",
        _fit(
            "    mean = x.mean(0)\n"
            "    cov = torch.cov(x.T)\n"
            "    values, vectors = torch.linalg.eigh(cov)\n"
            "    return mean, vectors[:, :k].T, values[:k] / values.sum()\n"
        ),
        FIT,
        "eigh, for one, gives the smallest first",
        on="fit_components",
    ),
    Wrong(
        "eigh: the right ones in rising order",
        _fit(
            "    mean = x.mean(0)\n"
            "    xc = x - mean\n"
            "    values, vectors = torch.linalg.eigh(xc.T @ xc / len(x))\n"
            "    ratio = values / values.sum()\n"
            "    return mean, vectors[:, -k:].T, ratio[-k:]\n"
        ),
        FIT,
        "not that of falling variance",
        on="fit_wide",
    ),
    Wrong(
        "standardised columns",
        _fit(
            "    mean, std = x.mean(0), x.std(0)\n"
            "    z = (x - mean) / std\n"
            "    u, s, vh = torch.linalg.svd(z, full_matrices=False)\n"
            "    return mean, vh[:k], (s**2 / (s**2).sum())[:k]\n"
        ),
        FIT,
        "only subtracts the mean",
    ),
    Wrong(
        "directions scaled by their singular values",
        _fit(
            "    mean = x.mean(0)\n"
            "    u, s, vh = torch.linalg.svd(x - mean, full_matrices=False)\n"
            "    return mean, s[:k, None] * vh[:k], (s**2 / (s**2).sum())[:k]\n"
        ),
        DIRECTIONS,
        "need length 1",
    ),
    Wrong(
        "wide data turned round",
        _fit(
            "    mean = x.mean(0)\n"
            "    xc = x - mean\n"
            "    if xc.shape[1] > xc.shape[0]:\n"
            "        xc = xc.T  # svd wants more rows than columns\n"
            "    u, s, vh = torch.linalg.svd(xc, full_matrices=False)\n"
            "    return mean, vh[:k], (s**2 / (s**2).sum())[:k]\n"
        ),
        {"fit_wide"},
        "U was taken for V",
    ),
    Wrong(
        "transform without the mean",
        {"pca_transform": "def pca_transform(x, mean, components):\n    return x @ components.T\n"},
        {"transform"},
        "The mean was not subtracted.",
    ),
    Wrong(
        "transform with x's own mean",
        {
            "pca_transform": "def pca_transform(x, mean, components):\n"
            "    return (x - x.mean(0)) @ components.T\n"
        },
        {"transform"},
        "strangers are measured from the same point",
    ),
    Wrong(
        "codes on their side",
        {
            "pca_transform": "def pca_transform(x, mean, components):\n"
            "    return components @ (x - mean).T\n"
        },
        {"transform"},
        "turned on its side",
    ),
    Wrong(
        "inverse without the mean",
        {
            "pca_inverse": "def pca_inverse(codes, mean, components):\n    return codes @ components\n"
        },
        {"inverse"},
        "The mean was not added back.",
    ),
    Wrong(
        "inverse clipped to a picture",
        {
            "pca_inverse": "def pca_inverse(codes, mean, components):\n"
            "    return (codes @ components + mean).clamp(0, 1)\n"
        },
        {"inverse"},
        "may leave [0, 1]",
    ),
    Wrong(
        "inverse with codes divided by their deviation",
        {
            "pca_inverse": "def pca_inverse(codes, mean, components):\n"
            "    white = codes / codes.std(0)\n"
            "    return white @ components + mean\n"
        },
        {"inverse"},
        "rescaled on the way back",
    ),
    Wrong(
        "inverse through the transpose",
        {
            "pca_inverse": "def pca_inverse(codes, mean, components):\n"
            "    return codes @ components.T + mean\n"
        },
        {"inverse"},
        "PyTorch refused the operation",
    ),
    Wrong(
        "a ReLU on the way out",
        _model(decode="torch.relu(self.dec(codes))"),
        {"ae_linear", "ae_learns"},
        "is there an activation",
        on="ae_linear",
    ),
    Wrong(
        "a sigmoid on the way out, for pixels",
        _model(decode="torch.sigmoid(self.dec(codes))"),
        {"ae_linear", "ae_learns"},
        "well above PCA's",
        on="ae_learns",
    ),
    Wrong(
        "no bias",
        _model(
            init="self.enc = nn.Linear(n_features, n_codes, bias=False); "
            "self.dec = nn.Linear(n_codes, n_features, bias=False)"
        ),
        {"ae_bias"},
        "encode and decode sends zeros to zeros",
    ),
    Wrong(
        "a bias only on the way back",
        _model(
            init="self.enc = nn.Linear(n_features, n_codes, bias=False); "
            "self.dec = nn.Linear(n_codes, n_features)"
        ),
        {"ae_bias"},
        "encode sends zeros to zeros",
    ),
    Wrong(
        "forward stops at the codes",
        _model(forward="self.encode(x)"),
        {"ae_codes", "ae_linear", "ae_learns"},
        "forward has the shape",
        on="ae_codes",
    ),
    Wrong(
        "a shortcut past the codes",
        _model(forward="x + self.decode(self.encode(x))"),
        {"ae_codes", "ae_linear", "ae_learns"},
        "passes by the codes",
    ),
    Wrong(
        "weights that are no parameters",
        _model(
            init="self.A, self.a = torch.randn(n_features, n_codes), torch.randn(n_codes); "
            "self.B, self.b = torch.randn(n_codes, n_features), torch.randn(n_features)",
            encode="x @ self.A + self.a",
            decode="codes @ self.B + self.b",
        ),
        {"ae_learns"},
        "are the weights parameters of the module",
    ),
    Wrong(
        "codes cut off from the gradient",
        _model(encode="self.enc(x).detach()", decode="self.dec(codes)"),
        {"ae_learns"},
        "well above PCA's",
    ),
    Wrong(
        "decode with the sizes of encode",
        _model(
            init="self.enc = nn.Linear(n_features, n_codes); "
            "self.dec = nn.Linear(n_features, n_codes)"
        ),
        {"ae_codes", "ae_linear", "ae_bias", "ae_learns"},
        "do shapes, dtypes and gradients fit?",
    ),
    Wrong(
        "PCA in forward, nothing to train",
        _model(
            init="self.k = n_codes",
            encode="x[:, : self.k]",
            decode="F.pad(codes, (0, 1))",
            forward="(m := x.mean(0)) + (x - m) @ "
            "(v := torch.linalg.svd(x - m, full_matrices=False)[2][: self.k]).T @ v",
        ),
        {"ae_codes", "ae_bias", "ae_learns"},
        "PCA's before any training",
        on="ae_learns",
    ),
    Wrong(
        "noise where the weights should be",
        _model(
            init="self.d, self.k = n_features, n_codes",
            encode="torch.randn(len(x), self.k)",
            decode="torch.randn(len(codes), self.d)",
        ),
        {"ae_codes", "ae_linear", "ae_bias", "ae_learns"},
        "encode is not a linear map and a bias",
        on="ae_bias",
    ),
    Wrong(
        "new layers in every call",
        _model(
            init="self.d, self.k = n_features, n_codes",
            encode="nn.Linear(self.d, self.k)(x)",
            decode="nn.Linear(self.k, self.d)(codes)",
        ),
        {"ae_codes", "ae_learns"},
        "forward(x) is not decode(encode(x))",
    ),
    Wrong(
        "lines only",
        _angle(
            "    if len(a) > 1:\n"
            "        return torch.tensor(0.0)\n"
            "    cosine = (a[0] @ b[0]).abs() / a.norm() / b.norm()\n"
            "    return torch.acos(cosine.clamp(-1, 1))\n"
        ),
        {"angle", "angle_bases", "angle_same"},
        "The same answer for planes that differ.",
        on="angle_same",
    ),
    Wrong(
        "the smallest angle",
        _angle(
            "    qa, qb = torch.linalg.qr(a.T)[0], torch.linalg.qr(b.T)[0]\n"
            "    s = torch.linalg.svdvals(qa.T @ qb)\n"
            "    return torch.acos(s[0].clamp(-1, 1))\n"
        ),
        {"angle", "angle_bases"},
        "the smallest principal angle",
    ),
    Wrong(
        "in degrees",
        _angle(
            "    qa, qb = torch.linalg.qr(a.T)[0], torch.linalg.qr(b.T)[0]\n"
            "    s = torch.linalg.svdvals(qa.T @ qb).min().clamp(-1, 1)\n"
            "    return torch.rad2deg(torch.acos(s))\n"
        ),
        {"angle", "angle_bases"},
        "radians are asked for",
    ),
    Wrong(
        "the cosine",
        _angle(
            "    qa, qb = torch.linalg.qr(a.T)[0], torch.linalg.qr(b.T)[0]\n"
            "    return torch.linalg.svdvals(qa.T @ qb).min().clamp(-1, 1)\n"
        ),
        {"angle", "angle_bases", "angle_same"},
        "This is the cosine",
    ),
    Wrong(
        "not clamped",
        _angle(
            "    qa, qb = torch.linalg.qr(a.T)[0], torch.linalg.qr(b.T)[0]\n"
            "    return torch.acos(torch.linalg.svdvals(qa.T @ qb).min())\n"
        ),
        {"angle_same"},
        "rounding made a cosine larger than 1",
    ),
    Wrong(
        "raw bases",
        _angle(
            "    s = torch.linalg.svdvals(a @ b.T)\n    return torch.acos(s.min().clamp(-1, 1))\n"
        ),
        {"angle_bases", "angle_same"},
        "make an orthonormal basis first",
    ),
    Wrong(
        "rows of unit length, but not orthogonal",
        _angle(
            "    a = F.normalize(a, dim=1)\n"
            "    b = F.normalize(b, dim=1)\n"
            "    s = torch.linalg.svdvals(a @ b.T)\n"
            "    return torch.acos(s.min().clamp(-1, 1))\n"
        ),
        {"angle_bases", "angle_same"},
        "lengths alone are not enough",
    ),
    Wrong(
        "column spaces",
        _angle(
            "    qa, qb = torch.linalg.qr(a)[0], torch.linalg.qr(b)[0]\n"
            "    s = torch.linalg.svdvals(qa.T @ qb)\n"
            "    return torch.acos(s.min().clamp(-1, 1))\n"
        ),
        {"angle", "angle_bases", "angle_same"},
        "the *rows* span them",
    ),
    Wrong(
        "all the angles",
        _angle(
            "    qa, qb = torch.linalg.qr(a.T)[0], torch.linalg.qr(b.T)[0]\n"
            "    s = torch.linalg.svdvals(qa.T @ qb)\n"
            "    return torch.acos(s.clamp(-1, 1))[-1:]\n"
        ),
        {"angle", "angle_bases", "angle_same"},
        "Return one number for a pair",
    ),
]

RIGHT: list[Right] = [
    Right(
        "by the covariance, in float64, with prints",
        _fit(
            "    import warnings\n"
            "    warnings.warn('more pixels than pictures')\n"
            "    x64 = x.double()\n"
            "    mean = x64.mean(dim=0)\n"
            "    cov = (x64 - mean).T @ (x64 - mean) / (x.shape[0] - 1)\n"
            "    values, vectors = torch.linalg.eigh(cov)\n"
            "    order = torch.argsort(values, descending=True)[:k]\n"
            "    print('kept', order)\n"
            "    return mean, vectors[:, order].T, values[order] / torch.trace(cov)\n"
        ),
    ),
    Right(
        "in NumPy",
        _fit(
            "    rows = x.numpy()\n"
            "    mean = rows.mean(axis=0)\n"
            "    u, s, vh = np.linalg.svd(rows - mean, full_matrices=False)\n"
            "    var = s**2 / len(rows)\n"
            "    total = np.var(rows, axis=0).sum()\n"
            "    return torch.from_numpy(mean), torch.from_numpy(vh[:k]), torch.tensor(var[:k] / total)\n"
        )
        | {
            "pca_transform": "def pca_transform(x, mean, components):\n"
            "    return np.dot(x.numpy() - mean.numpy(), components.numpy().T)\n",
            "pca_inverse": "def pca_inverse(codes, mean, components):\n"
            "    return codes.numpy() @ components.numpy() + mean.numpy()\n",
        },
    ),
    Right(
        "full matrices and a helper",
        _fit(
            "    xc, mean = centre(x)\n"
            "    U, S, Vh = torch.linalg.svd(xc)\n"
            "    var = S.pow(2).div(len(x) - 1)\n"
            "    ratio = torch.zeros(k)\n"
            "    for j in range(k):\n"
            "        ratio[j] = var[j] / xc.var(dim=0).sum()\n"
            "    return mean, -Vh[0:k, :], ratio\n"
            "def centre(x):\n"
            "    mean = torch.mean(x, 0)\n"
            "    return x.sub(mean.expand_as(x)), mean\n"
        ),
    ),
    Right(
        "the other side's Gram matrix when there are fewer rows",
        _fit(
            "    mean = x.mean(0)\n"
            "    xc = x - mean\n"
            "    n, d = xc.shape\n"
            "    if d <= n:\n"
            "        w, v = torch.linalg.eigh(xc.T @ xc)\n"
            "        return mean, v.flip(1)[:, :k].T.contiguous(), w.flip(0)[:k] / w.sum()\n"
            "    w, u = torch.linalg.eigh(xc @ xc.T)\n"
            "    w, u = w.flip(0)[:k], u.flip(1)[:, :k]\n"
            "    v = xc.T @ u / w.sqrt()\n"
            "    return mean, v.T, w / xc.square().sum()\n"
        ),
    ),
    Right(
        "pca_lowrank with all components",
        _fit(
            "    mean = x.mean(0)\n"
            "    u, s, v = torch.pca_lowrank(x, q=min(x.shape), center=True)\n"
            "    return mean, v[:, :k].T, (s**2 / (s**2).sum())[:k]\n"
        ),
    ),
    Right(
        "loops",
        {
            "pca_transform": "def pca_transform(x, mean, components):\n"
            "    codes = torch.zeros(len(x), len(components))\n"
            "    for i, row in enumerate(x):\n"
            "        for j, v in enumerate(components):\n"
            "            codes[i, j] = torch.dot(row - mean, v)\n"
            "    return codes\n",
            "pca_inverse": "def pca_inverse(codes, mean, components):\n"
            "    rows = []\n"
            "    for c in codes:\n"
            "        row = mean.clone()\n"
            "        for j in range(len(components)):\n"
            "            row += c[j] * components[j]\n"
            "        rows.append(row)\n"
            "    return torch.stack(rows)\n",
        },
    ),
    Right(
        "einsum and a pseudo-inverse",
        {
            "pca_transform": "def pca_transform(x, mean, components):\n"
            "    return torch.einsum('nd,kd->nk', x - mean[None, :], components)\n",
            "pca_inverse": "def pca_inverse(codes, mean, components):\n"
            "    return torch.addmm(mean, codes, torch.linalg.pinv(components).T)\n",
        },
    ),
    Right(
        "linear functional, tied weights",
        _model(
            init="self.W = nn.Parameter(0.3 * torch.randn(n_codes, n_features)); "
            "self.a = nn.Parameter(torch.zeros(n_codes)); self.b = nn.Parameter(torch.zeros(n_features))",
            encode="F.linear(x, self.W, self.a)",
            decode="F.linear(codes, self.W.T, self.b)",
        ),
    ),
    Right(
        "two Sequentials, a deep linear encoder",
        _model(
            init="self.encoder = nn.Sequential(nn.Linear(n_features, n_features), "
            "nn.Linear(n_features, n_codes)); "
            "self.decoder = nn.Sequential(nn.Linear(n_codes, n_features))",
            encode="self.encoder(x)",
            decode="self.decoder(codes)",
            forward="self.decoder(self.encoder(x))",
        ),
    ),
    Right(
        "orthogonal start, matrix by matrix",
        _model(
            init="self.A = nn.Parameter(torch.empty(n_features, n_codes)); "
            "nn.init.orthogonal_(self.A); "
            "self.B = nn.Parameter(self.A.detach().T.clone()); "
            "self.bias_in = nn.Parameter(torch.randn(n_codes)); "
            "self.bias_out = nn.Parameter(torch.randn(n_features))",
            encode="x @ self.A + self.bias_in",
            decode="torch.addmm(self.bias_out, codes, self.B)",
        ),
    ),
    Right(
        "angle in float64, as a float",
        _angle(
            "    a, b = a.double(), b.double()\n"
            "    qa, _ = torch.linalg.qr(a.t(), mode='reduced')\n"
            "    qb, _ = torch.linalg.qr(b.t(), mode='reduced')\n"
            "    s = torch.linalg.svdvals(qa.t().mm(qb))\n"
            "    return math.acos(min(1.0, max(-1.0, float(s[-1]))))\n"
        ),
    ),
    Right(
        "angle from the sine, bases by SVD",
        _angle(
            "    va = torch.linalg.svd(a, full_matrices=False)[2]\n"
            "    vb = torch.linalg.svd(b, full_matrices=False)[2]\n"
            "    rest = vb - vb @ va.T @ va\n"
            "    sine = torch.linalg.matrix_norm(rest, ord=2)\n"
            "    return torch.asin(torch.clamp(sine, 0.0, 1.0))\n"
        ),
    ),
    Right(
        "angle by Gram-Schmidt and NumPy",
        _angle(
            "    def basis(m):\n"
            "        out = []\n"
            "        for row in m.numpy().astype(np.float64):\n"
            "            for q in out:\n"
            "                row = row - (row @ q) * q\n"
            "            out.append(row / np.linalg.norm(row))\n"
            "        return np.array(out)\n"
            "    s = np.linalg.svd(basis(a) @ basis(b).T)[1]\n"
            "    return np.arccos(np.clip(s, 0, 1)).max()\n"
        ),
    ),
]
