// Two networks trained in the page: batches through dense layers, their gradients, and Adam.
import { sigmoid, softplus } from "./ops.mjs";

// c[i, j] = sum over t of a[i * ai + t * at] * b[t, j], two rows and four columns at a time, so that
// the eight sums stay in registers.
function product(a, ai, at, b, c, rows, columns, n) {
  const evenRows = rows - (rows % 2);
  const fourColumns = columns - (columns % 4);
  for (let i = 0; i < evenRows; i += 2) {
    for (let j = 0; j < fourColumns; j += 4) {
      let s0 = 0, s1 = 0, s2 = 0, s3 = 0, r0 = 0, r1 = 0, r2 = 0, r3 = 0;
      let p = i * ai, q = j;
      for (let t = 0; t < n; t++) {
        const u = a[p], v = a[p + ai], w0 = b[q], w1 = b[q + 1], w2 = b[q + 2], w3 = b[q + 3];
        s0 += u * w0;
        s1 += u * w1;
        s2 += u * w2;
        s3 += u * w3;
        r0 += v * w0;
        r1 += v * w1;
        r2 += v * w2;
        r3 += v * w3;
        p += at;
        q += columns;
      }
      let o = i * columns + j;
      c[o] = s0;
      c[o + 1] = s1;
      c[o + 2] = s2;
      c[o + 3] = s3;
      o += columns;
      c[o] = r0;
      c[o + 1] = r1;
      c[o + 2] = r2;
      c[o + 3] = r3;
    }
  }
  for (let i = 0; i < rows; i++) {
    for (let j = i < evenRows ? fourColumns : 0; j < columns; j++) {
      let sum = 0;
      for (let t = 0; t < n; t++) sum += a[i * ai + t * at] * b[t * columns + j];
      c[i * columns + j] = sum;
    }
  }
}

// Dense layers, each with a leaky ReLU (slope 1: none). Float64, which V8 computes in anyway.
export class MLP {
  // network: a Network whose operations are dense and leakyrelu; most: rows of the largest batch.
  constructor(network, most) {
    const found = [];
    for (const { op, own, slope } of network.nodes) {
      if (op === "dense") found.push({ ...own, slope: 1 });
      else found[found.length - 1].slope = slope;
    }
    const total = found.reduce((sum, { w, b }) => sum + w.length + b.length, 0);
    const fresh = () => new Float64Array(total);
    Object.assign(this, { most, time: 0, theta: fresh(), gradient: fresh(), mean: fresh(), square: fresh() });
    let at = 0;
    const part = (array) => {
      this.theta.set(array, at);
      at += array.length;
      return [this.theta.subarray(at - array.length, at), this.gradient.subarray(at - array.length, at)];
    };
    this.layers = found.map(({ w, b, slope }) => {
      const outputs = b.length;
      const inputs = w.length / outputs;
      const [[weight, gw], [bias, gb]] = [part(w), part(b)];
      return { inputs, outputs, slope, w: weight, gw, b: bias, gb, wt: new Float64Array(w.length), y: new Float64Array(most * outputs), gx: new Float64Array(most * inputs) };
    });
    this.inputs = this.layers[0].inputs;
    this.outputs = this.layers[this.layers.length - 1].outputs;
  }

  // x: (rows, inputs), row by row; the result is overwritten by the next call.
  forward(x, rows) {
    this.x = x;
    for (const { inputs, outputs, slope, w, wt, b, y } of this.layers) {
      for (let o = 0; o < outputs; o++) for (let i = 0; i < inputs; i++) wt[i * outputs + o] = w[o * inputs + i];
      product(x, inputs, 1, wt, y, rows, outputs, inputs);
      for (let r = 0, k = 0; r < rows; r++) {
        for (let o = 0; o < outputs; o++, k++) {
          const value = y[k] + b[o];
          y[k] = value > 0 ? value : slope * value;
        }
      }
      x = y;
    }
    return x;
  }

