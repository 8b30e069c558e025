// A recorded training as a film: its pictures or points, and where on the loss curves each belongs.
import { h, slider, button } from "./kit.mjs";
import { chart } from "./plot.mjs";

// A film adds up what it travelled as: each frame its difference from the one before, red and blue
// theirs from green. Bytes wrap around.
function addUp({ shape: [n, channels, height, width] }, differences) {
  const frames = differences.slice();
  const each = height * width;
  for (let i = 0; channels === 3 && i < frames.length; i += 3 * each) {
    for (let green = i + each; green < i + 2 * each; green++) {
      frames[green - each] += frames[green];
      frames[green + each] += frames[green];
    }
  }
  const whole = n * channels * each;
  for (let i = whole; i < frames.length; i++) frames[i] += frames[i - whole];
  return frames;
}

// All images of a frame side by side, one pixel apart; the gaps stay transparent.
function filmImages({ shape: [n, channels, height, width], columns }, frames) {
  const [wide, tall] = [columns * (width + 1) - 1, Math.ceil(n / columns) * (height + 1) - 1];
  const shown = wide * Math.max(1, Math.floor(356 / wide));
  const style = `width:${Math.min(shown, 400)}px;background:none;border:0;border-radius:0${shown > 400 ? ";image-rendering:auto" : ""}`;
  const canvas = h("canvas", { width: wide, height: tall, role: "img", style });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const pixels = context.createImageData(wide, tall);
  const each = height * width;
  return {
    node: canvas,
    wide: Math.min(shown, 400),
    tall: (tall * Math.min(shown, 400)) / wide,
    draw(t) {
      for (let i = 0; i < n; i++) {
        const from = (t * n + i) * channels * each;
        const corner = Math.floor(i / columns) * (height + 1) * wide + (i % columns) * (width + 1);
        for (let p = 0; p < each; p++) {
          const to = 4 * (corner + Math.floor(p / width) * wide + (p % width));
          for (let c = 0; c < 3; c++) pixels.data[to + c] = frames[from + (channels === 3 ? c * each : 0) + p];
          pixels.data[to + 3] = 255;
        }
      }
      context.putImageData(pixels, 0, 0);
      return "";
    },
  };
}

// The points of a frame over the points they should be like.
function filmPoints({ count, limits, names, xlabel, ylabel }, { frames, data }) {
  const plot = chart({ x: limits, y: limits, xlabel, ylabel, caption: "", width: 340, height: 330 });
  const inside = (v) => v >= limits[0] && v <= limits[1];
  const points = (kind, look) => {
    const { node } = plot.line(kind);
    // A line of no length with round ends is a dot.
    node.setAttribute("style", `stroke-linecap:round;${look}`);
    return (found) => {
      let [d, left] = ["", 0];
      for (let i = 0; i < found.length; i += 2) {
        if (inside(found[i]) && inside(found[i + 1])) d += `M${plot.px(found[i]).toFixed(1)},${plot.py(found[i + 1]).toFixed(1)}h0`;
        else left++;
      }
      node.setAttribute("d", d);
      return left;
    };
  };
  if (data) points("real", "stroke-width:6;stroke-opacity:0.4")(data);
  const moving = points("fake", "stroke-width:3.5;stroke-opacity:0.8");
  return {
    node: plot.svg,
    wide: 340,
    tall: 300,
    key: [...(data ? [h("b", { class: "real" }, names[0]), ", "] : []), h("b", { class: "fake" }, names[1]), ": "],
    draw(t) {
      const left = moving(frames.subarray(2 * t * count, 2 * (t + 1) * count));
      return left ? `; ${left} of ${count} lie outside the picture` : "";
    },
  };
}

