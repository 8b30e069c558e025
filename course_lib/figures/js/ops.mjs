// The operations of small networks on one example, forward and backward, in plain arrays.
//
// An operation is {size, forward, backward}. `node` holds its attributes and shapes (without the
// batch), `arrays` its weights. forward fills y from its inputs `xs`; backward adds to `gs`, one
// array per input, the derivative of a scalar whose derivative by y is gy. All of it is checked
// against torch in tests/figures.

// A strided window links a small grid (m channels) with a big one (n channels): big = small * stride
// - padding + k. A convolution gathers the big grid into the small one; a transposed convolution
// spreads the small one over the big one; each is the other's backward pass.
const gather = (node, weight, big, small) => link(node, weight, small, big, false);
const spread = (node, weight, small, big) => link(node, weight, small, big, true);

// Place by place of the small grid: the window's numbers lie in a row, as each channel's weights do,
// so that the innermost loops are long and walk straight through memory.
function link({ small: [m, sh, sw], big: [n, bh, bw], kernel: [kh, kw], stride: [dy, dx], padding: [py, px] }, weight, small, big, outwards) {
  const size = n * kh * kw;
  const patch = new Float32Array(size);
  const places = new Int32Array(size);
  for (let y = 0, place = 0; y < sh; y++) {
    for (let x = 0; x < sw; x++, place++) {
      for (let d = 0, k = 0; d < n; d++) {
        for (let ky = 0; ky < kh; ky++) {
          const by = y * dy + ky - py;
          for (let kx = 0; kx < kw; kx++, k++) {
            const bx = x * dx + kx - px;
            places[k] = by >= 0 && by < bh && bx >= 0 && bx < bw ? (d * bh + by) * bw + bx : -1;
          }
        }
      }
      if (outwards) {
        patch.fill(0);
        for (let c = 0; c < m; c++) {
          const s = small[c * sh * sw + place];
          if (s !== 0) for (let k = 0, w = c * size; k < size; k++, w++) patch[k] += weight[w] * s;
        }
        for (let k = 0; k < size; k++) if (places[k] >= 0) big[places[k]] += patch[k];
      } else {
        for (let k = 0; k < size; k++) patch[k] = places[k] >= 0 ? big[places[k]] : 0;
        for (let c = 0; c < m; c++) {
          let sum = 0;
          for (let k = 0, w = c * size; k < size; k++, w++) sum += weight[w] * patch[k];
          small[c * sh * sw + place] += sum;
        }
      }
    }
  }
}

function bias(b, y) {
  if (!b) return y.fill(0);
  const each = y.length / b.length;
  for (let c = 0; c < b.length; c++) y.fill(b[c], c * each, (c + 1) * each);
}

// An activation: y from x, and dy/dx from x and y.
const unary = (f, slope) => ({
  forward(node, [x], y) {
    for (let i = 0; i < y.length; i++) y[i] = f(x[i], node);
  },
  backward(node, [x], y, gy, [gx]) {
    for (let i = 0; i < y.length; i++) gx[i] += gy[i] * slope(x[i], y[i], node);
  },
});

export const sigmoid = (x) => 1 / (1 + Math.exp(-x));
export const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
// Numerical Recipes' erfc, to 1.2e-7: JavaScript has no error function.
function erf(x) {
  const t = 1 / (1 + 0.5 * Math.abs(x));
  const c = [1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277];
  let sum = 0;
  for (let i = c.length - 1; i >= 0; i--) sum = sum * t + c[i];
  const value = 1 - t * Math.exp(-x * x - 1.26551223 + t * sum);
  return x >= 0 ? value : -value;
}
const normal = (x) => 0.5 * (1 + erf(x / Math.SQRT2));
const density = (x) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);

// Two inputs, or one and a constant array or number `c`, element by element; a shorter operand
// repeats over the rest (channel by channel is written out when the network is exported).
const binary = (f, left, right) => ({
  forward(node, [a, b], y, { c }) {
    const other = b ?? c;
    for (let i = 0; i < y.length; i++) y[i] = f(a[i], other ? other[i % other.length] : node.value);
  },
  backward(node, [a, b], y, gy, [ga, gb], { c }) {
    const other = b ?? c;
    for (let i = 0; i < y.length; i++) {
      const v = other ? other[i % other.length] : node.value;
      ga[i] += gy[i] * left(a[i], v);
      if (gb) gb[i] += gy[i] * right(a[i], v);
    }
  },
});

