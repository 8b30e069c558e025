// The game of a generator and a discriminator, trained while the reader watches.
import { h, slider, choice, button, percent } from "./kit.mjs";
import { chart } from "./plot.mjs";
import { Random } from "./random.mjs";
import { sigmoid } from "./ops.mjs";
import { MLP, Duel } from "./train.mjs";

// The points of a square grid over [-extent, extent], n each way, x first: (n^d, d).
export function lattice(d, n, extent) {
  const at = Float64Array.from({ length: n }, (_, i) => extent * ((2 * i) / (n - 1) - 1));
  return d === 1 ? at : Float64Array.from({ length: 2 * n * n }, (_, k) => at[k % 2 ? Math.floor(k / (2 * n)) : (k >> 1) % n]);
}

// The density of points (N, d) on that grid: each is shared out between its neighbours, then all is
// smoothed by a Gaussian of deviation `blur`.
function smoothed(points, d, n, extent, blur) {
  const cell = (2 * extent) / (n - 1);
  let found = new Float64Array(n ** d);
  const each = d / points.length / cell ** d;
  for (let k = 0; k < points.length; k += d) {
    const u = (points[k] + extent) / cell;
    const v = d === 2 ? (points[k + 1] + extent) / cell : 0;
    // Also false for what is not finite.
    if (!(u >= 0 && u < n - 1 && v >= 0 && v < n - 1)) continue;
    const [i, j] = [Math.floor(u), Math.floor(v)];
    const at = j * n + i;
    const [right, up] = [u - i, v - j];
    found[at] += each * (1 - right) * (1 - up);
    found[at + 1] += each * right * (1 - up);
    if (d === 1) continue;
    found[at + n] += each * (1 - right) * up;
    found[at + n + 1] += each * right * up;
  }
  const reach = Math.ceil((3.5 * blur) / cell);
  const weights = Array.from({ length: 2 * reach + 1 }, (_, t) => Math.exp(-0.5 * (((t - reach) * cell) / blur) ** 2));
  const total = weights.reduce((a, b) => a + b);
  for (const step of d === 2 ? [1, n] : [1]) {
    const next = new Float64Array(found.length);
    for (let k = 0; k < found.length; k++) {
      if (found[k] === 0) continue;
      const place = step === 1 ? k % n : Math.floor(k / n);
      for (let t = Math.max(-reach, -place); t <= Math.min(reach, n - 1 - place); t++) next[k + t * step] += (found[k] * weights[t + reach]) / total;
    }
    found = next;
  }
  return found;
}

// p, q and D* = p / (p + q) on the grid, for a mixture p and samples of q. Both densities are seen
// through the same blur: smoothing q alone would make even a perfect generator look wide.
export function bestJudge(samples, { centres, spreads, weights, extent, blur, fine: n }) {
  const d = centres[0].length;
  const q = smoothed(samples, d, n, extent, blur);
  // Sharing a point out between two neighbours is a blur of its own, of variance cell^2 / 6.
  const extra = blur ** 2 + ((2 * extent) / (n - 1)) ** 2 / 6;
  const at = lattice(1, n, extent);
  const p = new Float64Array(n ** d);
  centres.forEach((centre, m) => {
    const variance = spreads[m] ** 2 + extra;
    const along = (c) => at.map((x) => Math.exp(-((x - c) ** 2) / (2 * variance)) / Math.sqrt(2 * Math.PI * variance));
    const xs = along(centre[0]);
    const ys = d === 2 ? along(centre[1]) : [1];
    for (let k = 0; k < p.length; k++) p[k] += weights[m] * xs[k % n] * ys[Math.floor(k / n)];
  });
  return { p, q, star: p.map((v, k) => v / (v + q[k])) };
}

// Which modes hold at least a tenth of an equal share of the points, and the share near any: a point
// belongs to the nearest centre if within 3 of its deviations.
export function modesKept(points, centres, spreads) {
  const d = centres[0].length;
  const n = points.length / d;
  const counts = centres.map(() => 0);
  for (let k = 0; k < points.length; k += d) {
    let best = -1;
    let least = Infinity;
    for (let m = 0; m < centres.length; m++) {
      const away = Math.hypot(points[k] - centres[m][0], d === 2 ? points[k + 1] - centres[m][1] : 0);
      if (away < least) [best, least] = [m, away];
    }
    if (best >= 0 && least <= 3 * spreads[best]) counts[best]++;
  }
  return { kept: counts.map((count) => count >= n / centres.length / 10), near: counts.reduce((a, b) => a + b) / n };
}

