// A detector's threshold, and what its alarms are worth where fakes are rare.
import { h, slider, choice, button } from "./kit.mjs";
import { chart } from "./plot.mjs";

// What one place on a ROC curve means among `seen` items of which one in `oneIn` is generated. A
// missed fake costs `cost` false alarms; costs are counted in false alarms.
export function operate({ caught, accused, real, fake }, place, { oneIn, cost, seen }) {
  const [tpr, fpr] = [caught[place] / fake, accused[place] / real];
  const fakes = seen / oneIn;
  const counts = { caught: fakes * tpr, missed: fakes * (1 - tpr), accused: (seen - fakes) * fpr, passed: (seen - fakes) * (1 - fpr) };
  const alarms = counts.caught + counts.accused;
  return {
    tpr,
    fpr,
    counts,
    alarms,
    precision: alarms ? counts.caught / alarms : NaN,
    costs: { here: cost * counts.missed + counts.accused, never: cost * fakes, all: seen - fakes },
  };
}

// The place of least cost; of equal ones that which accuses fewest.
export function cheapest(curve, setting) {
  let [best, least] = [0, Infinity];
  for (let place = 0; place < curve.caught.length; place++) {
    const { here } = operate(curve, place, setting).costs;
    if (here < least * (1 - 1e-12)) [best, least] = [place, here];
  }
  return best;
}

// Counts that are not whole are shown with a decimal while they are small.
const tally = (v) => v.toLocaleString("en", { maximumFractionDigits: v < 9.95 ? 1 : 0 });
// A share with the digits that keep it from looking like nothing, or like everything.
function shareText(p) {
  const edge = Math.min(p, 1 - p);
  return `${(100 * p).toFixed(edge === 0 || edge >= 0.095 ? 0 : edge >= 0.00095 ? 1 : 2)}\u00a0%`;
}
const alarmsText = (v) => `${tally(v)} ${v.toFixed(1) === "1.0" ? "alarm" : "alarms"}`;

