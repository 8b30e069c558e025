// The kit: sliders on one side of a function, displays on the other.
import { h, slider, button, picture, bars, latest } from "./kit.mjs";
import { chart } from "./plot.mjs";

// What shows one output: {node, draw(values)}; describe(text) takes the sliders' words, words() gives
// its own.
const DISPLAYS = {
  Picture({ shape, caption, low, high }) {
    const shown = picture(shape, shape[2] * Math.max(1, Math.floor(224 / shape[2])), caption);
    return {
      node: shown.node,
      draw: (values) => shown.draw(values, low, high),
      describe: (text) => shown.describe(`${caption}; ${text}`),
    };
  },
  Bars({ labels, caption, colour }) {
    const shown = bars(labels, caption);
    return { node: shown.node, draw: (values) => shown.draw(values, () => colour) };
  },
  Curve({ x, y, xlabel, ylabel, caption, colour }) {
    const shown = chart({ x: [x[0], x[x.length - 1]], y: y ?? [0, 1], xlabel, ylabel, caption, width: 360, height: 210 });
    const line = shown.line(colour);
    shown.node.append(h("figcaption", {}, caption));
    return {
      node: shown.node,
      draw(values) {
        const finite = values.filter(Number.isFinite);
        const [low, high] = [Math.min(...finite), Math.max(...finite)];
        // An axis that follows leaves a little room, and does not blow up rounding errors.
        const room = Math.max(0.05 * (high - low), 1e-3 * Math.abs(high), 1e-6);
        if (!y && finite.length) shown.rescale(low - room, high + room);
        line.draw(x, values);
        shown.describe(`${caption}: from ${values[0].toPrecision(3)} to ${values[values.length - 1].toPrecision(3)}, between ${low.toPrecision(3)} and ${high.toPrecision(3)}`);
      },
    };
  },
  Number({ label, decimals, unit }) {
    const value = h("b");
    return {
      node: h("p", { class: "status" }, `${label}: `, value),
      draw: ([v]) => (value.textContent = `${v.toFixed(decimals)} ${unit}`.trim()),
      words: () => `${label}: ${value.textContent}`,
    };
  },
};

// A slider's value at the place `at` of `steps`; where it starts it has its start exactly.
export function placed({ low, high, step, log, start }) {
  const steps = step ? Math.floor((high - low) / step + 1e-9) : 100;
  const first = Math.round(steps * (log ? Math.log(start / low) / Math.log(high / low) : (start - low) / (step ? steps * step : high - low)));
  const value = (at) => (at === first ? start : log ? low * (high / low) ** (at / steps) : low + at * (step ?? (high - low) / steps));
  return { steps, first, value };
}

export const explorer = {
  page: ({ networks }) => ({
    run: ({ values }) => Object.fromEntries(networks.function.forwardAll(values).map((found, i) => [i, found])),
  }),

  view({ spec, ask, say, state }) {
    const shown = spec.outputs.map((output) => DISPLAYS[output.kind](output));
    state.values = spec.controls.map((control) => control.start);
    const setting = (i) => `${spec.controls[i].label} ${state.values[i].toFixed(spec.controls[i].decimals)}`;
    let moved = "";
    const draw = latest(async () => {
      const found = await ask("run", { values: state.values });
      state.outputs = shown.map((display, i) => {
        display.draw(found[i]);
        display.describe?.(state.values.map((_, k) => setting(k)).join(", "));
        return found[i];
      });
      // Numbers are short enough to be heard at each move; the rest describes itself when asked.
      if (moved) say([moved, ...shown.flatMap((display) => display.words?.() ?? [])].join(". "));
      state.drawn = (state.drawn ?? 0) + 1;
    });
    const tell = (text) => {
      moved = text;
      draw();
    };
    const sliders = spec.controls.map((control, i) => {
      const { steps, first, value } = placed(control);
      const made = slider({
        label: control.label,
        min: 0,
        max: steps,
        step: 1,
        value: first,
        format: (at) => value(at).toFixed(control.decimals),
        change(at) {
          state.values[i] = value(at);
          tell(setting(i));
        },
      });
      return { ...made, reset: () => made.set(first) };
    });
    const reset = button("Reset", () => {
      sliders.forEach((one) => one.reset());
      state.values = spec.controls.map((control) => control.start);
      tell("Back at the start");
    });
    const of = (...kinds) => shown.filter((_, i) => kinds.includes(spec.outputs[i].kind)).map((display) => display.node);
    const panel = h("div", { class: "stacked" }, ...sliders.map((one) => one.node), ...of("Number"), h("div", { class: "row" }, reset));
    const pictures = of("Picture");
    const rest = h("div", { class: "columns" }, ...of("Bars", "Curve"), panel);
    const node = h("div", { class: "columns" }, ...(pictures.length ? [h("div", { class: "pictures fixed", style: "max-width:100%" }, ...pictures)] : []), rest);
    return { node, started: draw() };
  },
};