// `n` draws of the mixture into `out`, (n, d).
function drawReal(random, { centres, spreads, weights }, out) {
  const d = centres[0].length;
  for (let k = 0; k < out.length; k += d) {
    let left = random.uniform();
    let m = 0;
    while (m < weights.length - 1 && left >= weights[m]) left -= weights[m++];
    for (let c = 0; c < d; c++) out[k + c] = centres[m][c] + spreads[m] * random.normal();
  }
  return out;
}

// Learning rates to choose from: round numbers, evenly spread on a logarithmic scale.
const RATES = [-5, -4, -3, -2].flatMap((e) => [1, 1.5, 2, 3, 4, 5, 6, 8].map((m) => Number(`${m}e${e}`))).concat(0.1);
const nearest = (rate) => RATES.reduce((best, r, i) => (Math.abs(Math.log(r / rate)) < Math.abs(Math.log(RATES[best] / rate)) ? i : best), 0);

const brief = (v) => (v !== 0 && Math.abs(v) < 0.005 ? v.toExponential(0) : v.toFixed(2)).replaceAll("-", "−");

export const ganGame = {
  page({ spec, networks, arrays }) {
    const z = Float64Array.from(arrays.z);
    const d = spec.centres[0].length;
    const grid = lattice(d, spec.coarse, spec.extent);
    const real = new Float64Array(spec.batch * d);
    let noise, G, D, duel, random, round, kind;
    const draw = () => {
      for (let i = 0; i < noise.length; i++) noise[i] = random.normal();
      return noise;
    };
    const look = () => {
      const samples = G.map(z);
      const some = D.map(samples.subarray(0, 128 * d)).map(sigmoid);
      const mean = some.reduce((a, b) => a + b) / some.length;
      return { samples, judge: D.map(grid).map(sigmoid), pull: kind === "minimax" ? mean : 1 - mean };
    };
    return {
      reset({ seed, settings }) {
        const most = Math.max(2 * spec.batch, 512);
        [G, D] = [new MLP(networks.G, most), new MLP(networks.D, most)];
        noise = new Float64Array(spec.batch * G.inputs);
        duel = new Duel(G, D, spec.batch);
        random = new Random(seed);
        round = 0;
        kind = settings.loss;
        return { round, ...look() };
      },
      // Up to `rounds` rounds: as many as fit into `budget` milliseconds, but one if any.
      advance({ rounds, settings, budget, see }) {
        const { k, g_rate, d_rate, loss, head_start } = settings;
        const [ds, gs] = [[], []];
        const start = performance.now();
        kind = loss;
        while (ds.length < rounds && (ds.length === 0 || performance.now() - start < budget)) {
          let sum = 0;
          for (let i = 0; i < k; i++) sum += duel.judgeStep(drawReal(random, spec, real), draw(), d_rate);
          ds.push(sum / k);
          gs.push(duel.forgeStep(draw(), ++round > head_start ? g_rate : 0, loss));
        }
        if (![...ds, ...gs].every(Number.isFinite)) return { round, diverged: "a loss is no longer finite" };
        return { round, d_loss: ds, g_loss: gs, ...(see ? look() : {}) };
      },
    };
  },

  view({ spec, ask, say, state, seed, reduced, onstop }) {
    const { centres, spreads, settings: presets } = spec;
    const modes = centres.length;
    const id = String(Math.random());
    const scene = (centres[0].length === 1 ? onTheLine : onThePlane)(spec, onstop);
    const losses = lossChart();
    const status = h("p", { class: "status" });
    Object.assign(state, { seed, playing: false, drawn: 0, round: 0 });
    let history = [];
    let last = null;
    let announced = 0;

    // One question at a time, in the order asked.
    let queue = Promise.resolve();
    const inTurn = (job) => (queue = queue.then(job, job));

    function draw() {
      const best = bestJudge(last.samples, spec);
      const { kept, near } = modesKept(last.samples, centres, spreads);
      const [d, g] = history[history.length - 1] ?? [];
      const count = kept.filter(Boolean).length;
      Object.assign(state, { ...last, ...best, kept, near, dLoss: d, gLoss: g });
      scene.draw(last, best, kept, `Round ${state.round}: ${count} of ${modes} modes kept`);
      losses.draw(history);
      const alone = state.settings.head_start;
      const when = `Round ${state.round}${state.round < alone ? ` (D alone until round ${alone})` : ""}. `;
      const what = `${count} of ${modes} modes kept`;
      const rest = `, ${percent(near)} of the forgeries near one.`;
      const scores = d === undefined ? "" : ` Loss of D (−V) ${brief(d)}, of G ${brief(g)}.`;
      status.replaceChildren(when, h("b", { class: count === modes ? "defence" : "fake" }, what), `${rest}${scores} Pull on a forgery: ${brief(last.pull)} of at most 1.`);
      state.drawn++;
      state.text = `${when}${what}.${scores}`;
    }
    function tell(always) {
      if (!always && performance.now() - announced < 4000) return;
      announced = performance.now();
      say(state.text);
    }

    const restart = () =>
      inTurn(async () => {
        last = await ask("reset", { id, seed: state.seed, settings: state.settings });
        history = [];
        state.round = 0;
        draw();
        tell(true);
      });
    const advance = (rounds, see) =>
      inTurn(async () => {
        const found = await ask("advance", { id, rounds, settings: state.settings, budget: 8, see });
        state.round = found.round;
        if (found.diverged) {
          pause();
          status.replaceChildren(h("b", { class: "fake" }, `The training broke down in round ${found.round}: ${found.diverged}.`), " Reset, and try smaller rates.");
          return say(status.textContent);
        }
        found.d_loss.forEach((loss, i) => history.push([loss, found.g_loss[i]]));
        if (!see) return;
        last = found;
        draw();
      });

    let frame = 0;
    let before = 0;
    let shown = 0;
    async function tick(now) {
      if (!state.playing) return;
      // On a fast screen no faster than on others.
      if (now - before > 12) {
        before = now;
        const see = now - shown > (reduced() ? 500 : 30);
        if (see) shown = now;
        try {
          await advance(spec.pace, see);
        } catch {
          pause();
        }
        if (see) tell(false);
      }
      if (state.playing) frame = requestAnimationFrame(tick);
    }
    function pause() {
      state.playing = false;
      cancelAnimationFrame(frame);
      play.textContent = "Play";
    }
    const play = button("Play", () => {
      if (!state.playing) {
        state.playing = true;
        play.textContent = "Pause";
        frame = requestAnimationFrame(tick);
        return;
      }
      pause();
      step(0); // what is drawn may be a round behind
    });
    async function step(rounds) {
      await advance(rounds, true);
      tell(true);
    }
    onstop(pause);

    const own = "(your own)";
    const preset = choice({
      label: "Settings",
      options: [...Object.keys(presets), own].map((key) => [key, key]),
      value: Object.keys(presets)[0],
      change(value) {
        if (value === own) return;
        apply(value);
        restart();
      },
    });
    const set = (key, value) => {
      state.settings = { ...state.settings, [key]: value };
      preset.select.value = own;
    };
    const rate = (label, key) =>
      slider({ label, min: 0, max: RATES.length - 1, step: 1, value: 0, format: (v) => String(RATES[v]), change: (v) => set(key, RATES[v]) });
    const k = slider({ label: "steps k", min: 1, max: 8, step: 1, value: 1, format: String, change: (v) => set("k", v) });
    const dRate = rate("rate of D", "d_rate");
    const gRate = rate("rate of G", "g_rate");
    const loss = choice({
      label: "Loss of G",
      options: [["non-saturating", "non-saturating"], ["minimax", "minimax (saturating)"]],
      value: "non-saturating",
      change: (value) => set("loss", value),
    });
    function apply(key) {
      state.settings = { ...presets[key] };
      k.set(state.settings.k);
      dRate.set(nearest(state.settings.d_rate));
      gRate.set(nearest(state.settings.g_rate));
      loss.select.value = state.settings.loss;
    }
    apply(Object.keys(presets)[0]);

    const buttons = [
      play,
      button("Step", () => {
        pause();
        step(1);
      }),
      button("Reset", () => {
        pause();
        restart();
      }),
      button("New seed", () => {
        state.seed++;
        restart();
      }),
    ];
    const node = h(
      "div",
      {},
      h("div", { class: "row" }, ...buttons, preset.node),
      h("div", { class: "columns" }, ...scene.nodes),
      status,
      h("div", { class: "columns", style: "margin-top:0.8rem" }, h("fieldset", {}, h("legend", {}, "each round: k steps of D, then one of G"), k.node, dRate.node, gRate.node, h("div", { class: "row" }, loss.node)), losses.node),
    );
    return { node, started: restart() };
  },
};