export const operatingPoint = {
  page: () => ({}),

  view({ spec, arrays, say, state }) {
    const { seen } = spec;
    const curves = spec.detectors.map((detector, i) => {
      const [thresholds, caught, accused] = ["thresholds", "caught", "accused"].map((part) => arrays[`${i}.${part}`]);
      const tprs = caught.map((v) => v / detector.fake);
      return { ...detector, thresholds, caught, accused, tprs, fprs: accused.map((v) => v / detector.real) };
    });
    const restart = () => Object.assign(state, { detector: 0, places: curves.map((c) => c.start), oneIn: spec.oneIn[spec.start[0]], cost: spec.costs[spec.start[1]] });
    restart();

    const roc = chart({ x: [0, 1], y: [0, 1], xlabel: "real ones accused", ylabel: "fakes caught", caption: "", width: 300, height: 290 });
    const thin = (dashes) => {
      const line = roc.line("muted");
      line.node.setAttribute("style", `stroke-width:1;stroke-dasharray:${dashes}`);
      return line;
    };
    for (const curve of curves) thin("none").draw(curve.fprs, curve.tprs);
    thin("2 3").draw([0, 1], [0, 1]);
    const equal = thin("7 4");
    const chosen = roc.line("defence");
    const point = roc.dot("ink", 6);

    const squares = h("svg", { viewBox: "0 -6 350 118", width: 350, role: "img" });
    const [right, wrong] = ["fake", "real"].map((kind) => h("path", { class: `fill-${kind}` }));
    squares.append(right, wrong);
    const legend = h("figcaption");
    const verdict = h("p", { class: "verdict" });
    const price = h("p", { class: "note" });
    const doubt = h("p", { class: "note" });
    const cells = {};
    const cell = (key, word, kind) => h("td", {}, (cells[key] = h("b", { class: kind })), ` ${word}`);
    const head = (scope, ...words) => h("th", { scope }, ...words);
    const table = h(
      "table",
      { class: "counts" },
      h("caption", {}, `Of ${tally(seen)} items seen:`),
      h("tr", {}, h("td"), head("col", "alarm"), head("col", "no alarm")),
      h("tr", {}, head("row", (cells.fakes = h("span")), " generated"), cell("caught", "caught", "fake"), cell("missed", "missed")),
      h("tr", {}, head("row", (cells.reals = h("span")), " real"), cell("accused", "accused", "real"), cell("passed", "passed")),
    );

    function draw() {
      const curve = curves[state.detector];
      const place = state.places[state.detector];
      const found = operate(curve, place, { ...state, seen });
      const { tpr, fpr, counts, alarms, precision, costs } = found;
      point.draw(fpr, tpr);
      // Along this line more fakes caught pay exactly for more real ones accused.
      const slope = (state.oneIn - 1) / state.cost;
      const ends = [Math.max(0, fpr - tpr / slope), Math.min(1, fpr + (1 - tpr) / slope)];
      equal.draw(ends, ends.map((x) => tpr + slope * (x - fpr)));
      roc.describe(`ROC curve of ${curve.name}. At this threshold it catches ${shareText(tpr)} of the fakes and accuses ${shareText(fpr)} of the real ones`);

      const each = [1, 2, 5, 10, 20, 50].find((e) => alarms <= 200 * e);
      right.setAttribute("d", squaresPath(0, counts.caught / each));
      wrong.setAttribute("d", squaresPath(counts.caught / each, alarms / each));
      const text = alarms
        ? `Of ${alarmsText(alarms)}, ${tally(counts.accused)} ${tally(counts.accused) === "1" ? "is" : "are"} false: an alarm is right ${shareText(precision)} of the time.`
        : "No alarm is ever raised.";
      verdict.textContent = text;
      squares.setAttribute("aria-label", alarms ? `${alarmsText(alarms)}: ${tally(counts.caught)} right, ${tally(counts.accused)} wrong` : "No alarm");
      legend.replaceChildren(`Each square: ${each === 1 ? "an alarm" : `${each} alarms`}, `, h("b", { class: "fake" }, "right"), " or ", h("b", { class: "real" }, "false"), ".");
      const shown = { ...counts, fakes: seen / state.oneIn, reals: seen - seen / state.oneIn };
      for (const [key, node] of Object.entries(cells)) node.textContent = tally(shown[key]);

      const idle = Math.min(costs.never, costs.all);
      price.replaceChildren(
        `Cost, counted in false alarms: ${tally(costs.here)} here, ${tally(costs.never)} if nobody is accused, ${tally(costs.all)} if everybody is. `,
        h("b", {}, costs.here <= idle * (1 + 1e-12) ? "" : `To accuse ${costs.never <= costs.all ? "nobody" : "everybody"} would be cheaper than this.`),
      );
      // None among N: the rate below which fewer than one in twenty such samples would be that clean.
      const most = 1 - 0.05 ** (1 / curve.real);
      const worst = tpr / (tpr + most * (state.oneIn - 1));
      doubt.textContent =
        fpr === 0 && tpr > 0
          ? `None of the ${tally(curve.real)} real ones measured was accused. That does not prove the rate to be 0: it may be as high as ${shareText(most)} (95 % confidence), and an alarm right only ${shareText(worst)} of the time.`
          : `Measured on ${tally(curve.real)} real and ${tally(curve.fake)} generated items.`;
      if (state.drawn) say(text);
      Object.assign(state, found, { place, threshold: curve.thresholds[place], sentence: text, doubt: doubt.textContent, drawn: (state.drawn ?? 0) + 1 });
    }

    const last = () => curves[state.detector].thresholds.length - 1;
    // To the right the threshold rises, and with it the place on the curve falls.
    const threshold = slider({
      label: "Alarm from a score of",
      min: 0,
      max: 1,
      step: 1,
      value: 0,
      format(v) {
        const score = curves[state.detector].thresholds[last() - v];
        return Number.isFinite(score) ? String(Number(score.toPrecision(4))) : "never";
      },
      change(v) {
        state.places[state.detector] = last() - v;
        draw();
      },
    });
    const pick = (label, values, key, format) =>
      slider({
        label,
        min: 0,
        max: values.length - 1,
        step: 1,
        value: values.indexOf(state[key]),
        format: (i) => format(values[i]),
        change(i) {
          state[key] = values[i];
          draw();
        },
      });
    const rate = pick("Generated, of all it sees", spec.oneIn, "oneIn", (v) => `1 in ${tally(v)}`);
    const worth = pick("A missed fake costs", spec.costs, "cost", (v) => `${v} false alarm${v === 1 ? "" : "s"}`);
    const which = choice({
      label: "Detector",
      options: curves.map((curve, i) => [i, curve.name]),
      value: 0,
      change(i) {
        state.detector = Number(i);
        change();
      },
    });
    function change() {
      threshold.input.max = last();
      threshold.set(last() - state.places[state.detector]);
      const { fprs, tprs } = curves[state.detector];
      chosen.draw(fprs, tprs);
      draw();
    }
    const buttons = [
      button("Cheapest threshold", () => {
        state.places[state.detector] = cheapest(curves[state.detector], { ...state, seen });
        change();
      }),
      button("Reset", () => {
        restart();
        which.select.value = 0;
        rate.set(spec.start[0]);
        worth.set(spec.start[1]);
        change();
      }),
    ];
    change();
    const node = h(
      "div",
      {},
      h(
        "div",
        { class: "columns stacked" },
        h("div", {}, ...(curves.length > 1 ? [h("div", { class: "row" }, which.node)] : []), threshold.node, rate.node, worth.node, h("div", { class: "row" }, ...buttons), verdict, h("figure", {}, legend, squares)),
        h("figure", {}, roc.svg, h("figcaption", {}, "Dotted: guessing. Dashed: equal cost."), table),
      ),
      price,
      doubt,
    );
    return { node, started: Promise.resolve() };
  },
};

// The path of squares from one place in their row to another, 25 in a line, the ends cut to size.
function squaresPath(from, to) {
  let d = "";
  for (let cell = Math.floor(from); cell < to; cell++) {
    const [a, b] = [Math.max(from, cell) - cell, Math.min(to, cell + 1) - cell];
    if (b - a > 1e-6) d += `M${((cell % 25) * 14 + 12 * a).toFixed(2)},${Math.floor(cell / 25) * 14}h${(12 * (b - a)).toFixed(2)}v12h${(-12 * (b - a)).toFixed(2)}z`;
  }
  return d;
}