  // gy: the loss's derivative by what forward returned, which this overwrites. Fills `gradient` if
  // `weights`; returns the derivative by the input if `inputs`.
  backward(gy, rows, { weights, inputs }) {
    for (let l = this.layers.length - 1; l >= 0; l--) {
      const layer = this.layers[l];
      const { y, slope, w, gw, gb, gx } = layer;
      const size = rows * layer.outputs;
      if (slope !== 1) for (let k = 0; k < size; k++) if (y[k] <= 0) gy[k] *= slope;
      if (weights) {
        product(gy, 1, layer.outputs, l ? this.layers[l - 1].y : this.x, gw, layer.outputs, layer.inputs, rows);
        gb.fill(0);
        for (let k = 0; k < size; ) for (let o = 0; o < gb.length; o++, k++) gb[o] += gy[k];
      }
      if (l === 0 && !inputs) return null;
      product(gy, layer.outputs, 1, w, gx, rows, layer.inputs, layer.outputs);
      gy = gx;
    }
    return gy;
  }

  // Any number of rows, in pieces; the result is the caller's own.
  map(x) {
    const n = x.length / this.inputs;
    const found = new Float64Array(n * this.outputs);
    const most = Math.min(128, this.most); // so few stay in the processor's cache
    for (let from = 0; from < n; from += most) {
      const rows = Math.min(most, n - from);
      const y = this.forward(x.subarray(from * this.inputs, (from + rows) * this.inputs), rows);
      found.set(y.subarray(0, rows * this.outputs), from * this.outputs);
    }
    return found;
  }

  // One step of Adam (Kingma and Ba 2015, Algorithm 1), as torch.optim.Adam computes it.
  step(rate, beta1 = 0.5, beta2 = 0.9, eps = 1e-8) {
    const { theta, gradient, mean, square } = this;
    this.time++;
    const size = rate / (1 - beta1 ** this.time);
    const root = Math.sqrt(1 - beta2 ** this.time);
    for (let i = 0; i < theta.length; i++) {
      const g = gradient[i];
      mean[i] += (1 - beta1) * (g - mean[i]);
      square[i] = beta2 * square[i] + (1 - beta2) * g * g;
      theta[i] -= (size * mean[i]) / (Math.sqrt(square[i]) / root + eps);
    }
  }
}

// Algorithm 1 of Goodfellow et al. 2014, one step at a time; the losses are those before the step.
export class Duel {
  constructor(G, D, batch) {
    Object.assign(this, { G, D, batch, points: new Float64Array(2 * batch * G.outputs), slopes: new Float64Array(2 * batch) });
  }

  // -E[log D(x)] - E[log(1 - D(G(z)))], on (batch, d) real points and (batch, noise) numbers.
  judgeStep(real, noise, rate) {
    const { G, D, batch, points, slopes } = this;
    const half = batch * G.outputs;
    points.set(real);
    points.set(G.forward(noise, batch).subarray(0, half), half);
    const logits = D.forward(points, 2 * batch);
    let loss = 0;
    for (let i = 0; i < batch; i++) {
      loss += softplus(-logits[i]) + softplus(logits[batch + i]);
      slopes[i] = -sigmoid(-logits[i]) / batch;
      slopes[batch + i] = sigmoid(logits[batch + i]) / batch;
    }
    D.backward(slopes, 2 * batch, { weights: true, inputs: false });
    D.step(rate);
    return loss / batch;
  }

  // -E[log D(G(z))], or, as the game is written ("minimax"), E[log(1 - D(G(z)))].
  forgeStep(noise, rate, kind) {
    const { G, D, batch, slopes } = this;
    const logits = D.forward(G.forward(noise, batch), batch);
    let loss = 0;
    for (let i = 0; i < batch; i++) {
      const written = kind === "minimax";
      loss += written ? -softplus(logits[i]) : softplus(-logits[i]);
      slopes[i] = -sigmoid(written ? logits[i] : -logits[i]) / batch;
    }
    // D stays as it is: only the derivative by its input is wanted.
    G.backward(D.backward(slopes, batch, { weights: false, inputs: true }), batch, { weights: true, inputs: false });
    G.step(rate);
    return loss / batch;
  }
}