// Both losses by round; more rounds than there is room for are averaged in groups.
function lossChart() {
  const span = [0, 100];
  const plot = chart({ x: span, y: [0, 3], xlabel: "round", caption: "Losses by round", width: 330, height: 190 });
  const level = plot.line("muted", "dashed");
  const lines = [plot.line("ink"), plot.line("fake")];
  let scale = "";
  plot.node.append(h("figcaption", {}, h("b", {}, "Loss of D"), " and ", h("b", { class: "fake" }, "of G"), "; dashed: 2 ln 2, D cannot tell"));
  return {
    node: plot.node,
    draw(history) {
      const size = Math.ceil(history.length / 240) || 1;
      const xs = [];
      const means = [[], []];
      for (let i = 0; i < history.length; i += size) {
        const group = history.slice(i, i + size);
        xs.push(i + (group.length + 1) / 2);
        means.forEach((list, c) => list.push(group.reduce((sum, pair) => sum + pair[c], 0) / group.length));
      }
      const all = means.flat();
      const low = Math.max(-6, Math.floor(Math.min(0, ...all)));
      const high = Math.min(8, Math.ceil(Math.max(3, ...all)));
      span[1] = Math.max(100, 100 * Math.ceil(history.length / 100));
      if (scale !== (scale = `${low} ${high} ${span[1]}`)) plot.rescale(low, high);
      level.draw(span, [2 * Math.LN2, 2 * Math.LN2]);
      lines.forEach((line, c) => line.draw(xs, means[c]));
      const end = history[history.length - 1];
      plot.describe(end ? `Losses by round, up to round ${history.length}: D ${brief(end[0])}, G ${brief(end[1])}` : "Losses by round: none yet");
    },
  };
}