export const OPS = {
  dense: {
    forward(node, [x], y, { w, b }) {
      const n = x.length;
      for (let o = 0, k = 0; o < y.length; o++) {
        let sum = b ? b[o] : 0;
        for (let i = 0; i < n; i++, k++) sum += w[k] * x[i];
        y[o] = sum;
      }
    },
    backward(node, [x], y, gy, [gx], { w }) {
      const n = x.length;
      for (let o = 0, k = 0; o < y.length; o++) {
        for (let i = 0; i < n; i++, k++) gx[i] += w[k] * gy[o];
      }
    },
  },
  conv: {
    forward(node, [x], y, { w, b }) {
      bias(b, y);
      gather(node, w, x, y);
    },
    backward(node, xs, y, gy, [gx], { w }) {
      spread(node, w, gy, gx);
    },
  },
  convtranspose: {
    forward(node, [x], y, { w, b }) {
      bias(b, y);
      spread(node, w, x, y);
    },
    backward(node, xs, y, gy, [gx], { w }) {
      gather(node, w, gy, gx);
    },
  },
  // Batch norm with its running statistics is a scale and a shift per channel.
  affine: {
    forward(node, [x], y, { w, b }) {
      const each = y.length / w.length;
      for (let c = 0, i = 0; c < w.length; c++) for (let k = 0; k < each; k++, i++) y[i] = w[c] * x[i] + b[c];
    },
    backward(node, xs, y, gy, [gx], { w }) {
      const each = y.length / w.length;
      for (let c = 0, i = 0; c < w.length; c++) for (let k = 0; k < each; k++, i++) gx[i] += w[c] * gy[i];
    },
  },
  relu: unary((x) => (x > 0 ? x : 0), (x) => (x > 0 ? 1 : 0)),
  leakyrelu: unary((x, { slope }) => (x > 0 ? x : slope * x), (x, y, { slope }) => (x > 0 ? 1 : slope)),
  elu: unary((x, { alpha }) => (x > 0 ? x : alpha * Math.expm1(x)), (x, y, { alpha }) => (x > 0 ? 1 : y + alpha)),
  sigmoid: unary(sigmoid, (x, y) => y * (1 - y)),
  tanh: unary(Math.tanh, (x, y) => 1 - y * y),
  softplus: unary(softplus, sigmoid),
  silu: unary((x) => x * sigmoid(x), (x, y) => sigmoid(x) * (1 + x - y)),
  gelu: unary((x) => x * normal(x), (x) => normal(x) + x * density(x)),
  exp: unary(Math.exp, (x, y) => y),
  log: unary(Math.log, (x) => 1 / x),
  sin: unary(Math.sin, Math.cos),
  cos: unary(Math.cos, (x) => -Math.sin(x)),
  abs: unary(Math.abs, Math.sign),
  power: unary((x, { exponent }) => x ** exponent, (x, y, { exponent }) => exponent * x ** (exponent - 1)),
  // torch lets the gradient pass at the bounds themselves.
  clamp: unary((x, { low, high }) => Math.min(Math.max(x, low), high), (x, y, { low, high }) => (x >= low && x <= high ? 1 : 0)),
  add: binary((a, b) => a + b, () => 1, () => 1),
  subtract: binary((a, b) => a - b, () => 1, () => -1),
  multiply: binary((a, b) => a * b, (a, b) => b, (a) => a),
  divide: binary((a, b) => a / b, (a, b) => 1 / b, (a, b) => -a / (b * b)),
  softmax: {
    forward(node, [x], y) {
      softmax(x, y);
    },
    backward(node, xs, y, gy, [gx]) {
      let dot = 0;
      for (let i = 0; i < y.length; i++) dot += y[i] * gy[i];
      for (let i = 0; i < y.length; i++) gx[i] += y[i] * (gy[i] - dot);
    },
  },
  reshape: {
    forward(node, [x], y) {
      y.set(x);
    },
    backward(node, xs, y, gy, [gx]) {
      for (let i = 0; i < y.length; i++) gx[i] += gy[i];
    },
  },
  // Numbers moved about: sliced, turned, repeated.
  take: {
    forward({ index }, [x], y) {
      for (let i = 0; i < y.length; i++) y[i] = x[index[i]];
    },
    backward({ index }, xs, y, gy, [gx]) {
      for (let i = 0; i < y.length; i++) gx[index[i]] += gy[i];
    },
  },
  concatenate: {
    forward(node, xs, y) {
      let at = 0;
      for (const x of xs) {
        y.set(x, at);
        at += x.length;
      }
    },
    backward(node, xs, y, gy, gs) {
      let at = 0;
      for (const gx of gs) for (let i = 0; i < gx.length; i++) gx[i] += gy[at++];
    },
  },
  // The mean over the last two dimensions.
  spatialmean: {
    forward(node, [x], y) {
      const each = x.length / y.length;
      for (let c = 0, i = 0; c < y.length; c++) {
        let sum = 0;
        for (let k = 0; k < each; k++) sum += x[i++];
        y[c] = sum / each;
      }
    },
    backward(node, [x], y, gy, [gx]) {
      const each = x.length / y.length;
      for (let i = 0; i < x.length; i++) gx[i] += gy[Math.floor(i / each)] / each;
    },
  },
  maxpool: {
    forward(node, [x], y) {
      pool(node, (o, places) => {
        let best = -Infinity;
        for (const i of places) best = Math.max(best, x[i]);
        y[o] = best;
      });
    },
    backward(node, [x], y, gy, [gx]) {
      // As in torch, the first of equal maxima takes the gradient.
      pool(node, (o, places) => (gx[places.find((i) => x[i] === y[o])] += gy[o]));
    },
  },
  averagepool: {
    forward(node, [x], y) {
      pool(node, (o, places) => {
        let sum = 0;
        for (const i of places) sum += x[i];
        y[o] = sum / (node.kernel[0] * node.kernel[1]);
      });
    },
    backward(node, xs, y, gy, [gx]) {
      pool(node, (o, places) => {
        for (const i of places) gx[i] += gy[o] / (node.kernel[0] * node.kernel[1]);
      });
    },
  },
  // Nearest neighbour, by a whole factor.
  upsample: {
    forward(node, [x], y) {
      enlarge(node, (i, o) => (y[o] = x[i]));
    },
    backward(node, xs, y, gy, [gx]) {
      enlarge(node, (i, o) => (gx[i] += gy[o]));
    },
  },
};