export const trainingScrubber = {
  page: () => ({}),

  view({ spec, arrays, say, state, reduced, onstop }) {
    const { steps, total, every, losses, caption } = spec;
    const [unit, value] = spec.chart;
    const units = unit.endsWith("s") ? unit : `${unit}s`;
    const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
    const last = steps.length - 1;
    const film = spec.shape ? filmImages(spec, addUp(spec, arrays.frames)) : filmPoints(spec, arrays);
    const words = h("span");
    const plot = chart({ x: [0, total], y: spec.range, xlabel: unit, ylabel: value, caption: "", width: 340, height: Math.max(200, Math.min(300, film.tall)) });
    // Point i of a curve is the mean of `every` steps and stands at their middle.
    const middle = (i) => (i * every + 1 + Math.min((i + 1) * every, total)) / 2;
    const curves = losses.map(({ name: called, kind, values }) => {
      const curve = plot.line(kind);
      curve.draw(values.map((_, i) => middle(i)), values);
      curve.node.style.strokeWidth = 1.2;
      return { called, values, dot: plot.dot(kind, 4), value: h("span"), kind };
    });
    const [low, high] = spec.range.map(plot.py);
    const cursor = h("line", { class: "ink", "stroke-width": 1.5, y1: low, y2: high });
    plot.svg.append(cursor);
    plot.svg.style.cursor = "pointer";
    plot.svg.addEventListener("click", ({ clientX }) => {
      const box = plot.svg.getBoundingClientRect();
      const far = steps.map((step) => Math.abs(plot.px(step) - ((clientX - box.left) * 340) / box.width));
      move(far.indexOf(Math.min(...far)));
    });

    const place = () => `${unit} ${steps[state.index]} of ${total}`;
    // Which point of a curve this frame's step is in; none before the first step.
    const point = () => Math.floor((steps[state.index] - 1) / every);
    const worth = () => {
      const i = point();
      return curves.map(({ called, values }) => `${called} ${i < 0 ? "not yet" : values[i].toPrecision(3)}`).join(", ");
    };
    function go(index) {
      state.index = index;
      const step = steps[index];
      const outside = film.draw(index);
      words.textContent = `${caption}, ${place()}${outside}`;
      film.node.setAttribute("aria-label", `${spec.shape ? caption : `Scatter plot: ${caption}`}, ${place()}${outside}`);
      const x = plot.px(step);
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      const i = point();
      for (const { values, dot, value } of curves) {
        dot.node.setAttribute("visibility", i < 0 ? "hidden" : "visible");
        if (i >= 0) dot.draw(step, values[i]);
        value.textContent = i < 0 ? " –" : ` ${values[i].toPrecision(3)}`;
      }
      plot.describe(`${capital(value)} over ${total} ${units}, the cursor at ${place()}: ${worth()}`);
      frame.set(index);
      frame.input.setAttribute("aria-valuetext", place());
      state.drawn = (state.drawn ?? 0) + 1;
    }
    const frame = slider({
      label: unit,
      min: 0,
      max: last,
      step: 1,
      value: spec.start,
      format: (i) => `${steps[i]} of ${total}`,
      change: (index) => move(index),
    });
    frame.node.style = `flex:1 1 20rem;grid-template-columns:auto 1fr ${2 * String(total).length + 3}ch`;
    let timer = null;
    function stop() {
      clearInterval(timer);
      timer = null;
      state.playing = false;
      play.textContent = "Play";
    }
    function move(index) {
      stop();
      go(index);
      say(`${capital(unit)} ${steps[index]} of ${total}. ${worth()}`);
    }
    const play = button("Play", () => {
      if (timer !== null) return move(state.index);
      // At its end the film starts again.
      if (state.index === last) go(0);
      state.playing = true;
      play.textContent = "Pause";
      timer = setInterval(() => (state.index + 1 < last ? go(state.index + 1) : move(last)), reduced() ? 1000 : 1000 / spec.fps);
    });
    play.style.minWidth = "5rem";
    onstop(stop);
    stop();
    go(spec.start);
    const key = curves.flatMap(({ called, kind, value }, i) => [i ? "   " : "", h("b", { class: kind }, called), value]);
    const node = h(
      "div",
      {},
      h(
        "div",
        { class: "columns" },
        h("figure", { class: "fixed", style: `width:${film.wide}px;max-width:100%` }, film.node, h("figcaption", {}, ...(film.key ?? []), words)),
        h("div", {}, plot.node, h("figcaption", { style: "white-space:pre-wrap" }, ...key, every > 1 ? `\neach point the mean of ${every} ${units}` : "")),
      ),
      h("div", { class: "row", style: "margin:0.7rem 0 0" }, frame.node, play, button("First", () => move(0)), button("Last", () => move(last))),
    );
    return { node, started: Promise.resolve() };
  },
};