// Samples that are numbers: two densities, and below them D with the best D.
function onTheLine({ extent, coarse, fine }) {
  const x = [-extent, extent];
  const [xs, at] = [lattice(1, fine, extent), lattice(1, coarse, extent)];
  const top = [0, 0];
  const unit = Math.max(1, Math.floor(extent / 2));
  const xticks = Array.from({ length: 2 * Math.floor(extent / unit) + 1 }, (_, i) => unit * (i - Math.floor(extent / unit))).map((v) => [v, String(v)]);
  const densities = chart({ x, y: [0, 1], xticks, xlabel: "x", caption: "", width: 330, height: 220 });
  const judges = chart({ x, y: [0, 1], xticks, xlabel: "x", caption: "", width: 330, height: 220 });
  const areas = [densities.area("real"), densities.area("fake")];
  const curves = [densities.line("real"), densities.line("fake")];
  const half = judges.line("muted", "dashed");
  const [wide, line] = [judges.line("muted", "wide"), judges.line("ink")];
  densities.node.append(h("figcaption", {}, "Densities: ", h("b", { class: "real" }, "data p"), " and ", h("b", { class: "fake" }, "forgeries q")));
  judges.node.append(h("figcaption", {}, h("b", {}, "D(x)"), ", the probability “real”; wide and pale: the best D* = p/(p+q)"));
  half.draw(x, [0.5, 0.5]);
  return {
    nodes: [densities.node, judges.node],
    draw({ judge }, { p, q, star }, kept, text) {
      top[0] ||= 1.6 * Math.max(...p);
      // A generator that has collapsed is a needle: the axis grows, but not without end.
      const high = Math.min(4, Math.max(1, Math.ceil(Math.max(...q) / top[0]))) * top[0];
      if (high !== top[1]) densities.rescale(0, (top[1] = high));
      [p, q].forEach((y, i) => {
        areas[i].draw(xs, y);
        curves[i].draw(xs, y);
      });
      // Where there is neither data nor forgery any answer is as good.
      wide.draw(xs, star.map((v, i) => (p[i] + q[i] > 0.01 * top[0] ? v : NaN)));
      line.draw(at, judge);
      densities.describe(`${text}. The density of the forgeries over that of the data`);
      const middle = judge[Math.floor(judge.length / 2)];
      judges.describe(`D(x) from ${Math.min(...judge).toFixed(2)} to ${Math.max(...judge).toFixed(2)}, ${middle.toFixed(2)} in the middle, over the best D*`);
    },
  };
}