export function softmax(x, y = new Float32Array(x.length)) {
  let high = -Infinity;
  for (const value of x) high = Math.max(high, value);
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += y[i] = Math.exp(x[i] - high);
  for (let i = 0; i < x.length; i++) y[i] /= sum;
  return y;
}

function pool({ small: [c, sh, sw], big: [, bh, bw], kernel: [kh, kw], stride: [dy, dx], padding: [py, px] }, run) {
  for (let o = 0; o < c * sh * sw; o++) {
    const channel = Math.floor(o / (sh * sw));
    const top = (Math.floor(o / sw) % sh) * dy - py;
    const left = (o % sw) * dx - px;
    const places = [];
    for (let y = Math.max(top, 0); y < Math.min(top + kh, bh); y++) {
      for (let x = Math.max(left, 0); x < Math.min(left + kw, bw); x++) places.push((channel * bh + y) * bw + x);
    }
    run(o, places);
  }
}

function enlarge({ small: [c, sh, sw], big: [, bh, bw] }, run) {
  for (let o = 0; o < c * bh * bw; o++) {
    const channel = Math.floor(o / (bh * bw));
    const y = Math.floor(((Math.floor(o / bw) % bh) * sh) / bh);
    const x = Math.floor(((o % bw) * sw) / bw);
    run((channel * sh + y) * sw + x, o);
  }
}
