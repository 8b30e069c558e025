// Two pictures, one of them generated: which? The reader against the detector and a coin.
import { h, button, picture, percent } from "./kit.mjs";

// The chance that a fair coin is right at least k times in n.
export function binomialTail(n, k) {
  let [term, sum] = [0.5 ** n, 0];
  for (let i = 0; i <= n; i++) {
    if (i >= k) sum += term;
    term *= (n - i) / (i + 1);
  }
  return Math.min(1, sum);
}

// A probability in few digits, and never 0 or 100 %.
const likely = (p, digits) => (digits || (p >= 0.005 && p < 0.995) ? percent(p, digits) : p < 0.5 ? "under 1 %" : "over 99 %");
const SIDES = ["A", "B"];

export const spotTheFake = {
  page: () => ({}),

  view({ spec, arrays, say, state }) {
    const { shape, rounds, pairs, names, scores } = spec;
    const [real, fake] = names;
    const each = shape.reduce((a, b) => a * b, 1);
    const pixels = (kind, i) => arrays[kind].subarray(i * each, (i + 1) * each);
    // What stands on the two sides of the pair on show: [kind, its place among its kind].
    const sides = () => {
      const [i, j, side] = rounds[(state.game * pairs + state.round) % rounds.length];
      return side ? [["real", i], ["fake", j]] : [["fake", j], ["real", i]];
    };
    // Blue and unbroken: real; vermilion and dashed: generated.
    const frame = (kind, wide) => `border:${wide}px ${kind === "fake" ? "dashed" : "solid"} var(--${kind})`;

    const box = "flex:1 1 0;min-width:0;max-width:210px;display:flex;flex-direction:column;align-items:stretch";
    const boards = SIDES.map((side, s) => {
      const shown = picture(shape, 190);
      shown.canvas.setAttribute("aria-hidden", "true");
      shown.canvas.style.width = "100%";
      const label = h("span", { style: "display:grid;place-content:center;min-height:2.8em;line-height:1.3;margin-top:0.2rem" });
      return { shown, label, node: button(shown.canvas, () => pick(s), { class: "picture" }) };
    });
    boards.forEach(({ node, label }) => node.append(label));
    const count = h("p", { class: "note", style: "margin:0" });
    const verdict = h("p", { style: "margin:0.1rem 0 0.6rem;min-height:4.4em" });
    const next = button("Next pair", () => {
      state.round++;
      show();
      greet();
    });
    const again = button("Start again", () => {
      state.game++;
      reset();
      greet();
    });
    const rows = ["you", ...(scores ? ["the detector"] : []), "a coin, on average"].map((who) => ({ who, cell: h("td") }));
    const luck = h("p", { style: "margin:0.6rem 0 0" });
    const past = h("ol", { style: "list-style:none;display:grid;grid-template-columns:repeat(auto-fill,minmax(58px,1fr));gap:0.4rem;padding:0;margin:0.9rem 0 0", "aria-label": "The pairs so far" });

    function reset() {
      Object.assign(state, { round: 0, right: 0, detector: 0, answered: 0, picks: [], tail: null });
      past.replaceChildren(...Array.from({ length: pairs }, (_, i) => h("li", { style: "border:1px dashed var(--line);border-radius:4px;padding:3px 0;min-height:3.8rem;position:relative;text-align:center;white-space:nowrap;font-size:0.68rem;line-height:1.3;color:var(--muted)" }, String(i + 1))));
      score();
      show();
    }

    function show() {
      sides().forEach(([kind, i], s) => {
        const { shown, label, node } = boards[s];
        shown.draw(pixels(kind, i), 0, 255);
        label.textContent = `Picture ${SIDES[s]}`;
        node.removeAttribute("aria-disabled");
        // Before the answer no colour may seem to say one, not even that of the focus.
        node.setAttribute("style", `${box};border:4px solid var(--control);--real:var(--ink)`);
      });
      state.open = true;
      next.disabled = true;
      next.textContent = "Next pair";
      count.textContent = `Pair ${state.round + 1} of ${pairs}`;
      verdict.replaceChildren(h("b", {}, `Which one is ${fake}?`), " Choose a picture.");
      state.drawn = (state.drawn ?? 0) + 1;
    }

    function greet() {
      boards[0].node.focus();
      say(`Pair ${state.round + 1} of ${pairs}. Which one is ${fake}?`);
    }

    function pick(s) {
      if (!state.open) return;
      state.open = false;
      const pair = sides();
      const truth = pair.findIndex(([kind]) => kind === "fake");
      const right = s === truth;
      state.picks.push(s);
      state.answered++;
      state.right += right;
      pair.forEach(([kind], i) => {
        const { label, node } = boards[i];
        node.setAttribute("aria-disabled", "true");
        node.setAttribute("style", `${box};cursor:default;color:var(--ink);${frame(kind, 4)}`);
        label.replaceChildren(`Picture ${SIDES[i]}: `, h("span", {}, h("b", { class: kind }, kind === "fake" ? fake : real), i === s ? ", your pick" : ""));
      });
      const words = [h("b", {}, right ? "Right. " : "Wrong. "), `${SIDES[truth]} is `, h("b", { class: "fake" }, fake), "."];
      let its = null;
      if (scores) {
        const found = pair.map(([kind, i]) => scores[kind][i]);
        its = found[truth] === found[1 - truth] ? 0.5 : Number(found[truth] > found[1 - truth]);
        state.detector += its;
        // As many digits as it takes to see which is higher.
        let digits = 0;
        while (its !== 0.5 && digits < 4 && likely(found[0], digits) === likely(found[1], digits)) digits++;
        const guess = its === 0.5 ? "It cannot tell: half a point." : `It picks ${SIDES[its ? truth : 1 - truth]}: ${its ? "right" : "wrong"}.`;
        words.push(` The detector finds A ${likely(found[0], digits)} and B ${likely(found[1], digits)} likely to be ${fake}. ${guess}`);
      }
      verdict.replaceChildren(...words);
      const mark = (won) => (won === 0.5 ? "½" : won ? "✓" : "✗");
      const said = (won) => (won === 0.5 ? "undecided" : won ? "right" : "wrong");
      const cell = past.children[state.round];
      const thumbs = pair.map(([kind, i]) => {
        const small = picture(shape, 28);
        small.draw(pixels(kind, i), 0, 255);
        small.canvas.setAttribute("style", `width:28px;box-sizing:border-box;border-radius:0;${frame(kind, 2)}`);
        small.canvas.setAttribute("aria-hidden", "true");
        return small.canvas;
      });
      cell.style.borderStyle = "solid";
      cell.replaceChildren(
        h("span", { class: "hidden" }, `Pair ${state.round + 1}: you ${said(right)}${scores ? `, the detector ${said(its)}` : ""}`),
        h("span", { "aria-hidden": "true", style: "display:flex;gap:2px;justify-content:center;margin-bottom:2px" }, ...thumbs),
        h("span", { "aria-hidden": "true", style: "white-space:pre-line" }, `you ${mark(right)}${scores ? `\ndetector ${mark(its)}` : ""}`),
      );
      const summary = score();
      state.drawn++;
      say(`${verdict.textContent} ${summary}`);
      next.disabled = state.answered === pairs;
      (next.disabled ? again : next).focus();
    }

    // The table and what luck has to do with it; returns them as one sentence.
    function score() {
      const n = state.answered;
      const points = [state.right, ...(scores ? [state.detector] : []), n / 2];
      rows.forEach(({ cell }, i) => (cell.textContent = n ? `${points[i]} of ${n}` : "–"));
      state.tail = n >= 10 ? binomialTail(n, state.right) : null;
      const done = n === pairs ? "That was the last pair. " : "";
      const share = state.tail < 0.001 ? "less than 0.1 %" : percent(state.tail, state.tail < 0.0995 ? 1 : 0);
      const chance = state.tail === null ? "" : `A coin gets ${state.right} or more of ${n} right in ${share} of games; luck ${state.tail < 0.05 ? "hardly explains" : "may explain"} your ${state.right}.`;
      luck.textContent = done + chance;
      return `You ${state.right} of ${n}${scores ? `, the detector ${state.detector} of ${n}` : ""}, a coin ${n / 2}. ${done}${chance}`;
    }

    const table = h("table", {}, h("caption", { class: "hidden" }, "Right answers"), h("tbody", {}, ...rows.map(({ who, cell }) => h("tr", {}, h("th", { scope: "row" }, who), cell))));
    const node = h(
      "div",
      {},
      h(
        "div",
        { class: "columns" },
        h("div", { style: "display:flex;gap:0.6rem;flex:1 1 20rem", role: "group", "aria-label": "The two pictures" }, ...boards.map((b) => b.node)),
        h("div", {}, count, verdict, h("div", { class: "row" }, next, again), table),
      ),
      past,
      luck,
    );
    state.game = 0;
    reset();
    return { node, started: Promise.resolve() };
  },
};