// Samples that are points: what D says everywhere, under data and forgeries, and what the best D says.
function onThePlane(spec, onstop) {
  const { extent, coarse, fine, centres, spreads } = spec;
  const size = 640;
  const data = drawReal(new Random(0), spec, new Float64Array(1000));
  const to = (v) => (v / extent + 1) * (size / 2);
  const panel = (...caption) => {
    const canvas = h("canvas", { width: size, height: size, role: "img", style: "width:100%;image-rendering:auto;background:none" });
    return { canvas, context: canvas.getContext("2d"), node: h("figure", {}, canvas, h("figcaption", {}, ...caption)) };
  };
  const real = () => h("b", { class: "real" }, "blue");
  const fake = () => h("b", { class: "fake" }, "orange");
  const panels = [
    panel("D now: ", real(), " where it says real, ", fake(), " where forged. Dots: data and forgeries"),
    panel("The best D* for these forgeries, where there is anything to tell. Circles: modes ", h("b", { class: "defence" }, "kept"), " or lost (dashed)"),
  ];
  let again = () => {};

  // A map of n x n chances, as strong as `alpha` says, stretched so that grid points lie where they are.
  const small = h("canvas");
  function shade(context, values, n, alpha, [real, fake]) {
    small.width = small.height = n;
    const inner = small.getContext("2d");
    const image = inner.createImageData(n, n);
    for (let k = 0; k < n * n; k++) {
      const colour = values[k] > 0.5 ? real : fake;
      const o = 4 * ((n - 1 - Math.floor(k / n)) * n + (k % n));
      for (let c = 0; c < 3; c++) image.data[o + c] = colour[c];
      image.data[o + 3] = 255 * 0.6 * Math.abs(2 * values[k] - 1) * alpha(k);
    }
    inner.putImageData(image, 0, 0);
    const cell = size / (n - 1);
    context.drawImage(small, -cell / 2, -cell / 2, size + cell, size + cell);
  }
  function dots(context, points, n, colour, radius) {
    context.fillStyle = colour;
    for (let k = 0; k < 2 * n; k += 2) context.fillRect(to(points[k]) - radius, size - to(points[k + 1]) - radius, 2 * radius, 2 * radius);
  }
  function draw({ samples, judge }, { p, q, star }, kept, text) {
    again = () => draw({ samples, judge }, { p, q, star }, kept, text);
    const style = getComputedStyle(panels[0].canvas);
    const colours = Object.fromEntries(["real", "fake", "defence", "muted"].map((key) => [key, style.getPropertyValue(`--${key}`).trim() || "#888888"]));
    const pair = [colours.real, colours.fake].map((c) => [1, 3, 5].map((i) => parseInt(c.slice(i, i + 2), 16)));
    const [left, right] = panels.map(({ context }) => context);
    for (const context of [left, right]) context.clearRect(0, 0, size, size);
    shade(left, judge, coarse, () => 1, pair);
    dots(left, data, data.length / 2, colours.real, 2.5);
    dots(left, samples, Math.min(600, samples.length / 2), colours.fake, 2.5);
    const some = 0.06 * Math.max(...p);
    shade(right, star, fine, (k) => Math.min(1, (p[k] + q[k]) / some), pair);
    right.lineWidth = 4;
    centres.forEach(([x, y], m) => {
      right.strokeStyle = kept[m] ? colours.defence : colours.muted;
      right.setLineDash(kept[m] ? [] : [8, 8]);
      right.beginPath();
      right.arc(to(x), size - to(y), (3 * spreads[m] * size) / (2 * extent), 0, 7);
      right.stroke();
    });
    panels[0].canvas.setAttribute("aria-label", `${text}. Forgeries over data, on what D says of every place`);
    panels[1].canvas.setAttribute("aria-label", `The best D for these forgeries; ${kept.filter(Boolean).length} of ${kept.length} modes circled as kept`);
  }
  // Colours on a canvas do not follow the page from light to dark.
  const observer = new MutationObserver(() => again());
  observer.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  observer.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  onstop(() => observer.disconnect());
  return { nodes: panels.map(({ node }) => node), draw };
}
